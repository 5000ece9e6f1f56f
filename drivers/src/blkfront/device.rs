//! The data path: writes that are accepted into a fixed pool of granted pages, reads, flushes.
//!
//! Invariants: nothing that the backend writes is used before it is checked, and a violation ends the use of the ring
//! for good; the first error of a write or flush stays (what is on the disk is unknown from then on); two requests that
//! touch the same block are never at the backend together, unless both read; every wait ends at the deadline of the
//! oldest request. Adjacent writes grow into one request until it is full or something else is asked; a single block
//! elsewhere, as a heartbeat is, goes out beside it.

use super::connect::Link;
use super::error::{IoError, Op};
use super::geometry::Geometry;
use super::inflight::{InFlight, Outcome};
use super::request::SLOT_WORDS;
use crate::grant::{GrantedPages, OwnedPort};
use crate::platform::Platform;
use crate::ring::front::FrontRing;
use crate::ring::shared::{PAGE_SIZE, SharedPage};
use crate::types::EvtchnPort;
use alloc::collections::VecDeque;

/// Bytes of a block, on devices of any sector size.
pub const BLOCK_LEN: usize = PAGE_SIZE;

/// What a connection is made of; `connect` builds it.
pub(super) struct Parts<P: Platform> {
    pub platform: P,
    pub link: Link,
    pub ring: FrontRing<P, SLOT_WORDS>,
    pub port: OwnedPort<P>,
    pub data: GrantedPages<P>,
    /// One page of segments for each slot, or none.
    pub tables: GrantedPages<P>,
    pub geometry: Geometry,
    pub segments: usize,
    pub timeout_ns: u64,
}

/// What the device has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests given to the backend.
    pub requests: u64,
    /// Events sent to the backend.
    pub notifications: u64,
    /// Bytes of write requests.
    pub written_bytes: u64,
    /// Bytes of read requests.
    pub read_bytes: u64,
    /// The most requests that were at the backend together.
    pub in_flight_max: u32,
    /// Bytes of write requests that were answered.
    pub done_bytes: u64,
    /// Those requests.
    pub done_writes: u64,
    /// Nanoseconds from answer to answer, while there was always a request at the backend, as far as we looked in time.
    pub paced_ns: u64,
    /// Bytes of the writes that came with the later answer of each two.
    pub paced_bytes: u64,
}

/// One page of a write on its way to the backend. It can be written, not read back.
pub struct PageWriter<'a> {
    page: &'a SharedPage,
}

impl PageWriter<'_> {
    /// Copies bytes in at `offset`; together they must stay within the block. What is not written holds old data of
    /// ours.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.page.write_bytes(offset, bytes);
    }
}

/// A connected block device.
pub struct Blkfront<P: Platform> {
    pub(super) parts: Parts<P>,
    pub(super) inflight: InFlight,
    /// The write request that still grows.
    pub(super) open: Option<usize>,
    /// The first error that stays.
    pub(super) fault: Option<IoError>,
    /// Set when no response can be expected or believed any more.
    pub(super) lost: Option<IoError>,
    pub(super) stats: Stats,
    /// When it answered last, if it was never idle since.
    pub(super) answered_ns: Option<u64>,
}

impl<P: Platform> Blkfront<P> {
    pub(super) fn new(parts: Parts<P>) -> Self {
        let inflight = InFlight::new(parts.ring.size() as usize, parts.data.len() as u16, parts.segments);
        Self { parts, inflight, open: None, fault: None, lost: None, stats: Stats::default(), answered_ns: None }
    }

    /// What the device is.
    pub fn geometry(&self) -> &Geometry {
        &self.parts.geometry
    }

    /// Blocks of 4096 bytes in a request at most.
    pub fn blocks_per_request(&self) -> usize {
        self.parts.segments
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Blocks that are accepted before the first of them is answered.
    pub fn pool_blocks(&self) -> usize {
        self.parts.data.len()
    }

    /// Takes what was answered, and gives the counters by now. What went wrong is told by the next call that uses the
    /// device.
    pub fn look_again(&mut self) -> Stats {
        // An error stays in `lost` or `fault`.
        let _ = self.reap();
        self.stats
    }

    /// The port to wait on beside others; then [`Self::poll`].
    pub fn port(&self) -> EvtchnPort {
        self.parts.port.port()
    }

    /// Requests at the backend now.
    pub fn in_flight(&self) -> u32 {
        self.inflight.flying()
    }

    /// The error that stays, if there is one.
    pub fn fault(&self) -> Option<IoError> {
        self.fault
    }

    /// Accepts a write of whole blocks: the data is copied, and goes to the disk later. Waits only when all pages of
    /// the pool are under way, or for an earlier request on the same blocks.
    pub fn write(&mut self, at: u64, data: &[u8]) -> Result<(), IoError> {
        let (blocks, tail) = data.as_chunks::<BLOCK_LEN>();
        if !tail.is_empty() {
            return Err(IoError::Misaligned);
        }
        self.write_with(at, blocks.len(), |index, mut page| page.put(0, &blocks[index]))
    }

    /// As [`Self::write`], with the data put straight into the granted pages: `fill(i, page)` for each block in order.
    pub fn write_with(
        &mut self,
        at: u64,
        blocks: usize,
        mut fill: impl FnMut(usize, PageWriter<'_>),
    ) -> Result<(), IoError> {
        self.check(at, blocks as u64)?;
        if self.parts.geometry.read_only {
            return Err(IoError::ReadOnly);
        }
        self.settle(at, blocks as u64)?;
        if blocks == 1 && self.goes_beside(at) {
            self.write_beside(at, |page| fill(0, page))?;
        } else {
            for index in 0..blocks {
                let page = self.stage(at + index as u64)?;
                fill(index, PageWriter { page: self.parts.data.page(usize::from(page)) });
                self.submit_full()?;
            }
        }
        self.kick();
        Ok(())
    }

    /// Reads whole blocks. Sees every write that was accepted before.
    pub fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), IoError> {
        let (blocks, tail) = into.as_chunks_mut::<BLOCK_LEN>();
        if !tail.is_empty() {
            return Err(IoError::Misaligned);
        }
        self.check(at, blocks.len() as u64)?;
        // What is staged goes out first: it may hold the blocks, or the pages, that the read needs.
        self.submit_open()?;
        self.settle(at, blocks.len() as u64)?;
        let (mut issued, mut failure, mut pending) = (0, None, VecDeque::new());
        while issued < blocks.len() || !pending.is_empty() {
            while issued < blocks.len() && failure.is_none() {
                let Some(slot) = self.start_read(at + issued as u64, blocks.len() - issued)? else { break };
                let count = self.inflight.slot(slot).pages.len();
                pending.push_back((slot, issued..issued + count));
                issued += count;
            }
            match pending.pop_front() {
                Some((slot, range)) => failure = failure.or(self.finish_read(slot, &mut blocks[range])?),
                None if failure.is_some() => break,
                // Writes hold all that a read needs.
                None => self.progress()?,
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Waits until everything that was accepted is answered.
    pub fn rest(&mut self) -> Result<(), IoError> {
        self.usable()?;
        self.drain()
    }

    /// Returns when everything accepted is durable: waits for all writes, then has the backend flush its cache. Any
    /// error leaves the durability of everything since the last flush unknown, and stays.
    pub fn flush(&mut self) -> Result<(), IoError> {
        self.usable()?;
        self.drain()?;
        if !self.parts.geometry.flush {
            return Ok(());
        }
        let slot = self.open_slot(Op::Flush, 0)?;
        self.submit(slot)?;
        let outcome = self.answer(slot)?;
        self.inflight.free(slot);
        match outcome {
            Outcome::Done => Ok(()),
            Outcome::Failed => Err(self.poison(IoError::Device { op: Op::Flush, at: 0 })),
            Outcome::Unsupported => Err(self.poison(IoError::Unsupported(Op::Flush))),
        }
    }

    /// Gives the backend whatever is staged, takes what it answered, notices a request that is overdue. Never waits.
    pub fn poll(&mut self) -> Result<(), IoError> {
        self.submit_open()?;
        self.kick();
        self.reap()?;
        self.in_time()
    }

    fn check(&mut self, at: u64, blocks: u64) -> Result<(), IoError> {
        self.in_time()?;
        match at.checked_add(blocks) {
            Some(end) if end <= self.parts.geometry.blocks() => Ok(()),
            _ => Err(IoError::OutOfRange),
        }
    }

    /// Waits until no write on these blocks is under way.
    fn settle(&mut self, at: u64, blocks: u64) -> Result<(), IoError> {
        if let Some(open) = self.open {
            let slot = self.inflight.slot(open);
            let end = slot.at + slot.pages.len() as u64;
            if slot.at < at + blocks && at < end {
                self.submit_open()?;
            }
        }
        while self.inflight.overlapping_write(at, blocks).is_some() {
            self.progress()?;
        }
        Ok(())
    }

    /// A request grows elsewhere, and there is a page without it.
    fn goes_beside(&self, at: u64) -> bool {
        self.open.is_some_and(|open| !self.extends(open, at)) && self.inflight.spare_pages() > 0
    }

    /// A request of one block. The one that grows goes on growing: a block now and then does not cut it in two.
    fn write_beside(&mut self, at: u64, fill: impl FnOnce(PageWriter<'_>)) -> Result<(), IoError> {
        let slot = self.open_slot(Op::Write, at)?;
        if let Some(page) = self.inflight.add_page(slot) {
            fill(PageWriter { page: self.parts.data.page(usize::from(page)) });
        }
        self.submit(slot)
    }

    /// A page for the next block of a write: in the request that grows, or in a new one.
    fn stage(&mut self, at: u64) -> Result<u16, IoError> {
        loop {
            let slot = match self.open {
                Some(open) if self.extends(open, at) => open,
                _ => {
                    self.submit_open()?;
                    let slot = self.open_slot(Op::Write, at)?;
                    self.open = Some(slot);
                    slot
                }
            };
            if let Some(page) = self.inflight.add_page(slot) {
                return Ok(page);
            }
            self.make_room(slot)?;
        }
    }

    /// The pool is empty: something comes back. What is staged stays and grows on, unless it has all the pages: were it
    /// sent for want of them, requests would become as small as what comes back, and never large again.
    fn make_room(&mut self, slot: usize) -> Result<(), IoError> {
        if self.inflight.flying() == 0 {
            if self.inflight.slot(slot).pages.is_empty() {
                self.open = None;
                self.inflight.free(slot);
            }
            self.submit_open()?;
        }
        self.progress()
    }

    /// A request that cannot grow goes out, so that the disk works while the next one is filled.
    fn submit_full(&mut self) -> Result<(), IoError> {
        match self.open {
            Some(open) if self.inflight.slot(open).pages.len() >= self.parts.segments => self.submit_open(),
            _ => Ok(()),
        }
    }

    fn extends(&self, open: usize, at: u64) -> bool {
        let slot = self.inflight.slot(open);
        slot.pages.len() < self.parts.segments && slot.at + slot.pages.len() as u64 == at
    }

    /// A free slot, after waiting if need be.
    fn open_slot(&mut self, op: Op, at: u64) -> Result<usize, IoError> {
        loop {
            match self.inflight.open(op, at) {
                Some(slot) => return Ok(slot),
                None => self.progress()?,
            }
        }
    }

    pub(super) fn submit_open(&mut self) -> Result<(), IoError> {
        match self.open.take() {
            Some(slot) => self.submit(slot),
            None => Ok(()),
        }
    }

    /// Sends a read of up to `left` blocks; `None` if slots or pages are short.
    fn start_read(&mut self, at: u64, left: usize) -> Result<Option<usize>, IoError> {
        let count = left.min(self.parts.segments).min(self.inflight.spare_pages());
        if count == 0 {
            return Ok(None);
        }
        let Some(slot) = self.inflight.open(Op::Read, at) else { return Ok(None) };
        for _ in 0..count {
            self.inflight.add_page(slot);
        }
        self.submit(slot)?;
        Ok(Some(slot))
    }

    /// Waits for a read and copies it out, each byte once. The inner error concerns this read only.
    fn finish_read(&mut self, slot: usize, into: &mut [[u8; BLOCK_LEN]]) -> Result<Option<IoError>, IoError> {
        let outcome = self.answer(slot)?;
        let at = self.inflight.slot(slot).at;
        if outcome == Outcome::Done {
            for (page, block) in self.inflight.slot(slot).pages.iter().zip(into) {
                self.parts.data.page(usize::from(*page)).read_bytes(0, block);
            }
        }
        self.inflight.free(slot);
        Ok((outcome != Outcome::Done).then_some(IoError::Device { op: Op::Read, at }))
    }
}
