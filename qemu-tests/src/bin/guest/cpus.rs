//! The guest's processors: a thread for each that is watched runs there and nowhere else, counts its turns, and
//! compares the clock with what any other thread has read before. A processor that does not run does not count.
//!
//! `ls.cpus` says how many are watched, from 0 on; `ls.offline` names one that the guest takes offline at its start.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::Published;
use crate::settings::Settings;

/// Most processors that are watched.
pub const MAX: usize = 4;
/// Between two turns.
const TURN: Duration = Duration::from_millis(100);

/// The latest time that any thread has read.
static LATEST_NS: AtomicU64 = AtomicU64::new(0);

/// Takes one offline, if asked for, and watches the others.
pub fn start(settings: &Settings, shared: &Arc<Published>) {
    if settings.offline != 0 {
        let path = format!("/sys/devices/system/cpu/cpu{}/online", settings.offline);
        match fs::write(&path, "0") {
            Ok(()) => println!("GUEST took processor {} offline", settings.offline),
            Err(error) => println!("GUEST {path}: {error}"),
        }
    }
    for cpu in 0..settings.cpus.min(MAX) {
        let shared = Arc::clone(shared);
        thread::spawn(move || watch(cpu, &shared));
    }
}

fn watch(cpu: usize, shared: &Published) {
    loop {
        let mut only = CpuSet::new();
        only.set(cpu);
        // Refused while the processor is offline, else the thread is there when the call returns. Not asked is getcpu:
        // in a PV guest it answers by RDPID, and Xen does not switch TSC_AUX on a processor without RDTSCP, as here.
        if sched_setaffinity(None, &only).is_ok() {
            turn(cpu, shared);
        }
        thread::sleep(TURN);
    }
}

fn turn(cpu: usize, shared: &Published) {
    let before = LATEST_NS.load(Ordering::SeqCst);
    let now = clock_gettime(ClockId::Monotonic);
    let now_ns = u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0);
    if now_ns < before {
        shared.wrong(&format!("clock: {now_ns} on processor {cpu} after {before}"));
    }
    LATEST_NS.fetch_max(now_ns, Ordering::SeqCst);
    if let Some(beats) = shared.beats.get(cpu) {
        beats.fetch_add(1, Ordering::Relaxed);
    }
}
