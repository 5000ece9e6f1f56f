//! How the stub ends when something is wrong with it: an exception, a panic and a stack that is too small end in a last
//! message and the shutdown reason crash; a command line or a configuration that is no good ends in a reason in
//! xenstore, not in a hang.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Lab, STORE_DEVICE, STUB};
use crate::say;
use crate::verdict::check;

/// The test kernel, which has the stub's exception table, panic report and stack.
const KERNEL: &str = "/boot/prober";
const CONSOLE: &str = "/var/log/xen/console/guest-endings.log";
const END_WAIT: Duration = Duration::from_secs(120);

/// `fault=` on the test kernel's command line, and what its console must show. An overflow of the stack cannot be
/// reported by the stub: Xen says it, as the frame of the exception finds no room.
const FAULTS: [(&str, &[&str]); 4] = [
    ("opcode", &["EXCEPTION 6 (invalid opcode), error code 0x0, rip 0x", "stack 0x", "shutdown reason crash"]),
    ("page", &["EXCEPTION 14 (page fault)", "cr2 0x10 ", "shutdown reason crash"]),
    ("panic", &["LIVESAVE STUB PANIC at ", "asked for by the command line", "shutdown reason crash"]),
    ("stack", &[]),
];

/// All of them.
pub fn run(lab: &Lab) -> Result<()> {
    FAULTS.iter().try_for_each(|(fault, words)| fall(lab, fault, words).with_context(|| (*fault).to_owned()))?;
    let line = reason_of(lab, "", "no-such-word=1").context("command line")?;
    check(line.contains("no-such-word=1"), || format!("the reason does not name the bad word: `{line}`"))?;
    let disk = reason_of(lab, "sed -i '/^disk/d' /run/livesave.cfg", "").context("no disk")?;
    check(disk.contains("disk="), || format!("the reason does not say what to configure: `{disk}`"))
}

fn fall(lab: &Lab, fault: &str, words: &[&str]) -> Result<()> {
    let config = format!(
        "name = \"endings\"\ntype = \"pv\"\nmemory = 32\nvcpus = 1\nkernel = \"{KERNEL}\"\n\
         cmdline = \"fault={fault}\"\non_poweroff = \"preserve\"\non_crash = \"preserve\"\n"
    );
    lab.put_bytes(config.as_bytes(), "/run/endings.cfg")?;
    lab.sh(&format!("rm -f {CONSOLE}; xl create -q /run/endings.cfg"))?;
    let domid = lab.sh("xl domid endings")?;
    let mut info = String::new();
    lab.wait_until("the test kernel ends", END_WAIT, |lab| {
        info = lab.sh(&format!("probe info {domid}"))?;
        Ok(!info.contains("shutdown=no"))
    })?;
    check(info.contains("shutdown=crash"), || format!("it ended another way: {info}"))?;
    shows(lab, words)?;
    if words.is_empty() {
        let crashed = format!("Domain {domid} (vcpu#0) crashed on cpu#");
        check(lab.serial().contains(&crashed), || format!("Xen did not say `{crashed}`"))?;
        say!("   {fault:<8} {crashed}0");
    }
    lab.sh(&format!("xl destroy {domid}"))?;
    Ok(())
}

/// xenconsoled writes its log when it gets to it.
fn shows(lab: &Lab, words: &[&str]) -> Result<()> {
    let mut console = String::new();
    let all = |text: &str| words.iter().all(|word| text.contains(word));
    lab.wait_until("the last words are in the log", END_WAIT, |lab| {
        console = lab.run(&format!("cat {CONSOLE}"))?.text();
        Ok(all(&console))
    })
    .with_context(|| format!("want {words:?} in: {console}"))?;
    let telling = console.lines().filter(|line| words.iter().any(|word| line.contains(word)));
    telling.take(2).for_each(|line| say!("   {}", line.trim_end()));
    Ok(())
}

/// Why a stub with this change to its configuration cannot serve; it lives on to say so, and goes when it is told to.
fn reason_of(lab: &Lab, change: &str, extra: &str) -> Result<String> {
    lab.write_stub_config(STORE_DEVICE, "w", extra)?;
    lab.sh(&format!("{change}\nxl create -q /run/livesave.cfg"))?;
    let reason = lab.stub_reason()?;
    say!("   reason={reason}");
    lab.sh(&format!("xl shutdown -w {STUB}"))?;
    // xl reports the end before the monitor of the domain has destroyed it.
    lab.wait_until("the stub is gone", END_WAIT, |lab| Ok(lab.run(&format!("xl domid {STUB}"))?.status != 0))?;
    Ok(reason)
}
