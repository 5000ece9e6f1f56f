//! `livesave recover`: the production decisions on what a dead keeper left in its record.

use std::time::Duration;

use snapshot::keeper::{self, Dom0, Left, Mark, Request, StubNow, Target};

use super::breakage::{Slip, slip};
use super::host::{Host, Who};
use super::plan::MS;
use super::tree::{Node, SUSPEND};

/// Between two looks at a guest that may still suspend.
const LOOK_NS: u64 = 10 * MS;

/// The keeper's record on dom0's disk. It is replaced whole and synced, so a death leaves the old one or the new.
#[derive(Clone, Copy)]
pub struct Record {
    pub mark: Mark,
    pub asked_s: Option<u64>,
    /// The guest's cap before it was lowered.
    pub cap: Option<u16>,
}

impl Record {
    pub const FIRST: Self = Self { mark: Mark::Watching, asked_s: None, cap: None };
}

impl Host {
    /// Recovers what can be. True: nothing is left.
    pub fn recover(&mut self) -> bool {
        if self.keeper.as_ref().is_some_and(|keeper| !keeper.over) || self.power_is_out {
            return false;
        }
        self.tally.recoveries += 1;
        let Some(record) = self.record else { return self.mark_is_settled() };
        let left = Left { mark: record.mark, asked_s: record.asked_s, capped: record.cap.is_some() };
        let deeds = keeper::recover(&left, &mut Rescuer(self));
        self.tell(format_args!("recover: {deeds:?}"));
        if !deeds.left.is_empty() {
            self.tally.left = deeds.left;
            return false;
        }
        self.record = None;
        self.mark_is_settled()
    }

    /// The mark that a stub may leave a guest tracked (`cli/src/marks.rs`). True: nothing is left of it.
    fn mark_is_settled(&mut self) -> bool {
        if !self.marked || self.stub.alive && self.stub.armed {
            return true;
        }
        if self.stub.alive && self.stub.busy {
            return false;
        }
        self.marked = false;
        if !self.stub.alive && !self.saver {
            self.guest.borrow_mut().log_dirty = false;
        }
        true
    }

    fn asks_xenstored(&self) -> Result<(), &'static str> {
        if self.tree.answers(self.now_ns()) { Ok(()) } else { Err("xenstored does not answer") }
    }
}

/// Its hands.
struct Rescuer<'a>(&'a mut Host);

impl Dom0 for Rescuer<'_> {
    type Error = &'static str;

    fn target(&mut self) -> Target {
        self.0.target()
    }

    fn take_back(&mut self) -> Result<Request, Self::Error> {
        self.0.asks_xenstored()?;
        if self.0.tree.read(Node::Control) != SUSPEND {
            return Ok(Request::Taken);
        }
        let foreign = self.0.target() == Target::Suspended;
        self.0.write(Node::Control, "");
        self.0.ack_ns = None;
        Ok(if foreign { Request::Foreign } else { Request::Withdrawn })
    }

    fn saver(&mut self) -> Option<String> {
        self.0.saver.then(|| "xl save".to_owned())
    }

    fn resume(&mut self) -> Result<(), Self::Error> {
        let by_us = matches!(self.0.truth.stands, Some((Who::Us, _)));
        if !self.0.resume_by_us() {
            return Err("Xen refuses");
        }
        self.0.tally.rescued += u64::from(by_us);
        Ok(())
    }

    fn tell_xenstore(&mut self) -> Result<(), Self::Error> {
        self.0.asks_xenstored()
    }

    fn unsilence(&mut self) -> Result<(), Self::Error> {
        self.0.silence(false);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Self::Error> {
        self.0.record.iter_mut().for_each(|record| record.mark = Mark::Resumed);
        Ok(())
    }

    fn put_cap_back(&mut self) -> Result<(), Self::Error> {
        let old = self.0.record.and_then(|record| record.cap);
        if let Some(old) = old.filter(|_| !slip(Slip::RecoverCap)) {
            self.0.set_cap(old);
        }
        Ok(())
    }

    fn stub(&mut self) -> Result<StubNow, Self::Error> {
        if !self.0.stub.alive {
            return Ok(StubNow::Nothing);
        }
        self.0.asks_xenstored()?;
        Ok(match () {
            () if self.0.stub.busy => StubNow::AtWork,
            () if self.0.stub.armed => StubNow::Tracks,
            () => StubNow::Nothing,
        })
    }

    fn tracking_off(&mut self) -> Result<bool, Self::Error> {
        Ok(std::mem::replace(&mut self.0.guest.borrow_mut().log_dirty, false))
    }

    fn uptime(&mut self) -> Duration {
        Duration::from_nanos(self.0.now_ns())
    }

    fn rest(&mut self) {
        let until_ns = self.0.now_ns() + LOOK_NS;
        self.0.pass(until_ns, |_| false);
    }
}
