//! The keeper's errands to xenstored, as `cli/src/keeper/errands.rs` runs them. An answer that does not come in time
//! leaves open whether the errand took effect: here it may do so when xenstored goes on.

use snapshot::fields::Line;
use snapshot::keeper::{Command, Completion, Control, Outcome, Verdict};
use snapshot::verdict::{Acked, Cancel, Verdict as Word};

use super::host::{Host, Who};
use super::keeper::{Errand, News, control};
use super::plan::S;
use super::tree::{Node, SUSPEND, Tree};

/// For one command, below the machine's own deadline.
const TIMEOUT_NS: u64 = 4 * S;

impl Errand {
    pub fn due_ns(&self, tree: &Tree) -> u64 {
        let answered_ns = self.ready_ns.max(tree.stalled_until_ns);
        answered_ns.min(self.ready_ns.max(self.started_ns + TIMEOUT_NS))
    }
}

impl Host {
    /// The errand under way, if it is answered by now, or not in time.
    pub fn errand_turn(&mut self) {
        let now_ns = self.now_ns();
        let Some(keeper) = &mut self.keeper else { return };
        let due = keeper.errands.first().is_some_and(|errand| errand.due_ns(&self.tree) <= now_ns);
        if !due || keeper.over {
            return;
        }
        let Errand { seq, command, .. } = keeper.errands.remove(0);
        // The next one begins only now.
        keeper.errands.iter_mut().for_each(|errand| errand.started_ns = now_ns);
        self.step();
        let outcome = if self.tree.answers(now_ns) {
            self.run(command)
        } else {
            // Refused, or without an answer: then it may have been done all the same.
            if !self.tree.is_down(now_ns) && self.rng.once_in(2) {
                self.run(command);
            }
            Outcome::Failed
        };
        let done = (now_ns, News::Done(Completion { seq, outcome }));
        if let Some(keeper) = &mut self.keeper {
            keeper.news.push(done);
        }
    }

    /// The keeper is killed while an errand is under way.
    pub fn errand_is_cut(&mut self) {
        let command = self.keeper.as_ref().and_then(|keeper| keeper.errands.first()).map(|errand| errand.command);
        if let Some(command) = command.filter(|_| self.tree.answers(self.now_ns()))
            && self.rng.once_in(2)
        {
            self.run(command);
        }
    }

    fn run(&mut self, command: Command) -> Outcome {
        self.tell(format_args!("xenstored: {command:?}"));
        match command {
            Command::AskSuspend if !self.tree.read(Node::Control).is_empty() => Outcome::Busy,
            Command::AskSuspend => {
                self.write(Node::Control, SUSPEND);
                let read = (self.now_ns(), News::Control(control(&self.tree)));
                if let Some(keeper) = &mut self.keeper {
                    keeper.asked += 1;
                    keeper.news.push(read);
                }
                Outcome::Ok
            }
            Command::ReadControl if control(&self.tree) == Control::Standing => Outcome::Standing,
            Command::ReadControl => Outcome::Taken,
            Command::Withdraw if control(&self.tree) == Control::Standing => {
                self.truth.withdrawn |= matches!(self.truth.stands, Some((Who::Foreign, _)));
                self.write(Node::Control, "");
                self.ack_ns = None;
                Outcome::Ok
            }
            Command::Withdraw => Outcome::Taken,
            Command::TellAcked => {
                let token = self.keeper.as_ref().map_or(self.token, |keeper| keeper.token);
                self.write(Node::Acked, &Acked { token }.to_string());
                Outcome::Ok
            }
            Command::Announce(verdict) => {
                self.announce(verdict);
                Outcome::Ok
            }
            _ => Outcome::Ok,
        }
    }

    fn announce(&mut self, verdict: Verdict) {
        let token = self.keeper.as_ref().map_or(self.token, |keeper| keeper.token);
        self.truth.word |= token == self.token;
        let (resumed, reason) = match verdict {
            Verdict::Resumed => (true, Line::default()),
            Verdict::Void(reason) => (false, Line::of(reason.word())),
        };
        if resumed {
            if !self.truth.said_captured || self.truth.resumed == 0 {
                self.wrong("`resumed` was said of a take that had not captured all, or was not resumed by the keeper");
            }
            self.truth.may_seal |= token == self.token;
        } else {
            self.write(Node::Cancel, &Cancel { token }.to_string());
        }
        let word = Word { token, resumed, reason, disks: Default::default() };
        self.write(Node::Verdict, &word.to_string());
    }
}
