//! A bitmap over segment ids or addresses, and its form on disk, the set of segments (docs/format/store-v1.md,
//! section 10).
//!
//! Invariant: no bit at or beyond `len` is ever set.

use alloc::vec;
use alloc::vec::Vec;

use crate::store::layout::{Kind, index, length32, segment_group as group, segment_set as field};

/// One bit for each of `len` things.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bitmap {
    words: Vec<u64>,
    len: u32,
}

impl Bitmap {
    /// All clear.
    pub fn new(len: u32) -> Self {
        Self { words: vec![0; index(u64::from(len.div_ceil(64)))], len }
    }

    /// Number of bits.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Is it set? False beyond the end.
    pub fn get(&self, bit: u32) -> bool {
        self.words.get(index(u64::from(bit / 64))).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// Sets it; nothing beyond the end.
    pub fn set(&mut self, bit: u32) {
        if bit < self.len
            && let Some(word) = self.words.get_mut(index(u64::from(bit / 64)))
        {
            *word |= 1 << (bit % 64);
        }
    }

    /// Clears it.
    pub fn clear(&mut self, bit: u32) {
        if let Some(word) = self.words.get_mut(index(u64::from(bit / 64))) {
            *word &= !(1 << (bit % 64));
        }
    }

    /// Sets what is set in the other.
    pub fn merge(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// Clears what is set in the other.
    pub fn subtract(&mut self, other: &Self) {
        for (word, less) in self.words.iter_mut().zip(&other.words) {
            *word &= !less;
        }
    }

    /// Is anything set in both?
    pub fn meets(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).any(|(word, more)| word & more != 0)
    }

    /// Bits set.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// The bits set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len).step_by(64).zip(&self.words).flat_map(|(first, word)| {
            let word = *word;
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
        })
    }

    /// The first clear bit at or after `from`, else the first clear one at all.
    pub fn first_clear(&self, from: u32) -> Option<u32> {
        self.clear_between(from, self.len).or_else(|| self.clear_between(0, from.min(self.len)))
    }

    fn clear_between(&self, from: u32, to: u32) -> Option<u32> {
        let mut bit = from;
        while bit < to {
            let word = self.words.get(index(u64::from(bit / 64))).copied().unwrap_or(u64::MAX);
            let free = !word & (u64::MAX << (bit % 64));
            let first = (bit & !63).saturating_add(free.trailing_zeros());
            if free != 0 {
                return (first < to).then_some(first);
            }
            bit = first;
        }
        None
    }

    /// As a set of segments.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; field::SIZE];
        let mut count: u32 = 0;
        for (number, word) in self.words.iter().enumerate().filter(|(_, word)| **word != 0) {
            let mut one = [0; group::SIZE];
            group::GROUP.put(&mut one, &length32(number).to_le_bytes());
            group::MASK.put(&mut one, &word.to_le_bytes());
            out.extend_from_slice(&one);
            count += 1;
        }
        field::MAGIC.put(&mut out, &Kind::SEGMENT_SET.0);
        field::COUNT.put(&mut out, &count.to_le_bytes());
        out
    }

    /// From a set of segments. None if it is not in order, or names what does not exist.
    pub fn decode(raw: &[u8], len: u32) -> Option<Self> {
        let mut found = Self::new(len);
        let groups = raw.get(field::SIZE..)?.chunks(group::SIZE);
        if field::MAGIC.of(raw) != Kind::SEGMENT_SET.0 || groups.len() != index(u64::from(field::COUNT.u32(raw))) {
            return None;
        }
        let mut next = 0;
        for one in groups {
            let (number, mask) = (group::GROUP.u32(one), group::MASK.u64(one));
            let beyond = len.saturating_sub(number.checked_mul(64)?);
            let legal = if beyond >= 64 { u64::MAX } else { (1 << beyond) - 1 };
            if one.len() != group::SIZE || number < next || mask == 0 || mask & !legal != 0 {
                return None;
            }
            *found.words.get_mut(index(u64::from(number)))? = mask;
            next = number + 1;
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_survives_its_form_on_disk() {
        let mut set = Bitmap::new(200);
        for bit in [0, 63, 64, 130, 199, 200, 5000] {
            set.set(bit);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 130, 199]);
        assert_eq!(Bitmap::decode(&set.encode(), 200), Some(set.clone()));
        assert_eq!(Bitmap::decode(&set.encode(), 199), None, "names a segment beyond the end");
        let mut twice = set.encode();
        twice[16..20].copy_from_slice(&1u32.to_le_bytes());
        assert_eq!(Bitmap::decode(&twice, 200), None, "group 1 twice");
        let (mut other, mut more) = (set.encode(), set.encode());
        field::MAGIC.put(&mut other, &[0; 4]);
        field::COUNT.put(&mut more, &5u32.to_le_bytes());
        assert_eq!(Bitmap::decode(&other, 200), None, "another magic");
        assert_eq!(Bitmap::decode(&more, 200), None, "more groups than bytes");
    }

    #[test]
    fn the_first_clear_bit_wraps_around() {
        let mut map = Bitmap::new(130);
        (0..130).filter(|bit| *bit != 3 && *bit != 129).for_each(|bit| map.set(bit));
        assert_eq!(map.first_clear(0), Some(3));
        assert_eq!(map.first_clear(4), Some(129));
        map.set(129);
        assert_eq!(map.first_clear(4), Some(3));
        map.set(3);
        assert_eq!((map.first_clear(4), map.count()), (None, 130));
    }

    fn with(len: u32, first: u32, content: u64) -> Bitmap {
        let mut map = Bitmap::new(len);
        (0..64).filter(|bit| content >> bit & 1 == 1).for_each(|bit| map.set(first + bit));
        map
    }

    /// Asks everything at every position, and compares with the bits one by one.
    fn compare(map: &Bitmap, has: impl Fn(u32) -> bool) {
        let len = map.len();
        let bits: Vec<u32> = (0..len).filter(|bit| has(*bit)).collect();
        assert_eq!(map.count() as usize, bits.len());
        assert!(map.iter().eq(bits.iter().copied()));
        assert_eq!(Bitmap::decode(&map.encode(), len).as_ref(), Some(map));
        for from in 0..len + 2 {
            let clear = (from..len).find(|bit| !has(*bit)).or_else(|| (0..from.min(len)).find(|bit| !has(*bit)));
            assert_eq!(map.first_clear(from), clear, "{bits:?} of {len}, from {from}");
            assert_eq!(map.get(from), from < len && has(from));
        }
    }

    #[test]
    fn every_content_of_every_small_bitmap() {
        for (len, content) in (0..=13).flat_map(|len| (0..1u64 << len).map(move |content| (len, content))) {
            compare(&with(len, 0, content), |bit| content >> bit & 1 == 1);
        }
    }

    /// With the rest clear, and with the rest set.
    #[test]
    fn every_content_across_a_border_of_words() {
        for (len, first) in [(64, 56), (65, 57), (68, 60), (128, 60), (130, 122)] {
            for content in 0..1u64 << 8 {
                let inside = move |bit: u32| (first..first + 8).contains(&bit);
                let has = move |bit: u32| inside(bit) && content >> (bit - first) & 1 == 1;
                compare(&with(len, first, content), has);
                let mut rest = with(len, first, content);
                (0..len).filter(|bit| !inside(*bit)).for_each(|bit| rest.set(bit));
                compare(&rest, |bit| has(bit) || !inside(bit));
            }
        }
    }

    #[test]
    fn every_change_and_every_pair() {
        for one in 0..1u64 << 7 {
            for at in 0..72 {
                let (mut set, mut cleared) = (with(68, 61, one), with(68, 61, one));
                set.set(at);
                cleared.clear(at);
                let before = |bit: u32| bit >= 61 && one >> (bit - 61) & 1 == 1;
                assert!(set.iter().eq((0..68).filter(|bit| before(*bit) || *bit == at)));
                assert!(cleared.iter().eq((0..68).filter(|bit| before(*bit) && *bit != at)));
            }
            for two in 0..1u64 << 7 {
                let other = with(68, 61, two);
                let (mut all, mut less) = (with(68, 61, one), with(68, 61, one));
                assert_eq!(all.meets(&other), one & two != 0);
                all.merge(&other);
                less.subtract(&other);
                assert_eq!((all, less), (with(68, 61, one | two), with(68, 61, one & !two)));
            }
        }
    }

    /// Every mask of a group, and every length: what names a bit beyond the end, or nothing, is refused.
    #[test]
    fn every_mask_that_a_disk_may_say() {
        for (len, number) in (60..=76).flat_map(|len| [(len, 0), (len, 1), (len, 2), (len, u32::MAX)]) {
            for mask in 0..1u64 << 13 {
                let mut raw = with(64, 0, 1).encode();
                raw[16..20].copy_from_slice(&number.to_le_bytes());
                raw[24..32].copy_from_slice(&mask.to_le_bytes());
                let fits = u64::from(number) * 64 + 64 - u64::from(mask.leading_zeros()) <= u64::from(len);
                let found = Bitmap::decode(&raw, len);
                assert_eq!(found.is_some(), mask != 0 && fits, "group {number}, mask {mask:#x}, {len} segments");
                assert!(
                    found.is_none_or(|found| found.count() == mask.count_ones() && found.iter().all(|bit| bit < len))
                );
            }
        }
    }
}
