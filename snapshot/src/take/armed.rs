//! A guest whose dirty tracking stays on between two snapshots, and whether what is known of it is still true.
//!
//! Invariants: what is kept here is complete or is thrown away: every page that changed since the snapshot below is in
//! `send`, or noted by Xen since. Whoever finds a doubt switches tracking off, and the next snapshot is a full one that
//! says why. Memory: the bitmaps of the guest, as a take has them.

use alloc::string::{String, ToString};

use xen_hypercall::types::{DomHandle, DomId, Gfn};

use super::engine::{Engine, Target, done};
use super::prepare::Work;
use super::recorder::Recorder;
use super::untold::{REARRANGED, arrangement};
use crate::fault::Fault;
use crate::fields::Line;
use crate::ports::{Clock, Control, DirtyLog, PAGE_SIZE, TargetError};
use crate::request::{Kind, Take};
use crate::session::{Machine, Observation, Trouble};
use crate::store::{Digest, Safeguard, out};
use crate::tracking::Tracking;

/// A canary died.
const CLEARED: &str = "another tool switched the dirty tracking off, or off and on again";

/// A guest that is tracked since its last snapshot.
#[derive(Debug)]
pub struct Armed {
    /// The guest.
    pub domid: DomId,
    /// Its handle.
    pub handle: DomHandle,
    /// Number of the snapshot.
    pub snapshot: u64,
    /// The digest of its content.
    pub content: Digest,
    /// Its name.
    pub name: String,
    /// Pages of the guest at that time.
    pub tot_pages: u64,
    /// Why it is not to be relied on any more; empty: nothing is known against it.
    pub doubt: Line,
    /// Another tool had its hand in the tracking, and may use it now.
    foreign: bool,
    /// How a PV guest had arranged its memory at the snapshot.
    pub(super) arrangement: Option<Digest>,
    pub(super) tracking: Tracking,
}

/// What a take begins with.
#[derive(Debug, Default)]
pub struct Before {
    /// The guest is tracked.
    pub armed: Option<Armed>,
    /// Why it is not, for people.
    pub why: Line,
    /// How long it needed to suspend before ([`super::Habits`]). Nanoseconds.
    pub freeze_ns: Option<u64>,
}

/// What a take leaves to the next one.
#[derive(Debug)]
pub struct After {
    /// The guest stays tracked.
    pub armed: Option<Armed>,
    /// From our wish to its suspend, if it suspended. Nanoseconds.
    pub freeze_ns: Option<u64>,
}

/// Decides what the take lies on, before the store or the guest's tracking is touched for good: `None` for the snapshot
/// since which the guest is tracked, else why there is none (empty: none is wanted). Then tracking is off.
pub(super) fn start<T: Target, R: Recorder>(
    target: &mut T,
    recorder: &mut R,
    take: &Take,
    before: &mut Before,
    max_gfn: Gfn,
) -> Result<Option<Line>, Trouble> {
    let Some(armed) = &mut before.armed else {
        let why = if take.kind == Kind::Incremental { core::mem::take(&mut before.why) } else { Line::default() };
        return wanted(take, why).map(Some);
    };
    let doubts = match &take.parent {
        _ if take.kind != Kind::Incremental => Some(Line::default()),
        // The guest stays tracked: the mistake is the operator's.
        Some(parent) if parent.as_str() != armed.short_name() => {
            return wanted(take, Line::of(format_args!("the guest is tracked since {}", armed.name))).map(Some);
        }
        _ => armed.doubts(target, recorder, max_gfn)?,
    };
    let Some(why) = doubts else { return Ok(None) };
    before.armed = None;
    target.off()?;
    wanted(take, why).map(Some)
}

/// A parent that was asked for and cannot be had is an error.
fn wanted(take: &Take, why: Line) -> Result<Line, Trouble> {
    match &take.parent {
        None => Ok(why),
        Some(parent) => Err(Trouble::new(Fault::BadParent, format_args!("nothing can lie on {parent}: {why}"))),
    }
}

impl Armed {
    /// Looks at what Xen has noted, between two takes: all that was there must be there still, and from now on what is
    /// there now. The older a note is, the less likely the guest has made it again after a foreign hand cleared it.
    pub fn look(&mut self, log: &mut impl DirtyLog) -> Result<(), TargetError> {
        if !self.doubt.is_empty() {
            return Ok(());
        }
        if !self.tracking.canary_lives(log)? {
            self.doubt = Line::of(CLEARED);
            self.foreign = true;
        }
        self.tracking.canary.union_with(&self.tracking.skip);
        self.tracking.skip.clear();
        Ok(())
    }

    /// Ends the tracking, if it is ours still. False: another tool has switched it off and on, so it may use it now,
    /// and without its bits a migration would lose pages. It is left alone.
    pub fn let_go(&mut self, log: &mut impl DirtyLog) -> Result<bool, TargetError> {
        // Where tracking was off that question has switched it on.
        let on = log.still_on()?;
        self.foreign |= on && !self.tracking.canary_lives(log)?;
        if on && self.foreign { Ok(false) } else { log.off().map(|()| true) }
    }

    fn short_name(&self) -> &str {
        self.name.split_once('@').map_or("", |(_, name)| name)
    }

    /// What speaks against building on it.
    fn doubts<T: Target, R: Recorder>(
        &mut self,
        target: &mut T,
        recorder: &mut R,
        max_gfn: Gfn,
    ) -> Result<Option<Line>, Trouble> {
        if !self.doubt.is_empty() {
            return Ok(Some(self.doubt.clone()));
        }
        if !recorder.knows(self.snapshot, &self.content)? && !out(Safeguard::KnownBelow) {
            return Ok(Some(Line::of(format_args!("{} was removed", self.name))));
        }
        if max_gfn.raw() >= self.tracking.populated.len() {
            return Ok(Some(Line::of("the guest's address space grew")));
        }
        if !target.still_on()? {
            return Ok(Some(Line::of("another tool switched the dirty tracking off")));
        }
        if !self.tracking.canary_lives(target)? {
            return Ok(Some(Line::of(CLEARED)));
        }
        // Right after the look at the canary: what Xen has noted by now is in the sets.
        match arrangement(target, &self.tracking) {
            Ok((now, false)) if now == self.arrangement => {}
            Ok(_) | Err(TargetError::P2m { .. }) => return Ok(Some(Line::of(REARRANGED))),
            Err(error) => return Err(error.into()),
        }
        self.tracking.end = self.tracking.end.max(max_gfn.raw() + 1);
        Ok(None)
    }

    /// Pages that are known to have changed; to be asked right after [`start`].
    pub(super) fn changed(&self) -> u64 {
        self.tracking.send.count().saturating_add(self.tracking.skip.count())
    }

    /// A guest that is tracked from this snapshot on.
    fn new(take: &Take, (snapshot, content): (u64, Digest), work: Work) -> Self {
        let name = take.name.to_string();
        let Work { tot_pages, arrangement, mut tracking, .. } = work;
        tracking.begin_anew();
        Self {
            domid: take.domid,
            handle: take.handle,
            snapshot,
            content,
            name,
            tot_pages,
            doubt: Line::default(),
            foreign: false,
            arrangement,
            tracking,
        }
    }
}

impl<T: Target, K: Control + Clock, R: Recorder> Engine<'_, T, K, R> {
    pub(super) fn on_top(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.on_top)
    }

    /// Is everything known that changed since the snapshot below? A page that came or went is not.
    pub(super) fn carries(&self) -> bool {
        let moved = |work: &Work| (self.full_passes > 0 || work.tracking.moved) && !out(Safeguard::MovedPages);
        let lost = self.bits_lost && !out(Safeguard::LostBits);
        let whole = |work: &Work| !work.on_top || !moved(work) && !lost;
        self.before.armed.is_some() && self.work.as_ref().is_none_or(whole)
    }

    /// The store may have more room than was set aside for what was known to have changed.
    pub(super) fn more_room(&mut self, left: u64) -> Result<u64, Trouble> {
        if !self.on_top() {
            return Ok(left);
        }
        let room = self.recorder.room() / PAGE_SIZE as u64;
        let pages = self.counters.pages;
        let work = Self::work(&mut self.work)?;
        // Some of it goes into indexes.
        work.room_pages = work.room_pages.max(pages.saturating_add(room - room / 32));
        Ok(work.room_pages.saturating_sub(pages))
    }

    /// The guest runs, and stays tracked: what Xen has noted by now must be there when the next snapshot begins.
    pub(super) fn arm(&mut self) -> Result<Observation, Trouble> {
        self.counters.peeks += 1;
        let work = Self::work(&mut self.work)?;
        done(work.tracking.note_canary(self.target))
    }

    /// The guest as it is left, if it stays tracked.
    pub(super) fn armed_after(&mut self, machine: &Machine) -> Option<Armed> {
        if !machine.tracks() || self.take.kind != Kind::Incremental {
            return None;
        }
        let (work, below) = (self.work.take(), self.before.armed.take());
        if machine.sealed() {
            return Some(Armed::new(self.take, self.recorder.sealed()?, work?));
        }
        let mut below = below?;
        if let Some(work) = work.filter(|work| work.on_top) {
            below.tracking = work.tracking;
            below.tracking.begin_again();
            if below.tracking.note_canary(self.target).is_err() {
                below.doubt = Line::of("what Xen had noted could not be read");
            }
        }
        Some(below)
    }
}
