//! The counter in a page of its own, and where that page lies: dom0 maps it by its frame number.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use qemu_tests::counter::{MAGIC, STEPS, TICKS};
use qemu_tests::pattern::WORDS;

/// A page of the program's data: it moves only if the kernel migrates it, so its place is asked for again and again.
#[repr(align(4096))]
struct Page([AtomicU64; WORDS]);

static PAGE: Page = Page([const { AtomicU64::new(0) }; WORDS]);

/// /proc/self/pagemap: a page frame number in bits 0 to 54, bit 63 says that there is one.
const PFN_MASK: u64 = (1 << 55) - 1;
const PRESENT: u64 = 1 << 63;

/// From now on the page is a counter.
pub fn start() {
    PAGE.0[0].store(MAGIC, Ordering::Release);
}

/// One more tick; how many there were.
pub fn tick() -> u64 {
    PAGE.0[TICKS].fetch_add(1, Ordering::Release) + 1
}

/// Ticks so far.
pub fn ticks() -> u64 {
    PAGE.0[TICKS].load(Ordering::Acquire)
}

/// One more step.
pub fn step() {
    PAGE.0[STEPS].fetch_add(1, Ordering::Relaxed);
}

/// Frame number of the page; in a PVH guest that is what dom0 maps it by.
pub fn gfn() -> Option<u64> {
    let address = std::ptr::from_ref(&PAGE).addr() as u64;
    let mut entry = [0; 8];
    File::open("/proc/self/pagemap").ok()?.read_exact_at(&mut entry, address / 4096 * 8).ok()?;
    let entry = u64::from_le_bytes(entry);
    (entry & PRESENT != 0).then_some(entry & PFN_MASK)
}
