//! The state machine of a take: `step(now, observation) -> action`. It owns the order of things, every deadline and
//! every bound; the engine only does what it is told and reports.
//!
//! Invariants, whatever is observed: the release happens exactly once; what was switched on is switched off before the
//! end, what was begun in the store is sealed or discarded; a seal follows only on *captured* and the keeper's
//! `resumed`; the number of steps is bounded. It never looks at a page, a clock or a port.

use super::limits;
use super::trouble::Trouble;
use super::words::{Action, Capture, Observation, Pass};
use crate::fault::Fault;
use crate::policy::{Decision, Policy, Refusal, RoundStats};
use crate::status::State;
use crate::store::{Safeguard, out};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Start,
    Prepare,
    Enable,
    Rounds,
    Recheck,
    AwaitSuspend,
    Capture,
    CapturedRelease,
    CapturedOff,
    Flush,
    AwaitVerdict,
    Seal,
    LeaveRelease,
    LeaveOff,
    LeaveDiscard,
    End,
}

/// One take.
#[derive(Debug)]
pub struct Machine {
    policy: Policy,
    phase: Phase,
    /// The guard: tracking is on, or may be.
    tracking: bool,
    /// Tracking is to stay on after a seal.
    stays: bool,
    /// What is known of the time since an earlier snapshot is whole: tracking stays on after a failure as well.
    carries: bool,
    /// Only what changed since an earlier snapshot is taken.
    on_top: bool,
    /// Pages came or went where no round can follow: everything is read in the pause.
    everything: bool,
    /// Something was begun in the store.
    begun: bool,
    released: bool,
    sealed: bool,
    deadline_ns: u64,
    full_passes: u32,
    off_attempts: u32,
    rounds: u32,
    throttle: u8,
    chased: bool,
    trouble: Option<Trouble>,
    state: State,
}

impl Machine {
    /// A take under `policy`, nothing done yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            phase: Phase::Start,
            tracking: false,
            stays: false,
            carries: false,
            on_top: false,
            everything: false,
            begun: false,
            released: false,
            sealed: false,
            deadline_ns: 0,
            full_passes: 0,
            off_attempts: 0,
            rounds: 0,
            throttle: 0,
            chased: false,
            trouble: None,
            state: State::Preparing,
        }
    }

    /// A take after which tracking stays on; it may be on already, since an earlier one.
    pub fn staying(policy: Policy, on: bool) -> Self {
        Self { stays: true, tracking: on, ..Self::new(policy) }
    }

    /// Tells whether what is known of the time since an earlier snapshot is whole. Where anything is known, tracking is
    /// on: a take after which it does not stay on ends it, even one that is refused.
    pub fn carry(&mut self, whole: bool) {
        self.carries = whole;
        self.tracking |= whole && !self.stays;
    }

    /// Is tracking on, or may it be? After [`Action::Finish`]: it stays so.
    pub fn tracks(&self) -> bool {
        self.tracking
    }

    /// Does the snapshot exist?
    pub fn sealed(&self) -> bool {
        self.sealed
    }

    /// The state to publish, final after [`Action::Finish`].
    pub fn state(&self) -> State {
        self.state
    }

    /// Why the session came to nothing, or a warning beside a sealed snapshot.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Round under way, from 1; the last set counts as one.
    pub fn round(&self) -> u32 {
        self.rounds
    }

    /// Percent of the guest's processor time that the keeper is to take away.
    pub fn throttle(&self) -> u8 {
        self.throttle
    }

    /// Takes what was seen at `now_ns` and says what to do.
    pub fn step(&mut self, now_ns: u64, seen: Observation) -> Action {
        match seen {
            Observation::Trouble(trouble) => self.failed(trouble),
            seen => self.advance(now_ns, seen),
        }
    }

    fn advance(&mut self, now_ns: u64, seen: Observation) -> Action {
        match (self.phase, seen) {
            (Phase::Start, _) => {
                self.begun = true;
                self.go(Phase::Prepare, Action::Prepare)
            }
            (Phase::Prepare, Observation::OnTop) => self.begin_on_top(),
            (Phase::Prepare, _) => {
                self.tracking = true;
                self.go(Phase::Enable, Action::Enable)
            }
            (Phase::Enable, _) if self.policy.is_live() => self.full_pass(),
            (Phase::Enable, _) => self.await_suspend(now_ns),
            (Phase::Rounds, Observation::Round(stats, resized)) => self.after_round(&stats, resized),
            (Phase::Recheck, Observation::Rechecked(true)) if !self.policy.is_live() => {
                self.everything = true;
                self.await_suspend(now_ns)
            }
            (Phase::Recheck, Observation::Rechecked(true)) => self.full_pass(),
            (Phase::Recheck, Observation::Rechecked(false)) => self.await_suspend(now_ns),
            (Phase::AwaitSuspend, seen) => self.awaiting_suspend(now_ns, &seen),
            (Phase::Capture, _) => self.captured(),
            (Phase::CapturedRelease, _) => self.after_release(now_ns),
            (Phase::CapturedOff, _) => self.flush(),
            (Phase::Flush, _) => self.go(Phase::AwaitVerdict, Action::AwaitVerdict),
            (Phase::AwaitVerdict, seen) => self.awaiting_verdict(now_ns, seen),
            (Phase::Seal, _) => self.finish_sealed(),
            (Phase::LeaveOff, _) => self.tracking_is_off(),
            (Phase::LeaveDiscard, _) => self.discarded(),
            (Phase::LeaveRelease | Phase::End, _) => self.leave(),
            // An observation that does not belong to the action is a bug of the engine; it must not cost a guest.
            (_, _) => self.failed(Trouble::new(Fault::Hypercall, "the session lost its place")),
        }
    }

    fn go(&mut self, phase: Phase, action: Action) -> Action {
        self.phase = phase;
        action
    }

    /// Tracking is on since the snapshot below: nothing is to be switched on, nothing to be sent that is the same.
    fn begin_on_top(&mut self) -> Action {
        self.on_top = true;
        if self.policy.is_live() { self.start_round(Pass::Dirty) } else { self.go(Phase::Recheck, Action::Recheck) }
    }

    fn full_pass(&mut self) -> Action {
        if self.full_passes >= limits::FULL_PASSES_MAX {
            return self.failed(Trouble::new(Fault::Ballooning, "the guest's memory does not come to rest"));
        }
        self.full_passes += 1;
        self.start_round(Pass::Full)
    }

    fn start_round(&mut self, pass: Pass) -> Action {
        self.rounds += 1;
        self.state = State::Copying;
        self.go(Phase::Rounds, Action::Round(pass))
    }

    fn after_round(&mut self, stats: &RoundStats, resized: bool) -> Action {
        if resized {
            return self.full_pass();
        }
        match self.policy.decide(stats) {
            Decision::Continue => self.start_round(Pass::Dirty),
            Decision::Throttle(percent) => {
                self.throttle = percent;
                self.start_round(Pass::Dirty)
            }
            Decision::StopAndCopy => self.go(Phase::Recheck, Action::Recheck),
            Decision::Abort(refusal) => self.failed(refused(refusal, stats)),
        }
    }

    fn await_suspend(&mut self, now_ns: u64) -> Action {
        self.state = State::WantSuspend;
        self.deadline_ns = now_ns.saturating_add(limits::SUSPEND_WAIT_NS);
        self.go(Phase::AwaitSuspend, Action::AwaitSuspend)
    }

    fn awaiting_suspend(&mut self, now_ns: u64, seen: &Observation) -> Action {
        if *seen == Observation::Suspended {
            self.state = State::Capturing;
            self.rounds += 1;
            let rounds = self.policy.is_live() || self.on_top && !self.everything;
            let all = if rounds { Capture::LastSet } else { Capture::Everything };
            return self.go(Phase::Capture, Action::Capture(all));
        }
        if *seen == Observation::Acked && self.policy.is_staged() && !self.chased {
            self.chased = true;
            return Action::Chase;
        }
        if now_ns >= self.deadline_ns {
            return self.failed(Trouble::new(Fault::NoSuspend, "the guest did not suspend in time"));
        }
        Action::AwaitSuspend
    }

    fn captured(&mut self) -> Action {
        self.state = State::Captured;
        self.released = true;
        self.go(Phase::CapturedRelease, Action::Release)
    }

    fn after_release(&mut self, now_ns: u64) -> Action {
        self.deadline_ns = now_ns.saturating_add(limits::VERDICT_WAIT_NS);
        self.go(Phase::CapturedOff, if self.stays { Action::Arm } else { Action::TrackingOff })
    }

    fn flush(&mut self) -> Action {
        self.tracking &= self.stays;
        self.state = State::Flushing;
        self.go(Phase::Flush, Action::Flush)
    }

    fn awaiting_verdict(&mut self, now_ns: u64, seen: Observation) -> Action {
        match seen {
            Observation::Verdict(verdict) if verdict.resumed => self.go(Phase::Seal, Action::Seal),
            _ if out(Safeguard::Verdict) => self.go(Phase::Seal, Action::Seal),
            Observation::Verdict(verdict) => self.failed(Trouble { fault: Fault::VerdictVoid, reason: verdict.reason }),
            _ if now_ns >= self.deadline_ns => {
                self.failed(Trouble::new(Fault::NoVerdict, "no verdict from the keeper in time"))
            }
            _ => Action::AwaitVerdict,
        }
    }

    fn finish_sealed(&mut self) -> Action {
        self.begun = false;
        self.sealed = true;
        self.leave()
    }

    /// The one way out of trouble. The first cause stands; what fails on the way out does not hide it.
    fn failed(&mut self, trouble: Trouble) -> Action {
        match self.phase {
            Phase::LeaveOff | Phase::CapturedOff => return self.off_failed(trouble),
            Phase::LeaveDiscard => return self.discarded(),
            // Nothing was switched on by an ENABLE that failed: another user's tracking is not ours to end.
            Phase::Enable => self.tracking = false,
            _ => {}
        }
        self.trouble.get_or_insert(trouble);
        self.leave()
    }

    fn off_failed(&mut self, trouble: Trouble) -> Action {
        if self.phase == Phase::CapturedOff && core::mem::take(&mut self.stays) {
            // What was to stay on is in doubt: the snapshot is not, but the next one has to be a full one.
            return Action::TrackingOff;
        }
        self.off_attempts += 1;
        if trouble.fault == Fault::Gone {
            return self.off_is_over();
        }
        if self.off_attempts < limits::OFF_ATTEMPTS {
            return Action::TrackingOff;
        }
        let left_on = Trouble::new(Fault::TrackingLeftOn, trouble.reason);
        self.trouble = Some(left_on);
        self.off_is_over()
    }

    /// Off, or beyond our reach.
    fn off_is_over(&mut self) -> Action {
        if self.phase == Phase::CapturedOff { self.flush() } else { self.tracking_is_off() }
    }

    fn tracking_is_off(&mut self) -> Action {
        self.tracking = false;
        self.leave()
    }

    fn discarded(&mut self) -> Action {
        self.begun = false;
        self.leave()
    }

    /// The next thing that a session owes on its way out.
    fn leave(&mut self) -> Action {
        if !self.released {
            self.released = true;
            return self.go(Phase::LeaveRelease, Action::Release);
        }
        let stays_on = self.stays && (self.sealed || self.carries);
        if self.tracking && !stays_on && !out(Safeguard::Guard) {
            return self.go(Phase::LeaveOff, Action::TrackingOff);
        }
        if self.begun {
            return self.go(Phase::LeaveDiscard, Action::Discard);
        }
        self.state = self.final_state();
        self.go(Phase::End, Action::Finish)
    }

    fn final_state(&self) -> State {
        use Fault::{Denied, Hypercall, NoMemory, NoSpace, PageUnreadable, Store, TrackingLeftOn};
        if self.sealed {
            return State::Sealed;
        }
        if self.state == State::Preparing {
            return State::Refused;
        }
        match self.trouble.as_ref().map(|trouble| trouble.fault) {
            Some(Store | NoSpace | Hypercall | Denied | NoMemory | PageUnreadable | TrackingLeftOn) => State::Failed,
            _ => State::Void,
        }
    }
}

/// Why the policy gave up, in numbers.
fn refused(refusal: Refusal, stats: &RoundStats) -> Trouble {
    let (need, room) = (stats.need_at_most(), stats.outlook.staging_pages);
    let predicted_ms = stats.outlook.pause_us(need) / 1000;
    match refusal {
        Refusal::Busy => {
            let reason = format_args!("{need} pages are dirty, {room} fit; the pause would be {predicted_ms} ms");
            Trouble::new(Fault::PolicyAbort, reason)
        }
        Refusal::PauseTooLong => {
            let reason = format_args!("the pause would be {predicted_ms} ms: {need} pages are dirty, {room} fit");
            Trouble::new(Fault::PauseTooLong, reason)
        }
    }
}
