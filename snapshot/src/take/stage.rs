//! Copying into staging and out of it again: once while the guest freezes itself, once while it stands, and to the
//! store when it runs.
//!
//! Invariants: the first pass leaves alone what does not fit; the second, the last set, sends that to the store while
//! the guest waits; no gfn is in both. A page that was copied by the first pass and written since is copied again by
//! the second, into the same place. Pages are packed as long as what is left would not fit as it is, if that pays.

use super::recorder::Recorder;
use crate::copy::{self, Attend, next_batch, store_page, unreadable};
use crate::fault::Fault;
use crate::ports::{GuestMemory, PageError};
use crate::session::Trouble;
use crate::staging::{Spoilt, Staging};
use crate::status::Counters;
use crate::tracking::{Batch, Bitmap, Tracking};

/// Pages that leave staging between two looks at dom0.
const DRAIN_PAGES: u64 = 256;

/// How often the rest of a batch is tried again, that would not have fitted if none of the pages before it had packed:
/// each time at least half of the room is used up.
const PACK_TRIES: usize = 8;

/// A pass into staging.
pub(super) struct StageRun<'a, T, R> {
    pub target: &'a mut T,
    pub recorder: &'a mut R,
    pub tracking: &'a mut Tracking,
    pub staging: &'a mut Staging,
    pub spill: &'a mut Spill,
    pub counters: &'a mut Counters,
    /// It pays to pack what does not fit.
    pub packs: bool,
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
        let mut fresh = self.tracking.send.count().saturating_sub(self.staging.overlap(&self.tracking.send));
        while at < self.tracking.end {
            let mut skipped = 0;
            at = next_batch(self.target, self.tracking, at, true, &mut skipped)?;
            let before = self.staging.used();
            let packs = self.packs && fresh > self.staging.free();
            self.stage_last(packs)?;
            self.store_rest()?;
            fresh = fresh.saturating_sub(self.staging.used() - before);
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
        if (batch.gfns().len() + unknown.gfns().len()) as u64 > staging.free() {
            return Ok(false);
        }
        staging.begin_batch(false);
        let fits =
            batch.gfns().iter().all(|&gfn| staging.admit(gfn)) && unknown.gfns().iter().all(|&g| staging.hole(g));
        if fits && !batch.gfns().is_empty() {
            self.target.land(batch.gfns(), staging)?;
        }
        Ok(fits && staging.is_landed() && defer(staging, batch, deferred))
    }

    /// The batch into staging; `spill` keeps what does not fit.
    fn stage_last(&mut self, packs: bool) -> Result<(), Trouble> {
        let Tracking { batch, unknown, .. } = &mut *self.tracking;
        let (staging, spill) = (&mut *self.staging, &mut *self.spill);
        self.counters.pause_pages += batch.gfns().len() as u64;
        for tries_left in (0..if packs { PACK_TRIES } else { 1 }).rev() {
            staging.begin_batch(packs);
            spill.pages.split_from(batch, |&gfn| staging.admit(gfn));
            if !batch.gfns().is_empty() {
                self.target.land(batch.gfns(), staging)?;
            }
            if let Some(&(index, error)) = staging.failures().first() {
                return Err(batch.gfns().get(index).map_or_else(copy::incomplete, |&gfn| unreadable(gfn, error)));
            }
            if !staging.is_landed() {
                return Err(copy::incomplete());
            }
            if spill.pages.gfns().is_empty() || staging.free() == 0 || tries_left == 0 {
                break;
            }
            core::mem::swap(batch, &mut spill.pages);
        }
        // Behind the pages: among those of their batch they find their places by their numbers.
        spill.holes.split_from(unknown, |&gfn| staging.hole(gfn));
        Ok(())
    }

    /// What does not fit goes to the store.
    fn store_rest(&mut self) -> Result<(), Trouble> {
        let Tracking { populated, deferred, .. } = &mut *self.tracking;
        let spill = &mut *self.spill;
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
    staging: &mut Staging,
    recorder: &mut R,
    counters: &mut Counters,
    attend: &mut dyn FnMut(&Counters) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    if staging.is_empty() {
        return Ok(());
    }
    recorder.run_begin()?;
    let mut left = DRAIN_PAGES;
    staging.each(|gfn, page| {
        match page {
            Some(page) => store_page(recorder, counters, gfn, page)?,
            None => recorder.hole(gfn)?,
        }
        left -= 1;
        if left == 0 {
            left = DRAIN_PAGES;
            attend(counters)?;
        }
        Ok::<(), Trouble>(())
    })?;
    recorder.run_end()
}

impl From<Spoilt> for Trouble {
    fn from(Spoilt(gfn): Spoilt) -> Self {
        Self::new(Fault::Store, format_args!("the page of gfn {gfn} was spoilt in the stub's memory"))
    }
}
