//! The engine of a take in a world that misbehaves. The oracle: a sealed snapshot holds, for every gfn, what the guest
//! held at its suspend; and whatever happened, tracking is off, the release edge was sent once, nothing is half there.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod armed;
mod aside;
mod fakes;
mod faults;
mod plain;
mod real_store;
mod setup;
mod staged;
mod world;

use snapshot::fault::Fault;
use snapshot::status::{State, Status};
use world::World;

/// What must hold at the end of every take.
fn check(status: &Status, world: &World, story: &str) {
    assert!(status.state.is_final(), "{story}");
    assert_eq!(world.releases, 1, "one release edge: {story}");
    assert_eq!(world.stored.sealed, status.state == State::Sealed, "{story}");
    assert!(world.stored.sealed || !world.stored.begun || world.stored.aborted, "nothing half there: {story}");
    let warned = status.fault == Some(Fault::TrackingLeftOn);
    let ours = !world.setup.log_dirty_on && !world.gone && !world.dying;
    assert!(!world.log_dirty || !ours || warned, "tracking is off: {story}");
    assert_eq!(status.fault.is_none(), status.state == State::Sealed && !warned, "a cause is given: {story}");
    if world.stored.sealed {
        check_content(world, story);
    }
}

fn check_content(world: &World, story: &str) {
    let truth = world.at_suspend.as_ref().unwrap();
    for (gfn, content) in truth.iter().enumerate() {
        let stored = world.stored.pages.get(&(gfn as u64)).copied();
        assert!(stored == *content, "gfn {gfn:#x}: stored {stored:x?}, held {content:x?}: {story}");
    }
    assert!(world.stored.attachments.iter().any(|(_, bytes)| bytes.ends_with(&[0; 8])), "state of the pause: {story}");
}
