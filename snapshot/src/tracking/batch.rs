//! A list of gfns that go to Xen in one call: ascending, at most [`BATCH_MAX`], its memory taken once.

use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use crate::ports::BATCH_MAX;
use crate::tracking::Bitmap;

/// One batch.
#[derive(Debug)]
pub struct Batch {
    gfns: Vec<Gfn>,
}

impl Batch {
    /// An empty batch; `None` if there is no memory for it.
    pub fn try_new() -> Option<Self> {
        let mut gfns = Vec::new();
        gfns.try_reserve_exact(BATCH_MAX).ok()?;
        Some(Self { gfns })
    }

    /// The gfns, ascending.
    pub fn gfns(&self) -> &[Gfn] {
        &self.gfns
    }

    /// Keeps the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.gfns.truncate(count);
    }

    /// Keeps what `keep` says.
    pub fn retain(&mut self, keep: impl FnMut(&Gfn) -> bool) {
        self.gfns.retain(keep);
    }

    /// Takes what `keep` refuses out of `source`.
    pub fn split_from(&mut self, source: &mut Batch, mut keep: impl FnMut(&Gfn) -> bool) {
        self.gfns.clear();
        let refused = &mut self.gfns;
        source.gfns.retain(|gfn| {
            let kept = keep(gfn);
            if !kept {
                refused.push(*gfn);
            }
            kept
        });
    }

    /// Refills with the next gfns that are in `set` (`present`) or not in it, lie in `from..end` and pass `keep`,
    /// packed to a full batch however sparse they are. Returns where to go on, `end` when there is nothing more.
    pub fn refill(
        &mut self,
        set: &Bitmap,
        present: bool,
        from: u64,
        end: u64,
        mut keep: impl FnMut(Gfn) -> bool,
    ) -> u64 {
        self.gfns.clear();
        let mut at = from;
        while self.gfns.len() < BATCH_MAX {
            let Some(gfn) = set.next(at, present).filter(|gfn| gfn.raw() < end) else { return end };
            at = gfn.raw() + 1;
            if keep(gfn) {
                self.gfns.push(gfn);
            }
        }
        at
    }

    /// Refills with every gfn of `from..end`, up to a full batch. Returns where to go on.
    pub fn refill_range(&mut self, from: u64, end: u64) -> u64 {
        let stop = end.min(from.saturating_add(BATCH_MAX as u64));
        self.gfns.clear();
        self.gfns.extend((from..stop).map(Gfn::new));
        stop
    }

    /// Refills with the gfns of `source` that pass `keep`.
    pub fn refill_from(&mut self, source: &Batch, mut keep: impl FnMut(Gfn) -> bool) {
        self.gfns.clear();
        self.gfns.extend(source.gfns.iter().copied().filter(|&gfn| keep(gfn)));
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// Every regular set with distances up to a word and more, what is in it and what is not, up to ends around a full
    /// batch: nothing is lost, nothing comes twice, and only the last batch may be short.
    #[test]
    fn every_regular_set_is_given_once() {
        let mut batch = Batch::try_new().unwrap();
        for (distance, end) in (1..=66).flat_map(|distance| [(distance, 1023), (distance, 1025), (distance, 2200)]) {
            for offset in 0..distance {
                let mut set = Bitmap::try_new(Gfn::new(4095)).unwrap();
                (offset..4096).step_by(distance as usize).for_each(|gfn| set.insert(Gfn::new(gfn)));
                for present in [true, false] {
                    let mut wanted = (0..end).filter(|gfn| (gfn % distance == offset) == present);
                    let mut at = 0;
                    while at < end {
                        at = batch.refill(&set, present, at, end, |_| true);
                        assert!(batch.gfns().len() == BATCH_MAX || at == end);
                        assert!(batch.gfns().iter().all(|gfn| wanted.next() == Some(gfn.raw())));
                    }
                    assert_eq!(wanted.next(), None, "{distance} {offset} {end} {present}");
                }
            }
        }
    }

    #[test]
    fn every_range_is_given_once() {
        let mut batch = Batch::try_new().unwrap();
        let most = BATCH_MAX as u64;
        for base in [0, u64::MAX - 2 * most - 2] {
            for length in 0..=2 * most + 2 {
                let (mut at, mut count) = (base, 0);
                while at < base + length {
                    let next = batch.refill_range(at, base + length);
                    assert_eq!(next - at, most.min(base + length - at));
                    assert!(batch.gfns().iter().map(|gfn| gfn.raw()).eq(at..next));
                    (at, count) = (next, count + (next - at));
                }
                assert_eq!(count, length);
            }
        }
    }

    proptest! {
        /// Batches partition what passes: ascending, none twice, none lost, each full but the last.
        #[test]
        fn batches_partition_the_set(
            gfns in prop::collection::btree_set(0u64..65536, 0..6000),
            end in 1u64..65536,
            odd: bool,
        ) {
            let mut set = Bitmap::try_new(Gfn::new(65535)).unwrap();
            gfns.iter().for_each(|&gfn| set.insert(Gfn::new(gfn)));
            let expected: Vec<u64> = gfns.into_iter().filter(|gfn| *gfn < end && (!odd || gfn % 2 == 1)).collect();
            let mut batch = Batch::try_new().unwrap();
            let (mut found, mut at, mut sizes) = (Vec::new(), 0, Vec::new());
            while at < end {
                at = batch.refill(&set, true, at, end, |gfn| !odd || gfn.raw() % 2 == 1);
                found.extend(batch.gfns().iter().map(|gfn| gfn.raw()));
                sizes.push(batch.gfns().len());
            }
            prop_assert_eq!(found, expected);
            prop_assert!(sizes.iter().rev().skip(1).all(|&size| size == BATCH_MAX));
        }
    }
}
