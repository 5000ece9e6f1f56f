//! Memory for the last set: pages are copied here while the guest stands, and go to the store when it runs again.
//!
//! Invariants: all memory is taken in `try_new`, nothing grows; a gfn has one slot, and a second copy of its page takes
//! the place of the first; slots lie in two ascending lists, one for each pass, so they leave in ascending order. Pages
//! lie as they are or, in a batch that is begun so, packed.

mod arena;

use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use self::arena::{Arena, Spot};
use crate::ports::{BATCH_MAX, Fill, Landing, PAGE_SIZE, Page, PageError, Stop};
use crate::store::Compression;
use crate::tracking::Bitmap;

/// Slots for each page of memory: more pages than that never fit, however small they are when packed.
pub const SLOTS: usize = 4;

/// What is known of one gfn.
#[derive(Clone, Copy, Debug)]
struct Slot {
    gfn: Gfn,
    spot: Spot,
}

/// Where a page of the batch under way goes.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// There, as it is.
    Raw(Spot),
    /// Where there is room once it is packed.
    Packed(Gfn),
}

/// The memory.
pub struct Staging {
    arena: Arena,
    slots: Vec<Slot>,
    /// Slots of the first pass: those before this one.
    first: usize,
    /// Pages in it, and those of them that came to be packed.
    used: u64,
    packed: u64,
    /// New pages of the batch under way are packed; so many of them were admitted and did not land yet.
    packs: bool,
    pending: u64,
    places: Vec<Place>,
    /// How many of them were asked for.
    landed: usize,
    /// Those that could not be copied, and why.
    failed: Vec<(usize, PageError)>,
}

/// What leaves staging does not unpack: memory of ours was damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spoilt(pub Gfn);

impl Staging {
    /// Bytes for each page, its slots included.
    pub const PAGE_BYTES: usize = PAGE_SIZE + SLOTS * size_of::<Slot>();

    /// Room for `pages`, or for as many of them as there is memory for.
    pub fn try_new(pages: u64, compression: Compression) -> Self {
        let wanted = usize::try_from(pages).unwrap_or(usize::MAX);
        let (mut slots, mut places, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        let lists = slots.try_reserve_exact(wanted.saturating_mul(SLOTS)).is_ok()
            && places.try_reserve_exact(BATCH_MAX).is_ok()
            && failed.try_reserve_exact(BATCH_MAX).is_ok();
        let arena = Arena::try_new(if lists { wanted } else { 0 }, compression);
        Self { arena, slots, first: 0, used: 0, packed: 0, packs: false, pending: 0, places, landed: 0, failed }
    }

    /// Pages that fit as they are.
    pub fn capacity(&self) -> u64 {
        self.arena.capacity()
    }

    /// Pages that still fit as they are.
    pub fn free(&self) -> u64 {
        self.arena.free()
    }

    /// Can pages be packed?
    pub fn can_pack(&self) -> bool {
        self.arena.packs()
    }

    /// Pages in it.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Pages of batches that were to be packed.
    pub fn packed(&self) -> u64 {
        self.packed
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
        self.arena.clear();
        self.begin_batch(false);
        (self.first, self.used, self.packed) = (0, 0, 0);
    }

    /// A batch begins, whose new pages are to be packed or not.
    pub fn begin_batch(&mut self, packs: bool) {
        self.places.clear();
        self.failed.clear();
        (self.packs, self.pending, self.landed) = (packs && self.arena.packs(), 0, 0);
    }

    /// Were all the pages of the batch asked for?
    pub fn is_landed(&self) -> bool {
        self.landed == self.places.len()
    }

    /// Prepares a place for the next page of the batch. False: there is no room.
    pub fn admit(&mut self, gfn: Gfn) -> bool {
        let Some(place) = self.place_for(gfn) else { return false };
        self.places.push(place);
        true
    }

    fn place_for(&mut self, gfn: Gfn) -> Option<Place> {
        let known = self.find(gfn);
        let spot = known.and_then(|at| self.slots.get(at)).map(|slot| slot.spot);
        if let Some(spot) = spot.filter(|spot| *spot != Spot::HOLE) {
            return Some(Place::Raw(spot));
        }
        // Each page that did not land yet may turn out to take a whole page.
        if self.arena.free() <= self.pending {
            return None;
        }
        if self.packs && known.is_none() {
            self.set(known, Slot { gfn, spot: Spot::PENDING })?;
            self.pending += 1;
            return Some(Place::Packed(gfn));
        }
        // The room for its slot first: what the arena gives is not given back.
        let at = self.set(known, Slot { gfn, spot: Spot::PENDING })?;
        let spot = self.arena.take()?;
        *self.slots.get_mut(at)? = Slot { gfn, spot };
        self.used += 1;
        Some(Place::Raw(spot))
    }

    /// Notes that the gfn is no memory; among the pages of its batch, which were admitted before it, it has its place
    /// by its number. False: there is no room for the note.
    pub fn hole(&mut self, gfn: Gfn) -> bool {
        let slot = Slot { gfn, spot: Spot::HOLE };
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

    /// Never allocates: beyond the room that was had there is none. Returns where the slot is.
    fn set(&mut self, known: Option<usize>, slot: Slot) -> Option<usize> {
        if let Some(at) = known {
            *self.slots.get_mut(at)? = slot;
            return Some(at);
        }
        if self.slots.len() == self.slots.capacity() {
            return None;
        }
        self.slots.push(slot);
        Some(self.slots.len() - 1)
    }

    /// Gfns of `set` that are in it already.
    pub fn overlap(&self, set: &Bitmap) -> u64 {
        self.slots.iter().filter(|slot| set.contains(slot.gfn)).count() as u64
    }

    /// The pages of the batch that could not be copied, by their indexes. Their places hold nothing of use.
    pub fn failures(&self) -> &[(usize, PageError)] {
        &self.failed
    }

    /// Pages that are not all zeros.
    pub fn with_content(&self) -> u64 {
        let spots = self.slots.iter().map(|slot| slot.spot);
        spots.filter(|spot| self.arena.is_zero(*spot) == Some(false)).count() as u64
    }

    /// Packs up to `most` of its pages that have content, spread over all, to see what that gives. How many, and the
    /// bytes that they take.
    pub fn sample(&mut self, most: usize) -> (u64, u64) {
        let (mut count, mut bytes) = (0, 0);
        for at in (0..self.slots.len()).step_by((self.slots.len() / most.max(1)).max(1)) {
            let spot = self.slots.get(at).map(|slot| slot.spot).filter(|spot| self.arena.is_zero(*spot) == Some(false));
            let Some(packed) = spot.and_then(|spot| self.arena.try_pack(spot)) else { continue };
            count += 1;
            bytes += packed as u64;
        }
        (count, bytes)
    }

    /// Everything in ascending order; no page for what is no memory.
    pub fn each<E: From<Spoilt>>(
        &mut self,
        mut what: impl FnMut(Gfn, Option<&Page>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut first, mut second) = (0, self.first);
        loop {
            let a = self.slots.get(first).filter(|_| first < self.first);
            let b = self.slots.get(second);
            let slot = match (a, b) {
                (Some(a), Some(b)) if a.gfn < b.gfn => *a,
                (Some(a), None) => *a,
                (_, Some(b)) => *b,
                (None, None) => return Ok(()),
            };
            *(if a.is_some_and(|a| a.gfn == slot.gfn) { &mut first } else { &mut second }) += 1;
            if slot.spot == Spot::HOLE {
                what(slot.gfn, None)?;
            } else {
                what(slot.gfn, Some(self.arena.page(slot.spot).ok_or(Spoilt(slot.gfn))?))?;
            }
        }
    }

    /// The page that was to be packed has come.
    fn pack(&mut self, gfn: Gfn, fill: &mut Fill<'_>) -> Result<Result<(), PageError>, Stop> {
        let filled = fill(self.arena.scratch());
        self.pending = self.pending.saturating_sub(1);
        if filled.is_err() {
            return Ok(filled);
        }
        let spot = self.arena.pack().ok_or(Stop)?;
        let pass = self.slots.get_mut(self.first..).unwrap_or_default();
        let at = pass.binary_search_by_key(&gfn, |slot| slot.gfn).map_err(|_| Stop)?;
        pass.get_mut(at).ok_or(Stop)?.spot = spot;
        self.used += 1;
        self.packed += 1;
        Ok(Ok(()))
    }
}

impl Landing for Staging {
    fn land(&mut self, index: usize, fill: &mut Fill<'_>) -> Result<(), Stop> {
        let place = *self.places.get(index).filter(|_| index == self.landed).ok_or(Stop)?;
        let filled = match place {
            Place::Raw(spot) => fill(self.arena.page_mut(spot).ok_or(Stop)?),
            Place::Packed(gfn) => self.pack(gfn, fill)?,
        };
        self.landed += 1;
        if let Err(error) = filled {
            self.failed.push((index, error));
        }
        Ok(())
    }
}

impl core::fmt::Debug for Staging {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "staging of {} pages, {} gfns in it", self.capacity(), self.len())
    }
}

#[cfg(test)]
mod tests;
