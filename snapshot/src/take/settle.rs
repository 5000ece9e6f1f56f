//! Waiting, for a bounded time: for a guest that is being ballooned, for its suspend, for the verdict.

use super::engine::{Engine, Target};
use super::look::running;
use super::recorder::Recorder;
use crate::ports::{Clock, Control};
use crate::session::{Observation, Trouble, limits};
use crate::status::State;

impl<T: Target, K: Control + Clock, R: Recorder> Engine<'_, T, K, R> {
    /// Ballooning takes seconds: a pass before its end would be for nothing, and passes are counted.
    pub(super) fn let_it_settle(&mut self) -> Result<(), Trouble> {
        let mut before = running(self.target.info()?)?.tot_pages;
        for _ in 0..limits::SETTLE_LOOKS_MAX {
            self.desk.attend(&self.counters)?;
            self.desk.wait(limits::SETTLE_NS)?;
            let now = running(self.target.info()?)?.tot_pages;
            if core::mem::replace(&mut before, now) == now {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn await_suspend(&mut self) -> Result<Observation, Trouble> {
        if self.desk.state() != State::WantSuspend {
            running(self.target.info()?)?;
            self.target.let_go()?;
            self.asked_ns = Some(self.desk.now_ns());
            self.desk.enter(State::WantSuspend, &self.counters)?;
        }
        self.desk.attend(&self.counters)?;
        let info = self.target.info()?;
        if info.suspended() {
            return Ok(Observation::Suspended);
        }
        running(info)?;
        if self.desk.acked() {
            return Ok(Observation::Acked);
        }
        self.desk.wait(limits::SUSPEND_POLL_NS)?;
        Ok(Observation::Nothing)
    }

    /// From our wish to its suspend.
    pub(super) fn freeze_ns(&self) -> Option<u64> {
        self.asked_ns.and_then(|asked_ns| self.paused_ns.checked_sub(asked_ns))
    }

    /// A round before the keeper has throttled the guest would say nothing about it.
    pub(super) fn let_it_bite(&mut self) -> Result<(), Trouble> {
        self.desk.linger(&self.counters, limits::THROTTLE_SETTLE_NS)?;
        running(self.target.info()?).map(|_| ())
    }

    pub(super) fn await_verdict(&mut self) -> Result<Observation, Trouble> {
        self.desk.attend(&self.counters)?;
        if let Some(mut verdict) = self.desk.verdict() {
            self.disks = core::mem::take(&mut verdict.disks);
            return Ok(Observation::Verdict(verdict));
        }
        self.desk.wait(limits::VERDICT_POLL_NS)?;
        Ok(Observation::Nothing)
    }
}
