//! One take by the engine, and what the store may hold during and after it.

use std::rc::Rc;

use snapshot::request::Mode;
use snapshot::status::State;
use snapshot::store::Store;
use snapshot::take::{Engine, Options, StoreRecorder};

use super::fakes::{Line, Target};
use super::setup::page_with;
use super::world::{Event, Setup, Shared, World, take_request};
use crate::content::{Held, Pages};
use crate::disk::{Disk, Phase};
use crate::history::{CONFIG, History, with};
use crate::image::Block;

/// The snapshot that the request of the fakes asks for.
pub const NAME: &str = "web01@now";
/// Gfns of the guest, the last of them special pages.
pub const GFNS: usize = 40;
/// Pages of memory, and those of them that are written all the time.
pub const MEMORY: usize = 24;
pub const WORKING_SET: usize = 12;
/// Writes of the guest between two calls.
pub const WRITES: u64 = 3;
/// The engine's batches.
pub const MEMORY_BYTES: usize = 8 << 20;

/// A take in this mode; returns how it ended. `cancelled`: at this call of the engine the operator changes his mind.
pub fn engine(history: &mut History, store: &mut Store<Disk>, mode: Mode, seed: u64, cancelled: Option<u64>) -> State {
    history.disk.phase(Phase::Take);
    let events = cancelled.map(|call| (call, Event::Cancel)).into_iter().collect();
    let sizes = Setup { gfns: GFNS, memory: MEMORY, working_set: WORKING_SET, writes: WRITES, ..Setup::default() };
    let setup = Setup { seed, mode, events, acks: true, ..sizes };
    let take = take_request(&setup);
    let world = World::new(setup);
    let before = history.possible.clone();
    // What the guest will hold at its suspend is not known yet.
    let during = history.allowed.len();
    history.promise(before.clone());
    let (mut target, mut line) = (Target(world.clone()), Line(world.clone()));
    let mut recorder = StoreRecorder::new(store);
    let options = Options { memory_bytes: MEMORY_BYTES, hold: None };
    let status = Engine::new(&mut target, &mut line, &mut recorder, &take, CONFIG, options).run();
    drop(recorder);
    let pages = suspended(&world);
    let after: Vec<Held> = before.iter().map(|held| with(held, NAME, pages.clone())).collect();
    if status.state == State::Sealed {
        history.possible = after.clone();
    } else if store.poisoned() {
        history.possible.extend(after.iter().cloned());
    }
    history.allowed[during].extend(after);
    history.promise(history.possible.clone());
    status.state
}

/// The guest at its suspend.
pub fn suspended(world: &Shared) -> Pages {
    world.borrow().at_suspend.as_deref().map(pages_of).unwrap_or_default()
}

/// A guest's memory, by gfn.
pub fn pages_of(memory: &[Option<u64>]) -> Pages {
    let held = memory.iter().enumerate();
    held.filter_map(|(gfn, content)| content.map(|content| (gfn as u64, page(content)))).collect()
}

/// As the fakes make it.
fn page(content: u64) -> Rc<Block> {
    Block::new(page_with(content, 0))
}
