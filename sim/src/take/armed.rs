//! Incremental takes by the engine, of a guest that stays tracked, and what comes between them: attempts that fail,
//! other tools' hands, pages that come and go, a snapshot below that is removed, a stub that dies.
//!
//! Whatever comes, what is sealed is the guest as it stood, and what can be sealed is.

use snapshot::fault::Fault;
use snapshot::ports::{DirtyLog, PAGE_SIZE};
use snapshot::request::{Kind, Mode};
use snapshot::status::{State, Status};
use snapshot::store::{PageRef, Store};
use snapshot::take::{After, Armed, Before, Engine, Options, StoreRecorder};

use super::fakes::{Line, Target};
use super::work::{GFNS, MEMORY, MEMORY_BYTES, WORKING_SET, WRITES, suspended};
use super::world::{Event, Setup, Shared, World, take_request};
use crate::content::{Held, Pages};
use crate::disk::{Disk, Faults, Phase};
use crate::history::{CONFIG, History, with};
use crate::rng::Rng;

/// Takes of a chain; each has something before it.
const TAKES: u64 = 8;
/// Calls of the engine in one of these takes, more or less.
const CALLS: u64 = 60;
/// A page that the guest writes only now and then: what is forgotten of it stays forgotten.
const SELDOM: usize = 4;

/// A guest, and what is known of its tracking.
struct Guest {
    world: Shared,
    armed: Option<Armed>,
    mode: Mode,
    number: u64,
}

/// The chain.
pub fn chain(history: &mut History, store: Store<Disk>, seed: u64, faults: Faults) {
    let mut rng = Rng(seed);
    let mode = [Mode::Live, Mode::Staged, Mode::Save][usize::try_from(rng.below(3)).unwrap_or(0)];
    let mut guest = Guest { world: World::new(setup(mode, 0, seed)), armed: None, mode, number: 0 };
    let mut store = store;
    let sound = faults == Faults::default();
    let first = rng.below(TAKES);
    for take in 0..TAKES {
        // Each once, in an order of the seed's.
        let between = (first + 3 * take) % TAKES;
        guest.write_now_and_then(&mut rng);
        guest.comes_between(history, &mut store, between, &mut rng);
        let ended = guest.take(history, &mut store, Vec::new(), None);
        // A page that Xen writes may have been given away; then it comes again at the suspend.
        if sound && ended.state != State::Sealed && ended.fault != Some(Fault::Ballooning) {
            let Status { state, fault, reason, .. } = ended;
            history.wrong.push(format!("an incremental take after {between} ended {state:?}: {fault:?} {reason}"));
        }
    }
}

fn setup(mode: Mode, number: u64, seed: u64) -> Setup {
    let sizes = Setup { gfns: GFNS, memory: MEMORY, working_set: WORKING_SET, writes: WRITES, ..Setup::default() };
    Setup { seed, mode, kind: Kind::Incremental, name: format!("n{number}"), acks: true, ..sizes }
}

impl Guest {
    fn write_now_and_then(&mut self, rng: &mut Rng) {
        let mut world = self.world.borrow_mut();
        let usual = std::mem::replace(&mut world.setup.working_set, MEMORY);
        (0..SELDOM).for_each(|_| world.guest_writes());
        world.setup.working_set = usual;
        (0..rng.below(20)).for_each(|_| world.guest_writes());
    }

    fn comes_between(&mut self, history: &mut History, store: &mut Store<Disk>, what: u64, rng: &mut Rng) {
        match what {
            0 => self.fails(history, store, vec![(rng.below(CALLS), Event::Cancel)], None, rng),
            1 => self.fails(history, store, vec![(rng.below(CALLS), Event::VerdictVoid)], None, rng),
            // A call of the hypervisor, or of the store.
            2 | 3 => self.fails(history, store, Vec::new(), Some(rng.below(CALLS)), rng),
            4 if self.armed.is_some() => {
                self.look();
                self.world.borrow_mut().meanwhile(Event::ForeignOff);
                if rng.once_in(2) {
                    let _ = Target(self.world.clone()).enable();
                    // Later the guest may have written the same pages again.
                    self.look();
                }
                self.write_now_and_then(rng);
            }
            4 => {}
            5 => self.below_is_removed(history, store),
            6 => self.stub_dies(history, store),
            _ => {
                let event = if rng.once_in(2) { Event::BalloonIn(2) } else { Event::BalloonOut(2) };
                let call = rng.below(CALLS);
                let events = vec![(call, event), (call + rng.below(CALLS), Event::Cancel)];
                self.fails(history, store, events, None, rng);
            }
        }
    }

    /// An attempt that comes to nothing, or is sealed all the same.
    fn fails(
        &mut self,
        history: &mut History,
        store: &mut Store<Disk>,
        events: Vec<(u64, Event)>,
        fault: Option<u64>,
        rng: &mut Rng,
    ) {
        self.take(history, store, events, fault);
        self.world.borrow_mut().xenstore_dead = false;
        if self.armed.is_none() {
            // What could not be switched off is dom0's to switch off.
            self.world.borrow_mut().log_dirty = false;
        }
        self.write_now_and_then(rng);
        self.look();
    }

    /// As the idle stub does every few seconds.
    fn look(&mut self) {
        if let Some(armed) = &mut self.armed {
            let _ = armed.look(&mut Target(self.world.clone()));
        }
    }

    fn below_is_removed(&mut self, history: &mut History, store: &mut Store<Disk>) {
        if let Some(armed) = &self.armed {
            let name = armed.name.clone();
            let _ = history.remove(store, &name);
        }
    }

    /// A new stub knows nothing, and touches no tracking that is not its own; dom0 knows whose it was.
    fn stub_dies(&mut self, history: &mut History, store: &mut Store<Disk>) {
        if self.armed.take().is_none() {
            return;
        }
        let refused = self.take(history, store, Vec::new(), None);
        if refused.fault != Some(Fault::LogDirtyOn) && !store.poisoned() {
            history.wrong.push(format!("a stub that knows nothing of the tracking took the guest: {refused:?}"));
        }
        self.world.borrow_mut().log_dirty = false;
    }

    /// One take; what it promises depends on how it ended.
    fn take(
        &mut self,
        history: &mut History,
        store: &mut Store<Disk>,
        events: Vec<(u64, Event)>,
        fault_at: Option<u64>,
    ) -> Status {
        history.disk.phase(Phase::Take);
        self.number += 1;
        let setup = Setup { events, fault_at, ..setup(self.mode, self.number, 0) };
        let take = take_request(&setup);
        self.world.borrow_mut().next_take(setup);
        let before = history.possible.clone();
        let during = history.allowed.len();
        history.promise(before.clone());
        let known = Before { armed: self.armed.take(), ..Before::default() };
        let (mut target, mut line) = (Target(self.world.clone()), Line(self.world.clone()));
        let mut recorder = StoreRecorder::new(store);
        let options = Options { memory_bytes: MEMORY_BYTES, hold: None };
        let engine = Engine::new(&mut target, &mut line, &mut recorder, &take, CONFIG, options);
        let (status, After { armed, .. }) = engine.run_after(known);
        drop(recorder);
        self.armed = armed;
        let (name, pages) = (take.name.to_string(), suspended(&self.world));
        let after: Vec<Held> = before.iter().map(|held| with(held, &name, pages.clone())).collect();
        if status.state == State::Sealed {
            history.possible = after.clone();
            if let Some(wrong) = differs(store, &name, &pages) {
                history.wrong.push(wrong);
            }
        } else if store.poisoned() {
            history.possible.extend(after.iter().cloned());
        }
        history.allowed[during].extend(after);
        history.promise(history.possible.clone());
        status
    }
}

/// How the snapshot differs from the guest as it stood. What cannot be read is judged by who cuts the power.
fn differs(store: &mut Store<Disk>, name: &str, expected: &Pages) -> Option<String> {
    let mut reader = store.snapshot(name).ok()?;
    let mut pages = reader.pages().ok()?;
    let mut found = 0;
    while let Some((gfn, page)) = pages.next_page().ok()? {
        let right = expected.get(&gfn.raw()).is_some_and(|block| match page {
            PageRef::Zero => block.bytes == [0; PAGE_SIZE],
            PageRef::Data(page) => block.bytes == *page,
        });
        if !right {
            return Some(format!("{name}: gfn {gfn} is not as the guest had it"));
        }
        found += 1;
    }
    (found != expected.len()).then(|| format!("{name}: {found} pages of {}", expected.len()))
}

const _: () = assert!(GFNS < PAGE_SIZE, "a small guest: each chain is cut at many moments");
