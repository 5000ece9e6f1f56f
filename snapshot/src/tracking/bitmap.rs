//! One bit for each gfn, in the layout that Xen's log-dirty calls fill: bit n of word w is gfn 64 w + n.
//!
//! The length is a whole number of leaves, because CLEAN clears whole leaves whatever length it is asked for
//! (xen/arch/x86/mm/paging.c, paging_log_dirty_op). All memory is taken when it is made; nothing grows.

use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

/// Bits in a leaf of Xen's log-dirty trie, 128 MiB of guest memory.
pub const LEAF_BITS: u64 = 32768;

const WORD_BITS: u64 = 64;

/// A set of gfns below a bound.
#[derive(Debug)]
pub struct Bitmap {
    words: Vec<u64>,
}

impl Bitmap {
    /// Words for the gfns up to `max_gfn`, or `None` if that overflows.
    fn words_for(max_gfn: Gfn) -> Option<usize> {
        let bits = max_gfn.raw().checked_add(1)?.checked_next_multiple_of(LEAF_BITS)?;
        usize::try_from(bits / WORD_BITS).ok()
    }

    /// Bytes that a bitmap up to `max_gfn` takes.
    pub fn bytes_for(max_gfn: Gfn) -> Option<usize> {
        Self::words_for(max_gfn)?.checked_mul(8)
    }

    /// An empty set that can hold the gfns up to `max_gfn`; `None` if there is no memory for it.
    pub fn try_new(max_gfn: Gfn) -> Option<Self> {
        let count = Self::words_for(max_gfn)?;
        let mut words = Vec::new();
        words.try_reserve_exact(count).ok()?;
        words.resize(count, 0);
        Some(Self { words })
    }

    /// A set that holds nothing, ever.
    pub fn without_room() -> Self {
        Self { words: Vec::new() }
    }

    /// The words, for Xen to fill.
    pub fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Bytes of the words.
    pub fn bytes(&self) -> u64 {
        self.words.len() as u64 * 8
    }

    /// Moves to `aside` what is in this set and not in `marked`, of each 64 gfns from `from` on of which at least
    /// `least` are marked. What `aside` has no room for stays.
    pub fn put_aside(&mut self, marked: &Self, least: u32, from: u64, aside: &mut Self) {
        let first = usize::try_from(from.div_ceil(WORD_BITS)).unwrap_or(usize::MAX);
        let words = self.words.iter_mut().zip(&marked.words).zip(&mut aside.words);
        for ((word, marked), aside) in words.skip(first).filter(|((_, marked), _)| marked.count_ones() >= least) {
            *aside |= *word & !marked;
            *word &= marked;
        }
    }

    /// Number of gfns that fit.
    pub fn len(&self) -> u64 {
        self.words.len() as u64 * WORD_BITS
    }

    /// Can hold nothing at all.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Is `gfn` in the set? Beyond the end: no.
    pub fn contains(&self, gfn: Gfn) -> bool {
        self.word(gfn).is_some_and(|word| word & mask(gfn) != 0)
    }

    fn word(&self, gfn: Gfn) -> Option<u64> {
        self.words.get(usize::try_from(gfn.raw() / WORD_BITS).ok()?).copied()
    }

    /// Adds `gfn`; beyond the end it is ignored.
    pub fn insert(&mut self, gfn: Gfn) {
        if let Some(word) = self.word_mut(gfn) {
            *word |= mask(gfn);
        }
    }

    /// Takes `gfn` out.
    pub fn remove(&mut self, gfn: Gfn) {
        if let Some(word) = self.word_mut(gfn) {
            *word &= !mask(gfn);
        }
    }

    fn word_mut(&mut self, gfn: Gfn) -> Option<&mut u64> {
        self.words.get_mut(usize::try_from(gfn.raw() / WORD_BITS).ok()?)
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Takes out every gfn below `end`.
    pub fn clear_below(&mut self, end: u64) {
        let whole = usize::try_from(end / WORD_BITS).unwrap_or(usize::MAX).min(self.words.len());
        self.words.iter_mut().take(whole).for_each(|word| *word = 0);
        if let Some(word) = self.words.get_mut(whole) {
            *word &= u64::MAX << (end % WORD_BITS);
        }
    }

    /// Number of gfns in the set at or after `from`.
    pub fn count_from(&self, from: u64) -> u64 {
        let at = usize::try_from(from / WORD_BITS).unwrap_or(usize::MAX).min(self.words.len());
        let mut words = self.words.iter().skip(at);
        let first = words.next().map_or(0, |word| word & (u64::MAX << (from % WORD_BITS)));
        u64::from(first.count_ones()) + words.map(|word| u64::from(word.count_ones())).sum::<u64>()
    }

    /// Adds all of `other`.
    pub fn union_with(&mut self, other: &Self) {
        for (word, theirs) in self.words.iter_mut().zip(&other.words) {
            *word |= *theirs;
        }
    }

    /// Is all of it in `other`?
    pub fn is_within(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).all(|(word, theirs)| word & !theirs == 0)
    }

    /// Number of gfns in the set that are not in `other`.
    pub fn count_without(&self, other: &Self) -> u64 {
        let others = other.words.iter().copied().chain(core::iter::repeat(0));
        self.words.iter().zip(others).map(|(word, theirs)| u64::from((word & !theirs).count_ones())).sum()
    }

    /// Number of gfns in the set.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The first gfn at or after `from` that is in the set (`present`) or not in it.
    pub fn next(&self, from: u64, present: bool) -> Option<Gfn> {
        let mut at = usize::try_from(from / WORD_BITS).ok()?;
        let mut keep = u64::MAX << (from % WORD_BITS);
        while let Some(word) = self.words.get(at) {
            let hits = if present { *word } else { !*word } & keep;
            if hits != 0 {
                return Some(Gfn::new(at as u64 * WORD_BITS + u64::from(hits.trailing_zeros())));
            }
            keep = u64::MAX;
            at += 1;
        }
        None
    }
}

fn mask(gfn: Gfn) -> u64 {
    1 << (gfn.raw() % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_length_is_whole_leaves() {
        for (max_gfn, bits) in [(0, 32768), (32767, 32768), (32768, 65536), (0xf_ffff, 1 << 20)] {
            assert_eq!(Bitmap::try_new(Gfn::new(max_gfn)).unwrap().len(), bits);
        }
        assert!(Bitmap::try_new(Gfn::new(u64::MAX)).is_none());
        assert!(Bitmap::try_new(Gfn::new(u64::MAX - 1)).is_none());
        assert_eq!(Bitmap::bytes_for(Gfn::new(0xf_ffff)), Some(128 << 10));
    }

    #[test]
    fn beyond_the_end_nothing_is_kept() {
        let mut bitmap = Bitmap::try_new(Gfn::new(10)).unwrap();
        bitmap.insert(Gfn::new(32768));
        bitmap.insert(Gfn::new(u64::MAX));
        assert_eq!(bitmap.count(), 0);
        assert!(!bitmap.contains(Gfn::new(u64::MAX)));
        assert_eq!(bitmap.next(u64::MAX, true), None);
        assert_eq!(bitmap.next(32767, false), Some(Gfn::new(32767)));
    }

    /// Every content of a window of bits at every one of its positions, against the bits one by one.
    fn every_content(bits: u32, first: u64) {
        let mut bitmap = Bitmap::try_new(Gfn::new(65535)).unwrap();
        let end = first + u64::from(bits);
        for content in 0..1u64 << bits {
            let has = |gfn: u64| (first..end).contains(&gfn) && content >> (gfn - first) & 1 == 1;
            bitmap.clear();
            (first..end).filter(|gfn| has(*gfn)).for_each(|gfn| bitmap.insert(Gfn::new(gfn)));
            assert_eq!(bitmap.count(), u64::from(content.count_ones()));
            for at in first.saturating_sub(2)..end + 2 {
                let from = |wanted| (at..end).find(|gfn| has(*gfn) == wanted);
                let beyond = Some(at.max(end)).filter(|gfn| *gfn < bitmap.len());
                assert_eq!(bitmap.contains(Gfn::new(at)), has(at), "{content:#x} {at}");
                assert_eq!(bitmap.next(at, true).map(Gfn::raw), from(true), "{content:#x} {at}");
                assert_eq!(bitmap.next(at, false).map(Gfn::raw), from(false).or(beyond), "{content:#x} {at}");
                assert_eq!(
                    bitmap.count_from(at),
                    (at..end).filter(|gfn| has(*gfn)).count() as u64,
                    "{content:#x} {at}"
                );
            }
        }
    }

    #[test]
    fn every_content_across_a_border_of_words() {
        every_content(12, 58);
    }

    #[test]
    fn every_content_at_both_ends() {
        every_content(8, 0);
        every_content(8, 65536 - 8);
    }

    /// Changes at every position of every content: one bit changes, or those below a border go.
    #[test]
    fn every_change_across_a_border_of_words() {
        let mut bitmap = Bitmap::try_new(Gfn::new(32767)).unwrap();
        for content in 0..1u64 << 10 {
            let mut put = |change: &dyn Fn(&mut Bitmap)| {
                bitmap.words_mut()[..2].copy_from_slice(&[content << 59, content >> 5]);
                change(&mut bitmap);
                let words = bitmap.words_mut();
                u128::from(words[0]) | u128::from(words[1]) << 64
            };
            let before = u128::from(content) << 59;
            for at in 57..71 {
                let gfn = Gfn::new(at);
                assert_eq!(put(&|bitmap| bitmap.insert(gfn)), before | 1 << at);
                assert_eq!(put(&|bitmap| bitmap.remove(gfn)), before & !(1 << at));
                assert_eq!(put(&|bitmap| bitmap.clear_below(at)), before >> at << at);
            }
        }
    }

    #[test]
    fn what_lies_among_marked_ones_is_moved_and_nothing_else() {
        let set = |gfns: &[u64]| {
            let mut set = Bitmap::try_new(Gfn::new(300)).unwrap();
            gfns.iter().for_each(|gfn| set.insert(Gfn::new(*gfn)));
            set
        };
        let list = |set: &Bitmap| (0..300).filter(|gfn| set.contains(Gfn::new(*gfn))).collect::<Vec<_>>();
        // Of 0 to 63 two are marked, of 64 to 127 one, of 192 to 255 three.
        let marked = set(&[0, 1, 64, 192, 193, 255]);
        for (from, moved) in
            [(0, Vec::from([7, 200])), (1, Vec::from([200])), (192, Vec::from([200])), (193, Vec::new())]
        {
            let (mut send, mut aside) = (set(&[0, 7, 65, 130, 200]), set(&[299]));
            send.put_aside(&marked, 2, from, &mut aside);
            let left = [0, 7, 65, 130, 200].into_iter().filter(|gfn| !moved.contains(gfn)).collect::<Vec<_>>();
            assert_eq!((list(&send), list(&aside)), (left, [moved, Vec::from([299])].concat()), "{from}");
        }
        let mut send = set(&[7]);
        send.put_aside(&marked, 2, 0, &mut Bitmap::without_room());
        assert_eq!(list(&send), [7], "nowhere to put it");
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(
            added in prop::collection::btree_set(0u64..65536, 0..200),
            removed in prop::collection::vec(0u64..65536, 0..50),
            border in 0u64..=65536,
        ) {
            let mut bitmap = Bitmap::try_new(Gfn::new(65535)).unwrap();
            let mut model: BTreeSet<u64> = added.clone();
            added.iter().for_each(|&gfn| bitmap.insert(Gfn::new(gfn)));
            for gfn in removed.iter().chain(added.iter().take(20)) {
                bitmap.remove(Gfn::new(*gfn));
                model.remove(gfn);
            }
            let mut found = Vec::new();
            let mut from = 0;
            while let Some(gfn) = bitmap.next(from, true) {
                found.push(gfn.raw());
                from = gfn.raw() + 1;
            }
            prop_assert_eq!(bitmap.count(), model.len() as u64);
            prop_assert_eq!(bitmap.count_from(border), model.range(border..).count() as u64);
            let mut upper = Bitmap::try_new(Gfn::new(65535)).unwrap();
            upper.union_with(&bitmap);
            upper.clear_below(border);
            prop_assert_eq!(upper.count(), bitmap.count_from(border));
            prop_assert!(upper.next(0, true).is_none_or(|gfn| gfn.raw() >= border));
            prop_assert_eq!(found, model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_not_in_another_is_counted() {
        let set = |gfns: &[u64]| {
            let mut set = Bitmap::try_new(Gfn::new(200)).unwrap();
            gfns.iter().for_each(|&gfn| set.insert(Gfn::new(gfn)));
            set
        };
        let (all, some) = (set(&[0, 5, 63, 64, 130]), set(&[5, 64, 7]));
        assert_eq!((all.count_without(&some), some.count_without(&all), all.count_without(&all)), (3, 1, 0));
        assert_eq!(all.count_without(&Bitmap::without_room()), 5);
    }
}
