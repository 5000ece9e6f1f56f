//! Guests that lie. Each ends in bounded calls (the host counts them) and bounded memory, with a cause, and is never
//! sealed with something that is not there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use snapshot::fault::Fault;
use snapshot::ports::TargetError;
use snapshot::request::Mode;
use snapshot::status::{State, Status};

use super::ends::{Stored, take};
use super::guest::{Content, Entry, FOREIGN, Guest, HOLE, LEAVES, MAPPING, MFNS, START_INFO, TABLES, VADDR};

fn hostile(change: impl FnOnce(&mut Guest)) -> Result<(Status, Stored), TargetError> {
    let mut guest = Guest::new(9);
    change(&mut guest);
    take(&Rc::new(RefCell::new(guest)), Mode::Live, true)
}

fn refused(change: impl FnOnce(&mut Guest)) -> &'static str {
    match hostile(change).map(|(status, _)| status) {
        Err(TargetError::P2m { what }) => what,
        other => panic!("not refused: {other:?}"),
    }
}

fn point(guest: &mut Guest, table: u64, slot: usize, entry: Entry) {
    let Some(Content::Table(_, entries)) = guest.pages.get_mut(&table) else { panic!("no table") };
    entries.insert(slot, entry);
}

fn slot(level: u32) -> usize {
    (VADDR >> (12 + 9 * (level - 1)) & 511) as usize
}

#[test]
fn a_p2m_that_is_too_large_or_empty_is_refused_before_anything_is_read() {
    assert_eq!(refused(|guest| guest.max_pfn = 0), "the guest says that it is empty");
    for huge in [64 * 512 + 1, 1 << 40, u64::MAX] {
        assert_eq!(refused(|guest| guest.max_pfn = huge), "it is larger than the stub can follow");
        let by_tree = refused(|guest| (guest.max_pfn, guest.linear) = (huge, false));
        assert_eq!(by_tree, "it is larger than the stub can follow");
    }
}

#[test]
fn a_32_bit_guest_is_refused_by_name() {
    let refused = hostile(|guest| guest.bits = 32).map(|(status, _)| status);
    assert_eq!(refused, Err(TargetError::Kind { what: "a 32-bit PV guest" }));
}

#[test]
fn a_p2m_whose_tables_loop_leads_nowhere() {
    let what = refused(|guest| {
        for (depth, level) in [(0, 4), (1, 3), (2, 2)] {
            point(guest, MAPPING[depth], slot(level), Entry::Pfn(MAPPING[depth], 0x67));
        }
    });
    assert!(what == "it is not mapped" || what == "a frame of it is no frame of the guest", "{what}");
}

#[test]
fn a_p2m_of_frames_that_are_not_the_guests_is_refused() {
    for frame in [FOREIGN, HOLE.start, MFNS, u64::MAX >> 12, 0] {
        for (depth, level) in [(0, 4), (1, 3), (2, 2), (3, 1)] {
            let what =
                refused(|guest| point(guest, MAPPING[depth], slot(level), Entry::Frame(frame & ((1 << 40) - 1), 0x67)));
            assert!(what.contains("is no frame of the guest"), "{frame:x} at level {level}: {what}");
        }
    }
    let what = refused(|guest| point(guest, MAPPING[2], slot(2), Entry::Pfn(MAPPING[3], 0xe7)));
    assert_eq!(what, "it is mapped by a large page");
}

#[test]
fn a_tree_of_nonsense_is_refused() {
    for word in [0, u64::MAX, FOREIGN, MFNS, 1 << 60] {
        for pfn in super::guest::TREE {
            let what = refused(|guest| {
                guest.linear = false;
                guest.pages.insert(pfn, Content::Words(BTreeMap::from([(0, word)])));
            });
            assert!(what.contains("set it up") || what.contains("no frame of the guest"), "{word:x}: {what}");
        }
    }
}

#[test]
fn a_generation_that_never_settles_ends_the_take() {
    assert_eq!(refused(|guest| guest.generation = 7), "the guest changes it all the time");
    assert_eq!(
        refused(|guest| guest.mischief = Some(|guest| guest.generation += 2)),
        "the guest changes it all the time"
    );
}

/// What the p2m says of a page decides nothing about other pages.
#[test]
fn lies_in_the_p2m_are_never_sealed_as_pages() {
    for lie in [FOREIGN, HOLE.start, MFNS - 1, MFNS + 5, 1 << 50, 1 << 62, 1 << 63, 0] {
        let (status, stored) = hostile(|guest| _ = guest.lies.insert(150, lie)).unwrap();
        assert!(!stored.pages.contains_key(&150) || status.state != State::Sealed, "{lie:x}: {status:?}");
    }
    // Two pfns, one frame: the M2P knows which one is meant, and the other one cannot be told.
    let (status, stored) = hostile(|guest| {
        let frame = guest.p2m[151].unwrap();
        guest.lies.insert(150, frame);
    })
    .unwrap();
    assert_eq!((status.fault, stored.sealed), (Some(Fault::PageUnreadable), false), "{status:?}");
}

#[test]
fn page_tables_that_map_others_frames_void_the_snapshot() {
    for frame in [FOREIGN, HOLE.start, MFNS, (1 << 40) - 1] {
        let (status, stored) = hostile(|guest| point(guest, TABLES.start, 3, Entry::Frame(frame, 0x67))).unwrap();
        assert_eq!((status.fault, stored.sealed), (Some(Fault::PageUnreadable), false), "{frame:x}: {status:?}");
    }
}

#[test]
fn a_p2m_rewritten_while_it_is_read_ends_the_take_or_is_right() {
    fn scramble(guest: &mut Guest) {
        let (pfn, word) = (guest.random(1300), guest.random(MFNS + 100));
        guest.lies.insert(pfn, word);
    }
    for _ in 0..3 {
        let result = hostile(|guest| guest.mischief = Some(scramble));
        assert!(!matches!(&result, Ok((_, stored)) if stored.sealed), "{:?}", result.map(|(status, _)| status));
    }
}

#[test]
fn what_a_restore_would_refuse_is_not_sealed() {
    let as_table =
        |pfn: u64| hostile(move |guest| _ = guest.pages.insert(pfn, Content::Table(1, BTreeMap::new()))).unwrap();
    for pfn in [START_INFO, super::guest::GDT] {
        let (status, stored) = as_table(pfn);
        assert_eq!((status.fault, stored.sealed), (Some(Fault::BadP2m), false), "{status:?}");
    }
    // cr3 in the place of start_info: an L4 table that is no ordinary page.
    let (status, stored) = hostile(|guest| _ = guest.pages.insert(LEAVES.start, Content::Data(1)).is_some())
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(!stored.sealed, "a list without content: {status:?}");
}

/// Pages that were looked for meanwhile are missing in what was copied, also if the list is found again later.
#[test]
fn a_p2m_that_was_let_go_of_is_no_guest_without_memory() {
    const LOST_AT: u64 = 40;
    const FOUND_AT: u64 = 60;
    fn lose(guest: &mut Guest) {
        match guest.calls {
            LOST_AT => guest.dropped = true,
            FOUND_AT if guest.strikes_at == FOUND_AT => {
                guest.moves(LEAVES.start);
                guest.generation += 2;
            }
            _ => {}
        }
    }
    for found_at in [0, FOUND_AT] {
        let lost = |guest: &mut Guest| {
            guest.mischief = Some(lose);
            guest.strikes_at = found_at;
        };
        let (status, stored) = hostile(lost).unwrap();
        assert_eq!((status.fault, stored.sealed), (Some(Fault::Hypercall), false), "{found_at}: {status:?}");
    }
}
