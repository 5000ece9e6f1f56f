//! Takes of guests that behave, however busy.

use std::cell::RefCell;
use std::rc::Rc;

use snapshot::fault::Fault;
use snapshot::request::Mode;
use snapshot::status::State;
use snapshot::take::Attachment;

use super::ends::{Stored, take};
use super::guest::{self, Guest, LEAVES, MAPPING, START_INFO, Shared};

fn shared(change: impl FnOnce(&mut Guest), seed: u64) -> Shared {
    let mut guest = Guest::new(seed);
    change(&mut guest);
    Rc::new(RefCell::new(guest))
}

fn check(guest: &Shared, stored: &Stored, story: &str) {
    let (truth, typed) = (&guest.borrow().truth, stored.typed());
    assert_eq!(typed.keys().collect::<Vec<_>>(), truth.keys().collect::<Vec<_>>(), "{story}");
    for (pfn, (kind, page)) in truth {
        assert_eq!(typed[pfn].0, *kind, "type of pfn {pfn:#x}: {story}");
        assert!(typed[pfn].1 == *page, "content of pfn {pfn:#x} (type {kind}): {story}");
    }
}

#[test]
fn every_page_has_its_type_and_its_content_of_the_suspend() {
    let mut rounds = 0;
    for seed in 0..12 {
        let modes = [Mode::Save, Mode::Live, Mode::Improved, Mode::Xen, Mode::Staged];
        for (mode, linear) in modes.into_iter().map(|mode| (mode, true)).chain([(Mode::Live, false)]) {
            let guest = shared(|guest| guest.linear = linear, seed);
            let (status, stored) = take(&guest, mode, true).unwrap();
            let story = format!("seed {seed}, {mode:?}, linear {linear}: {status:?}");
            assert_eq!(status.state, State::Sealed, "{story}");
            check(&guest, &stored, &story);
            rounds += u64::from(stored.runs);
        }
    }
    assert!(rounds > 12 * 6 * 2, "live takes have rounds");
}

#[test]
fn a_quiet_guest_is_the_same_by_tree_and_list() {
    let taken = [true, false].map(|linear| {
        let guest = shared(|guest| (guest.linear, guest.busy) = (linear, 0), 5);
        take(&guest, Mode::Live, true).unwrap().1
    });
    let [list, tree] = taken.map(|stored| stored.typed());
    assert!(list == tree);
}

#[test]
fn a_table_that_never_settles_is_fatal_and_never_left_out() {
    for mode in [Mode::Live, Mode::Save, Mode::Staged] {
        let guest = shared(|_| {}, 3);
        let (status, stored) = take(&guest, mode, false).unwrap();
        assert_eq!((status.state, status.fault), (State::Failed, Some(Fault::PageUnreadable)), "{status:?}");
        assert!(!stored.sealed);
    }
}

/// In the rounds, and while a guest freezes and its pages go to staging, what was not read is read later, though no
/// bitmap names it.
#[test]
fn what_cannot_be_read_at_once_is_tried_again() {
    for mode in [Mode::Live, Mode::Improved, Mode::Xen, Mode::Staged] {
        let mut owed = 0;
        for seed in 0..12 {
            let guest = shared(|guest| guest.clumsy = true, seed);
            let (status, stored) = take(&guest, mode, true).unwrap();
            let story = format!("seed {seed}, {mode:?}: {status:?}");
            assert_eq!(status.state, State::Sealed, "{story}");
            check(&guest, &stored, &story);
            owed += guest.borrow().owed;
        }
        assert!(owed > 0, "{mode:?}: nothing was put off to the last set");
    }
}

/// The records' headers and bodies, byte by byte where they are ours.
#[test]
fn golden_bytes_of_the_records() {
    let guest = shared(|guest| guest.vcpus = vec![Some(true), None, Some(false), Some(true)], 1);
    let (status, stored) = take(&guest, Mode::Live, true).unwrap();
    assert_eq!(status.state, State::Sealed, "{status:?}");
    let fixed = stored.attachment(Attachment::StaticRecords).unwrap();
    assert_eq!(fixed[..16], [2, 0, 0, 0, 8, 0, 0, 0, 8, 4, 0, 0, 0, 0, 0, 0], "X86_PV_INFO: 8 bytes a word, 4 levels");
    let platform = stored.attachment(Attachment::PlatformRecords).unwrap();
    let frames = [
        [3, 0, 0, 0, 32, 0, 0, 0],   // X86_PV_P2M_FRAMES
        [0, 0, 0, 0, 0x13, 5, 0, 0], // pfn 0 to 1299
        [20, 0, 0, 0, 0, 0, 0, 0],
        [21, 0, 0, 0, 0, 0, 0, 0],
        [22, 0, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(platform[..40], frames.concat());
    let found = records(platform);
    let kinds: Vec<(u32, usize)> = found.iter().map(|(kind, body)| (*kind, body.len())).collect();
    let vcpu = [(4, 5176), (5, 72), (6, 584)];
    let expected = [&[(3, 32), (8, 24), (7, 4096)][..], &vcpu, &vcpu].concat();
    assert_eq!(kinds, expected, "vCPUs 0 and 3, in libxc's order");
    assert_eq!(found[2].1, guest.borrow().shared_info());
    for (at, vcpu) in [(3, 0u64), (6, 3)] {
        let body = found[at].1;
        assert_eq!(body[..8], vcpu.to_le_bytes());
        let word = |offset: usize| u64::from_le_bytes(body[8 + offset..16 + offset].try_into().unwrap());
        let rdx = if vcpu == 0 { START_INFO } else { 0xdead };
        assert_eq!((word(616), word(4832), word(5008)), (rdx, guest::GDT, MAPPING[0] << 12), "start_info, GDT, cr3");
    }
}

fn records(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let (kind, length) = (word(0), word(4) as usize);
        found.push((kind, &bytes[8..8 + length]));
        bytes = &bytes[8 + length.next_multiple_of(8)..];
    }
    found
}

#[test]
fn without_shadow_paging_a_guest_is_saved_but_not_taken_live() {
    let guest = shared(|guest| guest.can_track = false, 2);
    let (status, stored) = take(&guest, Mode::Save, true).unwrap();
    assert_eq!(status.state, State::Sealed, "{status:?}");
    check(&guest, &stored, "save without tracking");
    let guest = shared(|guest| guest.can_track = false, 2);
    let (status, _) = take(&guest, Mode::Live, true).unwrap();
    assert_eq!(status.fault, Some(Fault::Unsupported));
    assert!(status.reason.as_str().contains("--mode save"), "{status:?}");
}

/// The list gets other frames while the guest is copied: it is found again, and what it says is right.
#[test]
fn a_list_that_moves_during_the_take_is_followed() {
    fn once(guest: &mut Guest) {
        if guest.calls == 12 {
            let old = guest.p2m[LEAVES.start as usize].unwrap();
            let new =
                (100..9000).find(|mfn| guest.m2p[*mfn].is_none() && !guest::HOLE.contains(&(*mfn as u64))).unwrap();
            guest.m2p[old as usize] = None;
            guest.m2p[new] = Some(LEAVES.start);
            guest.p2m[LEAVES.start as usize] = Some(new as u64);
            [LEAVES.start, MAPPING[3]].iter().for_each(|pfn| guest.mark(*pfn));
            guest.generation += 2;
            guest.calls += 1;
        }
    }
    let guest = shared(|guest| (guest.mischief, guest.busy) = (Some(once as fn(&mut Guest)), 1), 8);
    let (status, stored) = take(&guest, Mode::Live, true).unwrap();
    // The old frame was read for a while as it was before it moved, which nobody may take for the truth.
    assert!(matches!(status.state, State::Sealed | State::Failed | State::Void), "{status:?}");
    if stored.sealed {
        check(&guest, &stored, "a moved list");
    }
}
