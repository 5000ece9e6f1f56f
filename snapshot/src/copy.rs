//! One pass over a set of gfns: batches, one copy of each page, the zero test, the store.
//!
//! Invariants: a page is read once and judged by that copy; what is no memory any more is stored as a hole; what cannot
//! be read while the guest runs counts as a hole and is searched again before the suspend, what does not settle is put
//! off to the next set; in the last set either ends the take. Ascending gfns, none twice in a pass.

use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use crate::fault::Fault;
use crate::ports::{DirtyLog, GuestMemory, PAGE_SIZE, Page, PageError, PageType, Stop, TargetError};
use crate::session::Trouble;
use crate::status::Counters;
use crate::take::Recorder;
use crate::tracking::{Batch, Bitmap, PeekPlan, Tracking};

/// What happens between two batches: dom0 is served, the guest looked at. An error ends the pass.
pub type Attend<'a, T> = dyn FnMut(&mut T, &Counters) -> Result<(), Trouble> + 'a;

/// Is every byte zero? Blocks of 64 bytes let the compiler use vector registers and still stop early. Never inlined:
/// the stub's generic code is compiled for size, this is not.
#[inline(never)]
pub fn is_zero(page: &Page) -> bool {
    page.chunks_exact(64).all(|block| block.iter().fold(0, |bits, byte| bits | byte) == 0)
}

/// Whether a pass may end before its end: given the guest and the number of pages that it has not come to.
pub type Halt<'a, T> = dyn FnMut(&mut T, u64) -> Result<bool, Trouble> + 'a;

/// Batches between two such questions: each makes Xen stop the guest for a moment.
const HALT_BATCHES: u64 = 4;

/// A pass under way.
pub struct PassRun<'a, T, R> {
    /// The guest.
    pub target: &'a mut T,
    /// The snapshot.
    pub recorder: &'a mut R,
    /// The sets; `send` says what the pass is about.
    pub tracking: &'a mut Tracking,
    /// Sums of the session.
    pub counters: &'a mut Counters,
    /// The last set: no page may fail.
    pub strict: bool,
}

impl<T: DirtyLog + GuestMemory, R: Recorder> PassRun<'_, T, R> {
    /// Sends `tracking.send` as one run, all of it or as much as `halt` allows.
    pub fn run(
        &mut self,
        plan: PeekPlan,
        attend: &mut Attend<'_, T>,
        halt: Option<&mut Halt<'_, T>>,
    ) -> Result<(), Trouble> {
        self.recorder.run_begin()?;
        let at = self.batches(plan, attend, halt)?;
        self.recorder.run_end()?;
        self.tracking.end_pass(at);
        Ok(())
    }

    /// Returns where the pass has come to.
    fn batches(
        &mut self,
        plan: PeekPlan,
        attend: &mut Attend<'_, T>,
        mut halt: Option<&mut Halt<'_, T>>,
    ) -> Result<u64, Trouble> {
        let (mut at, mut index) = (0, 0);
        while at < self.tracking.end {
            if plan.due(index) {
                self.tracking.refresh_skips(self.target, at, plan.puts_off())?;
                self.counters.peeks += 1;
            }
            let skipped = &mut self.counters.skipped;
            at = next_batch(self.target, self.tracking, at, self.strict, skipped)?;
            self.send_batch()?;
            self.recorder.pace();
            attend(self.target, self.counters)?;
            index += 1;
            let asked = halt.as_mut().filter(|_| index % HALT_BATCHES == 0 && at < self.tracking.end);
            if let Some(halt) = asked
                && halt(self.target, self.tracking.unsent(at))?
            {
                break;
            }
        }
        Ok(at)
    }

    fn send_batch(&mut self) -> Result<(), Trouble> {
        let Tracking { batch, unknown, populated, deferred, .. } = &mut *self.tracking;
        let lists = (batch.gfns(), unknown.gfns());
        send(self.target, self.recorder, (populated, deferred), self.counters, lists, self.strict)
    }
}

/// Fills the batch with what is to be sent and is memory, `unknown` with what is to be sent as a hole. Returns where to
/// go on.
pub(crate) fn next_batch<T: GuestMemory>(
    target: &mut T,
    tracking: &mut Tracking,
    from: u64,
    strict: bool,
    skipped: &mut u64,
) -> Result<u64, Trouble> {
    let Tracking { send, skip, batch, unknown, end, populated, .. } = &mut *tracking;
    let next = batch.refill(send, true, from, *end, |gfn| {
        let dirty_again = skip.contains(gfn);
        *skipped += u64::from(dirty_again);
        !dirty_again
    });
    unknown.refill_from(batch, |gfn| !populated.contains(gfn));
    if !unknown.gfns().is_empty() {
        ask_unknown(target, tracking, strict)?;
    }
    Ok(next)
}

/// Gfns that were no memory when we last looked: ask again.
fn ask_unknown<T: GuestMemory>(target: &mut T, tracking: &mut Tracking, strict: bool) -> Result<(), Trouble> {
    let Tracking { batch, unknown, types, populated, moved, .. } = tracking;
    ask(target, unknown, types)?;
    for (&gfn, &kind) in unknown.gfns().iter().zip(types.iter()) {
        learn(populated, gfn, kind)?;
        *moved |= kind.has_data();
    }
    if *moved && strict {
        return Err(Trouble::new(Fault::Ballooning, "a page came to the guest just before it suspended"));
    }
    batch.retain(|&gfn| populated.contains(gfn));
    unknown.retain(|&gfn| !populated.contains(gfn));
    Ok(())
}

/// Sends pages and, between them, holes; both lists ascend.
pub(crate) fn send<T: GuestMemory, R: Recorder>(
    target: &mut T,
    recorder: &mut R,
    (populated, deferred): (&mut Bitmap, &mut Bitmap),
    counters: &mut Counters,
    (gfns, holes): (&[Gfn], &[Gfn]),
    strict: bool,
) -> Result<(), Trouble> {
    let mut sink = Sink { gfns, expected: 0, holes, recorder, populated, deferred, counters, strict, trouble: None };
    if !gfns.is_empty() {
        let answer = target.copy(gfns, &mut |index, page| sink.take(index, page));
        sink.check(answer)?;
    }
    sink.holes_below(u64::MAX)
}

/// One page to the store, counted.
pub(crate) fn store_page(
    recorder: &mut impl Recorder,
    counters: &mut Counters,
    gfn: Gfn,
    page: &Page,
) -> Result<(), Trouble> {
    if is_zero(page) {
        counters.zero += 1;
        return recorder.zero(gfn);
    }
    counters.pages += 1;
    counters.bytes += PAGE_SIZE as u64;
    recorder.page(gfn, page)
}

/// A port that broke its contract.
pub(crate) fn incomplete() -> Trouble {
    Trouble::new(Fault::Hypercall, "a batch came back incomplete")
}

/// A page of the last set that cannot be read.
pub(crate) fn unreadable(gfn: Gfn, error: PageError) -> Trouble {
    if error == PageError::UNSETTLED {
        let reason = format_args!("pfn {gfn} of the last set names a frame that is not the guest's, or is moving");
        return Trouble::new(Fault::PageUnreadable, reason);
    }
    Trouble::new(Fault::PageUnreadable, format_args!("gfn {gfn} of the last set: errno {}", error.errno))
}

/// Types of `batch`, into `types`.
fn ask(target: &mut impl GuestMemory, batch: &Batch, types: &mut Vec<PageType>) -> Result<(), Trouble> {
    types.clear();
    types.resize(batch.gfns().len(), PageType::XTAB);
    Ok(target.types(batch.gfns(), types)?)
}

/// Notes whether `gfn` is memory. Memory that is there but broken cannot be in any snapshot.
pub(crate) fn learn(populated: &mut Bitmap, gfn: Gfn, kind: PageType) -> Result<(), Trouble> {
    if kind.has_data() {
        populated.insert(gfn);
    } else if kind == PageType::BROKEN {
        return Err(Trouble::new(Fault::PageUnreadable, format_args!("gfn {gfn} is broken memory")));
    } else {
        populated.remove(gfn);
    }
    Ok(())
}

/// Where the copied pages of one batch go.
struct Sink<'a, R> {
    gfns: &'a [Gfn],
    expected: usize,
    /// What goes between them; the front is cut off as it is written.
    holes: &'a [Gfn],
    recorder: &'a mut R,
    populated: &'a mut Bitmap,
    deferred: &'a mut Bitmap,
    counters: &'a mut Counters,
    strict: bool,
    trouble: Option<Trouble>,
}

impl<R: Recorder> Sink<'_, R> {
    /// After the copy: our own trouble first, then the port's, then a batch that stopped by itself.
    fn check(&mut self, answer: Result<(), TargetError>) -> Result<(), Trouble> {
        if let Some(trouble) = self.trouble.take() {
            return Err(trouble);
        }
        answer?;
        if self.expected != self.gfns.len() {
            return Err(incomplete());
        }
        Ok(())
    }

    fn holes_below(&mut self, limit: u64) -> Result<(), Trouble> {
        while let Some((&hole, rest)) = self.holes.split_first().filter(|(hole, _)| hole.raw() < limit) {
            self.recorder.hole(hole)?;
            self.holes = rest;
        }
        Ok(())
    }

    fn take(&mut self, index: usize, page: Result<&Page, PageError>) -> Result<(), Stop> {
        self.take_checked(index, page).map_err(|trouble| {
            self.trouble = Some(trouble);
            Stop
        })
    }

    fn take_checked(&mut self, index: usize, page: Result<&Page, PageError>) -> Result<(), Trouble> {
        let gfn = self.gfns.get(index).filter(|_| index == self.expected);
        let gfn = *gfn.ok_or_else(|| Trouble::new(Fault::Hypercall, "a batch came back out of order"))?;
        self.expected += 1;
        self.holes_below(gfn.raw())?;
        match page {
            Ok(page) => store_page(self.recorder, self.counters, gfn, page),
            Err(error) if self.strict => Err(unreadable(gfn, error)),
            Err(PageError::UNSETTLED) if !self.deferred.is_empty() => {
                self.deferred.insert(gfn);
                Ok(())
            }
            Err(_) => {
                self.populated.remove(gfn);
                self.recorder.hole(gfn)
            }
        }
    }
}

/// Searches for memory: among all gfns (`everything`), or among those not known to be populated. What is found joins
/// `populated` and, for the next round, `send`; so does what is memory no more, to be stored as a hole. Until that
/// round is over pages have `moved`: a search that is broken off has changed what is known. Returns how many pages are
/// new.
pub fn scan<T: GuestMemory>(
    target: &mut T,
    tracking: &mut Tracking,
    counters: &Counters,
    everything: bool,
    attend: &mut Attend<'_, T>,
) -> Result<u64, Trouble> {
    let (mut at, mut found) = (0, 0);
    while at < tracking.end {
        let Tracking { unknown, types, populated, send, moved, end, .. } = tracking;
        at = if everything {
            unknown.refill_range(at, *end)
        } else {
            unknown.refill(populated, false, at, *end, |_| true)
        };
        ask(target, unknown, types)?;
        for (&gfn, &kind) in unknown.gfns().iter().zip(types.iter()) {
            let was = populated.contains(gfn);
            learn(populated, gfn, kind)?;
            if was || kind.has_data() {
                send.insert(gfn);
            }
            found += u64::from(kind.has_data() && !was);
            *moved |= kind.has_data() != was;
        }
        attend(target, counters)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_makes_a_page_not_zero() {
        assert!(is_zero(&[0; PAGE_SIZE]));
        for at in 0..PAGE_SIZE {
            let mut page = [0; PAGE_SIZE];
            page[at] = 1 << (at % 8);
            assert!(!is_zero(&page), "{at}");
        }
    }
}
