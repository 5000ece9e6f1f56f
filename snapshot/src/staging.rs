//! Memory for the last set: pages are copied here while the guest stands, and go to the store when it runs again.
//!
//! Invariants: all memory is taken in `try_new`, nothing grows; a gfn has one slot, and a second copy of its page takes
//! the place of the first; slots lie in two ascending lists, one for each pass, so they leave in ascending order.

use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use crate::ports::{BATCH_MAX, Fill, Landing, PAGE_SIZE, Page, PageError, Stop};
use crate::tracking::Bitmap;

/// Stands for a gfn that is no memory.
const HOLE: u32 = u32::MAX;

/// What is known of one gfn.
#[derive(Clone, Copy, Debug)]
struct Slot {
    gfn: Gfn,
    page: u32,
}

/// The memory.
#[derive(Debug)]
pub struct Staging {
    /// Pages, [`BATCH_MAX`] in each chunk but the last: one large block may not be had from a heap that was used.
    chunks: Vec<Vec<Page>>,
    slots: Vec<Slot>,
    /// Slots of the first pass: those before this one.
    first: usize,
    used: u32,
    capacity: u32,
    /// Where the pages of the batch under way go.
    places: Vec<u32>,
    /// How many of them were asked for.
    landed: usize,
    /// Those that could not be copied, and why.
    failed: Vec<(usize, PageError)>,
}

impl Staging {
    /// Bytes for each page, its slot included.
    pub const PAGE_BYTES: usize = PAGE_SIZE + size_of::<Slot>();

    /// Room for `pages`, or for as many of them as there is memory for.
    pub fn try_new(pages: u64) -> Self {
        let wanted = usize::try_from(pages).unwrap_or(usize::MAX).min(HOLE as usize - 1);
        let mut staging = Self {
            chunks: Vec::new(),
            slots: Vec::new(),
            first: 0,
            used: 0,
            capacity: 0,
            places: Vec::new(),
            landed: 0,
            failed: Vec::new(),
        };
        let lists = staging.chunks.try_reserve_exact(wanted.div_ceil(BATCH_MAX)).is_ok()
            && staging.slots.try_reserve_exact(wanted).is_ok()
            && staging.places.try_reserve_exact(BATCH_MAX).is_ok()
            && staging.failed.try_reserve_exact(BATCH_MAX).is_ok();
        let mut left = if lists { wanted } else { 0 };
        while left > 0 {
            let count = left.min(BATCH_MAX);
            let mut chunk = Vec::new();
            if chunk.try_reserve_exact(count).is_err() {
                break;
            }
            chunk.resize(count, [0; PAGE_SIZE]);
            staging.chunks.push(chunk);
            staging.capacity += count as u32;
            left -= count;
        }
        staging
    }

    /// Pages that fit.
    pub fn capacity(&self) -> u64 {
        u64::from(self.capacity)
    }

    /// Pages in it.
    pub fn used(&self) -> u64 {
        u64::from(self.used)
    }

    /// Gfns in it.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The first pass is over: its gfns may come again and take their own places.
    pub fn end_first_pass(&mut self) {
        self.first = self.slots.len();
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.begin_batch();
        (self.first, self.used) = (0, 0);
    }

    /// A batch begins.
    pub fn begin_batch(&mut self) {
        self.places.clear();
        self.failed.clear();
        self.landed = 0;
    }

    /// Were all the pages of the batch asked for?
    pub fn is_landed(&self) -> bool {
        self.landed == self.places.len()
    }

    /// Prepares a place for the next page of the batch. False: there is no room.
    pub fn admit(&mut self, gfn: Gfn) -> bool {
        let Some(page) = self.page_for(gfn) else { return false };
        self.places.push(page);
        true
    }

    fn page_for(&mut self, gfn: Gfn) -> Option<u32> {
        let known = self.find(gfn);
        if let Some(page) = known.and_then(|at| self.slots.get(at)).map(|slot| slot.page).filter(|page| *page != HOLE) {
            return Some(page);
        }
        if self.used >= self.capacity {
            return None;
        }
        let page = self.used;
        self.set(known, Slot { gfn, page })?;
        self.used += 1;
        Some(page)
    }

    /// Notes that the gfn is no memory; among the pages of its batch, which were admitted before it, it has its place
    /// by its number. False: there is no room for the note.
    pub fn hole(&mut self, gfn: Gfn) -> bool {
        let slot = Slot { gfn, page: HOLE };
        if let Some(known) = self.find(gfn) {
            return self.set(Some(known), slot).is_some();
        }
        if self.slots.len() == self.slots.capacity() {
            return false;
        }
        let pass = self.slots.get(self.first..).unwrap_or_default();
        let at = self.first + pass.partition_point(|other| other.gfn < gfn);
        self.slots.insert(at, slot);
        true
    }

    fn find(&self, gfn: Gfn) -> Option<usize> {
        self.slots.get(..self.first)?.binary_search_by_key(&gfn, |slot| slot.gfn).ok()
    }

    /// Never allocates: beyond the room that was had there is none.
    fn set(&mut self, known: Option<usize>, slot: Slot) -> Option<()> {
        if let Some(at) = known {
            *self.slots.get_mut(at)? = slot;
            return Some(());
        }
        if self.slots.len() == self.slots.capacity() {
            return None;
        }
        self.slots.push(slot);
        Some(())
    }

    /// Gfns of `set` that are in it already.
    pub fn overlap(&self, set: &Bitmap) -> u64 {
        self.slots.iter().filter(|slot| set.contains(slot.gfn)).count() as u64
    }

    /// The pages of the batch that could not be copied, by their indexes. Their places hold nothing of use.
    pub fn failures(&self) -> &[(usize, PageError)] {
        &self.failed
    }

    fn page_mut(&mut self, page: u32) -> Option<&mut Page> {
        let page = page as usize;
        self.chunks.get_mut(page / BATCH_MAX)?.get_mut(page % BATCH_MAX)
    }

    fn page(&self, page: u32) -> Option<&Page> {
        let page = page as usize;
        self.chunks.get(page / BATCH_MAX)?.get(page % BATCH_MAX)
    }

    /// Everything in ascending order; `None` for what is no memory.
    pub fn pages(&self) -> impl Iterator<Item = (Gfn, Option<&Page>)> {
        let (first, second) = self.slots.split_at(self.first);
        let (mut first, mut second) = (first.iter().peekable(), second.iter().peekable());
        core::iter::from_fn(move || {
            let earlier = match (first.peek(), second.peek()) {
                (Some(a), Some(b)) => a.gfn < b.gfn,
                (Some(_), None) => true,
                (None, _) => false,
            };
            let slot = if earlier { first.next() } else { second.next() };
            slot.map(|slot| (slot.gfn, self.page(slot.page)))
        })
    }
}

impl Landing for Staging {
    fn land(&mut self, index: usize, fill: &mut Fill<'_>) -> Result<(), Stop> {
        let page = *self.places.get(index).filter(|_| index == self.landed).ok_or(Stop)?;
        let filled = fill(self.page_mut(page).ok_or(Stop)?);
        self.landed += 1;
        if let Err(error) = filled {
            self.failed.push((index, error));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// What lands for a gfn.
    fn put(staging: &mut Staging, gfn: u64, content: u8) -> bool {
        staging.begin_batch();
        let admitted = staging.admit(Gfn::new(gfn));
        if admitted {
            let mut fill = |page: &mut Page| {
                page.fill(content);
                Ok(())
            };
            staging.land(0, &mut fill).unwrap();
        }
        admitted
    }

    fn contents(staging: &Staging) -> Vec<(u64, Option<u8>)> {
        staging.pages().map(|(gfn, page)| (gfn.raw(), page.map(|page| page[PAGE_SIZE - 1]))).collect()
    }

    #[test]
    fn a_second_copy_takes_the_place_of_the_first() {
        let mut staging = Staging::try_new(3);
        assert!(put(&mut staging, 5, 1) && put(&mut staging, 9, 2));
        staging.end_first_pass();
        assert!(put(&mut staging, 2, 3) && put(&mut staging, 9, 4));
        assert!(!put(&mut staging, 10, 5), "three pages are all");
        assert!(put(&mut staging, 5, 6), "a known one still has its place");
        assert_eq!(contents(&staging), [(2, Some(3)), (5, Some(6)), (9, Some(4))]);
    }

    #[test]
    fn a_hole_between_the_pages_of_its_batch_leaves_between_them() {
        let mut staging = Staging::try_new(8);
        for pass in 0..2 {
            staging.begin_batch();
            assert!([5, 9, 20 + pass].iter().all(|&gfn| staging.admit(Gfn::new(gfn))));
            assert!([2, 7, 30].iter().all(|&gfn| staging.hole(Gfn::new(gfn))));
            let gfns: Vec<u64> = staging.pages().map(|(gfn, _)| gfn.raw()).collect();
            assert!(gfns.is_sorted_by(|a, b| a < b), "{gfns:?}");
            staging.end_first_pass();
        }
        let holes: Vec<u64> =
            staging.slots.iter().filter(|slot| slot.page == HOLE).map(|slot| slot.gfn.raw()).collect();
        assert_eq!(holes, [2, 7, 30]);
    }

    #[test]
    fn without_memory_there_is_no_room_but_no_error_either() {
        let mut staging = Staging::try_new(0);
        assert!(!put(&mut staging, 1, 1) && !staging.hole(Gfn::new(1)) && staging.is_empty());
    }

    #[test]
    fn chunks_make_one_memory() {
        let pages = 2 * BATCH_MAX as u64 + 3;
        let mut staging = Staging::try_new(pages);
        assert_eq!(staging.capacity(), pages);
        for gfn in 0..pages {
            assert!(put(&mut staging, gfn, (gfn % 251) as u8));
        }
        assert!(contents(&staging).iter().all(|(gfn, content)| *content == Some((gfn % 251) as u8)));
        staging.clear();
        assert!(staging.is_empty() && put(&mut staging, 7, 7));
    }

    proptest! {
        /// Two ascending passes over pages and holes against a map.
        #[test]
        fn behaves_as_a_map(
            first in prop::collection::btree_map(0u64..60, prop::option::of(any::<u8>()), 0..40),
            second in prop::collection::btree_map(0u64..60, prop::option::of(any::<u8>()), 0..40),
        ) {
            let mut staging = Staging::try_new(200);
            let mut model = BTreeMap::new();
            for (number, pass) in [first, second].into_iter().enumerate() {
                if number == 1 {
                    staging.end_first_pass();
                }
                for (gfn, content) in pass {
                    let done = match content {
                        Some(content) => put(&mut staging, gfn, content),
                        None => staging.hole(Gfn::new(gfn)),
                    };
                    prop_assert!(done);
                    model.insert(gfn, content);
                }
            }
            prop_assert_eq!(contents(&staging), model.into_iter().collect::<Vec<_>>());
        }
    }
}
