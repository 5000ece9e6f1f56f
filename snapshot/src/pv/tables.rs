//! Page tables as a stream holds them: pfns in the place of machine frames (tools/libs/guest/xg_sr_save_x86_pv.c,
//! normalise_pagetable).
//!
//! A table either becomes whole or does not settle: an entry that names a frame of somebody else, or one that the guest
//! is moving, is never guessed at.

use xen_hypercall::types::{Mfn, Pfn};

use crate::ports::{Page, PageType};

/// Bit of an entry that maps something.
pub(super) const PRESENT: u64 = 1;
/// Bit of an entry above L1 that maps a large page.
pub(super) const LARGE: u64 = 1 << 7;
/// Bits of an entry that are the frame's address.
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Xen's own slots in an L4 table (xen/arch/x86/include/asm/config.h, ROOT_PAGETABLE_FIRST_XEN_SLOT to LAST).
const XEN_SLOTS: core::ops::RangeInclusive<usize> = 256..=271;

/// The table holds an entry that stands for no page of the guest, now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsettled;

/// Level of the table that a page is, pinned or not; None for any other page.
pub fn level(kind: PageType) -> Option<u8> {
    Some(kind.0 & 7).filter(|level| matches!(level, 1..=4) && kind.has_data())
}

/// Puts pfns into a table of `level`; `pfn_of` says which pfn a frame is. The page is spoilt if it does not settle.
pub fn normalise(table: &mut Page, level: u8, pfn_of: impl Fn(Mfn) -> Option<Pfn>) -> Result<(), Unsettled> {
    for (slot, word) in table.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let entry = u64::from_le_bytes(*word);
        let entry = if level == 4 && XEN_SLOTS.contains(&slot) { 0 } else { convert(entry, level, &pfn_of)? };
        *word = entry.to_le_bytes();
    }
    Ok(())
}

fn convert(entry: u64, level: u8, pfn_of: &impl Fn(Mfn) -> Option<Pfn>) -> Result<u64, Unsettled> {
    if entry & PRESENT == 0 {
        return Ok(entry);
    }
    // Bit 7 is PAT in an L1 entry. Xen validates no large page of a PV guest.
    if level > 1 && entry & LARGE != 0 {
        return Err(Unsettled);
    }
    let pfn = pfn_of(Mfn::new((entry & ADDRESS) >> 12)).ok_or(Unsettled)?;
    Ok(entry & !ADDRESS | pfn.raw() << 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(usize, u64)]) -> Page {
        let mut page = [0; 4096];
        for (slot, entry) in entries {
            page[slot * 8..slot * 8 + 8].copy_from_slice(&entry.to_le_bytes());
        }
        page
    }

    fn halved(mfn: Mfn) -> Option<Pfn> {
        mfn.raw().is_multiple_of(2).then(|| Pfn::new(mfn.raw() / 2))
    }

    #[test]
    fn frames_become_pfns_and_all_else_stays() {
        let mut page = table(&[(0, 0x8000_0000_0010_0067), (1, 0x0000_0000_0030_1066), (511, 0x7ff0_0000_0020_00e7)]);
        normalise(&mut page, 1, halved).unwrap();
        let expected = table(&[(0, 0x8000_0000_0008_0067), (1, 0x0000_0000_0030_1066), (511, 0x7ff0_0000_0010_00e7)]);
        assert_eq!(page, expected, "flags, not-present entries and high bits are kept");
    }

    #[test]
    fn only_an_l4_loses_the_slots_of_xen() {
        let slots = [(255, 0x2067), (256, 0x1_1067), (271, 0x1_3067), (272, 0x4067)];
        let mut page = table(&slots);
        normalise(&mut page, 4, halved).unwrap();
        assert_eq!(page, table(&[(255, 0x1067), (272, 0x2067)]));
        assert_eq!(normalise(&mut table(&slots), 3, halved), Err(Unsettled));
    }

    #[test]
    fn a_foreign_frame_or_a_large_page_does_not_settle() {
        assert_eq!(normalise(&mut table(&[(7, 0x3067)]), 1, halved), Err(Unsettled));
        assert_eq!(normalise(&mut table(&[(7, 0x20e7)]), 2, halved), Err(Unsettled));
        assert_eq!(normalise(&mut table(&[(7, 0x20e7)]), 1, halved), Ok(()));
    }

    #[test]
    fn pinned_or_not_a_table_has_its_level() {
        let levels: std::vec::Vec<_> = (0..16).map(|kind| level(PageType(kind))).collect();
        let tables = [Some(1), Some(2), Some(3), Some(4)];
        assert_eq!(levels[1..5], tables);
        assert_eq!(levels[9..13], tables);
        assert!([0, 5, 6, 7, 8, 13, 14, 15].iter().all(|&kind: &usize| levels[kind].is_none()));
    }
}
