//! Which gaps between the blocks that are wanted are read through, so that there is one request instead of two.
//!
//! Invariant: all that are read through have at most the blocks that were allowed, the narrow ones come first, and none
//! is wider than [`GAP_MAX`].

/// Widest gap that may be read through. A disk that turns passes over that much in the time in which it looks for it;
/// for any disk a request costs about as much as some blocks.
const GAP_MAX: usize = 16;

/// The gaps of one batch.
pub struct Gaps {
    /// Gaps up to so many blocks are all read through.
    all: u64,
    /// Of those that are one block wider, as many as have so many blocks.
    left: u64,
}

impl Gaps {
    /// Looks at the blocks that are wanted, each from its first to behind its last, in the order of the device, and at
    /// how many may be read between them.
    pub fn of(wanted: impl Iterator<Item = (u64, u64)>, allowed: usize) -> Self {
        let mut blocks = [0_u64; GAP_MAX + 1];
        let mut last = None;
        for (first, end) in wanted {
            let gap = last.map_or(0, |last| first.saturating_sub(last));
            if let Some(blocks) = usize::try_from(gap).ok().and_then(|gap| blocks.get_mut(gap)) {
                *blocks += gap;
            }
            last = last.max(Some(end));
        }
        let mut left = allowed as u64;
        for (gap, blocks) in (0..).zip(blocks) {
            if blocks > left {
                return Self { all: u64::saturating_sub(gap, 1), left };
            }
            left -= blocks;
        }
        Self { all: GAP_MAX as u64, left: 0 }
    }

    /// Is a gap of so many blocks read through? Asked for each once.
    pub fn through(&mut self, gap: u64) -> bool {
        if gap <= self.all {
            return true;
        }
        let joins = gap == self.all + 1 && gap <= self.left;
        if joins {
            self.left -= gap;
        }
        joins
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// Blocks with these gaps between them, and which of the gaps are read through.
    fn through(gaps: &[u64], allowed: usize) -> Vec<u64> {
        let starts = gaps.iter().scan(10, |at, gap| {
            *at += 1 + gap;
            Some(*at)
        });
        let spans: Vec<(u64, u64)> = core::iter::once(10).chain(starts).map(|at| (at, at + 1)).collect();
        let mut chosen = Gaps::of(spans.iter().copied(), allowed);
        gaps.iter().copied().filter(|gap| chosen.through(*gap)).collect()
    }

    #[test]
    fn the_narrow_ones_come_first_and_no_more_are_read_than_allowed() {
        assert_eq!(through(&[0, 3, 0, 1, 2, 1], 0), [0, 0]);
        assert_eq!(through(&[3, 1, 2, 1], 1), [1]);
        assert_eq!(through(&[3, 1, 2, 1, 2, 2], 7), [1, 2, 1, 2]);
        assert_eq!(through(&[3, 1, 2, 1, 2, 2], 8), [1, 2, 1, 2, 2]);
        assert_eq!(through(&[3, 1, 2, 1], 7), [3, 1, 2, 1]);
    }

    #[test]
    fn a_wide_one_is_never_read_through() {
        assert_eq!(through(&[16, 17], 1000), [16]);
        assert_eq!(through(&[u64::MAX / 2], 1000), []);
    }

    #[test]
    fn blocks_that_overlap_leave_no_gap() {
        let mut gaps = Gaps::of([(1, 3), (1, 2), (2, 4), (4, 5), (6, 7)].into_iter(), 0);
        assert!(gaps.through(0) && !gaps.through(1));
    }
}
