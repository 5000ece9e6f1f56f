//! Counts what is allocated, so that a table can say how much memory a take needs. The simulated disk is left out: it
//! stands for a device.
//!
//! Invariant: memory that is allocated while the count is paused is freed while it is paused, or after the last look.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static PAUSED: AtomicBool = AtomicBool::new(false);

/// The system's allocator, and a count.
pub struct Counting;

#[global_allocator]
static HEAP: Counting = Counting;

// SAFETY: every call goes to the system's allocator with the same layout; counting changes no pointer.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is System's too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if !PAUSED.load(Relaxed) {
            NOW.fetch_sub(layout.size(), Relaxed);
        }
        // SAFETY: the pointer came from `alloc` with this layout, so from System.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn grow(bytes: usize) {
    if !PAUSED.load(Relaxed) {
        let now = NOW.fetch_add(bytes, Relaxed).wrapping_add(bytes);
        PEAK.fetch_max(now, Relaxed);
    }
}

/// Counts nothing while the action runs.
pub fn uncounted<T>(action: impl FnOnce() -> T) -> T {
    let before = PAUSED.swap(true, Relaxed);
    let result = action();
    PAUSED.store(before, Relaxed);
    result
}

/// The most that was allocated at once while the action ran, beyond what was before it.
pub fn peak<T>(action: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = action();
    (result, PEAK.load(Relaxed).saturating_sub(before))
}
