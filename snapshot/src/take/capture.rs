//! The pause: platform state, the last set, and the checks that make it *captured*.
//!
//! Everything in here costs the guest time. Nothing waits for dom0, nothing is allocated, nothing is proportional to
//! the memory (but in mode `save`, whose nature that is), and any doubt ends the take.

use super::engine::{Engine, Look, Target};
use super::recorder::Recorder;
use crate::copy::{PassRun, scan};
use crate::fault::Fault;
use crate::ports::{Clock, Control, DomainInfo, ShutdownCode};
use crate::session::{Capture, Observation, Trouble};
use crate::status::State;
use crate::trace::RoundKind;
use crate::tracking::PeekPlan;

impl<T: Target, K: Control + Clock, R: Recorder> Engine<'_, T, K, R> {
    pub(super) fn capture(&mut self, capture: Capture) -> Result<Observation, Trouble> {
        self.paused_ns = self.desk.now_ns();
        self.paused_calls = self.target.hypercalls();
        self.desk.enter_quietly(State::Capturing, &self.counters)?;
        let kind = if capture == Capture::LastSet { RoundKind::LAST_SET } else { RoundKind::EVERYTHING };
        Self::work(&mut self.work)?.tape.begin(kind, self.paused_ns, &self.counters);
        let pages_before = self.counters.pages + self.counters.zero;
        self.platform_state()?;
        match capture {
            Capture::Everything => self.find_everything()?,
            Capture::LastSet => self.find_last_set()?,
        }
        self.copy_last()?;
        self.counters.pause_pages = self.counters.pages + self.counters.zero - pages_before;
        self.check_untouched(capture)?;
        Ok(Observation::Done)
    }

    fn platform_state(&mut self) -> Result<(), Trouble> {
        let platform = &mut Self::work(&mut self.work)?.platform;
        self.target.platform_records(&mut |kind, body| platform.push(kind, body))?;
        platform.bytes().map(|_| ())
    }

    fn find_last_set(&mut self) -> Result<(), Trouble> {
        self.counters.peeks += 1;
        let asked_ns = self.desk.now_ns();
        let work = Self::work(&mut self.work)?;
        self.counters.dirty = work.tracking.begin_last(self.target)?;
        work.tape.fetched(self.desk.now_ns().saturating_sub(asked_ns));
        work.tape.given(self.counters.dirty);
        Ok(())
    }

    fn find_everything(&mut self) -> Result<(), Trouble> {
        let mut guard = self.guard();
        let desk = &mut self.desk;
        let tracking = &mut Self::work(&mut self.work)?.tracking;
        scan(self.target, tracking, &self.counters, true, &mut |target, counters| {
            desk.attend(counters)?;
            guard.check(target, desk.now_ns())
        })?;
        tracking.moved = false;
        self.counters.memory = tracking.populated.count();
        Self::work(&mut self.work)?.tape.given(self.counters.memory);
        Ok(())
    }

    fn copy_last(&mut self) -> Result<(), Trouble> {
        let mut guard = self.guard();
        let desk = &mut self.desk;
        let mut run = PassRun {
            target: self.target,
            recorder: self.recorder,
            tracking: &mut Self::work(&mut self.work)?.tracking,
            counters: &mut self.counters,
            strict: true,
        };
        run.run(PeekPlan::NEVER, &mut |target, counters| {
            desk.attend(counters)?;
            guard.check(target, desk.now_ns())
        })
    }

    fn guard(&self) -> PauseGuard {
        let budget_ns = self.take.max_pause_ms.map(|ms| u64::from(ms) * 1_000_000);
        let deadline_ns = budget_ns.map_or(u64::MAX, |budget_ns| self.paused_ns.saturating_add(budget_ns));
        PauseGuard { deadline_ns, look: Look::new(self.paused_ns) }
    }

    /// Nobody switched tracking off, nobody resumed the guest, its memory has the size that the rounds were right for.
    fn check_untouched(&mut self, capture: Capture) -> Result<(), Trouble> {
        if !self.target.still_on()? {
            return Err(Trouble::new(Fault::ForeignOff, "somebody switched the dirty tracking off"));
        }
        let info = still_suspended(self.target.info()?)?;
        let resized = info.tot_pages != Self::work(&mut self.work)?.tot_pages;
        if resized && capture == Capture::LastSet {
            return Err(Trouble::new(Fault::Ballooning, "the guest's memory changed size before it suspended"));
        }
        Ok(())
    }
}

/// Watches the pause while it is used.
struct PauseGuard {
    deadline_ns: u64,
    look: Look,
}

impl PauseGuard {
    fn check(&mut self, target: &mut impl Target, now_ns: u64) -> Result<(), Trouble> {
        if now_ns >= self.deadline_ns {
            return Err(Trouble::new(Fault::PauseBudget, "the pause budget ran out before all was captured"));
        }
        if self.look.is_due(now_ns) {
            still_suspended(target.info()?)?;
        }
        Ok(())
    }
}

fn still_suspended(info: DomainInfo) -> Result<DomainInfo, Trouble> {
    match info.shutdown {
        _ if info.dying => Err(Trouble::new(Fault::Gone, "the guest is being destroyed")),
        Some(ShutdownCode::SUSPEND) => Ok(info),
        Some(code) => Err(Trouble::new(Fault::GuestEnded, format_args!("the guest has ended ({code})"))),
        None => Err(Trouble::new(Fault::ForeignResume, "the guest was resumed before all was captured")),
    }
}
