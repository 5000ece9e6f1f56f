//! What a pause will cost on this machine: the prices are measured on the guest that runs, before it is asked to stop.

use super::engine::{Engine, Target};
use super::meter::Meter;
use super::recorder::Recorder;
use crate::fault::Fault;
use crate::policy::Outlook;
use crate::ports::{BATCH_MAX, Clock, Control};
use crate::session::{Trouble, limits};

/// A round with fewer pages says nothing about the price of a page.
const TELLING_PAGES: u64 = 256;

/// What the pause will be about.
pub(super) struct Renewed {
    /// Pages of the last set.
    pub to_copy: u64,
    /// Pages of the snapshot that are not in the store yet.
    pub to_spend: u64,
    /// With the room that is left.
    pub outlook: Outlook,
}

/// Short calls in the pause beside the state, the bitmap and the pages (is tracking still on, is it still the guest):
/// three, of which two are in what state and bitmap cost, for a reading of the meter is such a call.
const CHECKS: u64 = 1;

impl<T: Target, K: Control + Clock, R: Recorder> Engine<'_, T, K, R> {
    /// Before the guest is touched: reads the platform state and a batch of pages as the pause will, and refuses limits
    /// that the empty pause would pass.
    pub(super) fn price_the_pause(&mut self) -> Result<(), Trouble> {
        if !self.policy.is_staged() {
            return Ok(());
        }
        let start = self.meter()?;
        let platform = &mut Self::work(&mut self.work)?.platform;
        self.target.rehearse_platform(&mut |kind, body| platform.push(kind, body))?;
        platform.bytes().map(|_| ())?;
        platform.clear();
        let state_ns = self.alone_ns(start)?;
        let start = self.meter()?;
        let check_ns = self.alone_ns(start)?;
        let start = self.meter()?;
        let copied = self.try_copy()?;
        let copied_ns = self.alone_ns(start)?;
        let outlook = &mut Self::work(&mut self.work)?.outlook;
        outlook.fixed_ns = state_ns + CHECKS * check_ns;
        outlook.stage_ns = copied_ns.checked_div(copied).unwrap_or(0);
        self.counters.staging = outlook.staging_pages;
        if self.policy.can_be_met(outlook) {
            return Ok(());
        }
        let least_ms = outlook.pause_us(0).div_ceil(1000);
        let reason = format_args!("a pause costs {least_ms} ms here without a page: the limit cannot be met");
        Err(Trouble::new(Fault::PauseTooLong, reason))
    }

    /// The first pages of the guest into staging and forgotten. Returns how many.
    fn try_copy(&mut self) -> Result<u64, Trouble> {
        let work = Self::work(&mut self.work)?;
        let Some(staging) = work.staging.as_mut() else { return Ok(0) };
        let tracking = &mut work.tracking;
        let most = usize::try_from(staging.capacity()).unwrap_or(BATCH_MAX);
        let some = if work.on_top { &tracking.skip } else { &tracking.populated };
        tracking.batch.refill(some, true, 0, tracking.end, |_| true);
        tracking.batch.truncate(most);
        staging.begin_batch();
        let copied = tracking.batch.gfns().iter().filter(|&&gfn| staging.admit(gfn)).count();
        if copied > 0 {
            self.target.land(tracking.batch.gfns(), staging)?;
        }
        staging.clear();
        Ok(copied as u64)
    }

    /// After round 1: what a bitmap costs. The count is that of the bitmap.
    pub(super) fn price_the_bitmap(&mut self) -> Result<u64, Trouble> {
        let start = self.meter()?;
        let work = Self::work(&mut self.work)?;
        let count = self.target.peek(work.tracking.skip.words_mut())?;
        work.tracking.skip.clear();
        self.counters.peeks += 1;
        let took_ns = self.alone_ns(start)?;
        let outlook = &mut Self::work(&mut self.work)?.outlook;
        outlook.fixed_ns = outlook.fixed_ns.saturating_add(took_ns);
        Ok(count)
    }

    /// After each round that sent enough: what a page costs that goes to the store.
    pub(super) fn price_the_store(&mut self, start: Meter, sent: u64) -> Result<(), Trouble> {
        if sent >= TELLING_PAGES {
            let took_ns = self.alone_ns(start)?;
            Self::work(&mut self.work)?.outlook.store_ns = took_ns / sent;
        }
        Ok(())
    }

    /// The guest stands and the last set is known: what is left of it, and of the room for it. What was told before
    /// counted pages that the guest might write; now they are counted.
    pub(super) fn renew(&mut self) -> Result<Renewed, Trouble> {
        let work = Self::work(&mut self.work)?;
        let to_copy = work.tracking.send.count();
        let (ahead, again, free) = work.staging.as_ref().map_or((0, 0, 0), |staging| {
            (staging.len() as u64, staging.overlap(&work.tracking.send), staging.capacity() - staging.used())
        });
        let outlook = Outlook { staging_pages: again.saturating_add(free), ..work.outlook };
        if self.policy.is_staged() {
            self.counters.renewed_us = outlook.pause_us(to_copy);
        }
        Ok(Renewed { to_copy, to_spend: ahead.saturating_add(to_copy - again), outlook })
    }
}

/// Pages that become dirty until the guest stands, if it goes on as in a round that took so long.
pub(super) fn growth(dirty: u64, took_ns: u64) -> u64 {
    u128::from(dirty)
        .saturating_mul(u128::from(limits::SUSPEND_LIKELY_NS))
        .checked_div(u128::from(took_ns))
        .map_or(0, |pages| u64::try_from(pages).unwrap_or(u64::MAX))
}
