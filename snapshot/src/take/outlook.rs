//! What a pause will cost on this machine: it is rehearsed on the guest that runs, before it is asked to stop.
//!
//! Each part is done as the pause will do it, with what there is to do now, so that a price has in it what nobody
//! thought of. Short parts are priced by the time for which we ran: whoever else has the processor for a moment would
//! decide them. A page that goes to the store costs our own work or the device's, whichever is more.

use super::engine::{Engine, Target};
use super::meter::Meter;
use super::prepare::Work;
use super::recorder::Recorder;
use crate::fault::Fault;
use crate::policy::{INDEX_BYTES, Outlook};
use crate::ports::{BATCH_MAX, Clock, Control, Pace};
use crate::session::Trouble;

/// A round with fewer pages says nothing about the price of a page.
const TELLING_PAGES: u64 = 256;
/// Pages that are packed to see what that gives. Where some pages pack to nothing and others not at all, the mean of so
/// many is off by 3 % (by 9 % of 32), and they cost about what copying a batch costs.
const SAMPLES: usize = 256;

/// How things stood when a round began to copy.
#[derive(Clone, Copy)]
pub(super) struct Start {
    meter: Meter,
    pages: u64,
    zero: u64,
    /// Bytes that the store was given.
    given_bytes: u64,
}

impl Start {
    /// How long the guest had run then.
    pub fn guest_ns(&self) -> u64 {
        self.meter.guest_ns()
    }
}

/// What the pause will be about.
pub(super) struct Renewed {
    /// Pages of the last set.
    pub to_copy: u64,
    /// Pages of the snapshot that are not in the store yet.
    pub to_spend: u64,
    /// With the room that is left.
    pub outlook: Outlook,
}

impl<T: Target, K: Control + Clock, R: Recorder> Engine<'_, T, K, R> {
    /// Before the guest is touched: refuses limits that the empty pause would pass.
    pub(super) fn price_the_pause(&mut self) -> Result<(), Trouble> {
        if !self.policy.is_staged() {
            return Ok(());
        }
        self.rehearse_pause(false)?;
        let outlook = &Self::work(&mut self.work)?.outlook;
        self.counters.staging = outlook.staging_pages;
        if self.policy.can_be_met(outlook) {
            return Ok(());
        }
        let least_ms = outlook.pause_us(0).div_ceil(1000);
        let reason = format_args!("a pause costs {least_ms} ms here without a page: the limit cannot be met");
        Err(Trouble::new(Fault::PauseTooLong, reason))
    }

    /// After each round, before it is decided whether the guest is asked: the pause as it would be now. Returns Xen's
    /// dirty count, that of the bitmap.
    pub(super) fn rehearse(&mut self) -> Result<u64, Trouble> {
        self.counters.peeks += 1;
        self.rehearse_pause(true)
    }

    /// Platform state, the bitmap and its ways through our sets, what it does not tell, one page, the checks; then a
    /// whole batch of pages.
    fn rehearse_pause(&mut self, tracked: bool) -> Result<u64, Trouble> {
        let start = self.meter()?;
        let platform = &mut Self::work(&mut self.work)?.platform;
        self.target.rehearse_platform(&mut |kind, body| platform.push(kind, body))?;
        platform.bytes().map(|_| ())?;
        platform.clear();
        let dirty = if tracked { self.rehearse_bitmap()? } else { 0 };
        let untold = self.rehearse_untold()?;
        self.try_copy(1)?;
        // The guest is looked at twice beside the copy, and a reading of the meter is such a look.
        self.target.info()?;
        let fixed_ns = self.ran_ns(start)?;
        let start = self.meter()?;
        let copied = self.try_copy(BATCH_MAX)?;
        let copied_ns = self.ran_ns(start)?;
        self.try_pack()?;
        let start = self.meter()?;
        let one = self.try_copy(1)?;
        let one_ns = self.ran_ns(start)?;
        self.target.let_go()?;
        let work = Self::work(&mut self.work)?;
        if let Some(staging) = work.staging.as_mut() {
            staging.clear();
        }
        // Before that it is what the take was given to begin with.
        if tracked {
            work.tracking.skip.clear();
            work.unsent = work.unsent.saturating_add(untold);
        }
        work.outlook.fixed_ns = fixed_ns;
        work.outlook.stage_ns = match copied.saturating_sub(one) {
            0 => copied_ns.checked_div(copied).unwrap_or(0),
            more => copied_ns.saturating_sub(one_ns) / more,
        };
        Ok(dirty)
    }

    /// Fetches the bitmap and goes through it as often as the pause does: it joins what is to be sent, is counted and
    /// emptied, and cut into batches. What it says stays in `skip` until the rehearsal is over. What is to be sent and
    /// not dirty again is noted.
    fn rehearse_bitmap(&mut self) -> Result<u64, Trouble> {
        let work = Self::work(&mut self.work)?;
        let tracking = &mut work.tracking;
        let dirty = self.target.peek(tracking.skip.words_mut())?;
        let put_off = tracking.deferred.count_without(&tracking.skip);
        work.unsent = tracking.send.count_without(&tracking.skip).saturating_add(put_off);
        core::hint::black_box(tracking.skip.count());
        let mut at = 0;
        while at < tracking.end {
            at = tracking.batch.refill(&tracking.skip, true, at, tracking.end, |_| true);
        }
        Ok(dirty)
    }

    /// A few of the pages that were copied, packed: how long one takes, and how small it gets, unless a round has shown
    /// it; a page of zeros takes nothing.
    fn try_pack(&mut self) -> Result<(), Trouble> {
        let Some(staging) = Self::work(&mut self.work)?.staging.as_ref() else { return Ok(()) };
        let (pages, content, packs) = (staging.len() as u64, staging.with_content(), staging.can_pack());
        let start = self.meter()?;
        let (count, bytes) =
            Self::work(&mut self.work)?.staging.as_mut().map_or((0, 0), |staging| staging.sample(SAMPLES));
        let took_ns = self.ran_ns(start)?;
        let Work { outlook, density, .. } = Self::work(&mut self.work)?;
        if let (Some(each_ns), Some(each)) = (took_ns.checked_div(count), bytes.checked_div(count)) {
            // So few are soon disturbed: of all rehearsals the quickest says what it costs.
            let least_ns = if outlook.pack_ns == 0 { each_ns } else { each_ns.min(outlook.pack_ns) };
            outlook.pack_ns = if packs { least_ns.max(1) } else { 0 };
            outlook.stored_bytes = density.unwrap_or_else(|| (each * content / pages.max(1)).max(1));
        }
        Ok(())
    }

    /// Pages of the guest into staging, where they replace the last ones: of those that are dirty, while there is one,
    /// spread over all of them. Returns how many.
    fn try_copy(&mut self, most: usize) -> Result<u64, Trouble> {
        let work = Self::work(&mut self.work)?;
        let Some(staging) = work.staging.as_mut() else { return Ok(0) };
        let tracking = &mut work.tracking;
        let most = usize::try_from(staging.capacity()).unwrap_or(BATCH_MAX).min(most);
        let dirty = work.on_top || tracking.skip.next(0, true).is_some();
        let set = if dirty { &tracking.skip } else { &tracking.populated };
        let (every, mut index) = ((set.count() / most.max(1) as u64).max(1), 0);
        tracking.batch.refill(set, true, 0, tracking.end, |gfn| {
            index += 1;
            (index - 1) % every == 0 && (work.on_top || tracking.populated.contains(gfn))
        });
        tracking.batch.truncate(most);
        staging.clear();
        let copied = tracking.batch.gfns().iter().filter(|&&gfn| staging.admit(gfn)).count();
        if copied > 0 {
            self.target.land(tracking.batch.gfns(), staging)?;
        }
        Ok(copied as u64)
    }

    /// Before a round copies.
    pub(super) fn start(&mut self) -> Result<Start, Trouble> {
        let (pages, zero) = (self.counters.pages, self.counters.zero);
        let pace = self.recorder.pace();
        Self::work(&mut self.work)?.first_pace.get_or_insert(pace);
        Ok(Start { meter: self.meter()?, pages, zero, given_bytes: pace.given_bytes() })
    }

    /// After each round: what a page costs that goes to the store, and what its device needs for what it is given, if
    /// enough went there. The device is waited for, so that the next to give it pages finds it as the pause will: idle.
    /// Its rate is of all rounds together: a short one is decided by how it begins.
    pub(super) fn price_the_store(&mut self, start: Start) -> Result<(), Trouble> {
        if !self.policy.is_staged() {
            return Ok(());
        }
        let worked_ns = self.worked_ns(start.meter)?;
        self.recorder.settle()?;
        let pace = self.recorder.pace();
        let (pages, zero) = (self.counters.pages - start.pages, self.counters.zero - start.zero);
        let work = Self::work(&mut self.work)?;
        let outlook = &mut work.outlook;
        outlook.disk = outlook.disk.learnt(work.first_pace.unwrap_or(pace), pace);
        // All of the memory says nothing about what the guest writes to, nor does a round that sends what the first one
        // has put off: its neighbours pack better.
        let round = self.counters.round_number();
        if pages >= TELLING_PAGES && round > 1 && !self.policy.puts_off(round - 1) {
            let bytes = pace.given_bytes().saturating_sub(start.given_bytes);
            work.density = Some((bytes / (pages + zero)).saturating_sub(INDEX_BYTES).max(1));
        }
        if pages >= TELLING_PAGES {
            // A page of zeros is mapped, copied and looked at, no more.
            outlook.store_ns = worked_ns.saturating_sub(zero.saturating_mul(outlook.stage_ns)) / pages;
        }
        Ok(())
    }

    /// All of it is on the device, but for the commit that seals.
    pub(super) fn count_requests(&mut self) {
        let Pace { requests, notifications, .. } = self.recorder.pace();
        (self.counters.requests, self.counters.notifications) = (requests, notifications);
    }

    /// The guest stands and the last set is known: what is left of it, and of the room for it. What was told before
    /// counted pages that the guest might write; now they are counted.
    pub(super) fn renew(&mut self) -> Result<Renewed, Trouble> {
        let work = Self::work(&mut self.work)?;
        let to_copy = work.tracking.send.count();
        let (ahead, again, free) = work
            .staging
            .as_ref()
            .map_or((0, 0, 0), |staging| (staging.len() as u64, staging.overlap(&work.tracking.send), staging.free()));
        let outlook = Outlook { staging_pages: again.saturating_add(free), ..work.outlook };
        if self.policy.is_staged() {
            self.counters.renewed_us = outlook.pause_us(to_copy);
        }
        Ok(Renewed { to_copy, to_spend: ahead.saturating_add(to_copy - again), outlook })
    }
}

/// Pages that become dirty until the guest stands in `likely_ns`, if it goes on as in a round in which it ran for so
/// long.
pub(super) fn growth(dirty: u64, ran_ns: u64, likely_ns: u64) -> u64 {
    u128::from(dirty)
        .saturating_mul(u128::from(likely_ns))
        .checked_div(u128::from(ran_ns))
        .map_or(0, |pages| u64::try_from(pages).unwrap_or(u64::MAX))
}
