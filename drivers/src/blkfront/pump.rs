//! What moves between slots and ring, and every wait of the device.
//!
//! Each wait ends with a response or at the deadline of the oldest request. The first error that leaves the disk's
//! content unknown is the device's fault from then on; when the backend cannot be believed or does not answer, the
//! device is lost and the ring is not looked at again.

use super::device::{BLOCK_LEN, Blkfront};
use super::error::{IoError, Op, Violation};
use super::inflight::{Outcome, Use};
use super::request::{self, DIRECT_MAX, Head, Response};
use crate::platform::Platform;
use crate::ring::bytes::BadIndex;

impl<P: Platform> Blkfront<P> {
    /// Waits until nothing is under way, or nothing can be expected any more; errors on the way are remembered. Each
    /// turn takes a response or ends the waiting for all of them.
    pub(super) fn drain(&mut self) -> Result<(), IoError> {
        // A device that has failed takes no more requests; what is staged is dropped with it.
        let _ = self.submit_open();
        while self.inflight.flying() > 0 && self.lost.is_none() {
            let _ = self.progress();
        }
        self.usable()
    }

    /// The backend closed or vanished: nothing that is under way will be answered.
    pub(super) fn backend_left(&mut self) {
        self.lose(IoError::Closed);
    }

    /// Whether the device can be used, and no request waits beyond its bound, even if others are answered. An answer
    /// that came in time may lie on the ring for as long as nobody looked: the device can have been idle since.
    pub(super) fn in_time(&mut self) -> Result<(), IoError> {
        if self.is_overdue() {
            self.reap()?;
        }
        if self.is_overdue() {
            return Err(self.lose(IoError::Timeout));
        }
        self.usable()
    }

    fn is_overdue(&self) -> bool {
        let now_ns = self.parts.platform.now_ns();
        self.inflight.oldest_ns().is_some_and(|oldest| now_ns >= oldest.saturating_add(self.parts.timeout_ns))
    }

    pub(super) fn usable(&self) -> Result<(), IoError> {
        self.fault.map_or(Ok(()), Err)
    }

    /// The first error stays.
    pub(super) fn poison(&mut self, error: IoError) -> IoError {
        *self.fault.get_or_insert(error)
    }

    /// No response is waited for or taken any more.
    pub(super) fn lose(&mut self, error: IoError) -> IoError {
        self.lost.get_or_insert(error);
        self.poison(error)
    }

    /// Puts the slot's request on the ring; the backend sees it after the next `kick`.
    pub(super) fn submit(&mut self, index: usize) -> Result<(), IoError> {
        self.usable()?;
        let slot = self.inflight.slot(index);
        let count = slot.pages.len();
        let parts = &mut self.parts;
        let head = Head { op: slot.op, id: self.inflight.id(index), handle: parts.link.handle(), at: slot.at };
        let segments = slot.pages.iter().map(|page| request::segment(parts.data.gref(usize::from(*page))));
        let indirect = count > DIRECT_MAX;
        let bytes = if indirect {
            request::indirect(&head, parts.tables.page(index), parts.tables.gref(index), segments)
        } else {
            request::direct(&head, segments)
        };
        match head.op {
            Op::Read => self.stats.read_bytes += (count * BLOCK_LEN) as u64,
            Op::Write => self.stats.written_bytes += (count * BLOCK_LEN) as u64,
            Op::Flush => {}
        }
        // There are as many slots as ring entries, so there is room; if not, the ring's books are wrong.
        if !parts.ring.push(&bytes) {
            return Err(self.lose(IoError::Broken(Violation::BadId(head.id))));
        }
        let now_ns = self.parts.platform.now_ns();
        self.inflight.launch(index, now_ns, indirect);
        self.stats.requests += 1;
        self.stats.in_flight_max = self.stats.in_flight_max.max(self.inflight.flying());
        Ok(())
    }

    /// Shows the backend what is on the ring, with an event if it asked for one.
    pub(super) fn kick(&mut self) {
        if self.lost.is_none() && self.parts.ring.publish() {
            self.parts.platform.notify(self.parts.port.port());
            self.stats.notifications += 1;
        }
    }

    /// Waits until the slot is answered.
    pub(super) fn answer(&mut self, slot: usize) -> Result<Outcome, IoError> {
        loop {
            match self.inflight.slot(slot).used {
                Use::Answered(outcome) => return Ok(outcome),
                _ => self.progress()?,
            }
        }
    }

    /// Waits until at least one response was taken. Ends at the oldest request's deadline whatever the backend does: a
    /// storm of events without a response is a timeout too.
    pub(super) fn progress(&mut self) -> Result<(), IoError> {
        self.kick();
        while self.reap()? == 0 {
            let port = self.parts.port.port();
            self.parts.platform.take_pending(port);
            if self.parts.ring.arm().map_err(|bad| self.bad_index(bad))? {
                continue;
            }
            let deadline_ns = match self.inflight.oldest_ns() {
                Some(oldest) => oldest.saturating_add(self.parts.timeout_ns),
                // Nobody can answer: the books are wrong, and waiting would never end.
                None => 0,
            };
            if self.parts.platform.now_ns() >= deadline_ns {
                return Err(self.lose(IoError::Timeout));
            }
            self.parts.platform.wait(&[port], deadline_ns);
        }
        self.usable()
    }

    /// Takes all responses that are there; how many. An error of a write is remembered, not returned.
    pub(super) fn reap(&mut self) -> Result<u32, IoError> {
        if let Some(error) = self.lost {
            return Err(error);
        }
        let count = self.parts.ring.ready().map_err(|bad| self.bad_index(bad))?;
        let before_bytes = self.stats.done_bytes;
        for _ in 0..count {
            let response = Response::parse(self.parts.ring.pop());
            self.complete(&response).map_err(|violation| self.lose(IoError::Broken(violation)))?;
        }
        if count > 0 {
            self.pace(self.stats.done_bytes - before_bytes);
        }
        Ok(count)
    }

    /// Answers came, to writes of so many bytes. What comes first after idleness says little of a device's pace: how
    /// long its way is, or what it takes on before it begins to slow down.
    fn pace(&mut self, bytes: u64) {
        let now_ns = self.parts.platform.now_ns();
        if let Some(last_ns) = self.answered_ns {
            self.stats.paced_ns = self.stats.paced_ns.saturating_add(now_ns.saturating_sub(last_ns));
            self.stats.paced_bytes = self.stats.paced_bytes.saturating_add(bytes);
        }
        self.answered_ns = (self.inflight.flying() > 0).then_some(now_ns);
    }

    fn complete(&mut self, response: &Response) -> Result<(), Violation> {
        let (index, outcome) = self.inflight.land(response)?;
        let slot = self.inflight.slot(index);
        if slot.op == Op::Write {
            let (at, bytes) = (slot.at, (slot.pages.len() * BLOCK_LEN) as u64);
            self.inflight.free(index);
            self.stats.done_bytes += bytes;
            self.stats.done_writes += 1;
            if outcome != Outcome::Done {
                self.poison(IoError::Device { op: Op::Write, at });
            }
        }
        Ok(())
    }

    fn bad_index(&mut self, bad: BadIndex) -> IoError {
        self.lose(IoError::Broken(Violation::BadIndex { ours: bad.ours, theirs: bad.theirs }))
    }
}
