//! The target guest: one program as init, PV or PVH, that keeps dirtying memory and counting, and checks every page it
//! ever wrote.
//!
//! Its console shows `COUNTER n errors=e pass=p` at every publication, `data/counter` in its xenstore home the same.
//! After a restore the counter continues from the instant of the snapshot; `errors` stays 0 unless a page is wrong.
//! Parameters on the kernel command line (see `Settings`): `ls.mem` (MiB), `ls.dirty` (pages a tick), `ls.set` (pages
//! that are dirtied in turn; 0 is all), `ls.verify` (pages a tick), `ls.tick` (ms), `ls.publish` (ticks), `ls.seed`.

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
    counter: AtomicU64,
    errors: AtomicU64,
    passes: AtomicU64,
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
    work(&settings, &shared)
}

/// One tick after the other, for ever: dirty, check, count.
fn work(settings: &Settings, shared: &Published) -> ! {
    let mut region = Region::new(settings);
    println!("GUEST filled {} pages", region.pages());
    let tick = Duration::from_millis(settings.tick_ms);
    let mut next = Instant::now();
    loop {
        region.dirty(settings.dirty);
        let errors = region.verify(settings.verify);
        shared.errors.fetch_add(errors, Ordering::Relaxed);
        shared.passes.store(region.passes(), Ordering::Relaxed);
        shared.counter.fetch_add(1, Ordering::Release);
        next += tick;
        let now = Instant::now();
        // A guest that fell behind counts on from here: it must not run a burst of ticks to catch up.
        next = next.max(now);
        thread::sleep(next - now);
    }
}
