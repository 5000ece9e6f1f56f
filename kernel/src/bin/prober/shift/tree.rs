//! The three-level tree of the p2m (xen/include/public/arch-x86/xen.h, struct arch_shared_info): the builder's own list
//! is its leaves, so that a restorer, which writes them, tells us our new frames.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use livesave_stubdom::boot::StartInfo;
use livesave_stubdom::mm::{self, layout};
use xen_hypercall::Pfn;

/// `arch` in struct shared_info: max_pfn, the tree, and cr3 of the linear list, 0 where there is none.
const MAX_PFN: u64 = layout::SHARED_INFO + 3088;
const TREE: u64 = MAX_PFN + 8;
const P2M_CR3: u64 = MAX_PFN + 24;
/// Frame numbers in a frame.
const WORDS: u64 = 512;

/// Where the list lies.
static LIST: AtomicU64 = AtomicU64::new(0);

/// The frames above the leaves.
pub struct Tree {
    pages: u64,
    root: u64,
    lists: Vec<u64>,
}

impl Tree {
    /// None without memory.
    pub fn new(start: &StartInfo) -> Option<Self> {
        LIST.store(start.mfn_list, Ordering::Relaxed);
        let page = || mm::take_frame().map(layout::address_of);
        let count = start.nr_pages.div_ceil(WORDS * WORDS);
        Some(Self { pages: start.nr_pages, root: page()?, lists: (0..count).map(|_| page()).collect::<Option<_>>()? })
    }

    /// Tells it, with the frames of now.
    pub fn publish(&self) {
        let list = LIST.load(Ordering::Relaxed);
        for leaf in 0..self.pages.div_ceil(WORDS) {
            let branch = self.lists[(leaf / WORDS) as usize];
            put(branch + leaf % WORDS * 8, frame_at(list + leaf * layout::PAGE));
        }
        for (at, &branch) in (0u64..).zip(&self.lists) {
            put(self.root + at * 8, frame_at(branch));
        }
        put(MAX_PFN, self.pages);
        put(P2M_CR3, 0);
        put(TREE, frame_at(self.root));
    }
}

/// The machine frame at an address of the 1:1 map, as the list says now.
pub fn frame_at(address: u64) -> u64 {
    layout::pfn_of(address).map_or(u64::MAX, frame_of)
}

/// The machine frame of a pfn of ours, as the list says now.
pub fn frame_of(pfn: Pfn) -> u64 {
    get(LIST.load(Ordering::Relaxed) + pfn.raw() * 8)
}

/// An aligned word of ours.
pub fn get(place: u64) -> u64 {
    // SAFETY: callers pass words of the list or of frames that they own, all mapped for ever.
    unsafe { (place as *const u64).read_volatile() }
}

/// Writes an aligned word of ours.
pub fn put(place: u64, word: u64) {
    // SAFETY: callers pass words of the mapped shared_info and start_info pages or of frames that they own, which are
    // writable then.
    unsafe { (place as *mut u64).write_volatile(word) };
}
