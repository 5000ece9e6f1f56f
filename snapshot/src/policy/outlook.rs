//! What a pause would cost if it began now: measured prices, and the arithmetic over them.
//!
//! All prices are of this take on this machine; a price that was not measured is 0 and makes the prediction too low,
//! never too high. Saturating throughout: the page counts come from a hypervisor that counts for a hostile guest.

/// Prices of the pause, and the room for it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Outlook {
    /// Pages that fit the staging memory.
    pub staging_pages: u64,
    /// What a pause costs without a page: platform state, bitmap, checks. Nanoseconds.
    pub fixed_ns: u64,
    /// Mapping and copying one page into staging. Nanoseconds.
    pub stage_ns: u64,
    /// Mapping a page and giving it to the store, and the store's device doing with it what it does. Nanoseconds.
    pub store_ns: u64,
    /// The device is so far behind when the last page is given to it, and not waited for. Nanoseconds.
    pub lag_ns: u64,
}

impl Outlook {
    /// The pause for `pages`, in microseconds: what fits goes to staging, the rest to the store while the guest waits.
    pub fn pause_us(&self, pages: u64) -> u64 {
        let staged = pages.min(self.staging_pages);
        let rest = pages - staged;
        let copy_ns = pages.saturating_mul(self.stage_ns);
        // All of them are copied; while the device is behind by less than it may be, nothing else is waited for.
        let behind_ns = rest.saturating_mul(self.store_ns).saturating_sub(self.lag_ns);
        let store_ns = behind_ns.saturating_add(staged.saturating_mul(self.stage_ns)).max(copy_ns);
        self.fixed_ns.saturating_add(store_ns) / 1000
    }

    /// Most pages that fit staging and are copied within `target_us`.
    pub fn most(&self, target_us: u64) -> u64 {
        let left_ns = target_us.saturating_mul(1000).saturating_sub(self.fixed_ns);
        left_ns.checked_div(self.stage_ns).unwrap_or(u64::MAX).min(self.staging_pages)
    }

    /// Is there room in staging for `pages`, and are they copied within `target_us`?
    pub fn fits(&self, pages: u64, target_us: u64) -> bool {
        pages <= self.staging_pages && self.pause_us(pages) <= target_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_paid_at_the_price_of_the_store() {
        let outlook = Outlook { staging_pages: 100, fixed_ns: 5_000, stage_ns: 1_000, store_ns: 50_000, lag_ns: 0 };
        assert_eq!((outlook.pause_us(0), outlook.pause_us(100), outlook.pause_us(101)), (5, 105, 155));
        assert!(outlook.fits(100, 105) && !outlook.fits(100, 104), "the target");
        assert!(!outlook.fits(101, 1000), "the room");
        assert_eq!((outlook.most(105), outlook.most(104), outlook.most(1_000), outlook.most(4)), (100, 99, 100, 0));
    }

    #[test]
    fn what_the_device_is_behind_with_is_not_waited_for() {
        let outlook = Outlook { staging_pages: 100, fixed_ns: 0, stage_ns: 1_000, store_ns: 50_000, lag_ns: 2_000_000 };
        assert_eq!((outlook.pause_us(100), outlook.pause_us(130), outlook.pause_us(200)), (100, 130, 3_100));
    }

    #[test]
    fn absurd_counts_saturate() {
        let outlook =
            Outlook { staging_pages: 7, fixed_ns: u64::MAX, stage_ns: u64::MAX, store_ns: u64::MAX, lag_ns: 0 };
        assert_eq!(outlook.pause_us(u64::MAX), u64::MAX / 1000);
    }
}
