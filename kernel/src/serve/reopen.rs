//! When to open the store again after it was lost: a disk that was detached, a write that failed.
//!
//! Pure, with time as an argument. Opening anew is what a restart of the stub would do, so it is as safe; but a disk
//! that keeps failing must not be opened for ever: a few attempts, ever later, and then only if the toolstack attaches
//! a disk. A disk whose backend did not let go of our pages is never opened again in this life.

/// Attempts in a row.
pub const ATTEMPTS_MAX: u32 = 5;
/// Before the first one; doubled for each next one.
const FIRST_NS: u64 = 2_000_000_000;
/// A store that was open for less counts as one that was not opened.
const STEADY_NS: u64 = 60_000_000_000;

/// The attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reopen {
    attempts: u32,
    next_ns: u64,
    opened_ns: u64,
    hopeless: bool,
}

impl Default for Reopen {
    fn default() -> Self {
        Self { attempts: 0, next_ns: u64::MAX, opened_ns: 0, hopeless: false }
    }
}

impl Reopen {
    /// When the next attempt is due; `u64::MAX`: never.
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// The number of the next attempt, from 1; none if there will not be one by itself.
    pub fn upcoming(&self) -> Option<u32> {
        (self.next_ns != u64::MAX).then_some(self.attempts + 1)
    }

    /// What an operator has to do when there is no attempt any more.
    pub fn way_out(&self) -> &'static str {
        match (self.hopeless, self.attempts) {
            (true, _) => "; restart the stub",
            (false, 0) => "",
            _ => "; attach it anew or restart the stub",
        }
    }

    /// The store was lost. `clean`: the backend let go of everything.
    pub fn lost(&mut self, now_ns: u64, clean: bool) {
        if now_ns.saturating_sub(self.opened_ns) >= STEADY_NS {
            self.attempts = 0;
        }
        self.hopeless |= !clean;
        self.plan(now_ns);
    }

    /// An attempt failed. `clean`: as for [`Self::lost`].
    pub fn failed(&mut self, now_ns: u64, clean: bool) {
        self.attempts += 1;
        self.hopeless |= !clean;
        self.plan(now_ns);
    }

    /// The store is open.
    pub fn opened(&mut self, now_ns: u64) {
        self.attempts += 1;
        (self.opened_ns, self.next_ns) = (now_ns, u64::MAX);
    }

    /// The toolstack attached a disk: at once, and as often as at first.
    pub fn attached(&mut self, now_ns: u64) {
        if !self.hopeless {
            (self.attempts, self.next_ns) = (0, now_ns);
        }
    }

    fn plan(&mut self, now_ns: u64) {
        let more = self.attempts < ATTEMPTS_MAX && !self.hopeless;
        self.next_ns = if more { now_ns.saturating_add(FIRST_NS << self.attempts) } else { u64::MAX };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn the_document_has_the_bounds() {
        let document = include_str!("../../../docs/protocol/failures.md");
        for (name, value) in [
            ("ATTEMPTS_MAX", ATTEMPTS_MAX.to_string()),
            ("FIRST_NS", format!("{} s", FIRST_NS / S)),
            ("STEADY_NS", format!("{} s", STEADY_NS / S)),
        ] {
            assert!(document.contains(&format!("| `{name}` | {value} |")), "{name} = {value}");
        }
    }

    #[test]
    fn a_store_that_stays_lost_is_tried_five_times_ever_later() {
        let mut reopen = Reopen::default();
        assert_eq!(reopen.next_ns(), u64::MAX, "nothing was lost");
        let (mut now, mut waits) = (100 * S, Vec::new());
        reopen.lost(now, true);
        while reopen.upcoming().is_some() {
            assert!(waits.len() < 10, "bounded");
            waits.push((reopen.next_ns() - now) / S);
            now = reopen.next_ns();
            reopen.failed(now, true);
        }
        assert_eq!(waits, [2, 4, 8, 16, 32]);
        reopen.attached(now);
        assert_eq!((reopen.next_ns(), reopen.upcoming()), (now, Some(1)), "a new disk is a new beginning");
    }

    #[test]
    fn a_store_that_opens_and_fails_at_once_is_not_tried_for_ever() {
        let (mut reopen, mut now, mut opened) = (Reopen::default(), 100 * S, 0);
        reopen.lost(now, true);
        while reopen.upcoming().is_some() {
            assert!(opened < 10, "bounded");
            now = reopen.next_ns();
            reopen.opened(now);
            opened += 1;
            now += S;
            reopen.lost(now, true);
        }
        assert_eq!(opened, ATTEMPTS_MAX);
    }

    #[test]
    fn a_store_that_held_for_a_while_has_all_attempts_again() {
        let mut reopen = Reopen::default();
        reopen.lost(100 * S, true);
        reopen.failed(102 * S, true);
        reopen.opened(106 * S);
        assert_eq!(reopen.upcoming(), None);
        reopen.lost(166 * S, true);
        assert_eq!(reopen.upcoming(), Some(1));
    }

    #[test]
    fn pages_that_the_backend_keeps_end_it() {
        let mut reopen = Reopen::default();
        reopen.lost(100 * S, false);
        assert_eq!(reopen.upcoming(), None);
        reopen.attached(200 * S);
        assert_eq!(reopen.upcoming(), None);
    }
}
