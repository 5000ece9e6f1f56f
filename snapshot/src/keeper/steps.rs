//! The phases of the keeper, in the order of a take.
//!
//! Each function looks at one observation and returns one action. The guest's state comes first in each of them: a
//! suspend that happened is dealt with before any deadline.

use super::machine::{Machine, Phase};
use super::words::{Action, Command, Control, Hook, Observation, Outcome, Reason, Stub, Target, Verdict};
use crate::store::{Safeguard, out};
use core::time::Duration;

/// How often a xenstore errand (withdraw, verdict) or the reset of the subscription is tried.
const TRIES_MAX: u32 = 3;
/// Between two tries of a resume that Xen refused.
const RESUME_AGAIN: Duration = Duration::from_millis(10);

impl Machine {
    pub(super) fn watching(&mut self, now: Duration, seen: &Observation) -> Action {
        if seen.target == Target::Suspended {
            return self.abandon(now, Reason::ForeignSuspend, seen);
        }
        if let Some(reason) = self.trouble(now, seen) {
            return self.abandon(now, reason, seen);
        }
        if seen.released {
            return self.abandon(now, Reason::StubGaveUp, seen);
        }
        if seen.stub != Stub::WantsSuspend {
            return self.wait();
        }
        self.go(now, Phase::Silencing);
        self.silenced = true;
        self.command(now, Command::Silence)
    }

    pub(super) fn silencing(&mut self, now: Duration, seen: &Observation) -> Action {
        match self.ended(now, seen) {
            None => self.wait(),
            Some(Outcome::Ok) if seen.target == Target::Suspended => self.abandon(now, Reason::ForeignSuspend, seen),
            Some(Outcome::Ok) => {
                self.go(now, Phase::Asking);
                self.asked = true;
                self.times.asked = Some(now);
                self.command(now, Command::AskSuspend)
            }
            Some(_) => self.abandon(now, Reason::NotSilenced, seen),
        }
    }

    pub(super) fn asking(&mut self, now: Duration, seen: &Observation) -> Action {
        match self.ended(now, seen) {
            None => self.wait(),
            Some(Outcome::Ok) => {
                self.go(now, Phase::AwaitAck);
                self.await_ack(now, seen)
            }
            Some(Outcome::Busy) => {
                self.asked = false;
                self.abandon(now, Reason::ForeignRequest, seen)
            }
            // Unknown whether it stands: take it back.
            Some(_) => self.abandon(now, Reason::NotAsked, seen),
        }
    }

    pub(super) fn await_ack(&mut self, now: Duration, seen: &Observation) -> Action {
        if seen.control == Control::Empty {
            self.acked = true;
            self.times.acked = Some(now);
            self.go(now, Phase::AwaitSuspend);
            // A guest that stands already has nothing left that the stub could copy ahead.
            if seen.target == Target::Running {
                return self.order(Command::TellAcked);
            }
            return self.await_suspend(now, seen);
        }
        if seen.target == Target::Suspended {
            self.go(now, Phase::Owning);
            return self.command(now, Command::ReadControl);
        }
        if let Some(reason) = self.trouble(now, seen) {
            return self.abandon(now, reason, seen);
        }
        if seen.released {
            return self.abandon(now, Reason::StubGaveUp, seen);
        }
        if seen.control == Control::Other {
            return self.abandon(now, Reason::ForeignRequest, seen);
        }
        if self.over(now, self.deadlines.ack) {
            return self.abandon(now, Reason::NotAcked, seen);
        }
        self.wait()
    }

    /// The guest was suspended *before* this read was sent, and a suspended guest acknowledges nothing: if our word is
    /// gone, the guest took it before it suspended, so the suspend is ours. If it stands, it is not. Without an answer
    /// the suspend counts as ours: whoever else suspended it cannot have seen it either, the subscription swallowed it.
    pub(super) fn owning(&mut self, now: Duration, seen: &Observation) -> Action {
        if seen.target != Target::Suspended {
            return self.abandon(now, Reason::ForeignResume, seen);
        }
        match self.ended(now, seen) {
            None => self.wait(),
            Some(Outcome::Standing) if !out(Safeguard::ForeignSuspend) => {
                self.foreign = true;
                self.abandon(now, Reason::ForeignSuspend, seen)
            }
            Some(Outcome::Taken | Outcome::Standing) => {
                self.acked = true;
                self.times.acked = Some(now);
                self.begin_pause(now, seen)
            }
            Some(_) => {
                self.blame(Reason::NotAsked);
                self.begin_pause(now, seen)
            }
        }
    }

    pub(super) fn await_suspend(&mut self, now: Duration, seen: &Observation) -> Action {
        if seen.target == Target::Suspended {
            return self.begin_pause(now, seen);
        }
        if let Some(reason) = self.trouble(now, seen) {
            return self.abandon(now, reason, seen);
        }
        if seen.released {
            return self.abandon(now, Reason::StubGaveUp, seen);
        }
        if self.over(now, self.deadlines.suspend) {
            return self.abandon(now, Reason::NotSuspended, seen);
        }
        self.wait()
    }

    fn begin_pause(&mut self, now: Duration, seen: &Observation) -> Action {
        if self.times.suspended.is_none() {
            self.times.suspended = Some(now);
        }
        self.go(now, Phase::Paused);
        self.paused(now, seen)
    }

    pub(super) fn paused(&mut self, now: Duration, seen: &Observation) -> Action {
        if seen.target != Target::Suspended {
            return self.lost(now, seen);
        }
        if seen.released {
            self.times.released = self.times.released.or(Some(now));
        }
        // A late or disputed suspend needs neither hook nor copy: the take is void already.
        if self.reason.is_none() && self.with_hook && !self.hook_started {
            self.hook_started = true;
            return self.order(Command::StartHook);
        }
        if let Some(reason) = self.pause_trouble(now, seen) {
            if reason == Reason::StubGone && out(Safeguard::DeadStub) {
                return self.wait();
            }
            self.blame(reason);
        }
        let hooked = !self.hook_started || seen.hook == Hook::Done;
        if self.reason.is_none() && !(hooked && self.times.released.is_some()) {
            return self.wait();
        }
        self.go(now, Phase::Resuming);
        self.resuming(now, seen)
    }

    fn pause_trouble(&self, now: Duration, seen: &Observation) -> Option<Reason> {
        let spent = self.deadlines.pause.is_some_and(|limit| self.over(now, limit));
        let slow = seen.hook == Hook::Running && self.over(now, self.deadlines.hook);
        self.trouble(now, seen)
            .or((seen.hook == Hook::Failed).then_some(Reason::HookFailed))
            .or(slow.then_some(Reason::HookSlow))
            .or(spent.then_some(Reason::PauseSpent))
    }

    pub(super) fn resuming(&mut self, now: Duration, seen: &Observation) -> Action {
        match self.ended(now, seen) {
            Some(Outcome::Ok) => {
                self.times.resumed = Some(now);
                return self.spent(now, seen);
            }
            Some(_) if self.over(now, self.deadlines.resume) => {
                self.stuck = true;
                self.blame(Reason::NotResumed);
                return self.leave(now, seen);
            }
            Some(_) => self.again = now.saturating_add(RESUME_AGAIN),
            None => {}
        }
        if self.pending.is_some() {
            return self.wait();
        }
        if seen.target != Target::Suspended {
            return self.lost(now, seen);
        }
        if now < self.again {
            return self.wait();
        }
        self.command(now, Command::Resume)
    }

    /// The guest does not stand any more, and it was not us who resumed it.
    fn lost(&mut self, now: Duration, seen: &Observation) -> Action {
        self.blame(match seen.target {
            Target::Gone => Reason::TargetGone,
            Target::Stopped => Reason::TargetStopped,
            Target::Running | Target::Suspended => Reason::ForeignResume,
        });
        self.spent(now, seen)
    }

    /// The guest left the suspend. A request that it took is used up; one that it may not have seen is taken back.
    fn spent(&mut self, now: Duration, seen: &Observation) -> Action {
        let over = matches!(seen.target, Target::Gone | Target::Stopped);
        if self.acked || over {
            self.asked = false;
        }
        if self.asked {
            self.go(now, Phase::Withdrawing);
            return self.withdrawing(now, seen);
        }
        self.leave(now, seen)
    }

    /// Gives the take up. A request that may still be taken is withdrawn; one that was taken is watched for.
    fn abandon(&mut self, now: Duration, reason: Reason, seen: &Observation) -> Action {
        self.blame(reason);
        if matches!(seen.target, Target::Gone | Target::Stopped) {
            self.asked = false;
        }
        if self.asked && !self.acked {
            self.go(now, Phase::Withdrawing);
            return self.withdrawing(now, seen);
        }
        self.leave(now, seen)
    }

    pub(super) fn withdrawing(&mut self, now: Duration, seen: &Observation) -> Action {
        match self.ended(now, seen) {
            Some(Outcome::Ok) => {
                self.standing = false;
                self.asked = false;
            }
            // A guest that stands by somebody else's suspend has taken nothing of ours.
            Some(Outcome::Taken) if self.foreign => self.asked = false,
            Some(Outcome::Taken) => {
                self.standing = false;
                self.acked = true;
            }
            // Unknown, and it stands: as in `owning`, ours. A fresh read could see our own withdrawal and prove
            // nothing.
            Some(_) if seen.target == Target::Suspended && !self.foreign => return self.begin_pause(now, seen),
            Some(_) if self.tries < TRIES_MAX => return self.command(now, Command::Withdraw),
            Some(_) => {}
            None if self.pending.is_none() => return self.command(now, Command::Withdraw),
            None => return self.wait(),
        }
        self.leave(now, seen)
    }

    /// The way out, by what is left to undo: each phase of it comes back here.
    fn leave(&mut self, now: Duration, seen: &Observation) -> Action {
        if self.hook_started && !self.hook_stopped && self.reason.is_some() {
            self.hook_stopped = true;
            self.go(now, Phase::Leaving);
            return self.order(Command::StopHook);
        }
        let late = self.asked && !self.stuck;
        let phase = match () {
            () if late && self.announced => Phase::Late,
            () if late => Phase::Announcing,
            () if self.silenced && !self.deaf => Phase::Unsilencing,
            () if self.times.resumed.is_some() && !self.told => Phase::Telling,
            () if self.announced => Phase::Done,
            () if self.reason.is_none() && self.verdict.is_none() => Phase::Settling,
            () => Phase::Announcing,
        };
        self.go(now, phase);
        match phase {
            Phase::Late => self.late(now, seen),
            Phase::Unsilencing => self.unsilencing(now, seen),
            Phase::Telling => self.telling(now, seen),
            Phase::Settling => self.settling(now, seen),
            Phase::Announcing => self.announcing(now, seen),
            _ => Action::Finish,
        }
    }

    /// Takes up the way out again after an order that nobody waits for.
    pub(super) fn leaving(&mut self, now: Duration, seen: &Observation) -> Action {
        self.leave(now, seen)
    }

    pub(super) fn unsilencing(&mut self, now: Duration, seen: &Observation) -> Action {
        match self.ended(now, seen) {
            _ if seen.target == Target::Gone => self.silenced = false,
            Some(Outcome::Ok) => self.silenced = false,
            Some(_) if self.tries < TRIES_MAX => return self.command(now, Command::Unsilence),
            Some(_) => self.deaf = true,
            None if self.pending.is_none() => return self.command(now, Command::Unsilence),
            None => return self.wait(),
        }
        self.leave(now, seen)
    }

    pub(super) fn telling(&mut self, now: Duration, seen: &Observation) -> Action {
        match self.ended(now, seen) {
            Some(_) => self.told = true,
            None if self.pending.is_none() => return self.command(now, Command::TellXenstore),
            None => return self.wait(),
        }
        self.leave(now, seen)
    }

    /// The guest runs. The edge says "I need it no more", which a stub also sends when it gives up: only the status
    /// tells.
    pub(super) fn settling(&mut self, now: Duration, seen: &Observation) -> Action {
        if seen.stub == Stub::Captured || out(Safeguard::Captured) {
            self.verdict = Some(Verdict::Resumed);
            return self.leave(now, seen);
        }
        match self.others_trouble(now, seen) {
            Some(reason) => self.blame(reason),
            None if self.over(now, self.deadlines.settle) => self.blame(Reason::NotCaptured),
            None => return self.wait(),
        }
        self.leave(now, seen)
    }

    pub(super) fn announcing(&mut self, now: Duration, seen: &Observation) -> Action {
        // The guest before the news: a request that was taken may bite while xenstored is slow.
        if self.asked && !self.stuck && seen.target == Target::Suspended {
            return self.late(now, seen);
        }
        let reason = self.reason.unwrap_or(Reason::NotCaptured);
        let verdict = *self.verdict.get_or_insert(Verdict::Void(reason));
        match self.ended(now, seen) {
            Some(Outcome::Ok) => self.announced = true,
            Some(_) if self.tries < TRIES_MAX => return self.command(now, Command::Announce(verdict)),
            Some(_) => {
                self.announced = true;
                self.unheard = true;
            }
            None if self.pending.is_none() => return self.command(now, Command::Announce(verdict)),
            None => return self.wait(),
        }
        self.leave(now, seen)
    }

    /// The take is over, but the guest took our request, or took it for all we know: a suspend now is ours.
    pub(super) fn late(&mut self, now: Duration, seen: &Observation) -> Action {
        let over = self.over(now, self.deadlines.late);
        if over && !self.acked && !self.standing && seen.target == Target::Running {
            // xenstored did not answer when the request was to be taken back: once more before we leave.
            self.standing = true;
            self.go(now, Phase::Withdrawing);
            return self.withdrawing(now, seen);
        }
        match seen.target {
            Target::Suspended if self.foreign => {
                self.standing = !self.acked;
                self.asked = false;
            }
            Target::Suspended => return self.begin_pause(now, seen),
            Target::Gone | Target::Stopped => self.asked = false,
            Target::Running if over => self.asked = false,
            Target::Running => return self.wait(),
        }
        self.leave(now, seen)
    }
}
