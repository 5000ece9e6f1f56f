//! The address space: which virtual address means what. linker/README.md draws it.
//!
//! Pure arithmetic. The 1:1 map covers all RAM; the window, high above it, is the only place where a virtual address
//! changes its meaning while the kernel runs.

use xen_hypercall::Pfn;

use crate::boot::VIRT_BASE;

/// Bytes of a page, in the type of addresses.
pub const PAGE: u64 = 4096;
/// Entries of a page table of any level.
pub const ENTRIES: u64 = 512;
/// Start of the window: the second L4 slot.
pub const WINDOW: u64 = 1 << 39;
/// L1 tables of the window: one of fixed slots, those for frames of other domains, those for held frames.
pub const WINDOW_TABLES: u64 = 1 + FOREIGN_TABLES + HELD_TABLES;
/// L1 tables for the frames of other domains that are mapped batch by batch.
pub const FOREIGN_TABLES: u64 = 2;
/// L1 tables for the frames of another domain that stay mapped: the p2m of a PV guest of up to 64 GiB.
pub const HELD_TABLES: u64 = 64;
/// The shared_info page.
pub const SHARED_INFO: u64 = WINDOW;
/// The grant table, from this address on.
pub const GRANT_TABLE: u64 = WINDOW + PAGE;
/// Most frames of the grant table that are mapped: Xen's own default limit.
pub const GRANT_FRAMES: u64 = 64;
/// Frames of other domains, [`FOREIGN_PAGES`] of them.
pub const FOREIGN: u64 = WINDOW + ENTRIES * PAGE;
/// Pages of the foreign part of the window.
pub const FOREIGN_PAGES: u64 = FOREIGN_TABLES * ENTRIES;
/// Held frames of another domain, [`HELD_PAGES`] of them.
pub const HELD: u64 = FOREIGN + FOREIGN_PAGES * PAGE;
/// Pages of the held part of the window.
pub const HELD_PAGES: u64 = HELD_TABLES * ENTRIES;

const _: () = assert!(GRANT_TABLE + GRANT_FRAMES * PAGE <= FOREIGN);
// One L2 table has room for all of the window's.
const _: () = assert!(WINDOW_TABLES <= ENTRIES);

/// Where a frame of our own lies.
pub const fn address_of(pfn: Pfn) -> u64 {
    VIRT_BASE + pfn.raw() * PAGE
}

/// Which frame of our own lies at an address of the 1:1 map.
pub const fn pfn_of(address: u64) -> Option<Pfn> {
    if address < VIRT_BASE || address >= WINDOW { None } else { Some(Pfn::new((address - VIRT_BASE) / PAGE)) }
}

/// Index of an address in the table of `level` (1 to 4).
pub const fn index(address: u64, level: u32) -> u64 {
    (address >> (12 + 9 * (level - 1))) % ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_frames_are_inverse() {
        for pfn in [0, 1, 511, 512, 1 << 18] {
            assert_eq!(pfn_of(address_of(Pfn::new(pfn))), Some(Pfn::new(pfn)));
        }
        assert_eq!(pfn_of(VIRT_BASE - 1), None);
        assert_eq!(pfn_of(WINDOW), None);
    }

    #[test]
    fn indices_are_those_of_the_processor() {
        let address = 3 << 39 | 5 << 30 | 7 << 21 | 9 << 12 | 0xabc;
        assert_eq!([4, 3, 2, 1].map(|level| index(address, level)), [3, 5, 7, 9]);
        assert_eq!((index(WINDOW, 4), index(FOREIGN, 2), index(FOREIGN, 1)), (1, 1, 0));
    }
}
