//! A PV guest that stays tracked. Between two takes, and while it runs in one, page tables change and pages become page
//! tables without a mark, which is stricter than Xen; frames are exchanged and come back; the tracking is stolen. Every
//! snapshot that is sealed is the guest as it stood, page by page and type by type.

use std::cell::RefCell;
use std::rc::Rc;

use snapshot::fault::Fault;
use snapshot::request::{Kind, Mode};
use snapshot::status::{State, Status};
use snapshot::take::{Armed, Before};

use super::ends::{Order, Stored, take_in};
use super::guest::{Content, Entry, Guest, LEAVES, PFNS, Shared};

const MODES: [Mode; 5] = [Mode::Live, Mode::Staged, Mode::Save, Mode::Improved, Mode::Xen];

/// A guest, its newest snapshot, and what is known of its tracking.
struct Chain {
    guest: Shared,
    mode: Mode,
    armed: Option<Armed>,
    newest: Stored,
    pv_tracking: bool,
}

impl Chain {
    fn new(mode: Mode, seed: u64) -> Self {
        let mut guest = Guest::new(seed);
        (guest.still, guest.silent) = (true, true);
        let (guest, newest) = (Rc::new(RefCell::new(guest)), Stored::default());
        Self { guest, mode, armed: None, newest, pv_tracking: true }
    }

    /// One take; a snapshot that is sealed has every page of the guest as it stood.
    fn take(&mut self, resumed: bool) -> (Status, u64) {
        let number = self.newest.number + 1;
        let below = self.newest.sealed.then(|| (self.newest.number, self.newest.pages.clone()));
        let stored = Stored { number, below, ..Stored::default() };
        let before = Before { armed: self.armed.take(), ..Before::default() };
        let Self { mode, pv_tracking, .. } = *self;
        let order = Order { mode, tidy: true, kind: Kind::Incremental, pv_tracking, before, stored, resumed };
        let (status, stored, armed) = take_in(&self.guest, order).unwrap();
        self.armed = armed;
        let given = stored.given;
        assert_eq!(self.guest.borrow().log_dirty, self.armed.is_some(), "tracked if somebody knows of it: {status:?}");
        if stored.sealed {
            self.whole(&stored, &format!("{mode:?} {number}: {status:?}"));
            self.newest = stored;
        }
        self.guest.borrow_mut().suspended = false;
        (status, given)
    }

    fn whole(&self, stored: &Stored, story: &str) {
        let (guest, typed) = (self.guest.borrow(), stored.typed());
        assert_eq!(typed.keys().collect::<Vec<_>>(), guest.truth.keys().collect::<Vec<_>>(), "{story}");
        for (pfn, (kind, page)) in &guest.truth {
            assert_eq!(typed[pfn].0, *kind, "type of pfn {pfn:#x}: {story}");
            assert!(typed[pfn].1 == *page, "content of pfn {pfn:#x} (type {kind}): {story}");
        }
    }

    /// The guest runs for a while.
    fn run_on(&mut self) {
        (0..20).for_each(|_| self.guest.borrow_mut().runs());
    }

    /// The next one lies on the last.
    fn goes_on(&mut self) -> u64 {
        let (next, given) = self.take(true);
        assert_eq!((next.state, next.why_full.as_str()), (State::Sealed, ""), "{:?} {next:?}", self.mode);
        given
    }

    /// The next one is a full one, and says why.
    fn is_full(&mut self, why: &str) {
        let (next, given) = self.take(true);
        assert_eq!(next.state, State::Sealed, "{next:?}");
        assert!(next.why_full.as_str().contains(why) && !why.is_empty(), "{why}: {}", next.why_full);
        assert!(given >= PFNS - 21, "all of it is sent: {given}");
    }
}

#[test]
fn without_being_asked_for_it_is_refused_and_told_how() {
    let mut chain = Chain::new(Mode::Live, 1);
    chain.pv_tracking = false;
    let (status, given) = chain.take(true);
    assert_eq!((status.state, status.fault, given), (State::Refused, Some(Fault::Unsupported), 0), "{status:?}");
    for way in ["--pv-tracking", "--diff"] {
        assert!(status.reason.as_str().contains(way), "{}", status.reason);
    }
}

#[test]
fn a_chain_sends_what_changed_and_page_tables_and_each_is_whole() {
    let mut silent = 0;
    for (mode, seed) in MODES.into_iter().flat_map(|mode| (0..3).map(move |seed| (mode, seed))) {
        let mut chain = Chain::new(mode, seed);
        chain.guest.borrow_mut().busy = 1 + seed % 3;
        let (first, given) = chain.take(true);
        assert!(first.state == State::Sealed && given >= PFNS - 21, "{first:?}");
        for _ in 0..6 {
            chain.run_on();
            chain.guest.borrow_mut().busy = 0;
            let given = chain.goes_on();
            assert!(given < PFNS, "{mode:?}: {given} pages of {PFNS}");
            chain.guest.borrow_mut().busy = 1 + seed % 3;
            let given = chain.goes_on();
            silent += u64::from(given > 0);
        }
    }
    assert!(silent > 0);
}

/// A page table that Xen noted nothing of is sent all the same, and what was one is sent once more.
#[test]
fn page_tables_are_sent_whatever_is_dirty() {
    for mode in MODES {
        let mut chain = Chain::new(mode, 2);
        chain.guest.borrow_mut().busy = 0;
        let plain = (200..210).map(|pfn| (pfn, Content::Data(2 * pfn)));
        chain.guest.borrow_mut().pages.extend(plain);
        chain.take(true);
        let tables = |chain: &Chain| chain.guest.borrow().truth.values().filter(|(kind, _)| *kind > 0).count() as u64;
        assert_eq!(chain.goes_on(), tables(&chain), "{mode:?}");
        let before = tables(&chain);
        (200..210).for_each(|pfn| chain.guest.borrow_mut().turns(pfn));
        assert!(chain.guest.borrow().dirty.is_empty(), "nothing is marked");
        assert_eq!(chain.goes_on(), before + 10, "{mode:?}");
        (200..210).for_each(|pfn| chain.guest.borrow_mut().turns(pfn));
        assert_eq!(chain.goes_on(), before + 10, "{mode:?}: they are ordinary pages again");
        assert_eq!(chain.goes_on(), before, "{mode:?}");
    }
}

/// A page is a table only while it is copied in a round: it was none before, and is none when the guest stands.
#[test]
fn a_type_that_was_there_in_a_round_alone_is_not_kept() {
    fn flips(guest: &mut Guest) {
        let pfn = 300 + guest.calls % 10;
        guest.turns(pfn);
    }
    for (mode, seed) in [Mode::Live, Mode::Staged, Mode::Xen].into_iter().flat_map(|m| (0..4).map(move |s| (m, s))) {
        let mut chain = Chain::new(mode, seed);
        chain.take(true);
        for _ in 0..4 {
            (300..310).for_each(|pfn| chain.guest.borrow_mut().writes(pfn));
            chain.guest.borrow_mut().mischief = Some(flips);
            chain.goes_on();
        }
    }
}

type Change = fn(&mut Guest);

/// What no dirty bit of a page tells, between two takes, and how it is found out.
#[test]
fn frames_that_move_make_the_next_one_a_full_one_that_says_why() {
    // Xen fills the M2P itself and marks nothing; not even the guest's own write to its p2m is noted here.
    let exchanged: Change = |guest| exchanges(guest, 333);
    // The same frame came back, with other content: an honest guest has written that it was gone.
    let returned: Change = |guest| {
        guest.mark(LEAVES.start);
        guest.pages.insert(334, Content::Data(98));
    };
    let ballooned: Change = |guest| {
        let mfn = guest.p2m[335].take().unwrap();
        guest.m2p[mfn as usize] = None;
        guest.pages.remove(&335);
        for content in guest.pages.values_mut() {
            let Content::Table(_, entries) = content else { continue };
            entries.retain(|_, entry| !matches!(entry, Entry::Pfn(335, _)));
        }
        guest.mark(LEAVES.start);
    };
    // Two pages exchange their frames, and so their contents; no table that maps them is written.
    let relabelled: Change = |guest| {
        guest.p2m.swap(336, 337);
        for pfn in [336, 337] {
            let mfn = guest.p2m[pfn].unwrap();
            guest.m2p[mfn as usize] = Some(pfn as u64);
            guest.mark(pfn as u64);
        }
    };
    for (number, change) in [exchanged, returned, ballooned, relabelled].into_iter().enumerate() {
        for mode in MODES {
            let mut chain = Chain::new(mode, 40 + number as u64);
            chain.guest.borrow_mut().busy = 1;
            chain.take(true);
            chain.run_on();
            chain.goes_on();
            change(&mut chain.guest.borrow_mut());
            chain.is_full("changed its p2m");
            chain.run_on();
            chain.goes_on();
        }
    }
}

/// A page gets another frame with other content, and no mark tells of it.
fn exchanges(guest: &mut Guest, pfn: u64) {
    let dirty = guest.dirty.clone();
    guest.moves(pfn);
    guest.dirty = dirty;
    guest.pages.insert(pfn, Content::Data(99));
}

/// It changes its p2m at any moment of a take: all of it is sent anew; where it is too late for that the take fails.
#[test]
fn frames_that_move_during_a_take_end_in_a_full_pass_or_in_nothing() {
    fn strikes(guest: &mut Guest) {
        if guest.strikes_at > 0 && guest.calls >= guest.strikes_at {
            guest.strikes_at = 0;
            exchanges(guest, 340);
        }
    }
    let (mut anew, mut failed) = (0, 0);
    for (mode, at) in MODES.into_iter().flat_map(|mode| (1..40).step_by(3).map(move |at| (mode, at))) {
        let mut chain = Chain::new(mode, at);
        chain.guest.borrow_mut().busy = 1;
        chain.take(true);
        chain.guest.borrow_mut().mischief = Some(strikes);
        chain.guest.borrow_mut().strikes_at = at;
        let (next, given) = chain.take(true);
        chain.guest.borrow_mut().mischief = None;
        let struck = chain.guest.borrow().strikes_at == 0;
        match next.state {
            State::Sealed => anew += u64::from(struck && given >= PFNS - 21),
            _ => {
                assert_eq!(next.fault, Some(Fault::BadP2m), "{mode:?} {at} {next:?}");
                failed += 1;
                chain.is_full("changed its p2m");
            }
        }
        chain.run_on();
        chain.goes_on();
    }
    assert!(anew > 10 && failed > 2, "{anew} {failed}");
}

/// What does not settle in a round waits for the last set, also on top of a snapshot that had no rounds.
#[test]
fn the_mode_may_change_from_link_to_link() {
    let mut chain = Chain::new(Mode::Save, 6);
    chain.guest.borrow_mut().clumsy = true;
    for mode in [Mode::Save, Mode::Live, Mode::Staged, Mode::Save, Mode::Xen] {
        chain.mode = mode;
        if chain.armed.is_none() {
            chain.take(true);
            continue;
        }
        chain.run_on();
        let given = chain.goes_on();
        assert!(given < PFNS, "{mode:?}: {given} pages");
    }
}

/// The M2P says that a frame is another page: that page is where its writes are noted.
#[test]
fn a_page_that_p2m_and_m2p_do_not_agree_on_is_not_left_out() {
    for mode in MODES {
        let mut chain = Chain::new(mode, 3);
        chain.guest.borrow_mut().busy = 0;
        chain.take(true);
        let mfn = chain.guest.borrow().p2m[345].unwrap() as usize;
        chain.guest.borrow_mut().m2p[mfn] = Some(346);
        let (next, _) = chain.take(true);
        assert!(next.state != State::Sealed, "{mode:?} {next:?}");
    }
}

#[test]
fn stolen_tracking_is_found() {
    for mode in MODES {
        let mut chain = Chain::new(mode, 4);
        chain.take(true);
        chain.run_on();
        chain.guest.borrow_mut().log_dirty = false;
        chain.run_on();
        chain.is_full("switched the dirty tracking off");
        chain.run_on();
        let armed = chain.armed.as_mut().unwrap();
        armed.look(&mut super::host::Host(chain.guest.clone())).unwrap();
        chain.guest.borrow_mut().dirty.clear();
        chain.is_full("off and on again");
    }
}

#[test]
fn what_a_failed_take_had_fetched_is_not_lost() {
    for (mode, seed) in MODES.into_iter().flat_map(|mode| (0..4).map(move |seed| (mode, seed))) {
        let mut chain = Chain::new(mode, seed);
        chain.take(true);
        for _ in 0..4 {
            chain.run_on();
            let (failed, _) = chain.take(false);
            assert_eq!(failed.fault, Some(Fault::VerdictVoid), "{failed:?}");
            (100..400).step_by(7).for_each(|pfn| chain.guest.borrow_mut().turns(pfn));
            chain.goes_on();
        }
    }
}
