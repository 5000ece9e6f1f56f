//! Which pages of a PV guest are page tables, and of which level, pinned or not: the part of a page that a restore
//! needs beside its content. Four bits for each pfn while the guest is taken; a list of ranges in the store.
//!
//! The type noted with the last copy of a page is the right one: Xen marks a page dirty when it becomes a page table,
//! stops being one, is pinned or unpinned (xen/arch/x86/mm.c).

use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use crate::ports::PageType;

/// Most ranges that a snapshot keeps: 8 MiB of them.
pub const RANGES_MAX: usize = 1 << 20;

/// Bytes of a range on disk.
const RANGE_BYTES: usize = 8;
/// Bits of the first pfn.
const PFN_BITS: u32 = 40;
/// Most pages of a range.
const PAGES_MAX: u64 = 1 << 16;

/// The types, by pfn.
#[derive(Debug, Default)]
pub struct PageTypes {
    nibbles: Vec<u8>,
}

impl PageTypes {
    /// Makes room for the pfns below `end`; what is known stays. False if there is no memory for it.
    #[must_use]
    pub fn reach(&mut self, end: u64) -> bool {
        let Ok(bytes) = usize::try_from(end.div_ceil(2)) else { return false };
        if self.nibbles.try_reserve_exact(bytes.saturating_sub(self.nibbles.len())).is_err() {
            return false;
        }
        self.nibbles.resize(bytes.max(self.nibbles.len()), 0);
        true
    }

    /// The type of a pfn; ordinary memory where nothing was noted.
    pub fn get(&self, pfn: u64) -> PageType {
        let byte = usize::try_from(pfn / 2).ok().and_then(|at| self.nibbles.get(at)).copied().unwrap_or(0);
        PageType(byte >> (4 * (pfn % 2)) & 0xf)
    }

    /// Notes the type of a pfn. What is not a page table is noted as ordinary memory.
    pub fn set(&mut self, pfn: u64, kind: PageType) {
        let shift = 4 * (pfn % 2);
        let nibble = if super::tables::level(kind).is_some() { kind.0 } else { 0 };
        if let Some(byte) = usize::try_from(pfn / 2).ok().and_then(|at| self.nibbles.get_mut(at)) {
            *byte = *byte & !(0xf << shift) | nibble << shift;
        }
    }

    /// All page tables as the store keeps them; None if there are too many ranges, or no memory for the list.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut run: Option<TypeRange> = None;
        for (at, pair) in self.nibbles.iter().enumerate().filter(|(_, pair)| **pair != 0) {
            for (half, nibble) in [pair & 0xf, pair >> 4].into_iter().enumerate().filter(|(_, nibble)| *nibble != 0) {
                let first = (at * 2 + half) as u64;
                match &mut run {
                    Some(run) if run.takes(first, nibble) => run.pages += 1,
                    _ => put(&mut bytes, run.replace(TypeRange { first, pages: 1, kind: PageType(nibble) }))?,
                }
            }
        }
        put(&mut bytes, run)?;
        Some(bytes)
    }
}

fn put(bytes: &mut Vec<u8>, range: Option<TypeRange>) -> Option<()> {
    let Some(range) = range else { return Some(()) };
    if bytes.len() / RANGE_BYTES >= RANGES_MAX {
        return None;
    }
    bytes.try_reserve(RANGE_BYTES).ok()?;
    bytes.extend_from_slice(&range.encode().to_le_bytes());
    Some(())
}

/// Pages of one type, next to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TypeRange {
    /// The first pfn.
    pub first: u64,
    /// How many; at least 1.
    pub pages: u64,
    /// Their type, a page table's.
    pub kind: PageType,
}

impl TypeRange {
    fn takes(&self, pfn: u64, nibble: u8) -> bool {
        self.kind.0 == nibble && self.first + self.pages == pfn && self.pages < PAGES_MAX
    }

    fn encode(&self) -> u64 {
        self.first | (self.pages - 1) << PFN_BITS | u64::from(self.kind.0) << 56
    }

    fn decode(word: u64) -> Option<Self> {
        let kind = PageType((word >> 56) as u8);
        let (first, pages) = (word & ((1 << PFN_BITS) - 1), (word >> PFN_BITS & (PAGES_MAX - 1)) + 1);
        super::tables::level(kind).map(|_| Self { first, pages, kind })
    }
}

/// The list of a stored snapshot, asked in ascending order.
#[derive(Debug)]
pub struct TypeRanges {
    bytes: Vec<u8>,
    at: usize,
}

impl TypeRanges {
    /// A list from the store: whole, ascending, without overlap, of page tables alone. None for anything else.
    pub fn parse(bytes: Vec<u8>) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<RANGE_BYTES>();
        let mut end = 0;
        for word in words {
            let range = TypeRange::decode(u64::from_le_bytes(*word)).filter(|range| range.first >= end)?;
            end = range.first + range.pages;
        }
        rest.is_empty().then_some(Self { bytes, at: 0 })
    }

    /// The type of `gfn`, which is above all that were asked for before.
    pub fn kind_of(&mut self, gfn: Gfn) -> PageType {
        while let Some(range) = self.current() {
            if gfn.raw() < range.first {
                break;
            }
            if gfn.raw() < range.first + range.pages {
                return range.kind;
            }
            self.at += 1;
        }
        PageType::NOTAB
    }

    fn current(&self) -> Option<TypeRange> {
        self.bytes
            .as_chunks::<RANGE_BYTES>()
            .0
            .get(self.at)
            .and_then(|word| TypeRange::decode(u64::from_le_bytes(*word)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes_of_a_list() {
        let mut types = PageTypes::default();
        assert!(types.reach(0x2_0000));
        [(5, 1), (6, 1), (7, 9), (0x1_2345, 0xc)].iter().for_each(|(pfn, kind)| types.set(*pfn, PageType(*kind)));
        types.set(9, PageType::XTAB);
        let golden = [
            [5, 0, 0, 0, 0, 1, 0, 1], // two L1 tables from pfn 5 on
            [7, 0, 0, 0, 0, 0, 0, 9], // a pinned one
            [0x45, 0x23, 1, 0, 0, 0, 0, 0xc],
        ];
        assert_eq!(types.encode().unwrap(), golden.concat());
        assert_eq!(types.get(9), PageType::NOTAB);
    }

    #[test]
    fn a_list_that_is_none_is_refused() {
        let range = |first, pages, kind| TypeRange { first, pages, kind: PageType(kind) }.encode().to_le_bytes();
        let good = [range(1, 2, 1), range(3, 1, 1), range(9, 65536, 0xc)].concat();
        assert!(TypeRanges::parse(good.clone()).is_some());
        assert!(TypeRanges::parse(good[..23].to_vec()).is_none(), "not whole");
        for bad in
            [[range(1, 3, 1), range(3, 1, 1)], [range(5, 1, 1), range(3, 1, 1)], [range(1, 1, 1), range(3, 1, 5)]]
        {
            assert!(TypeRanges::parse(bad.concat()).is_none());
        }
    }

    #[test]
    fn a_guest_of_nothing_but_single_tables_is_too_much() {
        let mut types = PageTypes::default();
        let end = 2 * (RANGES_MAX as u64 + 1);
        assert!(types.reach(end));
        (0..end - 2).step_by(2).for_each(|pfn| types.set(pfn, PageType(1)));
        assert_eq!(types.encode().unwrap().len(), RANGES_MAX * 8);
        types.set(end - 1, PageType(1));
        assert!(types.encode().is_none());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(kinds in prop::collection::btree_map(0u64..3000, 0u8..16, 0..400)) {
            let mut types = PageTypes::default();
            prop_assert!(types.reach(3000));
            let tables: BTreeMap<u64, u8> =
                kinds.iter().filter(|(_, kind)| matches!(kind, 1..=4 | 9..=12)).map(|(p, k)| (*p, *k)).collect();
            kinds.iter().for_each(|(pfn, kind)| types.set(*pfn, PageType(*kind)));
            let mut list = TypeRanges::parse(types.encode().unwrap()).unwrap();
            for pfn in 0..3001 {
                prop_assert_eq!(list.kind_of(Gfn::new(pfn)).0, tables.get(&pfn).copied().unwrap_or(0));
            }
        }
    }
}
