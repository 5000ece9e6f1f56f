//! What must hold after each take, whatever happened in it, and of every disk that a cut or a death may leave.

use snapshot::fault::Fault;
use snapshot::keeper::Target;
use snapshot::status::{State, Status};
use snapshot::store::Store;

use super::host::{Host, Who};
use super::plan::Strike;
use super::run::{Outcome, Run};
use super::tree::{Node, SUSPEND};
use crate::content::{Held, Pages};
use crate::disk::Disk;
use crate::explore;
use crate::history::{History, with};
use crate::image::Image;
use crate::judge;
use crate::rng::Rng;

/// Random disks that a cut may leave, beside the two extremes.
const CUTS: u64 = 2;
/// Once in so many looks at a disk, everything is read from it, and it is gone on with.
const DEEP: u64 = 6;

impl Run {
    /// After a take, and what dom0 did about it.
    pub fn judge(&mut self, status: &Status) {
        self.expect(status);
        if self.host.borrow().power_is_out {
            return;
        }
        self.host.borrow_mut().judge(status, self.armed.is_some());
        if self.host.borrow().stub.alive {
            let image = self.history.disk.image();
            self.look_at(&image);
            self.judge_memory(&image);
        }
    }

    /// What the store may hold from here on.
    fn expect(&mut self, status: &Status) {
        let mut host = self.host.borrow_mut();
        let pages = host.truth.captured.as_deref().map(crate::take::pages_of);
        let sealed = status.state == State::Sealed;
        let may_seal = host.truth.may_seal;
        if sealed && !may_seal {
            host.wrong("a snapshot was sealed without the keeper's word");
        }
        let doubtful = !host.stub.alive || self.store.as_ref().is_none_or(Store::poisoned);
        let name = format!("web01@n{}", host.token.0[0] - 1);
        drop(host);
        let Some(pages) = pages.filter(|_| sealed || may_seal && doubtful) else { return };
        let after = with_each(&self.history.possible, &name, &pages);
        self.known.extend(after.iter().cloned());
        if sealed {
            self.history.possible = after;
        } else {
            self.history.possible.extend(after);
        }
    }

    /// One disk that may be found.
    fn look_at(&mut self, image: &Image) {
        let deep = self.host.borrow_mut().rng.once_in(DEEP);
        self.host.borrow_mut().tally.disks += 1;
        let verdict = if self.lied {
            judge::honest(Disk::with(self.blocks(), image.clone()), &self.known).map(|_| ())
        } else {
            judge::whole(self.blocks(), image, &self.history.possible, deep)
        };
        if let Err(what) = verdict {
            self.host.borrow_mut().wrong(format!("the store: {what}"));
        }
    }

    /// What the stub thinks is free is free.
    fn judge_memory(&mut self, image: &Image) {
        let Some(store) = self.store.as_ref().filter(|store| !store.poisoned() && !self.lied) else { return };
        let here = store.info().free_segments;
        let there = Store::open(Disk::with(self.blocks(), image.clone())).ok().map(|store| store.info().free_segments);
        if there != Some(here) {
            self.host.borrow_mut().wrong(format!("segments leak: {here:?} free here, {there:?} on the disk"));
        }
    }

    /// A stub is dead, or the power is out: what it had not flushed arrives, or not.
    fn disks_after(&mut self) -> Vec<Image> {
        let mut rng = Rng(self.host.borrow_mut().rng.next());
        let images = explore::ends(&self.history, &mut rng, CUTS);
        images.iter().for_each(|image| self.look_at(image));
        images
    }

    /// The next stub finds one of them.
    pub fn disk_after_death(&mut self) {
        let images = self.disks_after();
        let chosen = self.host.borrow_mut().rng.below(images.len() as u64);
        let image = images[usize::try_from(chosen).unwrap_or(0)].clone();
        let possible = std::mem::take(&mut self.history.possible);
        self.history = History::new(Disk::with(self.history.blocks(), image), possible);
    }

    /// The power goes at the end of every run.
    pub fn end(mut self) -> Outcome {
        self.disks_after();
        let mut host = self.host.borrow_mut();
        host.tally.runs = 1;
        host.tally.steps = host.steps;
        Outcome { wrong: std::mem::take(&mut host.wrong), tally: std::mem::take(&mut host.tally) }
    }
}

fn with_each(states: &[Held], name: &str, pages: &Pages) -> Vec<Held> {
    states.iter().map(|held| with(held, name, pages.clone())).collect()
}

impl Host {
    /// The guest and what Xen and xenstore have of it.
    fn judge(&mut self, status: &Status, armed: bool) {
        if matches!(status.fault, Some(Fault::Cancelled | Fault::VerdictVoid)) && !self.truth.word {
            self.wrong("the session was ended by a word for another one");
        }
        if self.cap != self.plan.cap && self.target() != Target::Gone {
            let (cap, was) = (self.cap, self.plan.cap);
            self.wrong(format!("the guest's CPU cap is {cap}, it was {was}"));
        }
        match self.target() {
            Target::Gone | Target::Stopped => return,
            Target::Running => {}
            Target::Suspended => {
                if let Some((Who::Us, _)) = self.truth.stands {
                    self.wrong("the guest is left standing by us");
                }
                self.goes_on();
            }
        }
        if self.subscribed {
            self.wrong("suspends of the guest are silent still");
        }
        if self.tree.read(Node::Control) == SUSPEND {
            self.wrong("a request to suspend stands still");
        }
        self.judge_tracking(status, armed);
    }

    fn judge_tracking(&mut self, status: &Status, armed: bool) {
        let on = self.guest.borrow().log_dirty;
        let foreign = self.plan.strikes.iter().any(|(_, strike)| *strike == Strike::ForeignOff);
        if on && !armed && status.fault != Some(Fault::TrackingLeftOn) {
            self.wrong("the guest's dirty tracking is left on");
        }
        if !on && armed && !foreign {
            self.wrong("the stub thinks that the guest is tracked");
        }
    }
}
