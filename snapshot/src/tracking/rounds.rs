//! The memory of a take: which gfns are populated, which this round sends, which are dirty again already.
//!
//! Invariants: `skip` is emptied whenever a CLEAN succeeded, because a bit that is older than the last CLEAN would lose
//! its page; all memory is taken in `try_new`, from a budget, before the guest is touched.

use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use super::{Batch, Bitmap};
use crate::ports::{BATCH_MAX, DirtyLog, PAGE_SIZE, PageType, TargetError};
use crate::store::{Safeguard, out};

/// Most PEEKs in one pass, whatever its size.
const PEEKS_MAX: u64 = 330;

/// PEEK may move one part in this many of the data that the pass moves. It moves it in memory, the pass to a disk; and
/// the bitmap of a small PVH guest is large, for its highest gfn lies below 4 GiB.
const PEEK_SHARE: u64 = 25;

/// Of 64 neighbours so many are dirty when the others are put off.
const WARM_PAGES: u32 = 8;

/// The sets of a take, and the scratch lists for its calls.
#[derive(Debug)]
pub struct Tracking {
    /// What the next pass sends, before `skip`. Empty between rounds but for pages found populated since.
    pub send: Bitmap,
    /// What is known to be populated. Xen 4.17 does not mark pages that are added, so the rest is asked for again.
    pub populated: Bitmap,
    /// What became dirty again since the last CLEAN. Has no room in a take without rounds.
    pub skip: Bitmap,
    /// What did not settle while the guest ran (page tables of a PV guest), and what lies among pages that are dirty
    /// again already: each pass from here on tries it again. Has room in a take that has rounds, or may have, of a PV
    /// guest or with passes that put pages off.
    pub deferred: Bitmap,
    /// Everything that was fetched since the snapshot below. Has room in an incremental take only.
    pub since: Bitmap,
    /// What Xen had noted when tracking was left alone after a snapshot: none of it may be missing later. As `since`.
    pub canary: Bitmap,
    /// What was no ordinary page at the snapshot below, of which dirty bits do not tell all: it is sent whatever they
    /// say. Has room in an incremental take of a PV guest only.
    pub odd: Bitmap,
    /// The same at the pause of this take. As `odd`.
    pub odd_now: Bitmap,
    /// A page was found since the last full pass that was not there before: then another may have left.
    pub moved: bool,
    /// One past the highest gfn.
    pub end: u64,
    pub(crate) batch: Batch,
    pub(crate) unknown: Batch,
    pub(crate) types: Vec<PageType>,
}

impl Tracking {
    /// Bytes that the bitmaps of a take of gfns up to `max_gfn` need; a PV guest `defers` pages.
    pub fn bytes_for(max_gfn: Gfn, sets: Sets) -> Option<usize> {
        let Sets { live, defers, stays, puts_off } = sets;
        let (rounds, odd) = (usize::from(live || stays), usize::from(stays && defers));
        let count = 2 + rounds + rounds * usize::from(defers || puts_off) + 2 * usize::from(stays) + 2 * odd;
        Bitmap::bytes_for(max_gfn)?.checked_mul(count)
    }

    /// All the memory of a take; `None` if there is not enough.
    pub fn try_new(max_gfn: Gfn, sets: Sets) -> Option<Self> {
        let Sets { live, defers, stays, puts_off } = sets;
        let room = |wanted: bool| if wanted { Bitmap::try_new(max_gfn) } else { Some(Bitmap::without_room()) };
        let mut types = Vec::new();
        types.try_reserve_exact(BATCH_MAX).ok()?;
        Some(Self {
            send: Bitmap::try_new(max_gfn)?,
            populated: Bitmap::try_new(max_gfn)?,
            skip: room(live || stays)?,
            deferred: room((live || stays) && (defers || puts_off))?,
            since: room(stays)?,
            canary: room(stays)?,
            odd: room(stays && defers)?,
            odd_now: room(stays && defers)?,
            moved: false,
            end: max_gfn.raw().checked_add(1)?,
            batch: Batch::try_new()?,
            unknown: Batch::try_new()?,
            types,
        })
    }

    /// Fetches and clears Xen's bitmap; will send what was in it. Returns Xen's count. Any failure has lost bits.
    pub fn begin_dirty(&mut self, log: &mut impl DirtyLog) -> Result<u64, TargetError> {
        let count = log.clean(self.skip.words_mut())?;
        self.fetched();
        Ok(count)
    }

    /// What was fetched is to be sent.
    fn fetched(&mut self) {
        self.send.union_with(&self.skip);
        self.since.union_with(&self.skip);
        self.skip.clear();
        self.try_deferred();
    }

    /// Fetches Xen's bitmap for the last time, clearing nothing; will send what was in it, and leave nothing out. If
    /// tracking stays on it is cleared: what is noted from here on is the next snapshot's. Then a failure loses bits.
    pub fn begin_last(&mut self, log: &mut impl DirtyLog, stays: bool) -> Result<u64, TargetError> {
        let words = self.skip.words_mut();
        let count = if stays { log.clean_final(words)? } else { log.peek_final(words)? };
        if out(Safeguard::LastSet) {
            self.skip.clear();
        }
        self.fetched();
        Ok(count)
    }

    /// Tracking goes on after a snapshot of all that is populated: nothing is to be sent so far.
    pub fn begin_anew(&mut self) {
        self.send.clear();
        self.skip.clear();
        self.since.clear();
        self.deferred.clear();
        core::mem::swap(&mut self.odd, &mut self.odd_now);
        self.odd_now.clear();
        self.moved = false;
    }

    /// Tracking goes on after a take that came to nothing: everything since the snapshot below is to be sent.
    pub fn begin_again(&mut self) {
        self.send.clear();
        if !out(Safeguard::CarriedBits) {
            self.send.union_with(&self.since);
        }
        self.skip.clear();
        self.deferred.clear();
        self.odd_now.clear();
    }

    /// What is to be sent whatever the dirty bits say: all that is, or was at the snapshot below, no ordinary page.
    pub fn send_odd(&mut self) {
        self.send.union_with(&self.odd);
        self.send.union_with(&self.odd_now);
    }

    /// Notes what Xen has noted by now.
    pub fn note_canary(&mut self, log: &mut impl DirtyLog) -> Result<(), TargetError> {
        log.peek(self.canary.words_mut()).map(|_| ())
    }

    /// Whether all that was noted then is noted still. Leaves in `skip` what Xen has noted by now.
    pub fn canary_lives(&mut self, log: &mut impl DirtyLog) -> Result<bool, TargetError> {
        log.peek(self.skip.words_mut())?;
        Ok(self.canary.is_within(&self.skip) || out(Safeguard::Canary))
    }

    /// What was put off is sent with the rest.
    fn try_deferred(&mut self) {
        self.send.union_with(&self.deferred);
        self.deferred.clear();
    }

    /// Learns what of `send` is dirty again, so that this pass can leave it to the next. With `puts_off` it leaves what
    /// lies among those pages as well, from `at` on: where the guest writes, it will have written before long.
    pub fn refresh_skips(&mut self, log: &mut impl DirtyLog, at: u64, puts_off: bool) -> Result<(), TargetError> {
        log.peek(self.skip.words_mut())?;
        if puts_off {
            self.send.put_aside(&self.skip, WARM_PAGES, at, &mut self.deferred);
        }
        Ok(())
    }

    /// The pass has come to `at`; what it was given beyond stays to be sent.
    pub fn end_pass(&mut self, at: u64) {
        self.send.clear_below(at);
    }

    /// What a pass under way has not come to yet.
    pub fn unsent(&self, at: u64) -> u64 {
        self.send.count_from(at)
    }
}

/// Which sets a take needs beside those of what is sent and what is populated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sets {
    /// It has rounds.
    pub live: bool,
    /// Of a PV guest, whose page tables may be put off.
    pub defers: bool,
    /// Tracking stays on afterwards.
    pub stays: bool,
    /// Its first pass puts pages off that the guest is about to write to.
    pub puts_off: bool,
}

/// When a pass asks by PEEK which pages are dirty again: the paper's rule asks before every batch, which costs more
/// than it saves when the bitmap is large and the pass small.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeekPlan {
    every_batches: Option<u64>,
    puts_off: bool,
}

impl PeekPlan {
    /// No PEEK at all.
    pub const NEVER: Self = Self { every_batches: None, puts_off: false };

    /// Spread over a pass of `pages`, so that bitmaps are at most a twenty-fifth of its data.
    pub fn for_pass(pages: u64, bitmap_bytes: u64) -> Self {
        let data_bytes = pages.saturating_mul(PAGE_SIZE as u64);
        let allowed = (data_bytes / PEEK_SHARE).checked_div(bitmap_bytes).unwrap_or(0).min(PEEKS_MAX);
        let batches = pages.div_ceil(BATCH_MAX as u64);
        let every_batches = if allowed == 0 { None } else { Some(batches.div_ceil(allowed + 1).max(1)) };
        Self { every_batches, puts_off: false }
    }

    /// The same, and what lies among dirty pages is put off.
    #[must_use]
    pub const fn putting_off(self, puts_off: bool) -> Self {
        Self { puts_off, ..self }
    }

    /// Is what lies among dirty pages put off?
    pub const fn puts_off(&self) -> bool {
        self.puts_off
    }

    /// Is a PEEK due before batch `index`, from 0? Never before the first: nothing is dirty again yet.
    pub fn due(&self, index: u64) -> bool {
        self.every_batches.is_some_and(|every| index > 0 && index.is_multiple_of(every))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peeks(pages: u64, bitmap_bytes: u64) -> u64 {
        let plan = PeekPlan::for_pass(pages, bitmap_bytes);
        (0..pages.div_ceil(BATCH_MAX as u64)).filter(|&batch| plan.due(batch)).count() as u64
    }

    #[test]
    fn bitmaps_stay_below_their_share_of_the_data() {
        for pages in [0, 1, 1023, 5000, 32768, 262_144, 1 << 28] {
            for bitmap_bytes in [4096, 131_072, 1 << 25] {
                let peeks = peeks(pages, bitmap_bytes);
                assert!(peeks * bitmap_bytes * PEEK_SHARE <= pages * 4096, "{pages} {bitmap_bytes} {peeks}");
                assert!(peeks <= PEEKS_MAX);
            }
        }
    }

    #[test]
    fn the_budget_is_used() {
        assert_eq!(peeks(32768, 131_072), 31, "128 MiB PVH guest with 2^20 gfns: before every batch but the first");
        assert_eq!(peeks(262_144, 32768), 255, "before every batch but the first");
        assert_eq!(peeks(1000, 131_072), 0);
        assert!(!PeekPlan::NEVER.due(5));
    }
}
