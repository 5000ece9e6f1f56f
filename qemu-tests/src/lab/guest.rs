//! Target guests: their xl configuration, and what they say about themselves.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::handle::Lab;

/// Until a guest has booted and counts; seconds on an idle machine, minutes where eight of them share two cores.
const GUEST_WAIT: Duration = Duration::from_secs(600);
/// Where the guest's initramfs lies in dom0.
const RAMDISK: &str = "/boot/guest.img";

/// Words for a guest's kernel that leave out what no test needs and what takes tens of seconds under emulation:
/// patching itself for one processor, trace events, probing four serial ports (each access is an exit to Xen).
const FAST_BOOT: &str = "loglevel=4 noreplace-smp mitigations=off audit=0 8250.nr_uarts=0 ipv6.disable=1 \
                         initcall_blacklist=tracer_init_tracefs,msr_init,init_kprobe_trace,cubictcp_register";

/// A label that makes a guest a target of the stub (flask/README.md).
pub const TARGET_LABEL: &str = "system_u:system_r:livesave_guest_t";

/// How Xen runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestKind {
    /// HVM without a device model.
    Pvh,
    /// Paravirtualized.
    Pv,
}

/// What it boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestKernel {
    /// Debian's, as dom0.
    Debian,
    /// One with nothing in it that our guests do not need (`qemu-tests/kernel.config`); it has no modules. Who uses it
    /// puts it there.
    Small,
}

impl GuestKernel {
    /// Where it lies in dom0.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Debian => "/boot/vmlinuz",
            Self::Small => "/boot/small",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Debian => FAST_BOOT,
            Self::Small => "loglevel=4",
        }
    }
}

/// What to create. See `bin/guest` for the program's own parameters.
#[derive(Clone, Debug)]
pub struct GuestSpec {
    /// Its name in xl.
    pub name: String,
    /// PVH or PV.
    pub kind: GuestKind,
    /// Debian's kernel, or a small one.
    pub kernel: GuestKernel,
    /// Its memory.
    pub memory_mib: u32,
    /// Its virtual processors.
    pub vcpus: u32,
    /// The processors that it may be given, if they are more.
    pub maxvcpus: Option<u32>,
    /// The program's parameters, `ls.mem=32 ls.dirty=64` and so on.
    pub parameters: String,
    /// Its FLASK label, if not the default.
    pub label: Option<String>,
    /// Further lines of the configuration.
    pub extra: Vec<String>,
}

impl GuestSpec {
    /// A PVH guest of 128 MiB that dirties 32 MiB slowly.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: GuestKind::Pvh,
            kernel: GuestKernel::Debian,
            memory_mib: 128,
            vcpus: 1,
            maxvcpus: None,
            parameters: "ls.mem=32 ls.dirty=16".to_owned(),
            label: None,
            extra: Vec::new(),
        }
    }

    /// The xl configuration.
    #[must_use]
    pub fn config(&self) -> String {
        let kind = if self.kind == GuestKind::Pvh { "pvh" } else { "pv" };
        let mut text = format!(
            "name = \"{}\"\ntype = \"{kind}\"\nmemory = {}\nmaxmem = {}\nvcpus = {}\nmaxvcpus = {}\n\
             kernel = \"{}\"\n\
             ramdisk = \"{RAMDISK}\"\ncmdline = \"console=hvc0 rdinit=/init {} {}\"\n\
             on_poweroff = \"destroy\"\non_reboot = \"restart\"\non_crash = \"destroy\"\n",
            self.name,
            self.memory_mib,
            self.memory_mib,
            self.vcpus,
            self.maxvcpus.unwrap_or(self.vcpus),
            self.kernel.path(),
            self.kernel.words(),
            self.parameters
        );
        if let Some(label) = &self.label {
            let _ = writeln!(text, "seclabel = \"{label}\"");
        }
        for line in &self.extra {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// What a guest published last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Ticks since it started; continues over a restore.
    pub ticks: u64,
    /// Pages that were wrong when it checked them.
    pub errors: u64,
    /// Times that it checked its whole region.
    pub passes: u64,
}

impl Counter {
    /// What a guest wrote, if it is whole.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let ticks = words.next()?.parse().ok()?;
        let errors = words.next()?.strip_prefix("errors=")?.parse().ok()?;
        let passes = words.next()?.strip_prefix("pass=")?.parse().ok()?;
        Some(Self { ticks, errors, passes })
    }
}

/// What a guest published last of its processors, its disk and its kernel's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Turns on each processor that it watches (`ls.cpus`).
    pub beats: Vec<u64>,
    /// Blocks that it wrote to its disk (`ls.disk`).
    pub blocks: u64,
}

impl Details {
    /// What a guest wrote, if it is whole.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let beats = value("beats")?.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { beats, blocks: value("blocks")?.parse().ok()? })
    }
}

/// A guest that was created.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its name in xl.
    pub name: String,
}

impl Lab {
    /// Creates the guest and waits until it counts.
    pub fn create_guest(&self, spec: &GuestSpec) -> Result<Guest> {
        let guest = self.start_guest(spec)?;
        let counts = |lab: &Self| {
            ensure!(lab.run(&format!("xl domid {}", guest.name))?.status == 0, "the guest ended while it booted");
            Ok(guest.counter(lab)?.is_some())
        };
        self.wait_until(&format!("{} counts", spec.name), GUEST_WAIT, counts)
            .map_err(|error| error.context(guest.last_words(self)))?;
        Ok(guest)
    }

    /// Creates the guest and leaves it to itself; [`Guest::next_counter`] waits for it.
    pub fn start_guest(&self, spec: &GuestSpec) -> Result<Guest> {
        let path = format!("/run/{}.cfg", spec.name);
        self.put_bytes(spec.config().as_bytes(), &path)?;
        self.sh(&format!("rm -f /var/log/xen/console/guest-{}.log; xl create -q {path}", spec.name))?;
        Ok(Guest { name: spec.name.clone() })
    }

    /// Destroys every domain but dom0, and reports how many there were.
    pub fn destroy_all(&self) -> Result<usize> {
        let list = self.sh("xl list | awk 'NR > 1 && $2 != 0 { print $2 }'")?;
        let ids: Vec<&str> = list.lines().collect();
        for id in &ids {
            // It may have gone by itself meanwhile.
            self.run(&format!("xl destroy {id}"))?;
        }
        Ok(ids.len())
    }
}

impl Guest {
    /// Its current domid; a restored guest has another one than before.
    pub fn domid(&self, lab: &Lab) -> Result<u32> {
        lab.sh(&format!("xl domid {}", self.name))?.parse().context("xl domid")
    }

    /// What it published last in xenstore; `None` before the first time.
    pub fn counter(&self, lab: &Lab) -> Result<Option<Counter>> {
        let read = format!("xenstore-read /local/domain/$(xl domid {})/data/counter 2>/dev/null", self.name);
        let output = lab.run(&read)?;
        Ok(Counter::parse(&output.text()))
    }

    /// What it said beside its counter; nothing before the first time.
    pub fn details(&self, lab: &Lab) -> Result<Details> {
        let read = format!("xenstore-read /local/domain/$(xl domid {})/data/counter 2>/dev/null", self.name);
        Ok(Details::parse(&lab.run(&read)?.text()).unwrap_or_default())
    }

    /// Warnings of its kernel that its console showed so far.
    pub fn warnings(&self, lab: &Lab) -> Result<Vec<String>> {
        let console = self.console(lab)?;
        Ok(console.lines().filter_map(|line| line.trim().strip_prefix("KERNEL ")).map(str::to_owned).collect())
    }

    /// The first counter that it publishes in its present life: a restored guest's xenstore node starts out empty.
    pub fn next_counter(&self, lab: &Lab) -> Result<Counter> {
        let mut first = None;
        lab.wait_until(&format!("{} counts", self.name), GUEST_WAIT, |lab| {
            first = self.counter(lab)?;
            Ok(first.is_some())
        })?;
        first.context("no counter")
    }

    /// Waits until the counter has passed `ticks` and the guest has checked all its memory once more.
    pub fn wait_whole_pass(&self, lab: &Lab) -> Result<Counter> {
        let before = self.counter(lab)?.map_or(0, |counter| counter.passes);
        let mut last = None;
        lab.wait_until(&format!("{} checks all its memory", self.name), GUEST_WAIT, |lab| {
            last = self.counter(lab)?;
            Ok(last.is_some_and(|counter| counter.passes >= before + 2))
        })?;
        last.context("no counter")
    }

    fn last_words(&self, lab: &Lab) -> String {
        let tail = lab.run(&format!("tail -n 15 /var/log/xen/console/guest-{}.log", self.name));
        tail.map_or_else(|error| error.to_string(), |output| output.text())
    }

    /// What its console showed so far.
    pub fn console(&self, lab: &Lab) -> Result<String> {
        lab.sh(&format!("cat /var/log/xen/console/guest-{}.log", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read_as_the_guest_writes_it() {
        assert_eq!(Counter::parse("17 errors=0 pass=2"), Some(Counter { ticks: 17, errors: 0, passes: 2 }));
        assert_eq!(Counter::parse("17 errors= pass=2"), None);
        assert_eq!(Counter::parse(""), None);
    }

    #[test]
    fn details_are_read_as_the_guest_writes_them() {
        let details = Details::parse("17 errors=0 pass=2 gfn=3 beats=5,0,7 blocks=9 warnings=1");
        assert_eq!(details, Some(Details { beats: vec![5, 0, 7], blocks: 9 }));
        assert_eq!(Details::parse("17 errors=0 pass=2 gfn=3 beats=5,"), None);
    }

    #[test]
    fn a_small_kernel_has_its_own_place_and_words() {
        let mut spec = GuestSpec::new("web01");
        assert!(spec.config().contains("kernel = \"/boot/vmlinuz\"") && spec.config().contains(FAST_BOOT));
        spec.kernel = GuestKernel::Small;
        assert!(spec.config().contains("kernel = \"/boot/small\"") && !spec.config().contains(FAST_BOOT));
    }

    #[test]
    fn the_configuration_names_what_was_asked_for() {
        let mut spec = GuestSpec::new("web01");
        spec.kind = GuestKind::Pv;
        spec.label = Some("system_u:system_r:domU_t".into());
        let text = spec.config();
        for line in ["name = \"web01\"", "type = \"pv\"", "seclabel = \"system_u:system_r:domU_t\""] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
    }
}
