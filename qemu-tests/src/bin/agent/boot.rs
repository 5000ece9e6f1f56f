//! `agent boot`: mounts, modules, xenstored, xenconsoled, in the order that each needs the one before.
//!
//! Its last line on the console says whether dom0 is usable. A step that fails is reported and the next is tried: a
//! half-booted dom0 with a shell tells more than a dead one.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::system::finit_module;

/// How long a daemon may take until it answers. Emulation on a busy machine is slow.
const DAEMON_WAIT_MAX: Duration = Duration::from_secs(60);
/// Step of the polls below.
const POLL_STEP: Duration = Duration::from_millis(20);

/// One step of the boot.
type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 6] = [
    ("mounts", mounts),
    ("modules", modules),
    ("xenfs", xenfs),
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
    // The host reads the file as soon as it has seen the line.
    fs::write("/run/agent.booted", format!("{failed}\n")).context("/run/agent.booted")?;
    println!("agent: dom0 is up, {failed} steps failed");
    Ok(())
}

fn shell(command: &str) -> Result<()> {
    let status = Command::new("/bin/sh").args(["-c", command]).status().context("sh")?;
    ensure!(status.success(), "{command}: {status}");
    Ok(())
}

/// What is mounted where. xenconsoled allocates a pty for every guest: without devpts it dies at the first one.
const MOUNTS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
];
/// What udev would make; Xen's scripts lock through /dev/stdin.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];
const DIRECTORIES: [&str; 5] = ["/run/xen", "/run/lock", "/run/xenstored", "/var/lib/xen", "/var/log/xen/console"];

// Starting a process takes half a second under emulation, so what can be a system call is one.
fn mounts() -> Result<()> {
    for (kind, at) in MOUNTS {
        fs::create_dir_all(at).context(at)?;
        mount(kind, at, kind, MountFlags::empty(), None).context(at)?;
    }
    for (to, link) in LINKS {
        symlink(to, link).context(link)?;
    }
    for directory in DIRECTORIES {
        fs::create_dir_all(directory).context(directory)?;
    }
    fs::write("/proc/sys/kernel/hostname", "lab").context("hostname")?;
    fs::write("/proc/sys/kernel/printk", "4").context("printk")
}

/// The list is in the order of the modules' dependencies; the image's builder sorted it.
fn modules() -> Result<()> {
    let list = fs::read_to_string("/etc/modules.list").context("/etc/modules.list")?;
    list.lines().try_for_each(load).context("modules")
}

fn load(path: &str) -> Result<()> {
    let file = File::open(path).with_context(|| path.to_owned())?;
    finit_module(&file, c"", 0).with_context(|| path.to_owned())
}

fn xenfs() -> Result<()> {
    mount("xenfs", "/proc/xen", "xenfs", MountFlags::empty(), None).context("xenfs")
}

fn xenstored() -> Result<()> {
    shell(&format!("{} --pid-file /run/xen/xenstored.pid", xenstored_name()?))?;
    // The daemon writes its pid when it is ready to answer.
    wait_for("xenstored", || Path::new("/run/xen/xenstored.pid").exists())?;
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
    shell(
        "/usr/lib/xen-4.17/bin/xenconsoled --log=all --log-dir=/var/log/xen/console \
         --pid-file=/run/xen/xenconsoled.pid",
    )?;
    wait_for("xenconsoled", || Path::new("/run/xen/xenconsoled.pid").exists())
}

/// The first disk is raw, for a store; the second is scratch space with a filesystem. Both are optional.
fn disks() -> Result<()> {
    if Path::new("/dev/vdb").exists() {
        mount("/dev/vdb", "/scratch", "ext4", MountFlags::empty(), None).context("/scratch")?;
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
