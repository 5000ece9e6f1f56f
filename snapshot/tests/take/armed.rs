//! Guests that stay tracked between takes: what the next take reads and writes, and when it must not trust what is
//! known. On the real store; every snapshot that is sealed must be the guest as it stood.

use std::collections::BTreeMap;

use snapshot::fault::Fault;
use snapshot::ports::DirtyLog;
use snapshot::request::{Kind, Mode};
use snapshot::status::{State, Status};
use snapshot::store::{FormatOptions, PageRef, Store, format};
use snapshot::take::{After, Armed, Before, Engine, Options, StoreRecorder};

use super::fakes::{Line, Target};
use super::real_store::Disk;
use super::world::{Event, Setup, Shared, World, take_request};

/// A guest, its store, and what is known of its tracking.
struct Chain {
    world: Shared,
    store: Store<Disk>,
    armed: Option<Armed>,
    number: u64,
    expected: BTreeMap<String, Vec<Option<u64>>>,
}

fn setup(mode: Mode) -> Setup {
    Setup { mode, kind: Kind::Incremental, acks: true, writes: 1, working_set: 200, ..Setup::default() }
}

impl Chain {
    fn new(mode: Mode, seed: u64) -> Self {
        let mut disk = Disk::blank();
        let options = FormatOptions { label: "test", store_id: [1; 16], key: [2; 32], now_unix: 1 };
        format(&mut disk, &options).unwrap();
        let store = Store::open(disk).map_err(|failed| failed.error).unwrap();
        let world = World::new(Setup { seed, ..setup(mode) });
        Self { world, store, armed: None, number: 0, expected: BTreeMap::new() }
    }

    /// One take; what it seals is noted.
    fn take(&mut self, change: impl FnOnce(&mut Setup)) -> Status {
        self.number += 1;
        let mode = self.world.borrow().setup.mode;
        let mut setup = Setup { name: format!("n{}", self.number), ..setup(mode) };
        change(&mut setup);
        let take = take_request(&setup);
        self.world.borrow_mut().next_take(setup);
        let before = Before { armed: self.armed.take(), ..Before::default() };
        let (mut target, mut line) = (Target(self.world.clone()), Line(self.world.clone()));
        let mut recorder = StoreRecorder::new(&mut self.store);
        let options = Options { memory_bytes: 8 << 20, hold: None };
        let engine = Engine::new(&mut target, &mut line, &mut recorder, &take, b"{}", options);
        let (status, After { armed, .. }) = engine.run_after(before);
        drop(recorder);
        self.armed = armed;
        if status.fault != Some(Fault::LogDirtyOn) {
            let tracked = self.world.borrow().log_dirty;
            assert_eq!(tracked, self.armed.is_some(), "tracked if and only if somebody knows of it");
        }
        if status.state == State::Sealed {
            let at_suspend = self.world.borrow().at_suspend.clone().unwrap();
            self.expected.insert(take.name.to_string(), at_suspend);
        }
        status
    }

    /// Looks at all snapshots, and removes all but the newest.
    fn forget(&mut self) {
        self.all_right();
        let newest = self.store.list().unwrap().pop().map(|one| one.name);
        let old: Vec<String> = self.expected.keys().filter(|name| Some(*name) != newest.as_ref()).cloned().collect();
        for name in old {
            self.store.remove(&name).unwrap();
            self.expected.remove(&name);
        }
    }

    /// The guest runs for a while.
    fn run_on(&mut self, writes: u64) {
        (0..writes).for_each(|_| self.world.borrow_mut().guest_writes());
    }

    /// Every snapshot is the guest as it stood.
    fn all_right(&mut self) {
        for (name, expected) in &self.expected {
            let mut snapshot = self.store.snapshot(name).unwrap();
            let mut pages = snapshot.pages().unwrap();
            let mut found = vec![None; super::world::GFNS];
            while let Some((gfn, page)) = pages.next_page().unwrap() {
                let content = match page {
                    PageRef::Zero => 0,
                    PageRef::Data(page) => u64::from_le_bytes(page[..8].try_into().unwrap()),
                };
                assert!(found[gfn.raw() as usize].replace(content).is_none());
            }
            let differ = found.iter().zip(expected).filter(|(found, expected)| found != expected).count();
            assert_eq!(differ, 0, "{name}");
        }
    }
}

const MODES: [Mode; 3] = [Mode::Live, Mode::Staged, Mode::Save];

#[test]
fn a_chain_sends_what_changed_and_each_is_whole() {
    for (mode, seed) in MODES.into_iter().zip(1..) {
        let mut chain = Chain::new(mode, seed);
        let first = chain.take(|_| {});
        assert_eq!(first.state, State::Sealed, "{first:?}");
        assert!(first.counters.pages + first.counters.zero >= 1300);
        for round in 0..6 {
            chain.run_on(40);
            let next = chain.take(|_| {});
            assert_eq!((next.state, next.why_full.as_str()), (State::Sealed, ""), "{mode} {next:?}");
            assert_eq!(next.base.as_str(), format!("web01@n{}", round + 1));
            let sent = next.counters.pages + next.counters.zero;
            assert!(sent < 700, "{mode}: {sent} pages sent");
        }
        chain.all_right();
    }
}

#[test]
fn what_a_failed_take_had_fetched_is_not_lost() {
    for (mode, seed) in MODES.into_iter().zip(10..) {
        let mut chain = Chain::new(mode, seed);
        chain.take(|_| {});
        for call in 5..60 {
            chain.run_on(30);
            let event = [Event::Cancel, Event::VerdictVoid][call as usize % 2];
            let failed = chain.take(|setup| setup.events = vec![(call, event)]);
            let kept = chain.armed.is_some();
            if failed.state != State::Sealed && kept {
                chain.run_on(5);
                let next = chain.take(|_| {});
                assert_eq!((next.state, next.why_full.as_str()), (State::Sealed, ""), "{mode} {call} {next:?}");
            } else if !kept {
                chain.take(|_| {});
            }
            chain.forget();
        }
        chain.all_right();
    }
}

/// A failure of any call of a port, at any moment: what is sealed afterwards is whole.
#[test]
fn after_any_failure_the_next_one_is_whole() {
    for (mode, seed) in MODES.into_iter().zip(20..) {
        let mut chain = Chain::new(mode, seed);
        chain.take(|_| {});
        let mut carried = 0;
        for call in 0..70 {
            chain.run_on(20);
            chain.take(|setup| setup.fault_at = Some(call));
            carried += u32::from(chain.armed.is_some());
            chain.world.borrow_mut().xenstore_dead = false;
            if chain.store.poisoned() {
                break;
            }
            if chain.armed.is_none() {
                chain.world.borrow_mut().log_dirty = false;
            }
            chain.run_on(20);
            let next = chain.take(|_| {});
            assert_eq!(next.state, State::Sealed, "{mode} {call} {next:?}");
            chain.forget();
        }
        assert!(carried > 10, "{mode}: {carried}");
        chain.all_right();
    }
}

/// What makes the next take a full one, and what it says.
#[test]
fn a_doubt_makes_the_next_one_a_full_one_that_says_why() {
    type Doubt = fn(&mut Chain);
    let doubts: [(Doubt, &str); 4] = [
        (|chain| chain.world.borrow_mut().meanwhile(Event::ForeignOff), "switched the dirty tracking off"),
        (
            |chain| {
                // The canary is what the guest wrote before the tracking was left alone.
                chain.world.borrow_mut().meanwhile(Event::ForeignOff);
                Target(chain.world.clone()).enable().unwrap();
            },
            "off and on again",
        ),
        (|chain| chain.store.remove("web01@n1").unwrap(), "web01@n1 was removed"),
        (|chain| chain.armed = None, ""),
    ];
    for (doubt, why) in doubts {
        let mut chain = Chain::new(Mode::Live, 5);
        chain.take(|_| {});
        doubt(&mut chain);
        chain.expected.clear();
        if chain.armed.is_none() {
            chain.world.borrow_mut().log_dirty = false;
        }
        chain.run_on(50);
        let next = chain.take(|_| {});
        assert_eq!(next.state, State::Sealed, "{next:?}");
        assert!(next.why_full.as_str().contains(why), "{}", next.why_full);
        assert!(next.counters.pages + next.counters.zero >= 1300, "{why}: all is read");
        chain.run_on(20);
        let after = chain.take(|_| {});
        assert_eq!((after.state, after.why_full.as_str()), (State::Sealed, ""), "and on it goes");
        chain.all_right();
    }
}

/// A guest that dirties the same pages again hides a hand that cleared the bits; a look in between has older ones.
#[test]
fn a_look_between_two_takes_finds_what_a_busy_guest_would_hide() {
    let mut chain = Chain::new(Mode::Live, 6);
    chain.take(|_| {});
    chain.run_on(400);
    let mut target = Target(chain.world.clone());
    chain.armed.as_mut().unwrap().look(&mut target).unwrap();
    assert!(chain.armed.as_ref().unwrap().doubt.is_empty());
    chain.world.borrow_mut().meanwhile(Event::ForeignOff);
    target.enable().unwrap();
    chain.run_on(20);
    chain.armed.as_mut().unwrap().look(&mut target).unwrap();
    assert!(!chain.armed.as_ref().unwrap().doubt.is_empty());
    let next = chain.take(|_| {});
    assert!(next.state == State::Sealed && next.why_full.as_str().contains("off and on again"), "{next:?}");
    chain.all_right();
}

#[test]
fn memory_that_came_or_went_between_takes_is_found() {
    let events = [Event::BalloonOut(20), Event::BalloonIn(20), Event::Swap];
    for (mode, seed) in MODES.into_iter().zip(30..) {
        let mut chain = Chain::new(mode, seed);
        chain.take(|_| {});
        for (number, event) in events.into_iter().cycle().take(9).enumerate() {
            chain.run_on(20);
            chain.world.borrow_mut().meanwhile(event);
            let next = chain.take(|_| {});
            assert_eq!(next.state, State::Sealed, "{mode} {number} {event:?} {next:?}");
        }
        chain.all_right();
    }
}

#[test]
fn a_parent_that_cannot_be_had_is_an_error_and_the_guest_stays_as_it_was() {
    let mut chain = Chain::new(Mode::Live, 7);
    let none = chain.take(|setup| setup.parent = Some("n0".to_owned()));
    assert_eq!((none.state, none.fault), (State::Refused, Some(Fault::BadParent)), "{none:?}");
    chain.take(|_| {});
    let other = chain.take(|setup| setup.parent = Some("n1".to_owned()));
    assert_eq!((other.state, other.fault), (State::Refused, Some(Fault::BadParent)), "{other:?}");
    assert!(chain.armed.is_some() && other.reason.as_str().contains("web01@n2"), "{}", other.reason);
    let right = chain.take(|setup| setup.parent = Some("n2".to_owned()));
    assert_eq!((right.state, right.why_full.as_str()), (State::Sealed, ""));
    chain.store.remove("web01@n4").unwrap();
    chain.expected.remove("web01@n4");
    let gone = chain.take(|setup| setup.parent = Some("n4".to_owned()));
    assert_eq!((gone.state, gone.fault), (State::Refused, Some(Fault::BadParent)), "{gone:?}");
    assert!(chain.armed.is_none(), "nothing is left to build on");
    chain.all_right();
}

#[test]
fn another_kind_of_take_ends_the_tracking() {
    let mut chain = Chain::new(Mode::Live, 8);
    chain.take(|_| {});
    let full = chain.take(|setup| setup.kind = Kind::Full);
    assert_eq!((full.state, chain.armed.is_none()), (State::Sealed, true), "{full:?}");
    chain.all_right();
}

/// A take is asked for when nobody saves or migrates the guest; to let a guest go nobody asks.
#[test]
fn a_guest_is_let_go_unless_another_tool_has_its_tracking() {
    let mut chain = Chain::new(Mode::Live, 9);
    for (off, on, ours) in [(false, false, true), (true, false, true), (true, true, false)] {
        assert_eq!(chain.take(|_| {}).state, State::Sealed);
        chain.run_on(30);
        let mut target = Target(chain.world.clone());
        let mut armed = chain.armed.take().unwrap();
        armed.look(&mut target).unwrap();
        if off {
            chain.world.borrow_mut().meanwhile(Event::ForeignOff);
        }
        if on {
            target.enable().unwrap();
        }
        assert_eq!(armed.let_go(&mut target), Ok(ours));
        assert_eq!(chain.world.borrow().log_dirty, !ours);
    }
    let refused = chain.take(|_| {});
    assert_eq!((refused.state, refused.fault), (State::Refused, Some(Fault::LogDirtyOn)), "{refused:?}");
}

/// A look that finds the hand of another tool is enough: afterwards the bits may be as they were.
#[test]
fn what_another_tool_took_over_is_not_taken_back_unasked() {
    let mut chain = Chain::new(Mode::Live, 10);
    chain.take(|_| {});
    chain.run_on(30);
    let mut target = Target(chain.world.clone());
    let mut armed = chain.armed.take().unwrap();
    armed.look(&mut target).unwrap();
    chain.world.borrow_mut().meanwhile(Event::ForeignOff);
    target.enable().unwrap();
    armed.look(&mut target).unwrap();
    chain.run_on(2000);
    assert_eq!(armed.let_go(&mut target), Ok(false));
    assert!(chain.world.borrow().log_dirty);
    chain.world.borrow_mut().meanwhile(Event::ForeignOff);
    assert_eq!(armed.let_go(&mut target), Ok(true), "it has ended");
    assert!(!chain.world.borrow().log_dirty);
}
