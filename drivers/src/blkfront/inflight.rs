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
