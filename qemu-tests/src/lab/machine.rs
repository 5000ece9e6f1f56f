//! One QEMU process: its arguments, its directory, its end.
//!
//! Everything about a machine lies in one directory (`serial.log`, `qemu.log`, the sockets, the disks, the pid), so
//! that several checkouts never meet. A [`Machine`] that is dropped is killed and reaped; one that was let go with
//! [`Machine::detach`] lives until `poweroff`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{monitor, overlay};
use crate::wire::PORTS;

/// TCG's EPYC with what Xen needs and without what QEMU's emulation gets wrong: `monitor` faults Xen's idle loop,
/// SMAP and SMEP break a PV dom0, RDTSCP kills a PVH guest (TCG's SVM has no next-RIP saving).
const CPU_TCG: &str = "EPYC-Rome,+svm,+npt,-monitor,-smap,-smep,-rdtscp";
/// With hardware virtualization the host's own processor is the best there is.
const CPU_KVM: &str = "host";

/// The link to [`Images::tools`] in a machine's directory.
const TOOLS: &str = "xen-tools";

/// The files that a machine boots from, made by `cargo xtask build`.
#[derive(Clone, Debug)]
pub struct Images {
    /// The hypervisor.
    pub xen: PathBuf,
    /// One without shadow paging, where a scenario asks for it.
    pub unshadowed: Option<PathBuf>,
    /// Kernel of dom0 and of the guests.
    pub vmlinuz: PathBuf,
    /// dom0's initramfs.
    pub dom0: PathBuf,
    /// The compiled FLASK policy.
    pub policy: PathBuf,
    /// A directory that becomes the scratch disk's content.
    pub scratch: PathBuf,
    /// Debian's directory of Xen's tools, unpacked here: its programs in Python run on the host.
    pub tools: PathBuf,
}

/// What a disk carries at boot.
#[derive(Clone, Debug)]
pub enum Content {
    /// Zeros.
    Zeros,
    /// ext4 with a copy of this directory.
    Ext4(PathBuf),
    /// What this raw file of the same size holds, which stays as it is: [`overlay`] says what becomes of the writes.
    Over(PathBuf),
}

/// A disk of dom0, made anew (sparse) for each boot.
#[derive(Clone, Debug)]
pub struct Disk {
    /// File name in the machine's directory.
    pub name: String,
    /// Its size.
    pub mib: u64,
    /// What it carries.
    pub content: Content,
}

impl Disk {
    /// QEMU's words for what it is made of.
    fn format(&self) -> String {
        match self.content {
            Content::Zeros | Content::Ext4(_) => "format=raw".to_owned(),
            Content::Over(_) => {
                let below = format!("backing.file.driver=file,backing.file.filename={}.below", self.name);
                format!("format=qcow2,backing.driver=raw,{below}")
            }
        }
    }
}

/// What to boot.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The files.
    pub images: Images,
    /// The machine's own directory; an earlier machine's traces in it are removed.
    pub dir: PathBuf,
    /// The nested host's memory.
    pub memory_mib: u32,
    /// dom0's share of it.
    pub dom0_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// Words for the hypervisor's command line.
    pub xen_extra: String,
    /// Words for dom0's command line.
    pub dom0_extra: String,
    /// What each disk takes in a second, reads and writes together; without it what the host's takes.
    pub disk_bytes_per_second: Option<u64>,
    /// The same for reads alone.
    pub disk_read_bytes_per_second: Option<u64>,
    /// `vda`, `vdb`, ...
    pub disks: Vec<Disk>,
}

impl Spec {
    /// The ordinary machine: room for a few guests, `vda` for a store, `vdb` as `/scratch`.
    #[must_use]
    pub fn new(images: Images, dir: PathBuf) -> Self {
        let disks = vec![
            Disk { name: "store.raw".into(), mib: 4096, content: Content::Zeros },
            Disk { name: "scratch.raw".into(), mib: 8192, content: Content::Ext4(images.scratch.clone()) },
        ];
        Self {
            images,
            dir,
            memory_mib: 4096,
            dom0_mib: 1024,
            // A second one makes everything slower: each page table change of dom0 waits for the other processor, which
            // under emulation is a thread that may not be running. Boot: 82 s with two, 25 s with one, same load.
            cpus: 1,
            xen_extra: String::new(),
            dom0_extra: String::new(),
            disk_bytes_per_second: None,
            disk_read_bytes_per_second: None,
            disks,
        }
    }

    /// The whole command line, `qemu-system-x86_64` first. Paths are relative to the directory: the modules of
    /// `-initrd` are separated by commas, and a socket's path must be short.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = vec!["qemu-system-x86_64".into()];
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
        if has_hardware_virtualization() {
            add(&["-accel", "kvm", "-cpu", CPU_KVM]);
        } else {
            add(&["-accel", "tcg,thread=multi", "-cpu", CPU_TCG]);
        }
        add(&["-nodefaults", "-nographic", "-no-reboot", "-name", "livesave-lab"]);
        add(&["-m", &self.memory_mib.to_string(), "-smp", &self.cpus.to_string()]);
        add(&["-chardev", "socket,id=console,path=console,server=on,wait=off,logfile=serial.log"]);
        add(&["-serial", "chardev:console", "-kernel", "xen", "-append", &self.xen_line()]);
        add(&["-initrd", &self.initrd_line(), "-device", "virtio-serial-pci,max_ports=16"]);
        for port in 0..PORTS {
            add(&["-chardev", &format!("socket,id=port{port},path=port{port},server=on,wait=off")]);
            add(&["-device", &format!("virtserialport,chardev=port{port},name=livesave.{port}")]);
        }
        for (index, disk) in self.disks.iter().enumerate() {
            let limit = |what: &str, rate: Option<u64>| rate.map(|rate| format!(",throttling.bps-{what}={rate}"));
            let total = limit("total", self.disk_bytes_per_second).unwrap_or_default();
            let read = limit("read", self.disk_read_bytes_per_second).unwrap_or_default();
            // Flushed or not, what QEMU wrote to a file outlives it: the host goes on.
            let options = format!("{},if=none,cache=unsafe{total}{read}", disk.format());
            add(&["-drive", &format!("id=disk{index},file={},{options}", disk.name)]);
            add(&["-device", &format!("virtio-blk-pci,drive=disk{index}")]);
        }
        add(&["-qmp", &format!("unix:{},server=on,wait=off", monitor::SOCKET)]);
        arguments
    }

    /// `eager-fpu`: under TCG, Xen's lazy switching now and then leaves a guest with another one's SSE registers.
    fn xen_line(&self) -> String {
        format!(
            "console=com1 com1=115200,8n1 dom0_mem={0}M,max:{0}M loglvl=all guest_loglvl=all ucode=no \
             spec-ctrl=no,eager-fpu \
             pv-l1tf=off flask=enforcing {1}",
            self.dom0_mib, self.xen_extra
        )
    }

    fn initrd_line(&self) -> String {
        format!("vmlinuz console=hvc0 rdinit=/init loglevel=5 {},dom0.img,xenpolicy", self.dom0_extra)
    }

    fn prepare(&self) -> Result<()> {
        ensure!(!runs_in(&self.dir), "a machine runs in {}; `cargo xtask lab down` ends it", self.dir.display());
        let _ = fs::remove_dir_all(&self.dir);
        fs::create_dir_all(&self.dir).with_context(|| self.dir.display().to_string())?;
        let files = [
            ("xen", &self.images.xen),
            ("vmlinuz", &self.images.vmlinuz),
            ("dom0.img", &self.images.dom0),
            ("xenpolicy", &self.images.policy),
            (TOOLS, &self.images.tools),
        ];
        for (name, file) in files {
            ensure!(file.exists(), "{} is missing; `cargo xtask build` makes it", file.display());
            std::os::unix::fs::symlink(file, self.dir.join(name)).with_context(|| name.to_owned())?;
        }
        self.disks.iter().try_for_each(|disk| make_disk(&self.dir, disk))
    }
}

/// A running machine; dropping it kills it.
pub struct Machine {
    child: Option<Child>,
}

impl Machine {
    /// Starts QEMU. The machine is far from booted then.
    pub fn start(spec: &Spec) -> Result<Self> {
        spec.prepare()?;
        let log = File::create(spec.dir.join("qemu.log")).context("qemu.log")?;
        let arguments = spec.arguments();
        fs::write(spec.dir.join("command"), format!("{arguments:?}\n")).context("command")?;
        let (program, rest) = arguments.split_first().context("no program")?;
        let child = Command::new(program)
            .args(rest)
            .current_dir(&spec.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("qemu.log")?)
            .stderr(log)
            .spawn()
            .context("qemu-system-x86_64")?;
        fs::write(spec.dir.join("pid"), child.id().to_string()).context("pid")?;
        Ok(Self { child: Some(child) })
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Lets the machine live on without us; [`kill_in`] ends it.
    pub fn detach(mut self) {
        self.child = None;
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `verify-stream-v2` and the directory of its modules, for the machine whose directory this is.
#[must_use]
pub fn stream_judge(dir: &Path) -> (PathBuf, PathBuf) {
    let tools = dir.join(TOOLS);
    (tools.join("bin/verify-stream-v2"), tools.join("lib/python"))
}

/// Whether the machine whose directory this is still runs.
#[must_use]
pub fn runs_in(dir: &Path) -> bool {
    pid_in(dir).is_some()
}

/// Kills the machine whose directory this is, if it still runs.
pub fn kill_in(dir: &Path) -> Result<()> {
    match pid_in(dir) {
        Some(pid) => kill_process(pid, Signal::KILL).context("kill"),
        None => Ok(()),
    }
}

/// The pid, if that process is still the QEMU that was started in this directory: pids are reused.
fn pid_in(dir: &Path) -> Option<Pid> {
    let pid: i32 = fs::read_to_string(dir.join("pid")).ok()?.trim().parse().ok()?;
    let works_in = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let same = works_in == fs::canonicalize(dir).ok()?;
    if same { Pid::from_raw(pid) } else { None }
}

fn make_disk(dir: &Path, disk: &Disk) -> Result<()> {
    let path = dir.join(&disk.name);
    if let Content::Over(below) = &disk.content {
        std::os::unix::fs::symlink(below, dir.join(format!("{}.below", disk.name))).context("the image below")?;
        return overlay::create(&path, disk.mib);
    }
    let file = File::create(&path).with_context(|| disk.name.clone())?;
    file.set_len(disk.mib << 20).with_context(|| disk.name.clone())?;
    if let Content::Ext4(from) = &disk.content {
        let mkfs =
            Command::new("mkfs.ext4").args(["-q", "-F", "-O", "^has_journal", "-d"]).arg(from).arg(&path).status();
        ensure!(mkfs.context("mkfs.ext4")?.success(), "mkfs.ext4 {}", path.display());
    }
    Ok(())
}

/// `/dev/kvm` proves nothing (it may belong to a software KVM that cannot run Xen): the processor's flags do.
fn has_hardware_virtualization() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "svm" || flag == "vmx")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_enforces_flask_and_names_the_policy_last() {
        let [xen, vmlinuz, dom0, policy, scratch, tools] = ["x", "v", "d", "p", "s", "t"].map(PathBuf::from);
        let images = Images { xen, unshadowed: None, vmlinuz, dom0, policy, scratch, tools };
        let arguments = Spec::new(images, "/nowhere".into()).arguments();
        let after = |name: &str| {
            let at = arguments.iter().position(|word| word == name).unwrap();
            arguments[at + 1].clone()
        };
        assert!(after("-append").contains("flask=enforcing"));
        assert!(after("-initrd").ends_with(",dom0.img,xenpolicy"));
        assert_eq!(arguments.iter().filter(|word| word.starts_with("virtserialport")).count(), PORTS);
    }
}
