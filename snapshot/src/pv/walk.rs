//! Finds the frames of a guest's p2m from its shared_info page: the linear list, which lies in the guest's own virtual
//! memory, or the three-level tree (xen/include/public/arch-x86/xen.h, struct arch_shared_info).
//!
//! Everything read here is hostile. The number of frames asked for is bounded before the first is read, each table is
//! read once, and a walk is as long as the list is, whatever the tables say: a loop in them leads nowhere.

use alloc::vec::Vec;

use xen_hypercall::types::Mfn;

use super::host::PvHost;
use super::p2m::{self, LEAF_PFNS};
use super::tables::{ADDRESS, LARGE, PRESENT};
use crate::ports::{BATCH_MAX, OneByOne, PAGE_SIZE, Page, PageError, Seen, Stop, TargetError};

/// Levels of a 64-bit guest's page tables.
const LEVELS: u32 = 4;
/// Entries of a table.
const ENTRIES: u64 = 512;
/// Where a 64-bit guest's address space has a hole, and Xen's own part behind it.
const HOLE: core::ops::Range<u64> = 0x0000_8000_0000_0000..0xffff_8800_0000_0000;

/// The fields of shared_info that describe the p2m.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Pfns that the p2m covers.
    pub end: u64,
    /// Root of the tree.
    pub tree: u64,
    /// Page table of the linear list, in cr3 form; 0: there is none.
    pub cr3: u64,
    /// Address of the linear list.
    pub vaddr: u64,
    /// Counts changes of the list's mapping; odd while one is in progress.
    pub generation: u64,
}

impl Layout {
    /// From the page (struct shared_info, `arch` at 3088).
    pub fn of(shared_info: &Page) -> Self {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&shared_info[3088 + at..3096 + at]);
            u64::from_le_bytes(bytes)
        };
        Self { end: word(0), tree: word(8), cr3: word(24), vaddr: word(32), generation: word(40) }
    }

    /// Is the mapping being changed now? The tree has no counter.
    pub fn in_change(&self) -> bool {
        self.cr3 != 0 && self.generation % 2 == 1
    }

    /// Frames that the list needs.
    pub fn leaves(&self) -> u64 {
        self.end.div_ceil(LEAF_PFNS)
    }
}

const fn bad(what: &'static str) -> TargetError {
    TargetError::P2m { what }
}

/// The frames of the p2m in order, into `leaves`, which has the room. The caller has bounded `layout.leaves()`.
pub fn find<H: PvHost>(host: &mut H, layout: &Layout, leaves: &mut Vec<Mfn>) -> Result<(), TargetError> {
    if layout.cr3 == 0 { tree(host, layout, leaves) } else { linear(host, layout, leaves) }
}

/// Level by level: the tables of one level give those of the next, over the range of addresses alone.
fn linear<H: PvHost>(host: &mut H, layout: &Layout, leaves: &mut Vec<Mfn>) -> Result<(), TargetError> {
    let bytes = layout.leaves() * PAGE_SIZE as u64;
    let last = layout.vaddr.checked_add(bytes - 1).ok_or(bad("its address runs over"))?;
    let apart = layout.vaddr < HOLE.start && last >= HOLE.start;
    if HOLE.contains(&layout.vaddr) || HOLE.contains(&last) || apart {
        return Err(bad("its address is not the guest's"));
    }
    if !layout.vaddr.is_multiple_of(PAGE_SIZE as u64) {
        return Err(bad("its address is not that of a page"));
    }
    let mut tables = Vec::new();
    let mut next = room(1)?;
    next.push(Mfn::new(layout.cr3 >> 12));
    for level in (1..=LEVELS).rev() {
        core::mem::swap(&mut tables, &mut next);
        let shift = 12 + 9 * (level - 1);
        let canonical = |address: u64| (address << 16 >> 16) >> shift;
        let (first, end) = (canonical(layout.vaddr), canonical(last) + 1);
        next = room(end - first)?;
        entries(host, &tables, first % ENTRIES, end - first, &mut |entry| {
            next.push(entry_frame(entry, level)?);
            Ok(())
        })?;
    }
    leaves.extend_from_slice(&next);
    Ok(())
}

/// The frame behind a page table entry.
fn entry_frame(entry: u64, level: u32) -> Result<Mfn, TargetError> {
    if entry & PRESENT == 0 {
        return Err(bad("it is not mapped"));
    }
    if level > 1 && entry & LARGE != 0 {
        return Err(bad("it is mapped by a large page"));
    }
    Ok(Mfn::new((entry & ADDRESS) >> 12))
}

/// frame_list_list, then frame_list, then the p2m's own frames.
fn tree<H: PvHost>(host: &mut H, layout: &Layout, leaves: &mut Vec<Mfn>) -> Result<(), TargetError> {
    let count = layout.leaves();
    if count > ENTRIES * ENTRIES {
        return Err(bad("it is larger than the tree can be"));
    }
    let mut lists = room(count.div_ceil(ENTRIES))?;
    let root = [list_frame(layout.tree)?];
    entries(host, &root, 0, count.div_ceil(ENTRIES), &mut |entry| {
        lists.push(list_frame(entry)?);
        Ok(())
    })?;
    entries(host, &lists, 0, count, &mut |entry| {
        leaves.push(list_frame(entry)?);
        Ok(())
    })
}

/// A frame number of the tree: 0 is "not yet", all ones "none".
fn list_frame(entry: u64) -> Result<Mfn, TargetError> {
    if entry == 0 || entry == u64::MAX { Err(bad("the guest has not set it up")) } else { Ok(Mfn::new(entry)) }
}

fn room(count: u64) -> Result<Vec<Mfn>, TargetError> {
    let mut frames = Vec::new();
    let count = usize::try_from(count).map_err(|_| TargetError::NoMemory)?;
    frames.try_reserve_exact(count).map_err(|_| TargetError::NoMemory)?;
    Ok(frames)
}

/// Takes the words of a table.
type EachEntry<'a> = dyn FnMut(u64) -> Result<(), TargetError> + 'a;

/// Hands out `count` words of `tables`, which lie one behind the other, from word `first` of the first on.
fn entries<H: PvHost>(
    host: &mut H,
    tables: &[Mfn],
    first: u64,
    count: u64,
    each: &mut EachEntry<'_>,
) -> Result<(), TargetError> {
    let (mut skip, mut left) = (first as usize, count);
    let mut page = p2m::page()?;
    for batch in tables.chunks(BATCH_MAX) {
        let mut trouble = None;
        let mut out = |_, page: Result<&Page, PageError>| {
            let taken = take_words(page, &mut skip, &mut left, each);
            taken.map_err(|error| {
                trouble = Some(error);
                Stop
            })
        };
        host.land_frames(batch, &mut OneByOne { page: &mut page, out: &mut out }, Seen::Now)?;
        if let Some(error) = trouble {
            return Err(error);
        }
    }
    if left == 0 { Ok(()) } else { Err(bad("a table of it is missing")) }
}

fn take_words(
    page: Result<&Page, PageError>,
    skip: &mut usize,
    left: &mut u64,
    each: &mut EachEntry<'_>,
) -> Result<(), TargetError> {
    let page = page.map_err(|_| bad("a table of it is no frame of the guest"))?;
    for word in page.as_chunks::<8>().0.iter().skip(core::mem::take(skip)) {
        if *left == 0 {
            break;
        }
        *left -= 1;
        each(u64::from_le_bytes(*word))?;
    }
    Ok(())
}
