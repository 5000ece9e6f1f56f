//! The heap: one run of frames, fixed at boot, under `linked_list_allocator`.
//!
//! It never grows. An allocation that does not fit is an error to who uses `try_reserve`, and the end of the domain to
//! who does not, with a message that names the size.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use linked_list_allocator::Heap;
use spin::Mutex;

/// The allocator behind `alloc`. Nothing takes its lock twice: there are no interrupts and no second processor.
pub struct LockedHeap(Mutex<Heap>);

#[cfg_attr(feature = "image", global_allocator)]
static HEAP: LockedHeap = LockedHeap(Mutex::new(Heap::empty()));

// SAFETY: `Heap` hands out disjoint blocks of the region that it was given, aligned as the layout says.
unsafe impl GlobalAlloc for LockedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().allocate_first_fit(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: GlobalAlloc's contract: the block came from `alloc` with the same layout.
            unsafe { self.0.lock().deallocate(block, layout) };
        }
    }
}

/// Gives the heap its memory.
///
/// # Safety
/// `[start, start + bytes)` is mapped, writable and used by nobody else, for ever; called once.
pub unsafe fn init(start: u64, bytes: usize) {
    // SAFETY: the caller promises the region.
    unsafe { HEAP.0.lock().init(start as *mut u8, bytes) };
}

/// Bytes that are free now; for the status node.
pub fn free() -> usize {
    HEAP.0.lock().free()
}

/// Bytes of the heap.
pub fn size() -> usize {
    HEAP.0.lock().size()
}
