//! Waiting, for a bounded time: for a guest that is being ballooned, for its suspend, for its
//! resume, for the verdict.

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

    pub(super) fn release(&mut self, state: State) -> Result<Observation, Trouble> {
        if state != State::Captured {
            self.desk.release()?;
            return Ok(Observation::Done);
        }
        self.released_ns = self.desk.now_ns();
        self.counters.pause_us = self.released_ns.saturating_sub(self.paused_ns) / 1000;
        self.counters.pause_calls = self.target.hypercalls().saturating_sub(self.paused_calls);
        self.desk.release()?;
        self.step_aside();
        Ok(Observation::Done)
    }

    /// The keeper resumes the guest now. Where one processor has to do for all, what we do next would be in its way.
    fn step_aside(&mut self) {
        for _ in 0..limits::ASIDE_LOOKS_MAX {
            let stands = self.target.info().is_ok_and(|info| info.suspended());
            if !stands || self.desk.wait(limits::ASIDE_NS).is_err() {
                break;
            }
        }
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
