//! Takes that do not go well: each kind of disturbance, and each port call failing in turn.

use snapshot::fault::Fault;
use snapshot::request::Mode;
use snapshot::status::State;
use snapshot::take::Hold;

use super::check;
use super::world::{Event, FOREIGN, GFNS, Setup, Shared, World, run};

/// Calls of an undisturbed take.
fn calls(setup: &Setup) -> u64 {
    run(setup.clone()).1.borrow().calls
}

fn quick(mode: Mode) -> Setup {
    Setup { mode, memory: 1100, writes: 3, working_set: 80, acks: mode == Mode::Staged, ..Setup::default() }
}

#[test]
fn a_fault_at_each_call_leaves_nothing_behind() {
    for mode in [Mode::Save, Mode::Live, Mode::Staged] {
        let total = calls(&quick(mode));
        assert!(total > 20);
        let mut not_sealed = 0;
        for fault_at in 0..total {
            let (status, world) = run(Setup { fault_at: Some(fault_at), ..quick(mode) });
            check(&status, &world.borrow(), &format!("{mode} fault at {fault_at}: {status:?}"));
            not_sealed += u64::from(status.state != State::Sealed);
            assert!(world.borrow().running(), "{mode} fault at {fault_at}");
        }
        assert!(not_sealed * 10 > total * 7, "a fault matters nearly everywhere: {not_sealed} of {total}");
    }
}

#[test]
fn an_event_at_each_call_never_seals_a_wrong_snapshot() {
    let events = [
        Event::Destroy,
        Event::DomidReused,
        Event::Shutdown(0),
        Event::Shutdown(3),
        Event::Shutdown(2),
        Event::ForeignOff,
        Event::ForeignResume,
        Event::BalloonOut(3),
        Event::BalloonIn(3),
        Event::Cancel,
        Event::VerdictVoid,
        Event::VerdictResumed,
        Event::XenstoreDies,
        Event::StoreLost,
    ];
    for mode in [Mode::Live, Mode::Improved, Mode::Xen, Mode::Staged] {
        let setup = Setup { memory: 150, acks: true, ..quick(mode) };
        let total = calls(&setup);
        for event in events {
            for at in 0..total {
                let (status, world) = run(Setup { events: vec![(at, event)], ..setup.clone() });
                check(&status, &world.borrow(), &format!("{mode} {event:?} at {at}: {status:?}"));
            }
        }
    }
}

/// Runs with one event at the first call in `state` that the stub reports.
fn disturbed(state: State, event: Event, setup: &Setup) -> (Option<Fault>, State) {
    let at = (0..calls(setup)).find(|&at| reached(setup, at) == Some(state)).unwrap();
    let (status, world) = run(Setup { events: vec![(at, event)], ..setup.clone() });
    check(&status, &world.borrow(), &format!("{event:?} in {state}: {status:?}"));
    (status.fault, status.state)
}

/// The state that was reported last when call `at` began.
fn reached(setup: &Setup, at: u64) -> Option<State> {
    let (_, world) = run(Setup { events: vec![(at, Event::XenstoreDies)], ..setup.clone() });
    world.borrow().statuses.last().map(|status| status.state)
}

#[test]
fn each_disturbance_has_its_own_cause() {
    let setup = quick(Mode::Live);
    for (state, event, fault) in [
        (State::Copying, Event::Destroy, Fault::Gone),
        (State::Copying, Event::DomidReused, Fault::Gone),
        (State::Copying, Event::Shutdown(0), Fault::GuestEnded),
        (State::Copying, Event::Shutdown(1), Fault::GuestEnded),
        (State::Copying, Event::Shutdown(2), Fault::ForeignSuspend),
        (State::Copying, Event::ForeignOff, Fault::ForeignOff),
        (State::Copying, Event::Cancel, Fault::Cancelled),
        (State::Copying, Event::VerdictVoid, Fault::VerdictVoid),
        (State::Copying, Event::VerdictResumed, Fault::VerdictVoid),
        (State::Copying, Event::XenstoreDies, Fault::ControlLost),
        (State::WantSuspend, Event::Shutdown(3), Fault::GuestEnded),
        (State::WantSuspend, Event::Pause, Fault::NoSuspend),
        (State::WantSuspend, Event::Cancel, Fault::Cancelled),
        (State::WantSuspend, Event::BalloonOut(1), Fault::Ballooning),
        (State::WantSuspend, Event::BalloonIn(1), Fault::Ballooning),
        (State::Captured, Event::Cancel, Fault::Cancelled),
        (State::Flushing, Event::Cancel, Fault::Cancelled),
    ] {
        assert_eq!(disturbed(state, event, &setup), (Some(fault), State::Void), "{event:?} in {state}");
    }
}

#[test]
fn a_store_that_is_lost_ends_the_take_at_once_and_the_guest_runs() {
    let setup = quick(Mode::Live);
    for state in [State::Copying, State::WantSuspend, State::Captured, State::Flushing] {
        assert_eq!(disturbed(state, Event::StoreLost, &setup), (Some(Fault::Store), State::Failed), "{state}");
    }
    let hold = Some(Hold { state: State::Capturing, ms: 50 });
    let held = Setup { hold, ..quick(Mode::Live) };
    assert_eq!(disturbed(State::Capturing, Event::StoreLost, &held), (Some(Fault::Store), State::Failed));
}

#[test]
fn a_domid_that_is_used_again_never_brings_a_foreign_page_into_a_snapshot() {
    for mode in [Mode::Save, Mode::Live] {
        let (total, mut read) = (calls(&quick(mode)), 0);
        for (at, unchecked_copy) in (0..total).flat_map(|at| [(at, false), (at, true)]) {
            let events = vec![(at, Event::DomidReused)];
            let (status, world) = run(Setup { unchecked_copy, events, ..quick(mode) });
            let world = world.borrow();
            let story = format!("{mode} reused at {at}, unchecked {unchecked_copy}: {status:?}");
            check(&status, &world, &story);
            let foreign = world.stored.pages.values().any(|content| *content == FOREIGN);
            assert!(!foreign || (unchecked_copy && !world.stored.sealed), "{story}");
            read += u32::from(foreign);
        }
        assert!(read > 0, "{mode}: such pages were read, where nothing but the end keeps them out");
    }
}

#[test]
fn what_is_wrong_before_the_start_refuses() {
    let before = |event| {
        let (status, world) = run(Setup { events: vec![(0, event)], ..quick(Mode::Live) });
        check(&status, &world.borrow(), &format!("{event:?}"));
        assert_eq!(status.state, State::Refused);
        status.fault
    };
    assert_eq!(before(Event::Pause), Some(Fault::Paused));
    assert_eq!(before(Event::Destroy), Some(Fault::Gone));
    assert_eq!(before(Event::Shutdown(0)), Some(Fault::ShutDown));
    assert_eq!(before(Event::Shutdown(2)), Some(Fault::ShutDown));
    let (status, world) = run(Setup { log_dirty_on: true, ..quick(Mode::Live) });
    check(&status, &world.borrow(), "log-dirty of somebody else");
    assert_eq!((status.state, status.fault), (State::Refused, Some(Fault::LogDirtyOn)));
    assert!(world.borrow().log_dirty, "it is theirs: left on");
    let (status, _) = run(Setup { memory_bytes: 4096, ..quick(Mode::Live) });
    assert_eq!((status.state, status.fault), (State::Refused, Some(Fault::NoMemory)));
}

#[test]
fn a_guest_that_never_suspends_is_given_up_in_time() {
    let (status, world) = run(Setup { never_suspends: true, ..quick(Mode::Live) });
    check(&status, &world.borrow(), "never suspends");
    assert_eq!(status.fault, Some(Fault::NoSuspend));
    assert!((75_000_000..80_000_000).contains(&status.counters.elapsed_us), "{status:?}");
}

#[test]
fn a_dead_keeper_means_no_snapshot() {
    let suspend = vec![(calls(&quick(Mode::Live)) + 5, Event::Shutdown(2))];
    let (status, world) = run(Setup { keeper_dead: true, events: suspend, ..quick(Mode::Live) });
    check(&status, &world.borrow(), "dead keeper");
    assert_eq!((status.fault, status.state), (Some(Fault::NoVerdict), State::Void));
}

#[test]
fn the_pause_budget_ends_the_capture() {
    let (status, world) = run(Setup { max_pause_ms: Some(1), ..quick(Mode::Save) });
    check(&status, &world.borrow(), "pause budget");
    assert_eq!(status.fault, Some(Fault::PauseBudget));
}

#[test]
fn a_resume_in_the_middle_of_the_capture_is_seen() {
    let hold = Some(Hold { state: State::Capturing, ms: 50 });
    let setup = Setup { hold, ..quick(Mode::Live) };
    let (fault, state) = disturbed(State::Capturing, Event::ForeignResume, &setup);
    assert_eq!((fault, state), (Some(Fault::ForeignResume), State::Void));
}

#[test]
fn pages_that_come_and_go_between_the_rounds_are_right_in_the_end() {
    let setup = quick(Mode::Live);
    let total = calls(&setup);
    let mut sealed = 0;
    for seed in 0..60 {
        let at = seed * total / 60;
        let event = [Event::BalloonIn(40), Event::BalloonOut(40), Event::Swap][seed as usize % 3];
        let (status, world) = run(Setup { seed, events: vec![(at, event)], ..setup.clone() });
        if !unseen(event, at, &world) {
            check(&status, &world.borrow(), &format!("{event:?} at {at} seed {seed}: {status:?}"));
        }
        sealed += u64::from(status.state == State::Sealed);
    }
    assert!(sealed > 30, "a change before the suspend costs a pass, not the take: {sealed}");
}

#[test]
fn pages_that_move_during_the_second_full_pass_are_right_too() {
    let setup = Setup { writes: 20, memory: 150, ..quick(Mode::Live) };
    let first = Event::BalloonIn(3);
    let total = run(Setup { events: vec![(14, first)], ..setup.clone() }).1.borrow().calls;
    let mut sealed = 0;
    for (seed, at) in (0..8).flat_map(|seed| (14..total.min(50)).map(move |at| (seed, at))) {
        for second in [Event::BalloonIn(2), Event::BalloonOut(2), Event::Swap] {
            let events = vec![(14, first), (at, second)];
            let (status, world) = run(Setup { seed, events, ..setup.clone() });
            if !unseen(second, at, &world) {
                check(&status, &world.borrow(), &format!("seed {seed}, 14 and {second:?} at {at}: {status:?}"));
            }
            sealed += u64::from(status.state == State::Sealed);
        }
    }
    assert!(sealed > 200, "{sealed}");
}

/// A swap after the last search for new pages leaves no trace on Xen 4.17; before it, it must be seen.
fn unseen(event: Event, at: u64, world: &Shared) -> bool {
    event == Event::Swap && at + 1 >= world.borrow().last_look
}

#[test]
fn the_keepers_void_is_final() {
    let (status, world) = run(Setup { keeper_voids: true, ..quick(Mode::Live) });
    check(&status, &world.borrow(), "void");
    assert_eq!((status.fault, status.state), (Some(Fault::VerdictVoid), State::Void));
    assert_eq!(status.reason.as_str(), "the keeper says so");
}

#[test]
fn a_swap_just_before_the_suspend_voids_where_xen_shows_it() {
    let setup = Setup { marks_added: true, ..quick(Mode::Live) };
    assert_eq!(disturbed(State::WantSuspend, Event::Swap, &setup), (Some(Fault::Ballooning), State::Void));
}

#[test]
fn a_page_that_cannot_be_read_in_the_pause_ends_the_take() {
    let setup = quick(Mode::Live);
    let answer = disturbed(State::WantSuspend, Event::Mappable(false), &setup);
    assert_eq!(answer, (Some(Fault::PageUnreadable), State::Failed));
}

#[test]
fn pages_that_cannot_be_read_for_a_while_are_read_later() {
    let setup = Setup { memory: 150, ..quick(Mode::Live) };
    let mut sealed = 0;
    for at in 0..calls(&setup) {
        let events = vec![(at, Event::Mappable(false)), (at + 4, Event::Mappable(true))];
        let (status, world) = run(Setup { events, ..setup.clone() });
        check(&status, &world.borrow(), &format!("{at}: {status:?}"));
        sealed += u64::from(status.state == State::Sealed);
    }
    assert!(sealed > 20, "{sealed}");
}

#[test]
fn a_suspend_before_the_wish_is_never_taken_for_ours() {
    for mode in [Mode::Save, Mode::Live, Mode::Staged] {
        let setup = quick(mode);
        for at in 0..calls(&setup) {
            // A suspend while the wish is being written cannot be told from ours by the stub; the keeper can.
            if reached(&setup, at + 1) == Some(State::WantSuspend) {
                break;
            }
            let (status, world) = run(Setup { events: vec![(at, Event::Shutdown(2))], ..setup.clone() });
            check(&status, &world.borrow(), &format!("{mode} {at}: {status:?}"));
            let fault = status.fault.unwrap();
            assert!([Fault::ShutDown, Fault::ForeignSuspend].contains(&fault), "{mode} {at}: {status:?}");
        }
    }
}

/// Ballooning that outlasts three passes, had they begun at once.
#[test]
fn a_guest_that_grows_for_a_while_is_waited_for() {
    for mode in [Mode::Live, Mode::Xen] {
        let events = (0..50).map(|at| (14 + 2 * at, Event::BalloonIn(1))).collect();
        let (status, world) = run(Setup { events, memory: 150, ..quick(mode) });
        check(&status, &world.borrow(), "grows for a while");
        assert_eq!(status.state, State::Sealed, "{mode}: {status:?}");
        assert!(world.borrow().ballooned && status.counters.memory > 190, "{status:?}");
    }
}

#[test]
fn a_guest_that_never_rests_is_given_up() {
    let events = (0..2000).map(|at| (at, if at % 2 == 0 { Event::BalloonIn(1) } else { Event::BalloonOut(2) }));
    let (status, world) = run(Setup { events: events.collect(), ..quick(Mode::Live) });
    check(&status, &world.borrow(), "ballooning for ever");
    assert_eq!(status.fault, Some(Fault::Ballooning));
    assert!(status.counters.pages < 6 * GFNS as u64);
}

#[test]
fn a_dwell_serves_dom0_meanwhile() {
    for state in
        [State::Preparing, State::Copying, State::WantSuspend, State::Capturing, State::Captured, State::Flushing]
    {
        let hold = Some(Hold { state, ms: 1000 });
        let (status, world) = run(Setup { hold, ..quick(Mode::Live) });
        check(&status, &world.borrow(), state.word());
        assert_eq!(status.state, State::Sealed);
        assert!(status.counters.elapsed_us > 1_000_000, "dwelt in {state}");
        assert!(world.borrow().statuses.iter().any(|status| status.state == state), "said {state}");
    }
    assert_eq!("capturing:250".parse(), Ok(Hold { state: State::Capturing, ms: 250 }));
    assert!("capturing".parse::<Hold>().is_err());
}

#[test]
fn the_world_itself_loses_what_xen_loses() {
    let world = World::new(Setup::default());
    let mut world = world.borrow_mut();
    world.log_dirty = true;
    world.protect_all();
    world.setup.working_set = 1;
    world.guest_writes();
    assert!(world.dirty[0], "a protected page is noticed");
    world.dirty[0] = false;
    world.guest_writes();
    assert!(!world.dirty[0], "an unprotected one is not");
}
