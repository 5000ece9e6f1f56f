//! What a pause would cost if it began now: measured prices, and the arithmetic over them.
//!
//! All prices are of this take on this machine; a price that was not measured is 0 and makes the prediction too low,
//! never too high. Saturating throughout: the page counts come from a hypervisor that counts for a hostile guest.

use super::disk::Disk;
use crate::ports::PAGE_SIZE;
use crate::staging::SLOTS;

/// What a packed page is rounded up to costs half of this on average ([`crate::staging`]).
const ROUNDING_BYTES: u64 = 32;
const PAGE_BYTES: u64 = PAGE_SIZE as u64;
/// A page in the store costs an entry of an index too, and half a unit of its place (docs/format/store-v1.md, 10).
pub const INDEX_BYTES: u64 = 40;

/// Prices of the pause, and the room for it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Outlook {
    /// Pages that fit the staging memory as they are.
    pub staging_pages: u64,
    /// What a pause costs without a page: platform state, bitmap, checks. Nanoseconds.
    pub fixed_ns: u64,
    /// Mapping and copying one page into staging. Nanoseconds.
    pub stage_ns: u64,
    /// Packing one page, beside that. Nanoseconds; 0: pages are not packed.
    pub pack_ns: u64,
    /// Bytes that a page of the last set takes packed, in the store or in staging; all of its own if it is not.
    pub stored_bytes: u64,
    /// Our work on a page that goes to the store, mapping and copying included. Nanoseconds.
    pub store_ns: u64,
    /// The store's device.
    pub disk: Disk,
}

/// Where the pages of a last set would go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Split {
    /// Pages in staging, packed ones among them.
    staged: u64,
    packed: u64,
    /// To the store, while the guest stands.
    stored: u64,
}

impl Outlook {
    /// The pause for `pages`, in microseconds: what fits goes to staging, the rest to the store while the guest waits.
    pub fn pause_us(&self, pages: u64) -> u64 {
        let split = self.split(pages);
        let staged_ns = split.staged.saturating_mul(self.stage_ns);
        let packed_ns = split.packed.saturating_mul(self.pack_ns);
        let stored_ns = self.stored_ns(split.stored);
        [self.fixed_ns, staged_ns, packed_ns, stored_ns].into_iter().fold(0, u64::saturating_add) / 1000
    }

    /// Our own work on pages that go to the store, or the device's, whichever takes longer. The device can begin only
    /// when the first piece is gathered.
    fn stored_ns(&self, pages: u64) -> u64 {
        let page_ns = self.store_ns.max(self.stage_ns);
        let wait_ns = self.disk.wait_ns(pages.saturating_mul(self.stored().saturating_add(INDEX_BYTES)));
        let first = if wait_ns == 0 { 0 } else { (self.disk.piece_bytes / self.stored()).min(pages) };
        pages.saturating_mul(page_ns).max(wait_ns.saturating_add(first.saturating_mul(page_ns)))
    }

    /// As few pages are packed as must be for all of them to fit.
    fn split(&self, pages: u64) -> Split {
        if pages <= self.staging_pages {
            return Split { staged: pages, packed: 0, stored: 0 };
        }
        if !self.packs() {
            return Split { staged: self.staging_pages, packed: 0, stored: pages - self.staging_pages };
        }
        let each = self.packed();
        let room_bytes = self.staging_pages.saturating_mul(PAGE_BYTES);
        let most = (room_bytes / each).min(self.staging_pages.saturating_mul(SLOTS as u64));
        if pages >= most {
            return Split { staged: most, packed: most, stored: pages - most };
        }
        let packed = pages.saturating_mul(PAGE_BYTES).saturating_sub(room_bytes).div_ceil(PAGE_BYTES - each);
        Split { staged: pages, packed: packed.min(pages), stored: 0 }
    }

    /// Does it pay to pack pages into staging once they do not fit as they are: is it faster than the store, though
    /// several have to be packed to make room for one?
    pub fn packs(&self) -> bool {
        let (each, won) = (self.packed(), PAGE_BYTES.saturating_sub(self.packed()));
        if self.pack_ns == 0 || each == 0 || won == 0 {
            return false;
        }
        let room_ns = u128::from(self.pack_ns) * u128::from(PAGE_BYTES);
        let page_ns = self.store_ns.saturating_sub(self.stage_ns).max(self.disk.price_ns(self.stored()));
        room_ns < u128::from(page_ns) * u128::from(won)
    }

    fn stored(&self) -> u64 {
        if self.stored_bytes == 0 { PAGE_BYTES } else { self.stored_bytes.min(PAGE_BYTES) }
    }

    fn packed(&self) -> u64 {
        self.stored().saturating_add(ROUNDING_BYTES).min(PAGE_BYTES)
    }

    /// Most pages that fit staging as they are and are copied within `target_us`.
    pub fn most(&self, target_us: u64) -> u64 {
        let left_ns = target_us.saturating_mul(1000).saturating_sub(self.fixed_ns);
        left_ns.checked_div(self.stage_ns).unwrap_or(u64::MAX).min(self.staging_pages)
    }

    /// Is there room in staging for `pages`, and are they copied within `target_us`?
    pub fn fits(&self, pages: u64, target_us: u64) -> bool {
        self.split(pages).stored == 0 && self.pause_us(pages) <= target_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICES: Outlook = Outlook {
        staging_pages: 100,
        fixed_ns: 5_000,
        stage_ns: 1_000,
        pack_ns: 0,
        stored_bytes: 0,
        store_ns: 50_000,
        disk: Disk::NONE,
    };

    #[test]
    fn what_does_not_fit_is_paid_at_the_price_of_the_store() {
        assert_eq!((PRICES.pause_us(0), PRICES.pause_us(100), PRICES.pause_us(101)), (5, 105, 155));
        assert!(PRICES.fits(100, 105) && !PRICES.fits(100, 104), "the target");
        assert!(!PRICES.fits(101, 1000), "the room");
        assert_eq!((PRICES.most(105), PRICES.most(104), PRICES.most(1_000), PRICES.most(4)), (100, 99, 100, 0));
    }

    #[test]
    fn a_disk_that_is_slower_than_we_are_decides() {
        // 1 ms for 4136 bytes, a page and its entry; 64 pages are accepted before the first is answered.
        let mib_ns = (1 << 20) * 1_000_000 / 4136;
        let disk = Disk { mib_ns, depth_bytes: 64 * 4136, step_bytes: 4136, piece_bytes: 4136, gathered_bytes: 0 };
        let outlook = Outlook { disk, ..PRICES };
        assert_eq!(outlook.pause_us(100 + 64), 105 + 64 * 50, "all of it is accepted: our own work");
        let waits = outlook.pause_us(100 + 264).abs_diff(105 + 200_000 + 50);
        assert!(waits < 10, "what is beyond is waited for, and for our work on the first: {waits}");
    }

    #[test]
    fn as_few_pages_are_packed_as_must_be() {
        // Packed, a page takes half of its own: 2048 with the rounding.
        let outlook = Outlook { pack_ns: 10_000, stored_bytes: 2048 - ROUNDING_BYTES, ..PRICES };
        assert!(outlook.packs());
        assert_eq!(outlook.split(100), Split { staged: 100, packed: 0, stored: 0 });
        assert_eq!(outlook.split(101), Split { staged: 101, packed: 2, stored: 0 });
        assert_eq!(outlook.split(199), Split { staged: 199, packed: 198, stored: 0 });
        assert_eq!(outlook.split(201), Split { staged: 200, packed: 200, stored: 1 });
        assert_eq!(outlook.pause_us(101), 5 + 101 + 20);
        assert!(outlook.fits(101, 126) && !outlook.fits(201, u64::MAX));
        let dear = Outlook { pack_ns: 25_000, ..outlook };
        assert!(!dear.packs(), "two have to be packed for one that does not go to the store, which costs 49 us");
        assert_eq!(dear.split(101), Split { staged: 100, packed: 0, stored: 1 });
        assert!(!Outlook { stored_bytes: 4096, ..outlook }.packs(), "nothing is won");
    }

    #[test]
    fn however_well_they_pack_more_pages_than_slots_do_not_fit() {
        let outlook = Outlook { pack_ns: 1, stored_bytes: 1, ..PRICES };
        let most = 100 * SLOTS as u64;
        assert_eq!(outlook.split(most).stored, 0);
        assert_eq!(outlook.split(most + 7), Split { staged: most, packed: most, stored: 7 });
        assert!(!outlook.fits(most + 1, u64::MAX));
    }

    #[test]
    fn absurd_counts_saturate() {
        let disk = Disk { mib_ns: u64::MAX, step_bytes: u64::MAX, piece_bytes: 3, ..Disk::NONE };
        for (pack_ns, stored_bytes) in [(0, 0), (1, 1), (u64::MAX, u64::MAX)] {
            let outlook = Outlook {
                staging_pages: 7,
                fixed_ns: u64::MAX,
                stage_ns: u64::MAX,
                pack_ns,
                stored_bytes,
                store_ns: u64::MAX,
                disk,
            };
            assert_eq!(outlook.pause_us(u64::MAX), u64::MAX / 1000);
            assert!(!outlook.fits(u64::MAX, 5));
        }
    }
}
