//! The guest's p2m while it is in use: which machine frame a pfn is now, and which pfn a machine frame is, believed
//! only where p2m and M2P agree.
//!
//! The frames of the list stay mapped, so an entry is read when it is needed, once. Where they are may change while the
//! guest runs: `refresh` looks, and searches again. Memory is 8 bytes for 512 pfns.

use alloc::boxed::Box;
use alloc::vec::Vec;

use xen_hypercall::types::{Gfn, Mfn, Pfn};

use super::host::{Maps, PvHost};
use super::types::PageTypes;
use super::walk::{self, Layout};
use crate::ports::{PAGE_SIZE, Page, PageType, TargetError};
use crate::store::{Digest, Fingerprint};

/// Pfns whose entries are in one frame of the list.
pub const LEAF_PFNS: u64 = 512;

/// Most frames of a p2m that are followed: a guest of 64 GiB.
pub const LEAVES_MAX: u64 = 32768;

/// Attempts to read a p2m that is not being changed. Each gives the processor up, so a guest that is in the middle of a
/// change gets the time to end it.
const ATTEMPTS: u32 = 64;

/// Entries from here on are no machine frame: bit 63 marks a foreign frame, bit 62 an identity mapping, all ones
/// nothing (Linux: arch/x86/include/asm/xen/page.h). No machine has 2^51 frames.
const ENTRY_END: u64 = 1 << 51;

/// Before the first search, and when a search has failed.
const NOWHERE: Layout = Layout { end: 0, tree: 0, cr3: 0, vaddr: 0, generation: 0 };

/// A bug of ours: whoever holds them must not let go of them before the take ends.
const NOT_HELD: TargetError = TargetError::Hypercall { op: "the frames of the p2m were let go of", errno: 0 };

/// The p2m of one guest.
pub struct P2m<M> {
    maps: M,
    layout: Layout,
    leaves: Vec<Mfn>,
    /// Pfns below this have an entry.
    end: u64,
}

impl<M: Maps> P2m<M> {
    /// Finds the guest's p2m and keeps its frames mapped.
    pub fn open<H: PvHost<Maps = M>>(host: &mut H) -> Result<Self, TargetError> {
        let mut p2m = Self { maps: host.maps(), layout: NOWHERE, leaves: Vec::new(), end: 0 };
        p2m.search(host, &mut *page()?)?;
        Ok(p2m)
    }

    /// Looks whether the list is still where it was, and searches again if it is not. The tree has no counter that
    /// tells, so it is walked each time. The guest's shared_info, which told that, is left in `page`. True if the
    /// frames changed.
    pub fn refresh<H: PvHost<Maps = M>>(&mut self, host: &mut H, page: &mut Page) -> Result<bool, TargetError> {
        if self.maps.held() != self.leaves.len() as u64 * LEAF_PFNS {
            return Err(NOT_HELD);
        }
        host.shared_info(page)?;
        let now = Layout::of(page);
        if now == self.layout && now.cr3 != 0 {
            return Ok(false);
        }
        self.search(host, page)
    }

    fn search<H: PvHost<Maps = M>>(&mut self, host: &mut H, page: &mut Page) -> Result<bool, TargetError> {
        for _ in 0..ATTEMPTS {
            host.shared_info(page)?;
            let layout = Layout::of(page);
            if layout.in_change() {
                host.yield_now();
                continue;
            }
            let leaves = match self.leaves_of(host, &layout) {
                Ok(leaves) => Ok(leaves),
                // What went wrong may have been read in the middle of a change.
                Err(TargetError::P2m { what }) => Err(what),
                Err(error) => return Err(error),
            };
            host.shared_info(page)?;
            if Layout::of(page) != layout {
                continue;
            }
            let leaves = leaves.map_err(|what| TargetError::P2m { what })?;
            return self.adopt(host, layout, leaves);
        }
        Err(TargetError::P2m { what: "the guest changes it all the time" })
    }

    fn leaves_of<H: PvHost>(&self, host: &mut H, layout: &Layout) -> Result<Vec<Mfn>, TargetError> {
        let count = layout.leaves();
        let most = LEAVES_MAX.min(host.hold_max() as u64);
        if count == 0 {
            return Err(TargetError::P2m { what: "the guest says that it is empty" });
        }
        if layout.end > LEAF_PFNS * most {
            return Err(TargetError::P2m { what: "it is larger than the stub can follow" });
        }
        let mut leaves = Vec::new();
        leaves.try_reserve_exact(count as usize).map_err(|_| TargetError::NoMemory)?;
        walk::find(host, layout, &mut leaves)?;
        trim(&mut leaves);
        Ok(leaves)
    }

    fn adopt<H: PvHost>(&mut self, host: &mut H, layout: Layout, leaves: Vec<Mfn>) -> Result<bool, TargetError> {
        let end = layout.end.min(leaves.len() as u64 * LEAF_PFNS);
        let changed = leaves != self.leaves;
        if changed {
            // Whatever fails from here on, no entry is looked up in frames that are not held.
            (self.layout, self.end) = (NOWHERE, 0);
            self.leaves.clear();
            let held = host.hold(&leaves)?;
            held.map_err(|_| TargetError::P2m { what: "a frame of it is no frame of the guest" })?;
            self.leaves = leaves;
        }
        (self.layout, self.end) = (layout, end);
        Ok(changed)
    }

    /// One more than the highest pfn.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The machine frame that the guest says a pfn is; None if it is no memory.
    pub fn mfn_of(&self, pfn: u64) -> Option<Mfn> {
        if pfn >= self.end {
            return None;
        }
        Some(self.maps.word(pfn)).filter(|entry| *entry < ENTRY_END).map(Mfn::new)
    }

    /// The pfn of a machine frame, if p2m and M2P agree on it. What they do not agree on is another's frame, or one
    /// that the guest is moving.
    pub fn pfn_of(&self, mfn: Mfn) -> Option<Pfn> {
        self.maps.pfn_of(mfn).filter(|pfn| self.mfn_of(pfn.raw()) == Some(mfn))
    }

    /// A digest of all that the guest says of its frames: where the list is, and every entry. To `page` go the pfns
    /// that the list is kept in; each write to one of them is noted as dirty. `room` is where entries are gathered.
    pub fn digest(&self, room: &mut Page, page: &mut dyn FnMut(Gfn)) -> Result<Digest, TargetError> {
        let mut hasher = Fingerprint::new();
        hasher.add(&self.end.to_le_bytes());
        for (number, &leaf) in (0..).zip(&self.leaves) {
            let pfn = self.pfn_of(leaf).ok_or(TargetError::P2m { what: "a frame of it is not in it" })?;
            page(Gfn::new(pfn.raw()));
            for (entry, word) in (number * LEAF_PFNS..).zip(room.as_chunks_mut::<8>().0) {
                *word = self.maps.word(entry).to_le_bytes();
            }
            hasher.add(&leaf.raw().to_le_bytes());
            hasher.add(room);
        }
        Ok(hasher.finish())
    }

    /// A restore writes the p2m anew, which it refuses to do into page tables (xg_sr_restore_x86_pv.c).
    pub fn check(&self, types: &PageTypes) -> Result<(), TargetError> {
        let table = |leaf: &Mfn| self.pfn_of(*leaf).is_none_or(|pfn| types.get(pfn.raw()) != PageType::NOTAB);
        if self.leaves.iter().any(table) {
            Err(TargetError::P2m { what: "a frame of it is a page table" })
        } else {
            Ok(())
        }
    }

    /// X86_PV_P2M_FRAMES (libxc-migration-stream.pandoc): first and last pfn u32, then the pfn of each frame u64.
    pub fn frames_record(&self, into: &mut Vec<u8>) -> Result<(), TargetError> {
        let last = u32::try_from(self.end - 1).map_err(|_| TargetError::P2m { what: "it is too large" })?;
        into.clear();
        into.try_reserve(8 + 8 * self.leaves.len()).map_err(|_| TargetError::NoMemory)?;
        into.extend_from_slice(&0u32.to_le_bytes());
        into.extend_from_slice(&last.to_le_bytes());
        for &leaf in &self.leaves {
            let pfn = self.pfn_of(leaf).ok_or(TargetError::P2m { what: "a frame of it is not in it" })?;
            into.extend_from_slice(&pfn.raw().to_le_bytes());
        }
        Ok(())
    }
}

/// Linux fills the end of a list that was made for more memory with one frame of "nothing", over and over. No pfn of
/// such a run but those of its first frame can be memory, since the M2P names each frame once.
fn trim(leaves: &mut Vec<Mfn>) {
    while leaves.len() > 1 && leaves[leaves.len() - 1] == leaves[leaves.len() - 2] {
        leaves.pop();
    }
}

/// A page of our own.
pub(super) fn page() -> Result<Box<Page>, TargetError> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(PAGE_SIZE).map_err(|_| TargetError::NoMemory)?;
    bytes.resize(PAGE_SIZE, 0);
    bytes.into_boxed_slice().try_into().map_err(|_| TargetError::NoMemory)
}
