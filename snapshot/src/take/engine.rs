//! The engine: one loop that asks the machine what to do, does it on the ports, and reports what it saw.
//!
//! It decides nothing about the order of things; what it owns is that a port's answer is judged at once: is the guest
//! still there, is it still ours, has its memory changed size.

use alloc::string::ToString;

use super::armed::{After, Before};
use super::desk::{Desk, Hold, Lines};
use super::habits::likely_ns;
use super::look::{Look, running};
use super::outlook::growth;
use super::prepare::{Work, prepare};
use super::recorder::{Attachment, Ground, Recorder};
use crate::copy::{PassRun, scan};
use crate::fault::Fault;
use crate::policy::{Policy, RoundStats};
use crate::ports::{Clock, Control, DirtyLog, DomainControl, GuestMemory};
use crate::request::{Kind, Take};
use crate::session::{Action, Machine, Observation, Pass, Trouble};
use crate::status::{Counters, State, Status};
use crate::trace::RoundKind;
use crate::tracking::PeekPlan;
use crate::verdict::Disks;

/// Everything that the engine does to a guest.
pub trait Target: DomainControl + DirtyLog + GuestMemory {}

impl<T: DomainControl + DirtyLog + GuestMemory> Target for T {}

/// What the stub was started with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Most bytes of heap that a take may use for its sets and records.
    pub memory_bytes: usize,
    /// Test aid.
    pub hold: Option<Hold>,
}

/// One take, from the accepted request to the final status.
pub struct Engine<'a, T, K, R> {
    pub(super) target: &'a mut T,
    pub(super) desk: Desk<'a, K>,
    pub(super) recorder: &'a mut R,
    pub(super) take: &'a Take,
    config: &'a [u8],
    options: Options,
    pub(super) counters: Counters,
    pub(super) work: Option<Work>,
    pub(super) policy: Policy,
    pub(super) full_passes: u32,
    /// When the suspend was seen.
    pub(super) paused_ns: u64,
    /// When it was asked for, if it was.
    pub(super) asked_ns: Option<u64>,
    /// Hypercalls until then.
    pub(super) paused_calls: u64,
    /// When the guest was let go.
    pub(super) released_ns: u64,
    /// Xen tracks the guest for us.
    pub(super) tracked: bool,
    /// What was known of the guest's tracking when the take began.
    pub(super) before: Before,
    /// A bitmap was fetched and cleared, and did not arrive.
    pub(super) bits_lost: bool,
    /// What the verdict said of the guest's disks.
    pub(super) disks: Disks,
}

impl<'a, T: Target, K: Control + Clock, R: Recorder> Engine<'a, T, K, R> {
    /// An engine for `take`, whose release port is bound already. `config` is the guest's configuration JSON.
    pub fn new(
        target: &'a mut T,
        control: &'a mut K,
        recorder: &'a mut R,
        take: &'a Take,
        config: &'a [u8],
        options: Options,
    ) -> Self {
        let policy = Policy::from(take);
        let counters = Counters { rounds: u64::from(policy.rounds()), ..Counters::default() };
        let desk = Desk::new(control, take.token, options.hold);
        Self {
            target,
            desk,
            recorder,
            take,
            config,
            options,
            counters,
            work: None,
            policy,
            full_passes: 0,
            paused_ns: 0,
            asked_ns: None,
            paused_calls: 0,
            released_ns: 0,
            tracked: false,
            before: Before::default(),
            bits_lost: false,
            disks: Disks::default(),
        }
    }

    /// Runs the session to its end and returns the final status, which has been published.
    pub fn run(self) -> Status {
        self.run_after(Before::default()).0
    }

    /// As [`Self::run`], of a guest that is tracked since an earlier snapshot, or will be since this one.
    pub fn run_after(mut self, before: Before) -> (Status, After) {
        let stays = self.take.kind == Kind::Incremental;
        self.tracked = before.armed.is_some();
        let mut machine = if stays { Machine::staying(self.policy, self.tracked) } else { Machine::new(self.policy) };
        self.before = before;
        let mut seen = Observation::Begin;
        loop {
            let now_ns = self.desk.now_ns();
            machine.carry(self.carries());
            let action = machine.step(now_ns, seen);
            if action == Action::Finish {
                let status = self.desk.finish(&machine, &self.counters);
                return (status, After { armed: self.armed_after(&machine), freeze_ns: self.freeze_ns() });
            }
            self.counters.round = u64::from(machine.round());
            let throttle = u64::from(machine.throttle());
            let throttled = core::mem::replace(&mut self.counters.throttle, throttle) != throttle;
            let lingered = if throttled { self.let_it_bite() } else { Ok(()) };
            let done = lingered.and_then(|()| self.execute(action, machine.state()));
            seen = done.unwrap_or_else(Observation::Trouble);
        }
    }

    fn execute(&mut self, action: Action, state: State) -> Result<Observation, Trouble> {
        match action {
            Action::Prepare => self.prepare(),
            Action::Enable => self.enable(),
            Action::Round(pass) => self.round(pass),
            Action::Recheck => self.recheck(),
            Action::AwaitSuspend => self.await_suspend(),
            Action::Chase => self.chase(),
            Action::Capture(capture) => self.capture(capture),
            Action::Release => self.release(state),
            Action::TrackingOff => self.tracking_off(),
            Action::Arm => self.arm(),
            Action::Flush => self.flush(),
            Action::AwaitVerdict => self.await_verdict(),
            Action::Seal => self.seal(),
            Action::Discard => done(self.recorder.abort()),
            Action::Finish => Ok(Observation::Done),
        }
    }

    fn prepare(&mut self) -> Result<Observation, Trouble> {
        self.desk.enter(State::Preparing, &self.counters)?;
        let Self { target, recorder, take, before, .. } = self;
        let work = prepare(*target, *recorder, take, self.config, &self.options, before)?;
        let on_top = work.on_top;
        let Ground { base, why_full } = work.ground.clone();
        self.desk.about = Lines { base, why_full };
        self.work = Some(work);
        self.desk.attend(&self.counters)?;
        if on_top {
            self.counters.memory = Self::work(&mut self.work)?.tracking.populated.count();
        } else if self.policy.is_live() {
            self.search_everything()?;
        }
        self.price_the_pause()?;
        Ok(if on_top { Observation::OnTop } else { Observation::Done })
    }

    pub(super) fn work(work: &mut Option<Work>) -> Result<&mut Work, Trouble> {
        work.as_mut().ok_or_else(|| Trouble::new(Fault::NoMemory, "the session has no memory"))
    }

    fn round(&mut self, pass: Pass) -> Result<Observation, Trouble> {
        if self.counters.round <= 1 {
            self.desk.enter(State::Copying, &self.counters)?;
        }
        self.begin_trace(if pass == Pass::Full { RoundKind::FULL } else { RoundKind::DIRTY })?;
        match pass {
            Pass::Full => self.begin_full()?,
            Pass::Dirty => self.begin_dirty()?,
        }
        let work = Self::work(&mut self.work)?;
        let given = work.tracking.send.count();
        work.tape.given(given);
        self.spend(given)?;
        let plan = self.peek_plan(given)?;
        let (start, start_ns, before) = (self.start()?, self.desk.now_ns(), self.sent());
        self.copy_round(plan)?;
        self.counters.shared = self.recorder.shared();
        let sent = self.sent() - before;
        self.price_the_store(start)?;
        let took_ns = self.desk.now_ns().saturating_sub(start_ns);
        let ran_ns = self.target.info()?.cpu_time_ns.saturating_sub(start.guest_ns());
        self.end_round(given, sent, if ran_ns == 0 { took_ns } else { ran_ns.min(took_ns) })
    }

    /// Pages sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.counters.pages + self.counters.zero
    }

    /// Pages that the space set aside still has room for.
    fn space_left(&mut self) -> Result<u64, Trouble> {
        let pages = self.counters.pages;
        Ok(Self::work(&mut self.work)?.room_pages.saturating_sub(pages))
    }

    /// Never more is written than was set aside.
    pub(super) fn spend(&mut self, pages: u64) -> Result<(), Trouble> {
        let left = self.space_left()?;
        let left = if pages <= left { left } else { self.more_room(left)? };
        if pages <= left {
            return Ok(());
        }
        let reason = format_args!("{pages} pages are to be sent, {left} fit the space that was set aside");
        // The store had room for the guest as it was; it is the guest that must come to rest.
        let fault = if self.full_passes > 1 { Fault::Ballooning } else { Fault::NoSpace };
        Err(Trouble::new(fault, reason))
    }

    fn begin_trace(&mut self, kind: RoundKind) -> Result<(), Trouble> {
        let now_ns = self.desk.now_ns();
        Self::work(&mut self.work)?.tape.begin(kind, now_ns, &self.counters);
        Ok(())
    }

    /// The size is noted, then what is populated is searched, then all of it is write-protected, by ENABLE or CLEAN. So
    /// whatever comes or goes from here on shows in the size, in the bitmap, or in the next search.
    fn begin_full(&mut self) -> Result<(), Trouble> {
        let again = self.full_passes > 0 || self.on_top();
        // Before the search: an attempt that ends in it leaves nothing that can be built on.
        self.full_passes += 1;
        if again {
            self.let_it_settle()?;
            Self::work(&mut self.work)?.tot_pages = running(self.target.info()?)?.tot_pages;
            self.search_everything()?;
            self.begin_dirty()?;
        }
        Ok(())
    }

    fn search_everything(&mut self) -> Result<(), Trouble> {
        self.search(true)?;
        let tracking = &mut Self::work(&mut self.work)?.tracking;
        tracking.moved = false;
        self.counters.memory = tracking.populated.count();
        Ok(())
    }

    pub(super) fn begin_dirty(&mut self) -> Result<(), Trouble> {
        self.counters.cleans += 1;
        self.bits_lost = true;
        let asked_ns = self.desk.now_ns();
        let work = Self::work(&mut self.work)?;
        self.counters.dirty = work.tracking.begin_dirty(self.target)?;
        self.bits_lost = false;
        work.tape.fetched(self.desk.now_ns().saturating_sub(asked_ns));
        Ok(())
    }

    /// Looks for populated gfns, all or those not known yet. Returns how many are new.
    fn search(&mut self, everything: bool) -> Result<u64, Trouble> {
        let mut look = Look::new(self.desk.now_ns());
        let desk = &mut self.desk;
        let tracking = &mut Self::work(&mut self.work)?.tracking;
        scan(self.target, tracking, &self.counters, everything, &mut |target, counters| {
            desk.attend(counters)?;
            look.at_running(target, desk.now_ns())
        })
    }

    fn peek_plan(&mut self, given: u64) -> Result<PeekPlan, Trouble> {
        let bitmap_bytes = Self::work(&mut self.work)?.tracking.skip.bytes();
        let round = self.counters.round_number();
        let plan = if self.policy.skips(round) { PeekPlan::for_pass(given, bitmap_bytes) } else { PeekPlan::NEVER };
        Ok(plan.putting_off(self.policy.puts_off(round)))
    }

    fn copy_round(&mut self, plan: PeekPlan) -> Result<(), Trouble> {
        let mut look = Look::new(self.desk.now_ns());
        let desk = &mut self.desk;
        let (policy, round) = (self.policy, self.counters.round_number());
        let work = Self::work(&mut self.work)?;
        let outlook = work.outlook;
        let mut halt = |target: &mut T, unsent: u64| {
            let dirty = target.dirty_count()?;
            Ok(policy.ends_round(round, unsent.saturating_add(dirty), &outlook))
        };
        let mut run = PassRun {
            target: self.target,
            recorder: self.recorder,
            tracking: &mut work.tracking,
            counters: &mut self.counters,
            strict: false,
        };
        let mut attend = |target: &mut T, counters: &Counters| {
            desk.attend(counters)?;
            look.at_running(target, desk.now_ns())
        };
        run.run(plan, &mut attend, if policy.is_staged() && round > 1 { Some(&mut halt) } else { None })
    }

    /// `ran_ns`: of the round, for which the guest ran. It has the processor alone when we wait for its suspend.
    fn end_round(&mut self, given: u64, sent_round: u64, ran_ns: u64) -> Result<Observation, Trouble> {
        let info = running(self.target.info()?)?;
        self.counters.dirty = if self.policy.is_staged() { self.rehearse()? } else { self.target.dirty_count()? };
        let ended_ns = self.desk.now_ns();
        let space_left = self.space_left()?;
        let dirty = self.counters.dirty;
        let work = Self::work(&mut self.work)?;
        work.dirty_max = work.dirty_max.max(dirty);
        let stats = RoundStats {
            round: self.counters.round_number(),
            memory: self.counters.memory,
            dirty_previous: given,
            dirty_current: self.counters.dirty,
            sent_round,
            sent_total: self.counters.pages + self.counters.zero,
            unsent: work.unsent,
            growth: growth(dirty, ran_ns, likely_ns(self.before.freeze_ns)).min(work.dirty_max - dirty),
            dirty_max: work.dirty_max,
            space_left,
            outlook: work.outlook,
        };
        work.tape.told(&stats);
        work.tape.end(ended_ns, &self.counters);
        if self.policy.is_staged() {
            self.counters.predicted_us = self.policy.predicted_us(&stats);
        }
        Ok(Observation::Round(stats, info.tot_pages != Self::work(&mut self.work)?.tot_pages))
    }

    /// Xen 4.17 does not mark what is added to a p2m: ask again for every gfn that was no memory. A page that is new
    /// while the size is the same means that another has left.
    fn recheck(&mut self) -> Result<Observation, Trouble> {
        let max_gfn = self.target.max_gfn()?;
        let tracking = &mut Self::work(&mut self.work)?.tracking;
        if max_gfn.raw() >= tracking.populated.len() {
            return Err(Trouble::new(Fault::Ballooning, "the guest's address space grew during the take"));
        }
        tracking.end = tracking.end.max(max_gfn.raw() + 1);
        let moved = self.search(false)? > 0 || self.rearranged()?;
        let info = running(self.target.info()?)?;
        let work = Self::work(&mut self.work)?;
        let moved = moved || work.tracking.moved || info.tot_pages != work.tot_pages;
        Ok(Observation::Rechecked(moved))
    }

    /// The keeper leaves once it has read *captured*, so that is said only now that tracking is off: a stub that dies
    /// before is still watched, one that dies later leaves nothing on.
    fn flush(&mut self) -> Result<Observation, Trouble> {
        self.desk.enter(State::Captured, &self.counters)?;
        self.desk.enter(State::Flushing, &self.counters)?;
        self.empty_staging()?;
        // What was staged is counted only now, and belongs to the round that ended with the release.
        Self::work(&mut self.work)?.tape.end(self.released_ns, &self.counters);
        let platform = Self::work(&mut self.work)?.platform.bytes()?;
        self.recorder.attach(Attachment::PlatformRecords, platform)?;
        let page_types = self.target.page_types()?;
        if !page_types.is_empty() {
            self.recorder.attach(Attachment::PageTypes, &page_types)?;
        }
        self.counters.shared = self.recorder.shared();
        self.counters.elapsed_us = self.desk.elapsed_us();
        let stats = self.counters.to_string();
        self.recorder.attach(Attachment::Stats, stats.as_bytes())?;
        let trace = Self::work(&mut self.work)?.tape.trace(self.desk.started_ns()).encode();
        self.recorder.attach(Attachment::Trace, &trace)?;
        self.recorder.flush()?;
        self.count_requests();
        Ok(Observation::Done)
    }

    fn seal(&mut self) -> Result<Observation, Trouble> {
        self.counters.elapsed_us = self.desk.elapsed_us();
        self.recorder.attach(Attachment::Disks, self.disks.as_bytes())?;
        self.recorder.seal(&self.counters)?;
        self.counters.written = self.recorder.written();
        Ok(Observation::Done)
    }
}

pub(super) fn done(answer: Result<(), impl Into<Trouble>>) -> Result<Observation, Trouble> {
    answer.map(|()| Observation::Done).map_err(Into::into)
}
