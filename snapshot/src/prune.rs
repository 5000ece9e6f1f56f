//! Which snapshots of a guest to keep: a pure function from their times to a decision.
//!
//! Each rule keeps the newest snapshot of each of the last so many periods that have one; what no rule keeps goes.
//! Times are UTC, weeks begin on Monday. Invariant: a snapshot that a rule keeps is never removed for another rule's
//! sake.

use alloc::vec;
use alloc::vec::Vec;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// 1 January 1970 was a Thursday: three days after a Monday.
const MONDAY: u64 = 3 * DAY;
const WEEK: u64 = 7 * DAY;

/// How many to keep of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    /// The newest ones.
    pub last: u32,
    /// The newest of an hour.
    pub hourly: u32,
    /// The newest of a day.
    pub daily: u32,
    /// The newest of a week.
    pub weekly: u32,
}

/// For each snapshot whether it is kept. `times`: seconds since 1970, in any order.
pub fn kept(times: &[u64], rules: &Rules) -> Vec<bool> {
    let mut keep = vec![false; times.len()];
    let mut newest_first: Vec<usize> = (0..times.len()).collect();
    let time = |at: usize| times.get(at).copied().unwrap_or(0);
    newest_first.sort_by_key(|at| core::cmp::Reverse((time(*at), *at)));
    let periods: [(u32, &dyn Fn(usize) -> u64); 4] = [
        (rules.last, &|at| at as u64),
        (rules.hourly, &|at| time(at) / HOUR),
        (rules.daily, &|at| time(at) / DAY),
        (rules.weekly, &|at| time(at).saturating_add(MONDAY) / WEEK),
    ];
    for (count, period) in periods {
        let (mut left, mut before) = (count, None);
        for at in &newest_first {
            if left == 0 {
                break;
            }
            if before != Some(period(*at)) {
                before = Some(period(*at));
                left -= 1;
                keep.iter_mut().skip(*at).take(1).for_each(|one| *one = true);
            }
        }
    }
    keep
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Monday, 23 November 2026, 00:00 UTC.
    const MONDAY_2026: u64 = 1_795_392_000;

    fn rules(last: u32, hourly: u32, daily: u32, weekly: u32) -> Rules {
        Rules { last, hourly, daily, weekly }
    }

    #[test]
    fn the_newest_are_kept_whatever_the_order() {
        assert_eq!(kept(&[5, 9, 1, 7], &rules(2, 0, 0, 0)), [false, true, false, true]);
        assert_eq!(kept(&[5, 5], &rules(1, 0, 0, 0)), [false, true], "of equal times the later one");
        assert_eq!(kept(&[], &rules(1, 1, 1, 1)), [] as [bool; 0]);
    }

    #[test]
    fn the_newest_of_each_hour_day_and_week() {
        let base = MONDAY_2026;
        let times = [base - 1, base, base + 10, base + HOUR, base + DAY, base + DAY + 5];
        assert_eq!(kept(&times, &rules(0, 3, 0, 0)), [false, false, true, true, false, true]);
        assert_eq!(kept(&times, &rules(0, 0, 2, 0)), [false, false, false, true, false, true]);
        assert_eq!(kept(&times, &rules(0, 0, 9, 0)), [true, false, false, true, false, true]);
        assert_eq!(kept(&times, &rules(0, 0, 0, 2)), [true, false, false, false, false, true], "weeks end on Sunday");
        assert_eq!(kept(&times, &rules(0, 0, 0, 1)), [false, false, false, false, false, true]);
    }

    #[test]
    fn rules_add_up() {
        let times: Vec<u64> = (0..10).map(|n| MONDAY_2026 + n * HOUR / 2).collect();
        let both = kept(&times, &rules(3, 4, 0, 0));
        let (last, hourly) = (kept(&times, &rules(3, 0, 0, 0)), kept(&times, &rules(0, 4, 0, 0)));
        assert!(both.iter().zip(last.iter().zip(&hourly)).all(|(both, (a, b))| *both == (*a || *b)));
    }

    proptest! {
        #[test]
        fn a_rule_keeps_at_most_its_number_and_always_the_newest(
            times in prop::collection::vec(0..4 * WEEK, 1..40), last in 0..5u32, daily in 0..5u32,
        ) {
            let keep = kept(&times, &rules(last, 0, daily, 0));
            let count = keep.iter().filter(|one| **one).count();
            prop_assert!(count <= (last + daily) as usize);
            prop_assert!(count >= (last as usize).min(times.len()));
            let newest = (0..times.len()).max_by_key(|at| (times[*at], *at)).unwrap();
            prop_assert_eq!(keep[newest], last + daily > 0);
        }
    }
}
