//! The target guest: one program as init, PV or PVH, that keeps dirtying memory and counting, and checks every page it
//! ever wrote.
//!
//! Its console shows `COUNTER n errors=e pass=p gfn=g` at every publication, `data/counter` in its xenstore home the
//! same; `g` is the frame of the page in which it counts (`qemu_tests::counter`). After a restore the counter continues
//! from the instant of the snapshot; `errors` stays 0 unless a page is wrong. Parameters on the kernel command line
//! (see `Settings`): `ls.mem` (MiB), `ls.dirty` (pages a tick), `ls.set` (pages that are dirtied in turn; 0 is all),
//! `ls.verify` (pages a tick), `ls.remap` (pages a tick that are mapped, touched and unmapped), `ls.tick` (ms),
//! `ls.publish` (ticks), `ls.seed`, `ls.busy` (1: never sleeps, counts while it waits for the next tick), `ls.manners`
//! (1: the program answers suspend requests itself, see `manners`), `ls.cpus` and `ls.offline` (see `cpus`), `ls.disk`
//! (see `disk`), `ls.net` (see `net`).

mod bus;
mod counter;
mod cpus;
mod disk;
mod kernel_log;
mod manners;
mod net;
mod publish;
mod region;
mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use region::Region;
use settings::Settings;

/// What the publisher reads; the worker never waits for a console or for xenstored.
#[derive(Default)]
pub struct Published {
    /// Pages, blocks of the disk and readings of the clock that were wrong.
    errors: AtomicU64,
    passes: AtomicU64,
    /// Turns on each processor that is watched.
    beats: [AtomicU64; cpus::MAX],
    /// Blocks written to the disk and checked.
    blocks: AtomicU64,
    /// Lines of the kernel's log that are warnings or worse.
    warnings: AtomicU64,
}

impl Published {
    /// One thing that is not as it must be.
    fn wrong(&self, what: &str) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        println!("WRONG {what}");
    }
}

fn main() -> anyhow::Result<()> {
    let name = std::env::args().next().unwrap_or_default();
    if name.ends_with("poweroff") || name.ends_with("reboot") {
        return settings::leave(name.ends_with("reboot"));
    }
    settings::mount();
    let settings = Settings::from_command_line(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default());
    println!("GUEST {settings:?}");
    let shared = Arc::new(Published::default());
    publish::start(&settings, &shared);
    kernel_log::start(&shared);
    if settings.manners {
        manners::start();
    }
    cpus::start(&settings, &shared);
    disk::start(&settings, &shared);
    if settings.net {
        net::start();
    }
    work(&settings, &shared)
}

/// One tick after the other, for ever: dirty, check, count.
fn work(settings: &Settings, shared: &Published) -> ! {
    let mut region = Region::new(settings);
    println!("GUEST filled {} pages", region.pages());
    counter::start();
    let tick = Duration::from_millis(settings.tick_ms);
    let mut next = Instant::now();
    loop {
        let errors = turn(&mut region, settings);
        shared.errors.fetch_add(errors, Ordering::Relaxed);
        shared.passes.store(region.passes(), Ordering::Relaxed);
        counter::tick();
        next += tick;
        let now = Instant::now();
        // A guest that fell behind counts on from here: it must not run a burst of ticks to catch up.
        next = next.max(now);
        if settings.busy {
            while Instant::now() < next {
                counter::step();
            }
        } else {
            thread::sleep(next - now);
        }
    }
}

/// Memory that is mapped, touched page by page and unmapped: work for the guest's page tables.
fn remap(pages: usize) {
    let mut memory = vec![0_u8; pages * 4096];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
        counter::step();
    }
    std::hint::black_box(&memory);
}

/// The work of a tick; each page of it is a step.
fn turn(region: &mut Region, settings: &Settings) -> u64 {
    for _ in 0..settings.dirty {
        region.dirty(1);
        counter::step();
    }
    remap(settings.remap);
    let mut errors = 0;
    for _ in 0..settings.verify {
        errors += region.verify(1);
        counter::step();
    }
    errors
}
