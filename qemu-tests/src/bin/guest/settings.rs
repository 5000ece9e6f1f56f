//! What the kernel command line asks of the guest, and the few duties of an init.

use std::fs;

use anyhow::Context;
use rustix::mount::{MountFlags, mount as mount_at};
use rustix::system::{RebootCommand, finit_module, reboot};

/// The guest's parameters; an unknown or malformed one keeps its default.
#[derive(Debug)]
pub struct Settings {
    /// MiB that carry the pattern.
    pub mem_mib: usize,
    /// Pages rewritten in each tick.
    pub dirty: usize,
    /// Pages of the working set that is rewritten in turn; 0 for all.
    pub set: usize,
    /// Rewrites pages of that set at random instead of in turn.
    pub random: bool,
    /// Words of a page that cannot be packed; all of them if nothing is said.
    pub noise: usize,
    /// Pages checked in each tick.
    pub verify: usize,
    /// Pages mapped, touched and unmapped in each tick.
    pub remap: usize,
    /// Milliseconds from tick to tick.
    pub tick_ms: u64,
    /// Ticks from publication to publication.
    pub publish: u64,
    /// Seed of the pattern.
    pub seed: u64,
    /// Counts while it waits for the next tick.
    pub busy: bool,
    /// Whether the program answers suspend requests in its kernel's place.
    pub manners: bool,
    /// Processors that are watched, from 0 on.
    pub cpus: usize,
    /// The processor that the guest takes offline at its start; 0 for none.
    pub offline: usize,
    /// MiB of its disk that it writes and checks; 0 for none.
    pub disk_mib: usize,
    /// Whether it has a network card, and answers there.
    pub net: bool,
}

impl Settings {
    /// Parses `ls.name=value` words.
    pub fn from_command_line(line: &str) -> Self {
        let value = |name: &str, default: u64| {
            let words = line.split_whitespace().filter_map(|word| word.split_once('='));
            words.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok()).unwrap_or(default)
        };
        let size = |name: &str, default: u64| usize::try_from(value(name, default)).unwrap_or_default();
        Self {
            mem_mib: size("ls.mem", 32).max(1),
            dirty: size("ls.dirty", 64),
            set: size("ls.set", 0),
            random: value("ls.random", 0) == 1,
            noise: size("ls.noise", 512),
            verify: size("ls.verify", 64),
            remap: size("ls.remap", 0),
            tick_ms: value("ls.tick", 50),
            publish: value("ls.publish", 4).max(1),
            seed: value("ls.seed", 1),
            busy: value("ls.busy", 0) != 0,
            manners: value("ls.manners", 0) == 1,
            cpus: size("ls.cpus", 0),
            offline: size("ls.offline", 0),
            disk_mib: size("ls.disk", 0),
            net: value("ls.net", 0) == 1,
        }
    }
}

/// proc for the command line, devtmpfs for the console and xenbus, sysfs for the processors.
pub fn mount() {
    for (kind, at) in [("proc", "/proc"), ("devtmpfs", "/dev"), ("sysfs", "/sys")] {
        let _ = fs::create_dir(at);
        if let Err(error) = mount_at(kind, at, kind, MountFlags::empty(), None) {
            println!("GUEST cannot mount {at}: {error}");
        }
    }
}

/// Loads a module of the initramfs, once.
pub fn load(module: &str) -> anyhow::Result<()> {
    let file = fs::File::open(module).context(module.to_owned())?;
    finit_module(file, c"", 0).context(module.to_owned())
}

/// The kernel starts `/sbin/poweroff` or `/sbin/reboot` when the toolstack asks for it.
pub fn leave(again: bool) -> anyhow::Result<()> {
    reboot(if again { RebootCommand::Restart } else { RebootCommand::PowerOff })?;
    Ok(())
}
