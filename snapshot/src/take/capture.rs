//! The pause: platform state, the last set, and the checks that make it *captured*.
//!
//! Everything in here costs the guest time. Nothing waits for dom0, nothing is allocated, nothing is proportional to
//! the memory (but in mode `save`, whose nature that is, and of a PV guest that stays tracked, see `untold`), and any
//! doubt ends the take.

use super::engine::{Engine, Target};
use super::look::{Look, running};
use super::outlook::Renewed;
use super::prepare::Work;
use super::recorder::Recorder;
use super::stage::{StageRun, drain};
use crate::copy::{PassRun, scan};
use crate::fault::Fault;
use crate::ports::{Clock, Control, DomainInfo, ShutdownCode};
use crate::request::Kind;
use crate::session::{Capture, Observation, Trouble};
use crate::status::{Counters, State};
use crate::trace::RoundKind;
use crate::tracking::PeekPlan;

impl<T: Target, K: Control + Clock, R: Recorder> Engine<'_, T, K, R> {
    /// One more CLEAN and copy, to memory, while the guest freezes its processes: the last set shrinks to what it
    /// writes meanwhile, and to what does not fit.
    pub(super) fn chase(&mut self) -> Result<Observation, Trouble> {
        let dirty = self.target.dirty_count()?;
        let work = Self::work(&mut self.work)?;
        let needed = dirty > 0 || work.unsent > 0;
        let open = work.unsent.saturating_add(dirty);
        // What has to be packed is packed in the pause, once: a page that is written again would be in the way.
        let too_many = open > work.outlook.staging_pages && work.outlook.packs();
        if !needed || too_many || work.outlook.staging_pages == 0 || self.target.info()?.suspended() {
            return Ok(Observation::Nothing);
        }
        self.begin_dirty()?;
        let desk = &mut self.desk;
        let Work { tracking, staging, spill, .. } = Self::work(&mut self.work)?;
        let Some(staging) = staging else { return Ok(Observation::Nothing) };
        let (target, recorder, counters) = (&mut *self.target, &mut *self.recorder, &mut self.counters);
        let mut run = StageRun { target, recorder, tracking, staging, spill, counters, packs: false };
        let stands = run.first(&mut |target, counters| {
            desk.attend(counters)?;
            let info = target.info()?;
            if info.suspended() { Ok(true) } else { running(info).map(|_| false) }
        })?;
        if !stands {
            self.target.let_go()?;
        }
        Ok(if stands { Observation::Suspended } else { Observation::Nothing })
    }

    pub(super) fn capture(&mut self, capture: Capture) -> Result<Observation, Trouble> {
        self.paused_ns = self.desk.now_ns();
        self.paused_calls = self.target.hypercalls();
        self.desk.enter_quietly(State::Capturing, &self.counters)?;
        let kind = if capture == Capture::LastSet { RoundKind::LAST_SET } else { RoundKind::EVERYTHING };
        Self::work(&mut self.work)?.tape.begin(kind, self.paused_ns, &self.counters);
        self.platform_state()?;
        match capture {
            Capture::Everything => self.find_everything()?,
            Capture::LastSet => self.find_last_set()?,
        }
        if self.policy.is_staged() {
            self.stage_last()?
        } else {
            self.copy_last()?
        }
        self.check_untouched(capture)?;
        Ok(Observation::Done)
    }

    fn platform_state(&mut self) -> Result<(), Trouble> {
        let platform = &mut Self::work(&mut self.work)?.platform;
        self.target.platform_records(&mut |kind, body| platform.push(kind, body))?;
        platform.bytes().map(|_| ())
    }

    /// The last set to memory; what does not fit to the store.
    fn stage_last(&mut self) -> Result<(), Trouble> {
        let mut guard = self.guard();
        let desk = &mut self.desk;
        let Work { tracking, staging: Some(staging), spill, outlook, .. } = Self::work(&mut self.work)? else {
            return Err(Trouble::new(Fault::NoMemory, "the session has no staging"));
        };
        let (target, recorder, counters) = (&mut *self.target, &mut *self.recorder, &mut self.counters);
        let packs = outlook.packs();
        let mut run = StageRun { target, recorder, tracking, staging, spill, counters, packs };
        run.last(&mut |target, counters| {
            desk.attend(counters)?;
            guard.check(target, desk.now_ns())
        })?;
        (self.counters.staged, self.counters.packed) = (staging.used(), staging.packed());
        Ok(())
    }

    /// The guest runs: what waited in memory goes to the store. The memory is given back.
    pub(super) fn empty_staging(&mut self) -> Result<(), Trouble> {
        let Some(mut staging) = Self::work(&mut self.work)?.staging.take() else { return Ok(()) };
        let desk = &mut self.desk;
        drain(&mut staging, self.recorder, &mut self.counters, &mut |counters| desk.attend(counters))
    }

    fn find_last_set(&mut self) -> Result<(), Trouble> {
        self.counters.peeks += 1;
        let asked_ns = self.desk.now_ns();
        let work = Self::work(&mut self.work)?;
        let stays = self.take.kind == Kind::Incremental;
        self.bits_lost = stays;
        self.counters.dirty = work.tracking.begin_last(self.target, stays)?;
        self.bits_lost = false;
        work.tape.fetched(self.desk.now_ns().saturating_sub(asked_ns));
        let mut guard = self.guard();
        self.find_untold(&mut guard)?;
        let work = Self::work(&mut self.work)?;
        let more = if work.arrangement.is_some() { work.tracking.send.count() } else { self.counters.dirty };
        work.tape.given(more.max(self.counters.dirty));
        let Renewed { to_copy, to_spend, outlook } = self.renew()?;
        if self.policy.is_too_long(to_copy, &outlook) {
            let reason =
                format_args!("{to_copy} pages are left, which would take {} ms", outlook.pause_us(to_copy) / 1000);
            return Err(Trouble::new(Fault::PauseTooLong, reason));
        }
        self.spend(to_spend)
    }

    fn find_everything(&mut self) -> Result<(), Trouble> {
        // As in a full pass: an attempt that ends here leaves nothing that can be built on.
        self.full_passes += 1;
        let mut guard = self.guard();
        let desk = &mut self.desk;
        let tracking = &mut Self::work(&mut self.work)?.tracking;
        scan(self.target, tracking, &self.counters, true, &mut |target, counters| {
            desk.attend(counters)?;
            guard.check(target, desk.now_ns())
        })?;
        tracking.moved = false;
        if self.take.kind == Kind::Incremental {
            // All of it is sent: what was noted since ENABLE is not to be the next snapshot's.
            self.bits_lost = true;
            tracking.begin_last(self.target, true)?;
            self.bits_lost = false;
        }
        self.counters.memory = tracking.populated.count();
        self.find_untold(&mut guard)?;
        Self::work(&mut self.work)?.tape.given(self.counters.memory);
        Ok(())
    }

    fn copy_last(&mut self) -> Result<(), Trouble> {
        let before = self.sent();
        let mut guard = self.guard();
        let desk = &mut self.desk;
        let mut run = PassRun {
            target: self.target,
            recorder: self.recorder,
            tracking: &mut Self::work(&mut self.work)?.tracking,
            counters: &mut self.counters,
            strict: true,
        };
        let mut attend = |target: &mut T, counters: &Counters| {
            desk.attend(counters)?;
            guard.check(target, desk.now_ns())
        };
        run.run(PeekPlan::NEVER, &mut attend, None)?;
        self.counters.pause_pages = self.sent() - before;
        Ok(())
    }

    fn guard(&self) -> PauseGuard {
        let budget_ns = self.take.max_pause_ms.map(|ms| u64::from(ms) * 1_000_000);
        let deadline_ns = budget_ns.map_or(u64::MAX, |budget_ns| self.paused_ns.saturating_add(budget_ns));
        PauseGuard { deadline_ns, look: Look::new(self.paused_ns) }
    }

    /// Nobody switched tracking off, nobody resumed the guest, its memory has the size that the rounds were right for.
    fn check_untouched(&mut self, capture: Capture) -> Result<(), Trouble> {
        let info = still_suspended(self.target.info()?)?;
        if self.tracked && !self.target.still_on_as_seen()? {
            self.bits_lost = true;
            return Err(Trouble::new(Fault::ForeignOff, "somebody switched the dirty tracking off"));
        }
        let resized = info.tot_pages != Self::work(&mut self.work)?.tot_pages;
        if resized && capture == Capture::LastSet {
            return Err(Trouble::new(Fault::Ballooning, "the guest's memory changed size before it suspended"));
        }
        Self::work(&mut self.work)?.tot_pages = info.tot_pages;
        Ok(())
    }
}

/// Watches the pause while it is used.
pub(super) struct PauseGuard {
    deadline_ns: u64,
    look: Look,
}

impl PauseGuard {
    pub(super) fn check(&mut self, target: &mut impl Target, now_ns: u64) -> Result<(), Trouble> {
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
