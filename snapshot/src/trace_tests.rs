//! The encoding of a trace, byte by byte and in every way of being wrong; the tape that writes it.

use std::vec;

use super::*;

fn with_prices(kind: RoundKind, n: u64) -> Round {
    let (mib_ns, depth_bytes, step_bytes, piece_bytes) = (n + 5, n + 6, n + 7, n + 8);
    let gathered_bytes = n + 9;
    let (fixed_ns, stage_ns, pack_ns, stored_bytes, store_ns) = (n, n + 1, n + 2, n + 3, n + 4);
    let own = Round { fixed_ns, stage_ns, pack_ns, stored_bytes, store_ns, ..Round::empty(kind) };
    Round { mib_ns, depth_bytes, step_bytes, piece_bytes, gathered_bytes, ..own }
}

fn sample() -> Trace {
    let round = |kind, n: u64| Round {
        kind,
        peeks: 2,
        began_ns: n,
        ended_ns: n + 1,
        fetch_ns: n + 2,
        memory: n + 3,
        given: n + 4,
        pages: n + 5,
        zero: n + 6,
        skipped: n + 7,
        bytes: n + 8,
        dirty: n + 9,
        enable_ns: n + 10,
        off_ns: n + 11,
        unsent: n + 12,
        growth: n + 13,
        space_left: n + 14,
        staging: n + 15,
        ..with_prices(kind, n + 16)
    };
    Trace { began_ns: 0x0102, lost: 3, rounds: vec![round(RoundKind::FULL, 0x10), round(RoundKind::LAST_SET, 0x20)] }
}

#[test]
fn golden_bytes() {
    let bytes = sample().encode();
    assert_eq!(bytes.len(), 24 + 2 * 216);
    assert_eq!(bytes[..12], [1, 0, 216, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(bytes[12..24], [0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[24..32], [1, 0, 0, 0, 2, 0, 0, 0]);
    let words: Vec<u64> =
        bytes[32..240].chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words, (0x10..0x2a).collect::<Vec<u64>>());
    assert_eq!(bytes[240], 3);
    assert_eq!(Trace::decode(&bytes), Ok(sample()));
}

#[test]
fn cut_short_anywhere_or_longer_it_is_refused() {
    let bytes = sample().encode();
    for length in 0..bytes.len() {
        assert_eq!(Trace::decode(&bytes[..length]), Err(TraceError::Malformed), "{length}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(Trace::decode(&longer), Err(TraceError::Malformed));
}

#[test]
fn versions_and_counts_are_judged() {
    let with = |at: usize, byte: u8| {
        let mut bytes = sample().encode();
        bytes[at] = byte;
        Trace::decode(&bytes)
    };
    assert_eq!(with(0, 2), Err(TraceError::Version(2)));
    assert_eq!(with(2, 87), Err(TraceError::Malformed));
    assert_eq!(with(4, 3), Err(TraceError::Malformed));
    assert_eq!(with(7, 255), Err(TraceError::Malformed));
    // Two records of 216 bytes are one of 432 whose end a later version has written.
    let mut bytes = sample().encode();
    (bytes[2], bytes[3], bytes[4]) = (176, 1, 1);
    assert_eq!(Trace::decode(&bytes).map(|trace| trace.rounds), Ok(vec![sample().rounds[0]]));
}

#[test]
fn records_of_earlier_versions_are_read() {
    let bytes = sample().encode();
    let of = |length: u8, same: &dyn Fn(Round) -> Round| {
        let mut old = bytes[..24].to_vec();
        old[2] = length;
        bytes[24..].chunks(216).for_each(|record| old.extend_from_slice(&record[..usize::from(length)]));
        let rounds = sample().rounds.into_iter().map(same).collect();
        assert_eq!(Trace::decode(&old), Ok(Trace { rounds, ..sample() }), "{length}");
    };
    let told = |round: Round| Round { unsent: 0, growth: 0, space_left: 0, staging: 0, ..round };
    let priced = |round: Round| {
        let kept = Round { fixed_ns: 0, stage_ns: 0, pack_ns: 0, stored_bytes: 0, store_ns: 0, ..told(round) };
        Round { mib_ns: 0, depth_bytes: 0, step_bytes: 0, piece_bytes: 0, gathered_bytes: 0, ..kept }
    };
    of(104, &priced);
    of(88, &|round| Round { enable_ns: 0, off_ns: 0, ..priced(round) });
}

/// What the policy was told comes back out of the trace.
#[test]
fn prices_are_those_that_the_policy_had() {
    let outlook = sample().rounds[0].outlook();
    let stats = RoundStats { unsent: 1, growth: 2, space_left: 3, outlook, ..RoundStats::default() };
    let mut tape = Tape::try_new(1).unwrap();
    tape.begin(RoundKind::DIRTY, 1, &Counters::default());
    tape.told(&stats);
    tape.end(2, &Counters::default());
    let round = tape.trace(0).rounds[0];
    assert_eq!((round.unsent, round.growth, round.space_left, round.outlook()), (1, 2, 3, outlook));
    assert_eq!((round.kind, round.began_ns, round.ended_ns), (RoundKind::DIRTY, 1, 2));
}

#[test]
fn enable_is_the_first_rounds_and_off_the_last_ones() {
    let mut tape = Tape::try_new(4).unwrap();
    tape.enabled(5);
    for kind in [RoundKind::FULL, RoundKind::DIRTY, RoundKind::LAST_SET] {
        tape.begin(kind, 1, &Counters::default());
        tape.end(2, &Counters::default());
    }
    tape.switched_off(7);
    tape.switched_off(3);
    let times: Vec<_> = tape.trace(0).rounds.iter().map(|round| (round.enable_ns, round.off_ns)).collect();
    assert_eq!(times, [(5, 0), (0, 0), (0, 10)]);
}

#[test]
fn no_rounds_are_a_trace() {
    let empty = Trace { began_ns: 1, lost: 0, rounds: Vec::new() };
    assert_eq!(Trace::decode(&empty.encode()), Ok(empty));
}

#[test]
fn a_round_counts_what_it_added_and_one_that_does_not_end_leaves_nothing() {
    let mut tape = Tape::try_new(1).unwrap();
    let before = Counters { pages: 10, zero: 5, skipped: 1, bytes: 40960, peeks: 2, ..Counters::default() };
    let after = Counters { pages: 17, zero: 6, skipped: 4, bytes: 69632, peeks: 3, memory: 99, dirty: 8, ..before };
    tape.begin(RoundKind::FULL, 50, &Counters::default());
    tape.begin(RoundKind::DIRTY, 100, &before);
    tape.fetched(7);
    tape.given(12);
    tape.end(200, &after);
    let round = tape.trace(1).rounds[0];
    assert_eq!((round.kind, round.began_ns, round.ended_ns, round.fetch_ns), (RoundKind::DIRTY, 100, 200, 7));
    assert_eq!((round.given, round.pages, round.zero, round.skipped), (12, 7, 1, 3));
    assert_eq!((round.bytes, round.peeks, round.memory, round.dirty), (28672, 1, 99, 8));
}

#[test]
fn what_has_no_room_is_counted() {
    let mut tape = Tape::try_new(1).unwrap();
    let room = tape.trace.rounds.capacity();
    for _ in 0..room + 2 {
        tape.begin(RoundKind::LAST_SET, 1, &Counters::default());
        tape.end(2, &Counters { dirty: 9, ..Counters::default() });
    }
    let trace = tape.trace(0);
    assert_eq!((trace.rounds.len(), trace.lost, trace.rounds[0].dirty), (room, 2, 0));
}
