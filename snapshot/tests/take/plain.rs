//! Takes that go well, and what they count.

use snapshot::request::Mode;
use snapshot::status::State;
use snapshot::take::Attachment;
use snapshot::trace::{Round, RoundKind, Trace};

use super::check;
use super::world::{Setup, run};

#[test]
fn every_page_is_what_it_was_at_the_suspend() {
    for seed in 0..120 {
        let setup = Setup {
            seed,
            mode: Mode::ALL[seed as usize % Mode::ALL.len()].0,
            acks: seed % 2 == 0,
            staging_kib: [Some(4 * 350), Some(4 * 40), None][seed as usize % 3],
            round1_skip: seed % 3 == 0,
            writes: [0, 1, 8, 60][seed as usize % 4],
            working_set: [20, 300, 1300][seed as usize % 3],
            ..Setup::default()
        };
        let story = format!("{setup:?}");
        let (status, world) = run(setup);
        assert_eq!(status.state, State::Sealed, "{story}: {status:?}");
        check(&status, &world.borrow(), &story);
        assert!(world.borrow().running(), "{story}");
    }
}

#[test]
fn tracking_is_off_when_captured_is_said() {
    let (_, world) = run(Setup::default());
    let world = world.borrow();
    assert!(world.statuses.iter().any(|status| status.state == State::Captured));
    assert!(!world.tracked_at_captured, "a stub that dies now leaves it on, and the keeper has left");
}

#[test]
fn an_idle_guest_takes_two_rounds_and_a_last_set() {
    let (status, _) = run(Setup { writes: 0, ..Setup::default() });
    assert_eq!((status.counters.round, status.counters.rounds), (3, 30));
    assert_eq!(status.counters.cleans, 1);
    assert_eq!(status.counters.pages + status.counters.zero, 1300 + 1, "all once, and the frame that Xen writes");
}

#[test]
fn a_busy_guest_stops_by_the_sum_of_what_was_sent() {
    let (status, _) = run(Setup { writes: 2000, working_set: 1300, ..Setup::default() });
    let sent = status.counters.pages + status.counters.zero;
    assert!((3 * 1300..=5 * 1300).contains(&sent), "{status:?}");
    assert!(status.counters.round < 30);
}

#[test]
fn a_small_hot_set_spends_all_the_rounds() {
    let (status, _) = run(Setup { writes: 500, working_set: 60, ..Setup::default() });
    assert_eq!(status.counters.round, 30, "{status:?}");
}

#[test]
fn round_one_sends_everything_unless_asked_otherwise() {
    let setup = Setup { writes: 60, ..Setup::default() };
    assert_eq!(run(setup.clone()).1.borrow().early_peeks, 0);
    assert!(run(Setup { round1_skip: true, ..setup }).1.borrow().early_peeks > 0);
}

#[test]
fn the_pause_does_no_more_calls_than_its_pages_need() {
    let (status, _) = run(Setup { writes: 60, ..Setup::default() });
    let batches = status.counters.pause_pages.div_ceil(1024);
    assert_eq!(status.counters.pause_calls, 4 + batches, "{status:?}");
    assert!(status.counters.pause_us > 0);
}

#[test]
fn mode_save_copies_everything_in_the_pause() {
    let (status, world) = run(Setup { mode: Mode::Save, ..Setup::default() });
    assert_eq!(status.counters.pause_pages, 1300);
    assert_eq!((status.counters.round, status.counters.cleans), (1, 0));
    assert_eq!(world.borrow().stored.runs, 1);
}

#[test]
fn states_come_in_order() {
    let (_, world) = run(Setup { writes: 0, ..Setup::default() });
    let mut words: Vec<_> = world.borrow().statuses.iter().map(|status| status.state.word()).collect();
    words.dedup();
    assert_eq!(words, ["preparing", "copying", "want-suspend", "captured", "flushing", "sealed"]);
}

/// A small PVH guest has 2^20 gfns, nearly all of them holes (its special pages lie just below 4 GiB).
#[test]
fn holes_cost_a_look_and_nothing_more() {
    let setup = Setup { gfns: 1 << 20, writes: 1, working_set: 40, memory_bytes: 1 << 20, ..Setup::default() };
    let (status, world) = run(setup);
    assert_eq!(status.state, State::Sealed, "{status:?}");
    check(&status, &world.borrow(), "2^20 gfns");
    let types_calls = world.borrow().types_calls;
    assert!((2000..=2 * 1024 + 2).contains(&types_calls), "once at the start, once before the suspend: {types_calls}");
    assert!(status.counters.pause_calls <= 6, "none of it in the pause: {status:?}");
    assert!(status.counters.pages + status.counters.zero < 1500);
}

fn trace_of(world: &super::world::World) -> Trace {
    let mut attachments = world.stored.attachments.iter();
    let (_, bytes) = attachments.find(|(kind, _)| *kind == Attachment::Trace).unwrap();
    Trace::decode(bytes).unwrap()
}

#[test]
fn the_trace_adds_up_to_the_counters() {
    for seed in 0..20 {
        let (status, world) = run(Setup { seed, writes: 500, working_set: 60, ..Setup::default() });
        let (counters, trace) = (status.counters, trace_of(&world.borrow()));
        let sum = |of: fn(&Round) -> u64| trace.rounds.iter().map(of).sum::<u64>();
        assert_eq!((trace.rounds.len() as u64, trace.lost), (counters.round, 0));
        assert_eq!((sum(|round| round.pages), sum(|round| round.zero)), (counters.pages, counters.zero));
        assert_eq!((sum(|round| round.skipped), sum(|round| round.bytes)), (counters.skipped, counters.bytes));
        assert!(trace.began_ns <= trace.rounds[0].began_ns);
        assert!(trace.rounds.iter().all(|round| round.began_ns < round.ended_ns && round.memory == 1300));
        for pair in trace.rounds.windows(2) {
            assert!(pair[0].ended_ns <= pair[1].began_ns, "{pair:?}");
            assert!(pair[1].given >= pair[0].dirty, "dirt that was counted is sent or skipped: {pair:?}");
        }
        let (last, running) = trace.rounds.split_last().unwrap();
        assert_eq!((last.kind, last.pages + last.zero), (RoundKind::LAST_SET, counters.pause_pages));
        assert_eq!((last.ended_ns - last.began_ns) / 1000, counters.pause_us);
        assert!(running.iter().skip(1).all(|round| round.kind == RoundKind::DIRTY && round.fetch_ns > 0));
        assert!(running[0].enable_ns > 0 && sum(|round| round.enable_ns) == running[0].enable_ns);
        assert!(last.off_ns > 0 && sum(|round| round.off_ns) == last.off_ns);
    }
}

#[test]
fn mode_save_has_a_trace_of_one_round() {
    let (_, world) = run(Setup { mode: Mode::Save, ..Setup::default() });
    let trace = trace_of(&world.borrow());
    assert_eq!(trace.rounds.len(), 1);
    assert_eq!((trace.rounds[0].kind, trace.rounds[0].given), (RoundKind::EVERYTHING, 1300));
}
