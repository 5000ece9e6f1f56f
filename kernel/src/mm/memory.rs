//! Taking over memory once, and handing out single frames afterwards.
//!
//! `init` brings the builder's layout into its final form and divides what is free between heap and frames. The one
//! rule that everything here serves: a virtual address of the 1:1 map never changes its frame.

use core::ops::Range;

use spin::Mutex;
use xen_hypercall::{Mfn, Pfn};

use super::frames::Frames;
use super::layout::{self, PAGE, address_of};
use super::tables::{self, DATA, entry};
use super::{heap, m2p, window};
use crate::boot::{StartInfo, VIRT_BASE};
use crate::hv::{self, HvError};

/// Frames that the heap leaves for rings, buffers of the disk and grants, when `heap=` does not say otherwise: 1 in 4,
/// but at most 6 MiB (blkfront's pool, tables and ring are at most 1056 pages, 4.1 MiB).
const IO_FRAMES: u64 = 6 << 8;
/// Frames that the heap must leave whatever `heap=` says: 4 MiB.
const MIN_IO_FRAMES: u64 = 4 << 8;

static FRAMES: Mutex<Option<Frames<'static>>> = Mutex::new(None);
static P2M: spin::Once<&'static [u64]> = spin::Once::new();

/// Why memory could not be set up; all of them end the boot.
#[derive(Debug)]
pub enum BootMemoryError {
    /// The builder's tables are not where they should be.
    Layout(&'static str),
    /// The builder's mapping is too small to hold the page tables for the rest.
    NoRoomForTables,
    /// `heap=` leaves too little for input and output, or memory is too small.
    HeapTooLarge {
        /// MiB asked for.
        heap_mib: u64,
        /// MiB of the domain that are free at boot.
        free_mib: u64,
    },
    /// Xen refused.
    Hypercall(HvError),
}

impl core::fmt::Display for BootMemoryError {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Layout(what) => write!(out, "the domain builder's layout makes no sense ({what})"),
            Self::NoRoomForTables => out.write_str("the builder's first mapping is too small for our page tables"),
            Self::HeapTooLarge { heap_mib, free_mib } => write!(
                out,
                "a heap of {heap_mib} MiB leaves less than 4 of {free_mib} free MiB: lower heap= or raise memory="
            ),
            Self::Hypercall(error) => error.fmt(out),
        }
    }
}

impl From<HvError> for BootMemoryError {
    fn from(error: HvError) -> Self {
        Self::Hypercall(error)
    }
}

/// Where the linker put the parts of the image.
pub(super) struct Image {
    pub(super) text: Range<u64>,
    pub(super) constants: Range<u64>,
    pub(super) data: Range<u64>,
    pub(super) guard: u64,
}

/// The division of memory, in KiB, printed at boot and reported to dom0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// All memory of the domain.
    pub total: u64,
    /// Image, stack, builder's pages and page tables.
    pub kernel: u64,
    /// The heap.
    pub heap: u64,
    /// Frames for rings, grants and buffers.
    pub io: u64,
}

impl core::fmt::Display for Budget {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { total, kernel, heap, io } = self;
        write!(out, "memory: total {total} KiB = kernel {kernel} + heap {heap} + io {io}")
    }
}

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __image_end: u8;
    static __stack_guard: u8;
}

impl Image {
    fn linked() -> Self {
        let at = |symbol: *const u8| symbol as u64;
        Self {
            text: at(&raw const __text_start)..at(&raw const __text_end),
            constants: at(&raw const __rodata_start)..at(&raw const __rodata_end),
            data: at(&raw const __data_start)..at(&raw const __image_end),
            guard: at(&raw const __stack_guard),
        }
    }
}

/// Takes over all memory. `used_end` is the first address after what the builder placed; traps are installed already.
pub fn init(info: &StartInfo, used_end: u64, heap_mib: Option<u32>) -> Result<Budget, BootMemoryError> {
    m2p::set_limit(hv::maximum_ram_page()?);
    // SAFETY: StartInfo::read checked that the list lies inside our memory, aligned, with nr_pages entries; nobody
    // writes it after the builder.
    let p2m = unsafe { core::slice::from_raw_parts(info.mfn_list as *const u64, info.nr_pages as usize) };
    P2M.call_once(|| p2m);
    let mut tables = tables::Tables::new(info, p2m, used_end)?;
    tables.map_all_ram()?;
    let windows = tables.add_window()?;
    tables.protect(&Image::linked())?;
    window::init(windows);
    hv::update_va_mapping(layout::SHARED_INFO, entry(info.shared_info, DATA))?;
    divide(tables.next_free(), info.nr_pages, heap_mib)
}

/// Splits what is free into heap and single frames.
fn divide(first: u64, nr_pages: u64, heap_mib: Option<u32>) -> Result<Budget, BootMemoryError> {
    let words = nr_pages.div_ceil(64);
    let bitmap_frames = (words * 8).div_ceil(PAGE);
    let first_free = first + bitmap_frames;
    let free = nr_pages.saturating_sub(first_free);
    let heap = heap_frames(free, heap_mib)?;
    // SAFETY: frames from `first` on are mapped, and nobody else's; the bitmap takes the first of them.
    let bits = unsafe { core::slice::from_raw_parts_mut(address_of(Pfn::new(first)) as *mut u64, words as usize) };
    let mut frames = Frames::new(bits);
    (first_free + heap..nr_pages).for_each(|pfn| _ = frames.give(Pfn::new(pfn)));
    let budget = Budget { total: nr_pages * 4, kernel: first_free * 4, heap: heap * 4, io: frames.free_count() * 4 };
    *FRAMES.lock() = Some(frames);
    // SAFETY: the `heap` frames from first_free on were left out of `frames` and belong to nobody else.
    unsafe { heap::init(address_of(Pfn::new(first_free)), (heap * PAGE) as usize) };
    Ok(budget)
}

/// Frames of the heap, out of `free`.
fn heap_frames(free: u64, heap_mib: Option<u32>) -> Result<u64, BootMemoryError> {
    let heap = match heap_mib {
        Some(mib) => u64::from(mib) << 8,
        None => free - (free / 4).min(IO_FRAMES),
    };
    if heap + MIN_IO_FRAMES > free {
        return Err(BootMemoryError::HeapTooLarge { heap_mib: heap >> 8, free_mib: free >> 8 });
    }
    Ok(heap)
}

/// A frame of our own, cleared; it stays the caller's until `give_frame`.
pub fn take_frame() -> Option<Pfn> {
    let pfn = FRAMES.lock().as_mut()?.take()?;
    // SAFETY: the frame was free, so it is mapped writable in the 1:1 map and nobody uses it.
    unsafe { core::ptr::write_bytes(address_of(pfn) as *mut u8, 0, PAGE as usize) };
    Some(pfn)
}

/// Gives a frame back. A frame that is free already is a bug of ours: the domain ends before memory is shared by two.
pub fn give_frame(pfn: Pfn) {
    let given = FRAMES.lock().as_mut().is_some_and(|frames| frames.give(pfn));
    assert!(given, "frame {pfn} was given back twice");
}

/// Bytes of free single frames.
pub fn free_frames() -> u64 {
    FRAMES.lock().as_ref().map_or(0, |frames| frames.free_count() * PAGE)
}

/// The machine frame of one of our frames.
pub fn mfn_of(pfn: Pfn) -> Option<Mfn> {
    P2M.get()?.get(usize::try_from(pfn.raw()).ok()?).map(|&mfn| Mfn::new(mfn))
}

/// Where in the 1:1 map one of our machine frames lies; None for a frame that is not ours.
pub fn address_of_mfn(mfn: Mfn) -> Option<u64> {
    let pfn = m2p::pfn(mfn)?;
    (mfn_of(pfn) == Some(mfn)).then(|| VIRT_BASE + pfn.raw() * PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_leaves_room_for_io() {
        assert_eq!(heap_frames(16384, None).unwrap(), 16384 - 1536);
        assert_eq!(heap_frames(5120, None).unwrap(), 5120 - 1280);
        assert_eq!(heap_frames(16384, Some(32)).unwrap(), 8192);
        assert!(matches!(
            heap_frames(16384, Some(61)),
            Err(BootMemoryError::HeapTooLarge { heap_mib: 61, free_mib: 64 })
        ));
        assert!(heap_frames(1024, None).is_err());
        assert!(heap_frames(0, None).is_err());
    }
}
