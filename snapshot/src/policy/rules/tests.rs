//! Each rule at its borders, and the rules against the closed form of the paper's experiment.

use std::vec::Vec;

use super::*;
use crate::policy::{Disk, HIGH_DEFAULT_MILLI, LIVE_ROUNDS_MAX};

fn stats(round: u32, dirty_previous: u64, dirty_current: u64, sent_total: u64) -> RoundStats {
    RoundStats { round, memory: 1000, dirty_previous, dirty_current, sent_total, ..RoundStats::default() }
}

fn policy(mode: Mode) -> Policy {
    Policy::new(mode, Settings::default())
}

#[test]
fn each_stop_condition_of_live_at_its_border() {
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
        assert_eq!(policy(Mode::Live).decide(&stats(round, previous, current, sent)), expected, "round {round}");
    }
}

#[test]
fn each_stop_condition_of_xen_at_its_border() {
    for (round, current, expected) in [
        (1, 50, Decision::Continue),
        (1, 49, Decision::StopAndCopy),
        (4, 900, Decision::Continue),
        (5, 900, Decision::StopAndCopy),
    ] {
        assert_eq!(policy(Mode::Xen).decide(&stats(round, 0, current, 90_000)), expected, "{round} {current}");
    }
}

#[test]
fn hostile_counts_do_not_overflow() {
    let wild = RoundStats {
        memory: u64::MAX,
        sent_round: u64::MAX,
        unsent: u64::MAX,
        space_left: u64::MAX,
        ..stats(2, u64::MAX, u64::MAX, u64::MAX)
    };
    assert_eq!(policy(Mode::Live).decide(&wild), Decision::Continue);
    assert_eq!(policy(Mode::Improved).decide(&wild), Decision::Continue);
    assert_eq!(policy(Mode::Staged).decide(&wild), Decision::StopAndCopy, "accepted: no limit was given");
}

#[test]
fn save_has_no_round_before_the_pause() {
    assert_eq!(policy(Mode::Save).decide(&stats(1, 1000, 1000, 1000)), Decision::StopAndCopy);
    let rounds = [Mode::Save, Mode::Live, Mode::Improved, Mode::Xen, Mode::Staged].map(|mode| policy(mode).rounds());
    assert_eq!(rounds, [1, 30, 30, 6, 5]);
}

/// Rounds before the last set when the first `early` rounds are not high and all the others are.
fn improved_rounds(early: u32) -> u32 {
    let mut improved = policy(Mode::Improved);
    for round in 1..=LIVE_ROUNDS_MAX {
        let sent_round = if round <= early { 900 } else { 100 };
        if improved.decide(&RoundStats { sent_round, ..stats(round, 900, 900, 1000) }) == Decision::StopAndCopy {
            return round;
        }
    }
    panic!("no stop");
}

/// Table 3 as it is printed: adjust, then compare.
#[test]
fn the_count_and_its_limit_meet_in_the_middle() {
    assert_eq!([0, 1, 2, 3, 4].map(improved_rounds), [15, 15, 16, 16, 17]);
    assert_eq!(improved_rounds(LIVE_ROUNDS_MAX), LIVE_ROUNDS_MAX, "the limit never rises above its start");
}

#[test]
fn both_readings_of_high_at_their_borders() {
    let of = |current, sent_round| RoundStats { sent_round, ..stats(2, 900, current, 1000) };
    let high = |stats: &RoundStats, high| {
        let mut policy = Policy::new(Mode::Improved, Settings { high, ..Settings::default() });
        policy.decide(stats);
        policy.rounds_max < LIVE_ROUNDS_MAX
    };
    let sent = High::Sent { milli: HIGH_DEFAULT_MILLI };
    assert!(!high(&of(510, 100), sent) && high(&of(511, 100), sent));
    assert!(!high(&of(899, 1), High::NoLess) && high(&of(900, 1), High::NoLess));
}

const OUTLOOK: Outlook = Outlook {
    staging_pages: 400,
    fixed_ns: 1_000_000,
    stage_ns: 1_000,
    store_ns: 100_000,
    pack_ns: 0,
    stored_bytes: 0,
    disk: Disk::NONE,
};

fn staged_stats(round: u32, dirty: u64) -> RoundStats {
    RoundStats { outlook: OUTLOOK, space_left: 1000, ..stats(round, 1000, dirty, 1000) }
}

fn staged(busy: Busy, max_pause_us: Option<u64>) -> Policy {
    Policy::new(Mode::Staged, Settings { busy, max_pause_us, target_us: 1_400, ..Settings::default() })
}

#[test]
fn staged_stops_at_once_when_the_set_fits() {
    let mut policy = staged(Busy::Accept, None);
    assert_eq!(policy.decide(&staged_stats(1, 400)), Decision::StopAndCopy);
    assert_eq!(policy.decide(&staged_stats(1, 401)), Decision::Continue, "one more than fits");
    let mut hurried = Policy { settings: Settings { target_us: 1_399, ..policy.settings }, ..policy };
    assert_eq!(hurried.decide(&staged_stats(2, 200)), Decision::StopAndCopy);
    assert!(!OUTLOOK.fits(400, 1_399), "the target, not the room");
    let unsent = RoundStats { unsent: 300, ..staged_stats(1, 101) };
    assert_eq!(staged(Busy::Accept, None).decide(&unsent), Decision::Continue, "what was left out counts");
}

#[test]
fn staged_goes_on_only_with_progress_room_and_rounds() {
    let second = |dirty, space_left, round| {
        let mut policy = staged(Busy::Accept, None);
        assert_eq!(policy.decide(&staged_stats(1, 500)), Decision::Continue);
        policy.memory = staged::Memory::new();
        policy.decide(&RoundStats { space_left, ..staged_stats(round, dirty) })
    };
    assert_eq!(second(500, 1000, 3), Decision::Continue);
    assert_eq!(second(500, 1000, 4), Decision::StopAndCopy, "rounds");
    assert_eq!(second(500, 999, 3), Decision::StopAndCopy, "room for the round and the last set");
    let mut policy = staged(Busy::Accept, None);
    assert_eq!(policy.decide(&staged_stats(1, 500)), Decision::Continue);
    assert_eq!(policy.decide(&staged_stats(2, 401)), Decision::StopAndCopy, "no progress");
}

#[test]
fn a_busy_guest_is_accepted_throttled_or_given_up() {
    let stuck = |busy, max_pause_us| {
        let mut policy = staged(busy, max_pause_us);
        policy.decide(&staged_stats(1, 500));
        policy.decide(&staged_stats(2, 500))
    };
    // 400 in staging, 100 to disk: 1 + 0.4 + 10 ms.
    assert_eq!(stuck(Busy::Accept, Some(11_400)), Decision::StopAndCopy);
    assert_eq!(stuck(Busy::Accept, Some(11_399)), Decision::Abort(Refusal::PauseTooLong));
    assert_eq!(stuck(Busy::Abort, None), Decision::Abort(Refusal::Busy));
    assert_eq!(stuck(Busy::Throttle, None), Decision::Throttle(20));
}

#[test]
fn throttling_ends() {
    let mut policy = staged(Busy::Throttle, None);
    let decisions: Vec<_> = (1..30).map(|round| policy.decide(&staged_stats(round, 500))).collect();
    let stop = decisions.iter().position(|decision| *decision == Decision::StopAndCopy).unwrap();
    assert_eq!(decisions[0], Decision::Continue);
    assert_eq!(decisions[stop - 1], Decision::Throttle(99));
    assert!(stop as u32 + 2 <= policy.rounds(), "{stop} and {}", policy.rounds());
}

#[test]
fn a_round_is_ended_when_its_rest_fits() {
    let policy = staged(Busy::Accept, None);
    assert!(policy.ends_round(2, 400, &OUTLOOK) && !policy.ends_round(2, 401, &OUTLOOK));
    assert!(!policy.ends_round(1, 1, &OUTLOOK), "round 1 sends everything");
    assert!(!super::Policy::new(Mode::Live, policy.settings).ends_round(2, 1, &OUTLOOK));
}

#[test]
fn limits_below_the_price_of_an_empty_pause_cannot_be_met() {
    let met = |target_us, max_pause_us, mode| {
        let settings = Settings { target_us, max_pause_us, ..Settings::default() };
        Policy::new(mode, settings).can_be_met(&OUTLOOK)
    };
    assert!(met(1_000, Some(1_000), Mode::Staged));
    assert!(!met(999, None, Mode::Staged) && !met(1_000, Some(999), Mode::Staged));
    assert!(met(1, Some(1), Mode::Live), "the budget of the others is watched in the pause");
}

/// The model of the paper: a guest of `memory` pages writes `rate` pages at random into `working` pages while one
/// page is sent; a page is sent only if not dirty again. In a round that starts with the share `d` of the working
/// set, ln(1 + rate d) / rate of it is sent and rate d / (1 + rate d) is dirty afterwards.
fn simulate(memory: f64, working: f64, cap: f64) -> (u32, u64, u64) {
    let rate = 0.54 * (cap - 3.8).max(0.0) * 26000.0 / 21500.0;
    let mut share = 1.0 - (-rate * memory / working).exp();
    let (mut sent, mut previous, mut round) = (memory, memory, 1);
    loop {
        let counted = RoundStats {
            memory: memory as u64,
            ..stats(round, previous as u64, (working * share) as u64, sent as u64)
        };
        if policy(Mode::Live).decide(&counted) != Decision::Continue {
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
