//! A guest that lies about its p2m to whoever reads it, in its shared_info page and in the frames that this names. It
//! harms nobody else: Xen itself believes none of it.

use livesave_stubdom::mm::{self, layout};
use livesave_stubdom::{hv, info, time};
use xen_hypercall::EvtchnPort;

/// `arch` in struct shared_info (xen/include/public/arch-x86/xen.h): max_pfn, the tree, and the linear list.
const MAX_PFN: u64 = layout::SHARED_INFO + 3088;
const TREE: u64 = MAX_PFN + 8;
const P2M_CR3: u64 = MAX_PFN + 24;
const P2M_VADDR: u64 = MAX_PFN + 32;
const GENERATION: u64 = MAX_PFN + 40;

/// Where Linux has its list.
const VADDR: u64 = 0xffff_c900_0000_0000;
/// As many as a guest of 32 MiB has.
const PFNS: u64 = 8192;
const WORDS: u64 = 512;
/// A frame of Xen's or dom0's, and one of nobody.
const FOREIGN: u64 = 1;
const BEYOND: u64 = 1 << 38;
/// Bit of a page table's entry.
const PRESENT: u64 = 1;
/// Between two changes of a guest that is never done.
const PACE_NS: u64 = 100_000;

/// Tells the named lie for ever, asleep on `port` in between; comes back only if there is none of that name, or no
/// memory for it.
pub fn lie(name: &str, port: EvtchnPort) -> Option<()> {
    put(MAX_PFN, if name == "huge" { 1 << 40 } else { PFNS });
    let page = Page::new()?;
    let restless = match name {
        "huge" => None,
        // A change that never ends, and changes that never stop.
        "odd" | "restless" => {
            put(P2M_VADDR, VADDR);
            put(P2M_CR3, page.frame << 12);
            put(GENERATION, 1);
            Some((GENERATION, [2, 4])).filter(|_| name == "restless")
        }
        "foreign" | "beyond" => {
            page.fill(if name == "foreign" { FOREIGN } else { BEYOND });
            put(TREE, page.frame);
            None
        }
        // The tree is its own branch and its own leaf, and one entry of it changes all the time.
        "loop" => {
            page.fill(page.frame);
            put(TREE, page.frame);
            Some((page.address + (WORDS - 1) * 8, [2, 4]))
        }
        // The page tables of the list are one page, which is every level and the list itself; Xen knows nothing of it,
        // and one entry changes all the time while the generation says that nothing does.
        "swap" => {
            page.fill(page.frame << 12 | PRESENT);
            put(P2M_VADDR, VADDR);
            put(P2M_CR3, page.frame << 12);
            put(GENERATION, 2);
            let words = [page.frame, FOREIGN].map(|frame| frame << 12 | PRESENT);
            Some((page.address + (PFNS / WORDS - 1) * 8, words))
        }
        _ => return None,
    };
    info!("lying: {name}");
    for count in 1u64.. {
        restless.iter().for_each(|&(place, words)| put(place, words[(count % 2) as usize]));
        hv::wait_and_clear(port, time::now_ns() + PACE_NS);
    }
    None
}

/// A frame of our own.
struct Page {
    address: u64,
    frame: u64,
}

impl Page {
    fn new() -> Option<Self> {
        let pfn = mm::take_frame()?;
        Some(Self { address: layout::address_of(pfn), frame: mm::mfn_of(pfn)?.raw() })
    }

    fn fill(&self, word: u64) {
        (0..WORDS).for_each(|at| put(self.address + at * 8, word));
    }
}

fn put(place: u64, word: u64) {
    // SAFETY: `place` is an aligned word of our shared_info page or of a frame that nothing else of this kernel uses;
    // both are mapped for ever, and their readers expect any word at any time.
    unsafe { (place as *mut u64).write_volatile(word) };
}
