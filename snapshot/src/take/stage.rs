//! Copying into staging and out of it again: once while the guest freezes itself, once while it stands, and to the
//! store when it runs.
//!
//! Invariants: the first pass leaves alone what does not fit; the second, the last set, sends that to the store while
//! the guest waits; no gfn is in both. A page that was copied by the first pass and written since is copied again by
//! the second, into the same place.

use super::recorder::Recorder;
use crate::copy::{self, Attend, next_batch, store_page, unreadable};
use crate::ports::{GuestMemory, PageError};
use crate::session::Trouble;
use crate::staging::Staging;
use crate::status::Counters;
use crate::tracking::{Batch, Bitmap, Tracking};

/// Pages that leave staging between two looks at dom0.
const DRAIN_PAGES: usize = 256;

/// A pass into staging.
pub(super) struct StageRun<'a, T, R> {
    pub target: &'a mut T,
    pub recorder: &'a mut R,
    pub tracking: &'a mut Tracking,
    pub staging: &'a mut Staging,
    pub spill: &'a mut Spill,
    pub counters: &'a mut Counters,
}

/// What does not fit, batch by batch.
#[derive(Debug)]
pub(crate) struct Spill {
    pages: Batch,
    holes: Batch,
    begun: bool,
}

impl Spill {
    /// An empty one; `None` if there is no memory for it.
    pub fn try_new() -> Option<Self> {
        Some(Self { pages: Batch::try_new()?, holes: Batch::try_new()?, begun: false })
    }
}

impl<T: GuestMemory, R: Recorder> StageRun<'_, T, R> {
    /// While the guest freezes: as much as fits, until `attend` says (true) that the guest stands.
    pub fn first(&mut self, attend: &mut FirstAttend<'_, T>) -> Result<bool, Trouble> {
        let (mut at, mut stands) = (0, false);
        while at < self.tracking.end && !stands {
            let mut skipped = 0;
            let next = next_batch(self.target, self.tracking, at, false, &mut skipped)?;
            if !self.stage_batch()? {
                break;
            }
            self.tracking.end_pass(next);
            at = next;
            stands = attend(self.target, self.counters)?;
        }
        self.staging.end_first_pass();
        Ok(stands)
    }

    /// The last set: all of it.
    pub fn last(&mut self, attend: &mut Attend<'_, T>) -> Result<(), Trouble> {
        let mut at = 0;
        while at < self.tracking.end {
            let mut skipped = 0;
            at = next_batch(self.target, self.tracking, at, true, &mut skipped)?;
            self.stage_last()?;
            attend(self.target, self.counters)?;
        }
        self.tracking.end_pass(at);
        if core::mem::take(&mut self.spill.begun) {
            self.recorder.run_end()?;
        }
        Ok(())
    }

    /// False if there is no room for all of the batch, or not all of it can be read now: it waits for the last set.
    /// What only does not settle waits there alone.
    fn stage_batch(&mut self) -> Result<bool, Trouble> {
        let Tracking { batch, unknown, deferred, .. } = &mut *self.tracking;
        let staging = &mut *self.staging;
        let free = staging.capacity() - staging.used();
        if (batch.gfns().len() + unknown.gfns().len()) as u64 > free {
            return Ok(false);
        }
        staging.begin_batch();
        let fits =
            batch.gfns().iter().all(|&gfn| staging.admit(gfn)) && unknown.gfns().iter().all(|&g| staging.hole(g));
        if fits && !batch.gfns().is_empty() {
            self.target.land(batch.gfns(), staging)?;
        }
        Ok(fits && staging.is_landed() && defer(staging, batch, deferred))
    }

    fn stage_last(&mut self) -> Result<(), Trouble> {
        let Tracking { batch, unknown, populated, deferred, .. } = &mut *self.tracking;
        let (staging, spill) = (&mut *self.staging, &mut *self.spill);
        staging.begin_batch();
        spill.pages.split_from(batch, |&gfn| staging.admit(gfn));
        spill.holes.split_from(unknown, |&gfn| staging.hole(gfn));
        self.counters.pause_pages += (batch.gfns().len() + spill.pages.gfns().len()) as u64;
        if !batch.gfns().is_empty() {
            self.target.land(batch.gfns(), staging)?;
        }
        if let Some(&(index, error)) = staging.failures().first() {
            return Err(batch.gfns().get(index).map_or_else(copy::incomplete, |&gfn| unreadable(gfn, error)));
        }
        if !staging.is_landed() {
            return Err(copy::incomplete());
        }
        if spill.pages.gfns().is_empty() && spill.holes.gfns().is_empty() {
            return Ok(());
        }
        if !core::mem::replace(&mut spill.begun, true) {
            self.recorder.run_begin()?;
        }
        let lists = (spill.pages.gfns(), spill.holes.gfns());
        copy::send(self.target, self.recorder, (populated, deferred), self.counters, lists, true)
    }
}

/// Puts what did not settle off to the last set, which overwrites its place. False: something else went wrong.
fn defer(staging: &Staging, batch: &Batch, deferred: &mut Bitmap) -> bool {
    staging.failures().iter().all(|&(index, error)| {
        let gfn = batch.gfns().get(index).filter(|_| error == PageError::UNSETTLED && !deferred.is_empty());
        gfn.map(|&gfn| deferred.insert(gfn)).is_some()
    })
}

/// Between two batches of the first pass; true when the guest stands.
pub(super) type FirstAttend<'a, T> = dyn FnMut(&mut T, &Counters) -> Result<bool, Trouble> + 'a;

/// The guest runs again: everything goes to the store, as one run.
pub(super) fn drain<R: Recorder>(
    staging: &Staging,
    recorder: &mut R,
    counters: &mut Counters,
    attend: &mut dyn FnMut(&Counters) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    if staging.is_empty() {
        return Ok(());
    }
    recorder.run_begin()?;
    for (index, (gfn, page)) in staging.pages().enumerate() {
        match page {
            Some(page) => store_page(recorder, counters, gfn, page)?,
            None => recorder.hole(gfn)?,
        }
        if index % DRAIN_PAGES == DRAIN_PAGES - 1 {
            attend(counters)?;
        }
    }
    recorder.run_end()
}
