//! `agent boot`: mounts, modules, xenstored, xenconsoled, in the order that each needs the one before.
//!
//! Its last line on the console says whether dom0 is usable. A step that fails is reported and the next is tried: a
//! half-booted dom0 with a shell tells more than a dead one.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};

/// How long a daemon may take until it answers. Emulation on a busy machine is slow.
const DAEMON_WAIT_MAX: Duration = Duration::from_secs(60);
/// Step of the polls below.
const POLL_STEP: Duration = Duration::from_millis(20);

/// One step of the boot.
type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 6] = [
    ("mounts", mounts),
    ("modules", modules),
    ("xenfs", || shell("mount -t xenfs xenfs /proc/xen")),
    ("xenstored", xenstored),
    ("xenconsoled", xenconsoled),
    ("disks", disks),
];

/// Runs every step and says how it went.
pub fn run() -> Result<()> {
    let mut failed = 0;
    for (name, step) in STEPS {
        if let Err(error) = step() {
            println!("agent: {name} failed: {error:#}");
            failed += 1;
        }
    }
    println!("agent: dom0 is up, {failed} steps failed");
    fs::write("/run/agent.booted", format!("{failed}\n")).context("/run/agent.booted")
}

fn shell(command: &str) -> Result<()> {
    let status = Command::new("/bin/sh").args(["-c", command]).status().context("sh")?;
    ensure!(status.success(), "{command}: {status}");
    Ok(())
}

fn mounts() -> Result<()> {
    // xenconsoled allocates a pty for every guest: without devpts it dies at the first one.
    shell(
        "mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mkdir -p /dev/pts /dev/shm; \
         mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp; \
         mkdir -p /run/xen /run/lock /run/xenstored /var/lib/xen /var/log/xen/console; \
         ip link set lo up; hostname lab; dmesg -n 4",
    )
}

/// The list is in the order of the modules' dependencies; the image's builder sorted it.
fn modules() -> Result<()> {
    let list = fs::read_to_string("/etc/modules.list").context("/etc/modules.list")?;
    let failed: Vec<&str> = list.lines().filter(|path| shell(&format!("insmod {path}")).is_err()).collect();
    ensure!(failed.is_empty(), "insmod of {failed:?}");
    Ok(())
}

fn xenstored() -> Result<()> {
    shell(&format!("{} --pid-file /run/xen/xenstored.pid", xenstored_name()?))?;
    wait_for("xenstored", || shell("xenstore-exists / 2>/dev/null").is_ok())?;
    shell("/usr/lib/xen-4.17/bin/xen-init-dom0 >/dev/null")
}

/// `ls.xenstored=oxenstored` on dom0's command line selects the other implementation.
fn xenstored_name() -> Result<&'static str> {
    let line = fs::read_to_string("/proc/cmdline").context("/proc/cmdline")?;
    match line.split_whitespace().find_map(|word| word.strip_prefix("ls.xenstored=")) {
        None | Some("xenstored") => Ok("/usr/lib/xen-4.17/bin/xenstored"),
        Some("oxenstored") => Ok("/usr/lib/xen-4.17/bin/oxenstored"),
        Some(other) => bail!("ls.xenstored={other}: neither xenstored nor oxenstored"),
    }
}

fn xenconsoled() -> Result<()> {
    shell("/usr/lib/xen-4.17/bin/xenconsoled --log=all --log-dir=/var/log/xen/console --pid-file=/run/xen/xenconsoled.pid")?;
    wait_for("xenconsoled", || Path::new("/run/xen/xenconsoled.pid").exists())
}

/// The first disk is raw, for a store; the second is scratch space with a filesystem. Both are optional.
fn disks() -> Result<()> {
    if Path::new("/dev/vdb").exists() {
        shell("mkdir -p /scratch && mount /dev/vdb /scratch")?;
    }
    Ok(())
}

fn wait_for(what: &str, ready: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + DAEMON_WAIT_MAX;
    while !ready() {
        ensure!(Instant::now() < deadline, "{what} does not answer after {DAEMON_WAIT_MAX:?}");
        thread::sleep(POLL_STEP);
    }
    Ok(())
}
