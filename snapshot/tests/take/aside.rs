//! After the edge: the keeper resumes the guest, and the stub is not in its way, for a bounded time.

use snapshot::ports::PAGE_SIZE;
use snapshot::request::Mode;
use snapshot::session::limits::ASIDE_LOOKS_MAX;
use snapshot::status::State;

use super::world::{Event, Setup, World, run};

/// A look and a wait.
const CALLS_OF_A_LOOK: u64 = 2;
/// What is told to the keeper before the store is next.
const TOLD: u64 = 4;

/// A guest whose keeper does not resume it.
fn left_alone(mode: Mode, events: Vec<(u64, Event)>) -> Setup {
    Setup { mode, events, keeper_dead: true, suspend_after_ns: 0, noise: PAGE_SIZE, ..Setup::default() }
}

/// It stood when it was let go, with all that was wanted of it.
fn released(world: &World) -> bool {
    world.statuses.iter().any(|status| status.state == State::Captured)
}

#[test]
fn the_store_waits_until_the_guest_runs_but_not_for_ever() {
    for mode in [Mode::Live, Mode::Staged] {
        let suspend = |at| (at, Event::Shutdown(2));
        let at = (0..).find(|&at| released(&run(left_alone(mode, vec![suspend(at)])).1.borrow())).unwrap();
        let (_, world) = run(left_alone(mode, vec![suspend(at)]));
        let (edge, in_its_way) = (world.borrow().release_call, world.borrow().stored.in_its_way);
        assert!(in_its_way > 0, "{mode}: it goes on though nobody resumes the guest");
        let patience = u64::from(ASIDE_LOOKS_MAX) * CALLS_OF_A_LOOK;
        for after in 1..2 * patience {
            let events = vec![suspend(at), (edge + after, Event::ForeignResume)];
            let (_, world) = run(left_alone(mode, events));
            let waited = world.borrow().stored.in_its_way == 0;
            assert!(waited || after > patience, "{mode}: resumed {after} calls after the edge");
            assert!(!waited || after < patience + TOLD, "{mode}: resumed {after} calls after the edge");
        }
    }
}
