//! The guest as dom0 and its user see it: it takes a request or not, suspends or not, ends, and other tools act on it.

use snapshot::keeper::Target;
use snapshot::ports::ShutdownCode;

use super::host::{Host, Who};
use super::plan::Strike;
use super::tree::{Node, SUSPEND};
use crate::take::world::Event;

impl Host {
    /// As dom0 sees it.
    pub fn target(&self) -> Target {
        let guest = self.guest.borrow();
        match guest.shutdown {
            _ if guest.gone || guest.dying => Target::Gone,
            None => Target::Running,
            Some(ShutdownCode::SUSPEND) => Target::Suspended,
            Some(_) => Target::Stopped,
        }
    }

    pub fn guest_due_ns(&self) -> u64 {
        if !self.guest.borrow().running() {
            return u64::MAX;
        }
        let asked = self.tree.read(Node::Control) == SUSPEND;
        let ack = self.ack_ns.filter(|_| asked).map_or(u64::MAX, |at| at.max(self.tree.back_ns()));
        ack.min(self.suspend_ns.unwrap_or(u64::MAX))
    }

    /// The guest's own doings.
    pub fn guest_turn(&mut self) {
        let now_ns = self.now_ns();
        if !self.guest.borrow().running() {
            return;
        }
        let asked = self.tree.read(Node::Control) == SUSPEND;
        if !asked {
            self.ack_ns = None;
        } else if self.ack_ns.is_none() {
            self.ack_ns = self.manners.ack_ns.map(|after| now_ns + after);
        }
        if asked && self.ack_ns.is_some_and(|at| at <= now_ns) && self.tree.answers(now_ns) {
            self.ack_ns = None;
            self.truth.acked = true;
            self.tell("the guest takes the request");
            self.write(Node::Control, "");
            self.suspend_ns = self.manners.suspend_ns.map(|after| now_ns + after);
        }
        if self.suspend_ns.is_some_and(|at| at <= now_ns) {
            self.suspend_ns = None;
            self.suspends(Who::Us);
        }
    }

    fn suspends(&mut self, who: Who) {
        self.tell(format_args!("the guest suspends: {who:?}"));
        self.guest.borrow_mut().suspend();
        self.truth.stands = Some((who, self.now_ns()));
        self.tally.suspends += 1;
    }

    /// The operator lets it run. What it was asked long ago, when nobody waits for it any more, it does not do now.
    pub fn unpause(&mut self) {
        if std::mem::take(&mut self.guest.borrow_mut().paused) {
            (self.ack_ns, self.suspend_ns) = (None, None);
        }
    }

    /// It goes on, by whoever's hand.
    pub fn goes_on(&mut self) {
        self.tell("the guest goes on");
        self.guest.borrow_mut().meanwhile(Event::ForeignResume);
        if let Some((who, since_ns)) = self.truth.stands.take() {
            let stood_ns = self.now_ns() - since_ns;
            let longest = &mut self.tally.stood_ns_max;
            *longest = (*longest).max(if who == Who::Us { stood_ns } else { 0 });
        }
    }

    /// `XEN_DOMCTL_resumedomain` by us, keeper or recovery. False: refused, or there was nothing to resume.
    pub fn resume_by_us(&mut self) -> bool {
        if self.resume_refusals > 0 {
            self.resume_refusals -= u32::from(self.resume_refusals != u32::MAX);
            return false;
        }
        if self.target() != Target::Suspended {
            return self.target() == Target::Running;
        }
        let foreign = matches!(self.truth.stands, Some((Who::Foreign, _)));
        // The word was taken back, and who did it died before the record said so.
        let lost = self.truth.withdrawn && self.keeper.is_none();
        self.tally.undecidable += u64::from(foreign && lost);
        // Without an answer, or with our word overwritten, nobody in dom0 can tell whose suspend it is.
        if foreign && !lost && !self.truth.acked && !self.tree.troubled && !self.truth.overwritten {
            self.wrong("a suspend of somebody else was resumed");
        }
        self.goes_on();
        true
    }

    pub fn strike_guest(&mut self, strike: Strike) {
        let running = self.guest.borrow().running();
        let event = match strike {
            Strike::Destroy => Event::Destroy,
            Strike::DomidReused => Event::DomidReused,
            Strike::PowerOff if running => Event::Shutdown(0),
            Strike::ForeignSuspend if running => {
                // Of two suspends at once one happens: ours, if the guest is about to.
                let who = if self.suspend_ns.take().is_some() { Who::Us } else { Who::Foreign };
                return self.suspends(who);
            }
            Strike::ForeignResume if self.target() == Target::Suspended => return self.goes_on(),
            Strike::ForeignOff => Event::ForeignOff,
            Strike::Pause => Event::Pause,
            Strike::Unpause => {
                self.guest.borrow_mut().paused = false;
                return;
            }
            Strike::Swap if self.truth.seen_moves(1, 1) => Event::Swap,
            Strike::BalloonOut if self.truth.seen_moves(1, 0) => Event::BalloonOut(1),
            Strike::BalloonIn if self.truth.seen_moves(0, 1) => Event::BalloonIn(1),
            _ => return,
        };
        if matches!(strike, Strike::Destroy | Strike::DomidReused | Strike::PowerOff) {
            let state = self.stub_stands_in();
            self.tally.death("guest", state);
            self.truth.stands = None;
        }
        self.guest.borrow_mut().meanwhile(event);
    }
}
