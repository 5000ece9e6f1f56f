//! Segments that a commit freed: they wait until no reader may look at them any more.
//!
//! Invariants: what a snapshot reached is free for use only after the commit that let it go, and only when no living
//! lease is of an older generation, looked up after that commit. What was never visible is free at once.

use alloc::vec::Vec;

use crate::ports::BlockDevice;
use crate::store::error::{Result, StoreError};
use crate::store::geometry::{Address, SegmentId};
use crate::store::lease::LeaseBook;
use crate::store::sabotage::{Safeguard, out};
use crate::store::store::Store;
use crate::store::superblock::Generation;

/// A segment that waits.
pub struct Held {
    id: SegmentId,
    address: Address,
    freed: Generation,
}

/// What waits for readers.
#[derive(Default)]
pub struct Waiting {
    held: Vec<Held>,
    /// The store was opened at this generation while a reader of an older one was there: everything free waits.
    opened: Option<Generation>,
    book: LeaseBook,
}

impl<D: BlockDevice> Store<D> {
    /// Tells the time, for leases: nanoseconds that only go forward.
    pub fn set_now(&mut self, now_ns: u64) {
        if self.now_ns == 0 {
            self.waiting.book.start(now_ns);
        }
        self.now_ns = now_ns;
    }

    /// Segments that wait for readers.
    pub fn waiting_segments(&self) -> u32 {
        crate::store::layout::length32(self.waiting.held.len())
    }

    /// Looks at the leases after the store was opened.
    pub(super) fn first_look(&mut self) -> Result<()> {
        let generation = self.volume.superblock.generation;
        self.waiting.book.look(&mut self.device, self.volume.superblock.id, self.now_ns)?;
        let held = self.waiting.book.holds(generation, self.now_ns) && !out(Safeguard::ReadersAtOpen);
        self.waiting.opened = held.then_some(generation);
        Ok(())
    }

    /// Segments that the last commit let go of; they are out of the table already.
    pub(super) fn let_go(&mut self, freed: Vec<(SegmentId, Address)>) {
        let Generation(now) = self.volume.superblock.generation;
        let generation = Generation(now - u64::from(out(Safeguard::LetGoAfter)));
        if let Some(sweep) = &mut self.sweep {
            freed.iter().for_each(|(id, _)| sweep.sparse.clear(id.0));
        }
        let held = freed.into_iter().map(|(id, address)| Held { id, address, freed: generation });
        self.waiting.held.extend(held);
        // A look that fails leaves them waiting; the next one may succeed.
        let _ = self.reclaim();
    }

    /// Keeps what waits out of a free map that was made afresh.
    pub(super) fn keep_waiting(&mut self) {
        for held in self.waiting.held.iter().filter(|_| !out(Safeguard::KeepWaiting)) {
            self.allocator.occupy(held.id, held.address);
        }
    }

    /// Frees what no reader holds any more. Returns the segments that became free.
    pub fn reclaim(&mut self) -> Result<u32> {
        if self.waiting.held.is_empty() && self.waiting.opened.is_none() {
            return Ok(0);
        }
        let (now_ns, id) = (self.now_ns, self.volume.superblock.id);
        let Waiting { held, opened, book } = &mut self.waiting;
        book.look(&mut self.device, id, now_ns)?;
        *opened = opened.filter(|generation| book.holds(*generation, now_ns));
        let before = held.len();
        let allocator = &mut self.allocator;
        held.retain(|one| {
            let waits = book.holds(one.freed, now_ns) && !out(Safeguard::Leases);
            if !waits {
                allocator.release(one.id, one.address);
            }
            waits
        });
        let freed = before - held.len();
        // A removal may let go of thousands: the list must not keep its room for good.
        held.shrink_to_fit();
        Ok(crate::store::layout::length32(freed))
    }

    /// Nothing may be allocated while a reader is there that was there before this writer.
    pub(super) fn readers_allow(&mut self) -> Result<()> {
        self.reclaim()?;
        if self.waiting.opened.is_some() { Err(StoreError::HeldByReaders) } else { Ok(()) }
    }
}
