//! The keeper's state and the bookkeeping that all phases share.
//!
//! One step is one action. A command's end is matched by number, so a late answer of another phase changes nothing.
//! The first reason for a void wins and is never changed.

use super::deadlines::Deadlines;
use super::words::{Action, Cli, Command, Observation, Outcome, Pace, Reason, Stub, Target, Verdict};
use core::time::Duration;

/// Where a take stands, from the keeper's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The stub copies; the guest is not touched.
    Watching,
    /// Subscribing.
    Silencing,
    /// Writing the request.
    Asking,
    /// The request stands.
    AwaitAck,
    /// The guest is suspended and we did not see it take the request: reading the node afresh.
    Owning,
    /// The guest took the request.
    AwaitSuspend,
    /// The guest stands, by us.
    Paused,
    /// Resuming.
    Resuming,
    /// Taking the request back.
    Withdrawing,
    /// On the way out, after an order that nobody waits for.
    Leaving,
    /// Resetting the subscription.
    Unsilencing,
    /// Telling xenstored of the resume.
    Telling,
    /// The guest runs; waiting for the stub to say that it had all.
    Settling,
    /// Publishing the verdict.
    Announcing,
    /// Given up, but the guest took the request and may still suspend.
    Late,
    /// Over.
    Done,
}

/// How far the record on disk must be able to undo. Serialised by the caller by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Nothing to undo.
    Watching,
    /// The subscription may be on.
    Silenced,
    /// The request may stand in `control/shutdown`, and the guest may be suspended by us.
    Asked,
    /// The guest stands, or stood, by the request, which is used up: if it runs, it was resumed.
    Standing,
    /// The guest runs again; the subscription may be on.
    Resumed,
    /// Nothing left to undo.
    Done,
}

/// Moments of the pause, on the caller's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// The request was given to xenstore.
    pub asked: Option<Duration>,
    /// The guest took it.
    pub acked: Option<Duration>,
    /// First sight of the suspend.
    pub suspended: Option<Duration>,
    /// The stub's edge.
    pub released: Option<Duration>,
    /// The resume returned.
    pub resumed: Option<Duration>,
}

/// What the keeper tells when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The one verdict.
    pub verdict: Verdict,
    /// The moments of the pause.
    pub times: Times,
    /// The guest stands, by us, and Xen refuses to resume it: `livesave recover`.
    pub stuck: bool,
    /// The subscription could not be reset: `livesave recover`.
    pub subscribed: bool,
    /// The request could not be withdrawn and nobody watches any more: `livesave recover`.
    pub standing: bool,
    /// The verdict could not be published: the stub will void the take at its own deadline.
    pub unheard: bool,
}

/// The keeper.
#[derive(Debug, Clone)]
pub struct Machine {
    pub(super) deadlines: Deadlines,
    pub(super) with_hook: bool,
    pub(super) phase: Phase,
    /// When the phase began.
    pub(super) since: Duration,
    pub(super) pending: Option<(u32, Command, Duration)>,
    pub(super) seq: u32,
    /// The first number of the phase: a late answer to an earlier try of the same errand counts.
    pub(super) first: u32,
    /// The last answer that was looked at.
    answered: u32,
    pub(super) tries: u32,
    /// When the outstanding errand may be tried again.
    pub(super) again: Duration,
    /// The subscription is on, or may be.
    pub(super) silenced: bool,
    /// The request was written, or may have been, and was not withdrawn.
    pub(super) asked: bool,
    /// The guest is known to have taken the request.
    pub(super) acked: bool,
    /// The request could not be withdrawn and may bite after we left.
    pub(super) standing: bool,
    /// The suspend that we see is not ours.
    pub(super) foreign: bool,
    pub(super) hook_started: bool,
    pub(super) hook_stopped: bool,
    pub(super) told: bool,
    pub(super) reason: Option<Reason>,
    pub(super) verdict: Option<Verdict>,
    pub(super) announced: bool,
    pub(super) unheard: bool,
    pub(super) stuck: bool,
    /// The subscription could not be reset.
    pub(super) deaf: bool,
    pub(super) times: Times,
    started: Option<Duration>,
    stamp: u32,
    heard: Duration,
}

impl Machine {
    /// A keeper for one take.
    pub fn new(deadlines: Deadlines, with_hook: bool) -> Self {
        Self {
            deadlines,
            with_hook,
            phase: Phase::Watching,
            since: Duration::ZERO,
            pending: None,
            seq: 0,
            first: 0,
            answered: 0,
            tries: 0,
            again: Duration::ZERO,
            silenced: false,
            asked: false,
            acked: false,
            standing: false,
            foreign: false,
            hook_started: false,
            hook_stopped: false,
            told: false,
            reason: None,
            verdict: None,
            announced: false,
            unheard: false,
            stuck: false,
            deaf: false,
            times: Times::default(),
            started: None,
            stamp: 0,
            heard: Duration::ZERO,
        }
    }

    /// One step: `now` never runs backwards. After anything but `Wait` the caller acts and steps again at once.
    pub fn step(&mut self, now: Duration, seen: &Observation) -> Action {
        self.listen(now, seen);
        if seen.target == Target::Running {
            self.foreign = false;
        }
        match self.phase {
            Phase::Watching => self.watching(now, seen),
            Phase::Silencing => self.silencing(now, seen),
            Phase::Asking => self.asking(now, seen),
            Phase::AwaitAck => self.await_ack(now, seen),
            Phase::Owning => self.owning(now, seen),
            Phase::AwaitSuspend => self.await_suspend(now, seen),
            Phase::Paused => self.paused(now, seen),
            Phase::Resuming => self.resuming(now, seen),
            Phase::Withdrawing => self.withdrawing(now, seen),
            Phase::Leaving => self.leaving(now, seen),
            Phase::Unsilencing => self.unsilencing(now, seen),
            Phase::Telling => self.telling(now, seen),
            Phase::Settling => self.settling(now, seen),
            Phase::Announcing => self.announcing(now, seen),
            Phase::Late => self.late(now, seen),
            Phase::Done => Action::Finish,
        }
    }

    /// What the record on disk has to say before the next command runs.
    pub fn mark(&self) -> Mark {
        match (self.phase, self.asked, self.silenced) {
            (Phase::Done, _, _) if !self.stuck && !self.silenced && !self.standing => Mark::Done,
            (Phase::Paused | Phase::Resuming, true, _) if self.acked => Mark::Standing,
            (_, true, _) => Mark::Asked,
            (Phase::Done, _, _) if self.stuck || self.standing => Mark::Asked,
            (_, false, true) if self.times.resumed.is_some() => Mark::Resumed,
            (_, false, true) => Mark::Silenced,
            (_, false, false) => Mark::Watching,
        }
    }

    /// The verdict, once it was given.
    pub fn verdict(&self) -> Option<Verdict> {
        if self.announced { self.verdict } else { None }
    }

    /// Whether only a late suspend is still waited for: the take is over for everybody else.
    pub fn only_late(&self) -> bool {
        self.phase == Phase::Late && self.announced
    }

    /// The moments so far.
    pub fn times(&self) -> Times {
        self.times
    }

    /// The report; meaningful from the verdict on.
    pub fn report(&self) -> Report {
        Report {
            verdict: self.verdict.unwrap_or(Verdict::Void(self.reason.unwrap_or(Reason::TookTooLong))),
            times: self.times,
            stuck: self.stuck,
            subscribed: self.silenced,
            standing: self.standing,
            unheard: self.unheard,
        }
    }

    pub(super) fn go(&mut self, now: Duration, phase: Phase) {
        self.phase = phase;
        self.since = now;
        self.tries = 0;
        self.again = now;
        self.first = self.seq.saturating_add(1);
        self.pending = None;
    }

    /// Gives a command whose end is waited for.
    pub(super) fn command(&mut self, now: Duration, command: Command) -> Action {
        self.seq = self.seq.saturating_add(1);
        self.pending = Some((self.seq, command, now));
        self.tries = self.tries.saturating_add(1);
        Action::Do(self.seq, command)
    }

    /// Gives a command that is not waited for: its effect is observed.
    pub(super) fn order(&mut self, command: Command) -> Action {
        self.seq = self.seq.saturating_add(1);
        Action::Do(self.seq, command)
    }

    /// The end of the outstanding command; past its deadline it counts as failed. All commands of a phase are of one
    /// kind, so an answer that came too late for an earlier try answers the errand: a second withdrawal of a word that
    /// the first one took away would look as if the guest had taken it.
    pub(super) fn ended(&mut self, now: Duration, seen: &Observation) -> Option<Outcome> {
        let (seq, _, given) = self.pending?;
        let outcome = match seen.done {
            Some(done) if done.seq >= self.first && done.seq <= seq && !self.used(done.seq) => done.outcome,
            _ if now.saturating_sub(given) >= self.deadlines.command => Outcome::Failed,
            _ => return None,
        };
        self.pending = None;
        self.answered = seen.done.map_or(self.answered, |done| done.seq);
        Some(outcome)
    }

    fn used(&self, seq: u32) -> bool {
        seq <= self.answered
    }

    pub(super) fn over(&self, now: Duration, limit: Duration) -> bool {
        now.saturating_sub(self.since) >= limit
    }

    /// The first reason stays.
    pub(super) fn blame(&mut self, reason: Reason) {
        self.reason = self.reason.or(Some(reason));
    }

    fn listen(&mut self, now: Duration, seen: &Observation) {
        if self.started.is_none() {
            self.started = Some(now);
            self.heard = now;
        }
        if seen.stub_stamp != self.stamp {
            self.stamp = seen.stub_stamp;
            self.heard = now;
        }
    }

    /// What ends a take before the guest has been resumed, whoever caused it.
    pub(super) fn trouble(&self, now: Duration, seen: &Observation) -> Option<Reason> {
        match seen.target {
            Target::Gone => Some(Reason::TargetGone),
            Target::Stopped => Some(Reason::TargetStopped),
            Target::Running | Target::Suspended => self.others_trouble(now, seen),
        }
    }

    /// What ends a take at any time before the verdict: everybody but the target.
    pub(super) fn others_trouble(&self, now: Duration, seen: &Observation) -> Option<Reason> {
        let took = now.saturating_sub(self.started.unwrap_or(now));
        let quiet = now.saturating_sub(self.heard);
        match (seen.stub, seen.cli) {
            (Stub::Gone, _) => Some(Reason::StubGone),
            (Stub::GaveUp, _) => Some(Reason::StubGaveUp),
            (_, Cli::Gone) => Some(Reason::CliGone),
            (_, Cli::Cancels) => Some(Reason::Cancelled),
            // It will want the dirty tracking for itself, and would get bits that we took away.
            _ if seen.saver => Some(Reason::ForeignSave),
            _ if quiet >= self.deadlines.silence => Some(Reason::StubSilent),
            _ if took >= self.deadlines.take => Some(Reason::TookTooLong),
            _ => None,
        }
    }

    pub(super) fn wait(&self) -> Action {
        match self.phase {
            Phase::Watching | Phase::Settling | Phase::Late | Phase::Telling | Phase::Announcing => {
                Action::Wait(Pace::Easy)
            }
            _ => Action::Wait(Pace::Tight),
        }
    }
}
