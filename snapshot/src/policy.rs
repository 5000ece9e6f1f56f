//! When to stop copying in rounds: a pure function from what was counted to a decision.
//!
//! A policy sees counts, never time, pages or ports, so a table can test it and a simulation can compare it with the
//! closed form. It cannot extend a take beyond [`Policy::rounds`].

use crate::request::Mode;

/// What a round counted, and the sums so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundStats {
    /// This round, from 1.
    pub round: u32,
    /// Populated pages of the guest.
    pub memory: u64,
    /// Pages that this round was given: all in round 1, the dirty ones of the round before it later.
    pub dirty_previous: u64,
    /// Pages that became dirty during this round.
    pub dirty_current: u64,
    /// Pages sent, zero pages included, all rounds added up.
    pub sent_total: u64,
}

/// What to do after a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Another round.
    Continue,
    /// Suspend the guest and copy the rest.
    StopAndCopy,
    /// Give up: no good can come of it.
    Abort,
}

/// The rules of a mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Xen Save: suspend first, copy everything.
    Save,
    /// Live Save, Table 2 of the paper.
    Live,
}

/// Rounds before stop-and-copy. Xen 4.5.1 (tools/libxc/xc_domain_save.c, DEF_MAX_ITERS) counts 29 and the last set
/// makes 30, which is the paper's number.
pub const LIVE_ROUNDS_MAX: u32 = 29;

/// Stop when fewer pages became dirty in the previous and the current round together.
pub const LIVE_DIRTY_MIN: u64 = 50;

/// Stop when more than this many times the memory was sent.
pub const LIVE_SENT_FACTOR: u64 = 3;

impl From<Mode> for Policy {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Save => Self::Save,
            Mode::Live => Self::Live,
        }
    }
}

impl Policy {
    /// Most rounds, the last set in the pause included.
    pub fn rounds(self) -> u32 {
        match self {
            Self::Save => 1,
            Self::Live => LIVE_ROUNDS_MAX + 1,
        }
    }

    /// Does the guest run while it is copied?
    pub fn is_live(self) -> bool {
        self == Self::Live
    }

    /// Space to reserve, in units of the guest's memory. `live`: three times, one round beyond, and the last set.
    pub fn reserve_factor(self) -> u64 {
        match self {
            Self::Save => 1,
            Self::Live => LIVE_SENT_FACTOR + 2,
        }
    }

    /// After a round.
    pub fn decide(self, stats: &RoundStats) -> Decision {
        match self {
            Self::Save => Decision::StopAndCopy,
            Self::Live => live(stats),
        }
    }
}

/// The three stop conditions in the paper's order; the loop runs while none holds.
fn live(stats: &RoundStats) -> Decision {
    let rounds_spent = stats.round >= LIVE_ROUNDS_MAX;
    let at_rest = stats.dirty_previous.saturating_add(stats.dirty_current) < LIVE_DIRTY_MIN;
    let sent_too_much = stats.sent_total > stats.memory.saturating_mul(LIVE_SENT_FACTOR);
    if rounds_spent || at_rest || sent_too_much { Decision::StopAndCopy } else { Decision::Continue }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(round: u32, dirty_previous: u64, dirty_current: u64, sent_total: u64) -> RoundStats {
        RoundStats { round, memory: 1000, dirty_previous, dirty_current, sent_total }
    }

    #[test]
    fn each_stop_condition_at_its_border() {
        for (round, previous, current, sent, expected) in [
            (1, 1000, 0, 1000, Decision::Continue),
            (2, 25, 25, 1025, Decision::Continue),
            (2, 25, 24, 1025, Decision::StopAndCopy),
            (2, 49, 0, 1049, Decision::StopAndCopy),
            (5, 900, 900, 3000, Decision::Continue),
            (5, 900, 900, 3001, Decision::StopAndCopy),
            (28, 900, 900, 2000, Decision::Continue),
            (29, 900, 900, 2000, Decision::StopAndCopy),
            (30, 900, 900, 2000, Decision::StopAndCopy),
        ] {
            assert_eq!(Policy::Live.decide(&stats(round, previous, current, sent)), expected, "round {round}");
        }
    }

    #[test]
    fn hostile_counts_do_not_overflow() {
        let wild = RoundStats { memory: u64::MAX, ..stats(2, u64::MAX, u64::MAX, u64::MAX) };
        assert_eq!(Policy::Live.decide(&wild), Decision::Continue);
    }

    #[test]
    fn save_has_no_round_before_the_pause() {
        assert_eq!(Policy::Save.decide(&stats(1, 1000, 1000, 1000)), Decision::StopAndCopy);
        assert_eq!((Policy::Save.rounds(), Policy::Live.rounds()), (1, 30));
    }

    /// The model of the paper: a guest of `memory` pages writes `rate` pages at random into `working` pages while one
    /// page is sent; a page is sent only if not dirty again. In a round that starts with the share `d` of the working
    /// set, ln(1 + rate d) / rate of it is sent and rate d / (1 + rate d) is dirty afterwards.
    fn simulate(memory: f64, working: f64, cap: f64) -> (u32, u64, u64) {
        let rate = 0.54 * (cap - 3.8).max(0.0) * 26000.0 / 21500.0;
        let mut share = 1.0 - (-rate * memory / working).exp();
        let (mut sent, mut previous, mut round) = (memory, memory, 1);
        loop {
            let stats = RoundStats {
                round,
                memory: memory as u64,
                dirty_previous: previous as u64,
                dirty_current: (working * share) as u64,
                sent_total: sent as u64,
            };
            if Policy::Live.decide(&stats) != Decision::Continue {
                return (round + 1, (sent + working * share) as u64, (working * share) as u64);
            }
            previous = working * share;
            sent += if rate > 0.0 { working * (1.0 + rate * share).ln() / rate } else { previous };
            share = rate * share / (1.0 + rate * share);
            round += 1;
        }
    }

    #[test]
    fn the_model_gives_the_rounds_that_the_literal_rule_gives() {
        let (memory, working) = (262_144.0, 131_072.0);
        for (cap, rounds) in [(10.0, 14), (25.0, 24), (34.0, 29), (37.0, 30), (40.0, 30), (100.0, 30)] {
            assert_eq!(simulate(memory, working, cap).0, rounds, "cap {cap}");
        }
        assert_eq!(simulate(memory, working, 0.0).0, 3, "idle: everything, nothing, stop");
    }

    #[test]
    fn the_model_sends_the_pages_that_the_literal_rule_sends() {
        let (_, sent, last) = simulate(262_144.0, 131_072.0, 100.0);
        assert!((620_000..646_000).contains(&sent), "{sent}");
        assert!((125_000..131_072).contains(&last), "{last}");
        let (rounds, sent, last) = simulate(524_288.0, 262_144.0, 4.0);
        assert!((6..=7).contains(&rounds), "{rounds}");
        assert!(sent < 620_000 && last < 50, "{sent} {last}");
    }
}
