//! What the dirty bits do not tell of a PV guest that stays tracked, looked for in the pause.
//!
//! Invariants: a page is left out of an incremental snapshot only if it was ordinary memory at the snapshot below and
//! is so now, behind the same machine frame, by p2m and M2P, and was not noted as dirty in between. Page tables are
//! always sent: the frames that they name may be other pages by now. The frame is the same because the p2m is, word by
//! word, and no page that it is kept in was written. Xen marks nothing when it fills the M2P itself
//! (xen/common/memory.c, populate_physmap and memory_exchange), so a p2m that changed leaves nothing to build on.
//! Nothing is allocated here; the cost is proportional to the guest's memory, and is rehearsed.

use super::capture::PauseGuard;
use super::engine::{Engine, Target};
use super::recorder::Recorder;
use crate::fault::Fault;
use crate::ports::{Clock, Control, DomainControl, GuestMemory, TargetError};
use crate::session::Trouble;
use crate::store::Digest;
use crate::tracking::Tracking;

/// A p2m that is not what it was.
pub(super) const REARRANGED: &str = "the guest changed its p2m since its last snapshot";

impl<T: Target, K: Control + Clock, R: Recorder> Engine<'_, T, K, R> {
    /// What was dirty is not all that is to be sent.
    fn has_untold(&self) -> bool {
        self.work.as_ref().is_some_and(|work| !work.tracking.odd.is_empty())
    }

    /// The take leaves out what did not change since the snapshot below.
    fn leaves_out(&self) -> bool {
        self.on_top() && self.full_passes == 0
    }

    /// The arrangement of the guest's memory now, and whether it is another one than at the snapshot below.
    fn arrangement(&mut self) -> Result<(Option<Digest>, bool), Trouble> {
        let below = self.before.armed.as_ref().map(|armed| armed.arrangement);
        let (now, written) = arrangement(self.target, &Self::work(&mut self.work)?.tracking)?;
        Ok((now, self.leaves_out() && (written || below != Some(now))))
    }

    /// Before the guest is asked to suspend: has it rearranged its memory? Then all of it is to be sent.
    pub(super) fn rearranged(&mut self) -> Result<bool, Trouble> {
        if !self.has_untold() || !self.leaves_out() {
            return Ok(false);
        }
        match self.arrangement() {
            // Of a guest that runs: what makes no sense now is being changed.
            Err(trouble) if trouble.fault == Fault::BadP2m => Ok(true),
            answer => answer.map(|(_, changed)| changed),
        }
    }

    /// In the pause, the last bits are there: what is to be sent beside them.
    pub(super) fn find_untold(&mut self, guard: &mut PauseGuard) -> Result<(), Trouble> {
        if !self.has_untold() {
            return Ok(());
        }
        let (now, changed) = self.arrangement()?;
        if changed {
            return Err(Trouble::new(Fault::BadP2m, "the guest changed its p2m just before it suspended"));
        }
        let desk = &mut self.desk;
        let counters = &self.counters;
        let work = Self::work(&mut self.work)?;
        work.arrangement = now;
        find_odd(self.target, &mut work.tracking, &mut |target| {
            desk.attend(counters)?;
            guard.check(target, desk.now_ns())
        })?;
        work.tracking.send_odd();
        Ok(())
    }

    /// The same while the guest runs, for its price. Returns how many pages would be sent that are not dirty; what was
    /// found is forgotten.
    pub(super) fn rehearse_untold(&mut self) -> Result<u64, Trouble> {
        if !self.has_untold() {
            return Ok(0);
        }
        // What makes no sense while the guest runs is the pause's affair.
        match self.arrangement() {
            Err(trouble) if trouble.fault != Fault::BadP2m => return Err(trouble),
            _ => {}
        }
        let tracking = &mut Self::work(&mut self.work)?.tracking;
        find_odd(self.target, tracking, &mut |_| Ok(()))?;
        tracking.odd_now.union_with(&tracking.odd);
        let more = tracking.odd_now.count_without(&tracking.skip);
        tracking.odd_now.clear();
        Ok(more)
    }
}

/// The arrangement of the guest's memory, and whether a page that the guest keeps it in was noted since the snapshot
/// below.
pub(super) fn arrangement(
    target: &mut impl DomainControl,
    tracking: &Tracking,
) -> Result<(Option<Digest>, bool), TargetError> {
    let Tracking { send, since, skip, .. } = tracking;
    let mut written = false;
    let now = target.arrangement(&mut |gfn| written |= [send, since, skip].iter().any(|set| set.contains(gfn)))?;
    Ok((now, written))
}

/// All of the guest's memory that is no ordinary page now, to `odd_now`.
fn find_odd<T: GuestMemory>(
    target: &mut T,
    tracking: &mut Tracking,
    attend: &mut dyn FnMut(&mut T) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let Tracking { populated, odd_now, unknown, end, .. } = tracking;
    odd_now.clear();
    let mut at = 0;
    while at < *end {
        at = unknown.refill(populated, true, at, *end, |_| true);
        if !unknown.gfns().is_empty() {
            target.untold(unknown.gfns(), &mut |gfn| odd_now.insert(gfn))?;
        }
        attend(target)?;
    }
    Ok(())
}
