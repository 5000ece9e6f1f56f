//! What is outstanding at the backend: one slot for each ring entry, and the pages that each slot uses.
//!
//! An id names a slot and a generation of it, so a stale or repeated response matches nothing. A page index is either
//! in the pool or in exactly one slot. Nothing here talks to the backend.

use super::error::Op;
use super::request::Response;
use crate::blkfront::Violation;
use alloc::vec::Vec;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Failed,
    Unsupported,
}

/// What a slot is used for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Free,
    /// Being filled; the backend has not seen it.
    Open,
    /// At the backend.
    InFlight,
    /// Answered; whoever asked has not looked yet.
    Answered(Outcome),
}

/// One slot.
#[derive(Debug)]
pub struct Slot {
    pub used: Use,
    pub op: Op,
    /// First block.
    pub at: u64,
    /// Pool pages, one per block.
    pub pages: Vec<u16>,
    pub indirect: bool,
    /// When it went to the backend.
    pub issued_ns: u64,
    generation: u32,
}

impl Slot {
    fn overlaps(&self, at: u64, blocks: u64) -> bool {
        self.op == Op::Write && self.at < at.saturating_add(blocks) && at < self.at + self.pages.len() as u64
    }
}

/// All slots, and the pool.
#[derive(Debug)]
pub struct InFlight {
    slots: Vec<Slot>,
    pool: Vec<u16>,
    flying: u32,
}

impl InFlight {
    /// `slots` free slots, and a pool of the pages `0..pages`; a slot holds at most `segments`.
    pub fn new(slots: usize, pages: u16, segments: usize) -> Self {
        let slot = || Slot {
            used: Use::Free,
            op: Op::Flush,
            at: 0,
            pages: Vec::with_capacity(segments),
            indirect: false,
            issued_ns: 0,
            generation: 0,
        };
        Self { slots: core::iter::repeat_with(slot).take(slots).collect(), pool: (0..pages).rev().collect(), flying: 0 }
    }

    /// A slot by index.
    pub fn slot(&self, index: usize) -> &Slot {
        &self.slots[index]
    }

    /// Requests at the backend.
    pub fn flying(&self) -> u32 {
        self.flying
    }

    /// Pages that no slot uses.
    pub fn spare_pages(&self) -> usize {
        self.pool.len()
    }

    /// Takes a free slot for an operation.
    pub fn open(&mut self, op: Op, at: u64) -> Option<usize> {
        let index = self.slots.iter().position(|slot| slot.used == Use::Free)?;
        let slot = &mut self.slots[index];
        (slot.used, slot.op, slot.at, slot.indirect) = (Use::Open, op, at, false);
        slot.generation = slot.generation.wrapping_add(1);
        Some(index)
    }

    /// Moves a page from the pool to the slot.
    pub fn add_page(&mut self, index: usize) -> Option<u16> {
        let page = self.pool.pop()?;
        self.slots[index].pages.push(page);
        Some(page)
    }

    /// The slot's name at the backend.
    pub fn id(&self, index: usize) -> u64 {
        u64::from(self.slots[index].generation) << 32 | index as u64
    }

    /// The slot goes to the backend.
    pub fn launch(&mut self, index: usize, now_ns: u64, indirect: bool) {
        let slot = &mut self.slots[index];
        (slot.used, slot.issued_ns, slot.indirect) = (Use::InFlight, now_ns, indirect);
        self.flying += 1;
    }

    /// Matches a response with its request.
    pub fn land(&mut self, response: &Response) -> Result<(usize, Outcome), Violation> {
        let index = (response.id & 0xffff_ffff) as usize;
        let known = index < self.slots.len() && self.id(index) == response.id;
        if !known || self.slots[index].used != Use::InFlight {
            return Err(Violation::BadId(response.id));
        }
        let slot = &mut self.slots[index];
        if !response.fits(slot.op, slot.indirect) {
            return Err(Violation::BadOperation(response.operation));
        }
        let outcome = match response.status {
            0 => Outcome::Done,
            -1 => Outcome::Failed,
            -2 => Outcome::Unsupported,
            other => return Err(Violation::BadStatus(other)),
        };
        slot.used = Use::Answered(outcome);
        self.flying -= 1;
        Ok((index, outcome))
    }

    /// The slot and its pages are free again.
    pub fn free(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.used = Use::Free;
        self.pool.append(&mut slot.pages);
    }

    /// A write in flight that touches these blocks.
    pub fn overlapping_write(&self, at: u64, blocks: u64) -> Option<usize> {
        self.slots.iter().position(|slot| slot.used == Use::InFlight && slot.overlaps(at, blocks))
    }

    /// When the request that waits longest went out.
    pub fn oldest_ns(&self) -> Option<u64> {
        self.slots.iter().filter(|slot| slot.used == Use::InFlight).map(|slot| slot.issued_ns).min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::code;
    use super::*;

    fn answer(id: u64) -> Response {
        Response { id, operation: code(Op::Write), status: 0 }
    }

    /// Slots whose next generations are around the wrap of the 32 bits, with any number of slots taken: an id is
    /// believed once, while its request is at the backend, and never again within all generations that are tried.
    #[test]
    fn every_id_is_good_once_around_the_wrap() {
        for (slots, before) in (1..=4).flat_map(|slots| (0..=5).map(move |before| (slots, before))) {
            let mut inflight = InFlight::new(slots, 8, 1);
            inflight.slots.iter_mut().for_each(|slot| slot.generation = u32::MAX - before);
            let mut old = Vec::new();
            for round in 0..12 {
                let opened: Vec<usize> = core::iter::from_fn(|| inflight.open(Op::Write, round)).collect();
                assert_eq!(opened.len(), slots);
                let ids: Vec<u64> = opened.iter().map(|index| inflight.id(*index)).collect();
                assert!(ids.iter().all(|id| !old.contains(id)), "an id came again");
                refused(&mut inflight, &old, &ids);
                opened.iter().for_each(|index| inflight.launch(*index, 0, false));
                refused(&mut inflight, &old, &[]);
                for (index, id) in opened.iter().zip(&ids) {
                    assert_eq!(inflight.land(&answer(*id)), Ok((*index, Outcome::Done)));
                    refused(&mut inflight, &[], &[*id]);
                }
                assert_eq!(inflight.flying(), 0);
                opened.iter().for_each(|index| inflight.free(*index));
                refused(&mut inflight, &old, &ids);
                old.extend(ids);
            }
        }
    }

    /// None of these ids is believed, nor any that differs from one of them in a single bit and was never given.
    fn refused(inflight: &mut InFlight, old: &[u64], now: &[u64]) {
        for id in old.iter().chain(now) {
            assert_eq!(inflight.land(&answer(*id)), Err(Violation::BadId(*id)));
        }
        let flying: Vec<u64> = (0..inflight.slots.len())
            .filter(|index| inflight.slot(*index).used == Use::InFlight)
            .map(|index| inflight.id(index))
            .collect();
        for id in old.iter().chain(now).flat_map(|id| (0..64).map(move |bit| id ^ 1 << bit)) {
            assert!(flying.contains(&id) || inflight.land(&answer(id)) == Err(Violation::BadId(id)));
        }
    }

    /// Every index of pages: in the pool or in one slot, whatever is opened and freed in whatever order.
    #[test]
    fn a_page_is_in_the_pool_or_in_one_slot() {
        for code in 0..4u32.pow(7) {
            let mut inflight = InFlight::new(2, 3, 2);
            for step in (0..7).map(|step| code / 4u32.pow(step) % 4) {
                match step {
                    0 => _ = inflight.open(Op::Write, 0),
                    1 | 2 if inflight.slot(step as usize - 1).used == Use::Open => {
                        _ = inflight.add_page(step as usize - 1);
                    }
                    3 if inflight.slot(0).used == Use::Open => inflight.free(0),
                    _ => {}
                }
                let held = inflight.slots.iter().flat_map(|slot| &slot.pages);
                let mut pages: Vec<u16> = held.chain(&inflight.pool).copied().collect();
                pages.sort_unstable();
                assert_eq!(pages, [0, 1, 2]);
                assert!(inflight.slots.iter().all(|slot| slot.used != Use::Free || slot.pages.is_empty()));
            }
        }
    }
}
