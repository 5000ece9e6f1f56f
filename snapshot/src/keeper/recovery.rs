//! What `livesave recover` does for the guest of a keeper that is dead: the order of things, and what each depends on.
//!
//! Invariants: a guest that stands is resumed only if the record says that we asked and xenstore says that the guest
//! took our request; what may still be needed is left in place and said so; doing it twice is harmless. The caller
//! holds the guest's lock, and keeps the record as long as anything is left.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;
use core::time::Duration;

use super::deadlines::Deadlines;
use super::machine::Mark;
use super::words::Target;
use crate::store::{Safeguard, out};

/// A guest that took the request may still be about to suspend: how long to look for it.
const LATE: Duration = Duration::from_secs(5);

/// What the record of the dead keeper says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// How far it had come; [`Mark::Done`]: the guest is fine, the stub's tracking may be on.
    pub mark: Mark,
    /// When the guest was asked to suspend, in seconds since dom0 booted.
    pub asked_s: Option<u64>,
    /// The guest's CPU cap was lowered.
    pub capped: bool,
}

/// What became of a request that was found, or not found, in `control/shutdown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// It stood there and the guest ran: withdrawn.
    Withdrawn,
    /// It stood there and the guest stood: by another tool's suspend. Withdrawn too.
    Foreign,
    /// It was not there: the guest took it.
    Taken,
}

/// The stub that the take was of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StubNow {
    /// It lives and is in the middle of something.
    AtWork,
    /// It lives, and says that the guest stays tracked between its snapshots.
    Tracks,
    /// Neither.
    Nothing,
}

/// What `recover` sees and does in dom0. The guest is named by domid and handle.
pub trait Dom0 {
    /// Why something could not be done, for people.
    type Error: Display;
    /// The guest.
    fn target(&mut self) -> Target;
    /// In one transaction: if our word stands in `control/shutdown`, looks at the guest and empties it.
    fn take_back(&mut self) -> Result<Request, Self::Error>;
    /// Another tool that saves or migrates the guest.
    fn saver(&mut self) -> Option<String>;
    /// Fast resume.
    fn resume(&mut self) -> Result<(), Self::Error>;
    /// `XS_RESUME`.
    fn tell_xenstore(&mut self) -> Result<(), Self::Error>;
    /// `XEN_DOMCTL_subscribe` to port 0.
    fn unsilence(&mut self) -> Result<(), Self::Error>;
    /// The record says from now on that the request is used up or withdrawn.
    fn settle(&mut self) -> Result<(), Self::Error>;
    /// The guest's CPU cap as the record has it.
    fn put_cap_back(&mut self) -> Result<(), Self::Error>;
    /// The stub.
    fn stub(&mut self) -> Result<StubNow, Self::Error>;
    /// Switches dirty tracking off if it is on. True: it was.
    fn tracking_off(&mut self) -> Result<bool, Self::Error>;
    /// Since dom0 booted.
    fn uptime(&mut self) -> Duration;
    /// A moment until the next look at the guest.
    fn rest(&mut self);
}

/// What was done for one record.
#[derive(Debug, Default)]
pub struct Deeds {
    /// For people.
    pub done: Vec<String>,
    /// What is not done, and why. Empty: nothing is left.
    pub left: Vec<String>,
}

impl Deeds {
    /// Notes what came of something.
    pub fn note(&mut self, what: &str, result: Result<(), impl Display>) {
        match result {
            Ok(()) => self.done.push(what.to_string()),
            Err(error) => self.left.push(format!("{what}: {error}")),
        }
    }

    fn did(&mut self, what: &str) {
        self.done.push(what.to_string());
    }
}

/// Undoes what can be undone by now.
pub fn recover(left: &Left, dom0: &mut impl Dom0) -> Deeds {
    let mut deeds = Deeds::default();
    if dom0.target() == Target::Gone {
        deeds.did("the guest is gone");
        return deeds;
    }
    let asked = matches!(left.mark, Mark::Asked | Mark::Standing);
    let awaited = asked && !request(left, dom0, &mut deeds);
    // A suspend that is still to come has to be as silent as any of ours: xl's monitor of the guest ends at it.
    if !awaited {
        deeds.note("suspends are announced again", dom0.unsilence());
    }
    if asked && !awaited {
        // The next recovery, if one is needed, must not wait for a suspend that has been.
        deeds.note("the request is settled", dom0.settle());
    }
    if left.capped {
        deeds.note("the guest has its CPU cap back", dom0.put_cap_back());
    }
    tracking(dom0, &mut deeds);
    deeds
}

/// Resumes the guest if it stands by our request; takes back a request that it has not seen. False: the request may
/// still make it suspend, or makes it stand.
fn request(left: &Left, dom0: &mut impl Dom0, deeds: &mut Deeds) -> bool {
    if left.mark == Mark::Standing {
        // The request is used up: a word that stands there now is not ours.
        return taken(left, dom0, deeds);
    }
    match dom0.take_back() {
        Ok(Request::Foreign) => {
            deeds.did("the guest stands by another tool's suspend: left alone, our request withdrawn");
        }
        Ok(Request::Withdrawn) => deeds.did("the request was withdrawn before the guest took it"),
        Ok(Request::Taken) => return taken(left, dom0, deeds),
        Err(error) => {
            deeds.left.push(format!("whether the guest took the request: {error}"));
            return false;
        }
    }
    true
}

/// A guest that took our request is resumed. If it has not suspended by now it still may, for as long as a keeper would
/// have watched for it: until then the record stays, so that the next recovery finds it.
fn taken(left: &Left, dom0: &mut impl Dom0, deeds: &mut Deeds) -> bool {
    let until = dom0.uptime().saturating_add(LATE);
    while dom0.target() != Target::Suspended || out(Safeguard::LateSuspend) {
        let now = dom0.uptime();
        let awaited = still_awaited(left, now.as_secs());
        if awaited.is_none() || now >= until {
            let Some(seconds) = awaited else {
                deeds.did("the guest runs");
                return true;
            };
            deeds.left.push(format!(
                "the guest took the suspend request and runs still: should it suspend late, recover again; after \
                 {seconds} s it is not waited for any more"
            ));
            return false;
        }
        dom0.rest();
    }
    if let Some(saver) = dom0.saver() {
        // It may stand for that by now, and what is saved must not go on meanwhile.
        deeds.left.push(format!("the guest stands, and {saver} is at work on it: recover again when that has ended"));
        return false;
    }
    let resumed = dom0.resume();
    let runs = resumed.is_ok();
    deeds.note("the guest was resumed", resumed);
    if runs {
        deeds.note("xenstored was told", dom0.tell_xenstore());
    }
    runs
}

/// For how many seconds a suspend by the record's request is still to be reckoned with.
pub fn still_awaited(left: &Left, now_s: u64) -> Option<u64> {
    if left.mark == Mark::Standing {
        return None;
    }
    let end = left.asked_s?.saturating_add(Deadlines::LIVE.late.as_secs());
    end.checked_sub(now_s).filter(|left| *left > 0)
}

/// Switches log-dirty off, unless somebody who lives uses it.
fn tracking(dom0: &mut impl Dom0, deeds: &mut Deeds) {
    if let Some(saver) = dom0.saver() {
        deeds.done.push(format!("dirty tracking left to {saver}"));
        return;
    }
    match dom0.stub() {
        Ok(StubNow::AtWork) => deeds
            .left
            .push("the stub is at work: its dirty tracking is its own; recover again when it is idle".to_string()),
        Err(error) => deeds.left.push(format!("what the stub does: {error}")),
        Ok(StubNow::Tracks) => deeds.did("dirty tracking is the stub's, for the next incremental snapshot"),
        Ok(StubNow::Nothing) => match dom0.tracking_off() {
            Ok(true) => deeds.did("dirty tracking switched off"),
            Ok(false) => deeds.did("dirty tracking is off"),
            Err(error) => deeds.left.push(format!("dirty tracking: {error}")),
        },
    }
}
