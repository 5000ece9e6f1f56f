//! A page that another domain can read and write at any time.
//!
//! Owns the only `unsafe` of the crate. [`SharedPage`] is a pointer that cannot become a reference: every access is one
//! volatile read or write of a naturally aligned word, so the compiler neither repeats nor invents accesses, and a
//! value that was checked is the value that is used. Offsets are ours, never a peer's: one out of range is a bug of
//! this crate and stops the program before memory is touched. Nothing here interprets what it moves.
#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};

/// Bytes in a page; the unit of granting.
pub const PAGE_SIZE: usize = 4096;

/// One page of shared memory. Not `Clone`: who holds it may free it, once.
#[derive(Debug)]
pub struct SharedPage {
    base: NonNull<u8>,
}

impl SharedPage {
    /// Wraps a page.
    ///
    /// # Safety
    /// `base` is aligned to 4096 and valid for reads and writes of 4096 bytes for as long as the value (and, for a page
    /// given to [`crate::platform::Platform::free_page`], nothing longer) lives, and no Rust reference to these bytes
    /// exists meanwhile. A peer may access them at any time.
    pub const unsafe fn from_raw(base: NonNull<u8>) -> Self {
        Self { base }
    }

    /// Where the page lies in our address space; a platform finds its frame by it.
    pub fn address(&self) -> NonNull<u8> {
        self.base
    }

    /// A second handle to the same bytes: the peer's mapping, in tests.
    #[cfg(any(test, feature = "fake"))]
    pub(crate) fn alias(&self) -> Self {
        Self { base: self.base }
    }

    /// Pointer to the `T` at `offset`; bounds and alignment are those of the page.
    fn at<T>(&self, offset: usize) -> *mut T {
        let size = size_of::<T>();
        assert!(offset.is_multiple_of(size) && offset <= PAGE_SIZE - size, "offset outside a shared page");
        // SAFETY: the assertion keeps the result inside the 4096 bytes that `from_raw` promised.
        unsafe { self.base.as_ptr().add(offset) }.cast()
    }

    /// One volatile read.
    fn load<T: Copy>(&self, offset: usize) -> T {
        let from = self.at::<T>(offset);
        // SAFETY: `at` checked range and alignment; `from_raw` promised validity. Used for plain integers only, for
        // which every bit pattern that a peer may write is a value.
        unsafe { from.read_volatile() }
    }

    /// One volatile write.
    fn store<T: Copy>(&self, offset: usize, value: T) {
        let to = self.at::<T>(offset);
        // SAFETY: as in `load`.
        unsafe { to.write_volatile(value) }
    }

    /// Reads the byte at `offset` once.
    pub fn load_u8(&self, offset: usize) -> u8 {
        self.load(offset)
    }

    /// Reads the little-endian u32 at `offset` (a multiple of 4) once.
    pub fn load_u32(&self, offset: usize) -> u32 {
        u32::from_le(self.load(offset))
    }

    /// Reads the little-endian u64 at `offset` (a multiple of 8) once.
    pub fn load_u64(&self, offset: usize) -> u64 {
        u64::from_le(self.load(offset))
    }

    /// Writes a byte.
    pub fn store_u8(&self, offset: usize, value: u8) {
        self.store(offset, value);
    }

    /// Writes a little-endian u32 at `offset` (a multiple of 4).
    pub fn store_u32(&self, offset: usize, value: u32) {
        self.store(offset, value.to_le());
    }

    /// Writes a little-endian u64 at `offset` (a multiple of 8).
    pub fn store_u64(&self, offset: usize, value: u64) {
        self.store(offset, value.to_le());
    }

    /// Copies out, each byte read once; the copy is private.
    pub fn read_bytes(&self, offset: usize, into: &mut [u8]) {
        let mut from = self.range(offset, into.len());
        let (head, rest) = into.split_at_mut(head_len(offset, into.len()));
        let (words, tail) = rest.as_chunks_mut::<8>();
        for byte in head {
            // SAFETY: `range` checked that every byte up to the slice's length lies in the page.
            *byte = unsafe { from.read_volatile() };
            from = from.wrapping_add(1);
        }
        for word in words {
            // SAFETY: in the page, and `from` is a multiple of 8 behind the head.
            *word = unsafe { from.cast::<u64>().read_volatile() }.to_le_bytes();
            from = from.wrapping_add(8);
        }
        for byte in tail {
            // SAFETY: in the page.
            *byte = unsafe { from.read_volatile() };
            from = from.wrapping_add(1);
        }
    }

    /// Copies in.
    pub fn write_bytes(&self, offset: usize, from: &[u8]) {
        let mut to = self.range(offset, from.len());
        let (head, rest) = from.split_at(head_len(offset, from.len()));
        let (words, tail) = rest.as_chunks::<8>();
        for byte in head {
            // SAFETY: `range` checked that every byte up to the slice's length lies in the page.
            unsafe { to.write_volatile(*byte) };
            to = to.wrapping_add(1);
        }
        for word in words {
            // SAFETY: in the page, and `to` is a multiple of 8 behind the head.
            unsafe { to.cast::<u64>().write_volatile(u64::from_le_bytes(*word)) };
            to = to.wrapping_add(8);
        }
        for byte in tail {
            // SAFETY: in the page.
            unsafe { to.write_volatile(*byte) };
            to = to.wrapping_add(1);
        }
    }

    /// Pointer to `len` bytes at `offset`, all of them in the page.
    fn range(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= PAGE_SIZE && len <= PAGE_SIZE - offset, "a copy beyond a shared page");
        self.base.as_ptr().wrapping_add(offset)
    }

    /// Sets every byte.
    pub fn fill(&self, value: u8) {
        for at in (0..PAGE_SIZE).step_by(8) {
            self.store_u64(at, u64::from_le_bytes([value; 8]));
        }
    }
}

/// Bytes before the first multiple of 8.
fn head_len(offset: usize, len: usize) -> usize {
    (offset.next_multiple_of(8) - offset).min(len)
}

/// Orders everything before with everything after (Xen's `xen_mb`).
pub fn barrier_full() {
    fence(Ordering::SeqCst);
}

/// Orders earlier reads before later reads and writes (Xen's `xen_rmb`).
pub fn barrier_read() {
    fence(Ordering::Acquire);
}

/// Orders earlier reads and writes before later writes (Xen's `xen_wmb`).
pub fn barrier_write() {
    fence(Ordering::Release);
}

/// Pages from the host's heap, for the fake platform.
#[cfg(any(test, feature = "fake"))]
pub(crate) mod heap {
    use super::{NonNull, PAGE_SIZE, SharedPage};
    use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

    /// Size and alignment of a page.
    const LAYOUT: Layout = match Layout::from_size_align(PAGE_SIZE, PAGE_SIZE) {
        Ok(layout) => layout,
        Err(_) => panic!("a page has a layout"),
    };

    /// A zeroed page.
    pub(crate) fn alloc_page() -> SharedPage {
        // SAFETY: the layout has a size that is not zero.
        let raw = unsafe { alloc_zeroed(LAYOUT) };
        let Some(base) = NonNull::new(raw) else { handle_alloc_error(LAYOUT) };
        // SAFETY: fresh, aligned, 4096 bytes, and no reference to it exists; it lives until `free_page`.
        unsafe { SharedPage::from_raw(base) }
    }

    /// Gives a page of `alloc_page` back to the heap; no alias of it is used afterwards.
    pub(crate) fn free_page(page: SharedPage) {
        // SAFETY: the fake platform calls this once per page of `alloc_page`, when it is dropped itself.
        unsafe { dealloc(page.base.as_ptr(), LAYOUT) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_at_every_alignment() {
        let page = heap::alloc_page();
        let data: [u8; 40] = core::array::from_fn(|i| i as u8 + 1);
        for offset in 0..24 {
            for len in 0..=data.len() {
                page.fill(0);
                page.write_bytes(offset, &data[..len]);
                let mut all = [0xffu8; 80];
                page.read_bytes(0, &mut all);
                assert!(all[..offset].iter().all(|b| *b == 0) && all[offset + len..].iter().all(|b| *b == 0));
                let mut out = [0u8; 40];
                page.read_bytes(offset, &mut out[..len]);
                assert_eq!(out[..len], data[..len]);
                assert_eq!(all[offset..offset + len], data[..len]);
            }
        }
        heap::free_page(page);
    }

    #[test]
    fn words_are_little_endian_and_reach_the_last_byte() {
        let page = heap::alloc_page();
        page.store_u32(PAGE_SIZE - 4, 0x0102_0304);
        assert_eq!(page.load_u8(PAGE_SIZE - 4), 4);
        assert_eq!(page.load_u8(PAGE_SIZE - 1), 1);
        page.store_u64(8, u64::MAX - 1);
        assert_eq!(page.load_u64(8), u64::MAX - 1);
        heap::free_page(page);
    }

    #[test]
    fn a_copy_past_the_end_stops_before_memory_is_touched() {
        for (offset, len) in
            [(PAGE_SIZE, 1), (PAGE_SIZE - 7, 8), (0, PAGE_SIZE + 1), (usize::MAX, 2), (8, usize::MAX / 2)]
        {
            let caught = std::panic::catch_unwind(|| {
                let page = heap::alloc_page();
                page.range(offset, len)
            });
            assert!(caught.is_err(), "{offset} {len}");
        }
        let page = heap::alloc_page();
        page.read_bytes(PAGE_SIZE, &mut []);
        page.write_bytes(0, &[7; PAGE_SIZE]);
        heap::free_page(page);
    }

    #[test]
    fn an_access_past_the_end_stops_before_memory_is_touched() {
        for offset in [PAGE_SIZE, PAGE_SIZE - 3, PAGE_SIZE + 4, usize::MAX - 3] {
            let caught = std::panic::catch_unwind(|| {
                let page = heap::alloc_page();
                page.load_u32(offset)
            });
            assert!(caught.is_err(), "{offset}");
        }
    }
}
