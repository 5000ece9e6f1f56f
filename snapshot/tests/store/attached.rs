//! What a snapshot says beside its pages: names within their limits, and attachments that are its own.

use snapshot::store::layout::{PART_BYTES, PARTS_MAX};
use snapshot::store::{AttachmentKind, Catalog, NewSnapshot, SealInfo, Sharing, StoreError};

use crate::world::{formatted, new, open, run, take};

/// 16 MiB.
const BLOCKS: u64 = 4096;

#[test]
fn what_is_attached_is_its_own_though_the_snapshot_below_has_nearly_the_same() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    let parts = |first: u8, last: u8, tail: usize| [vec![first; PART_BYTES], vec![last; tail]].concat();
    // As long and another first part; another second one; as it is, but longer; the same.
    let all = [parts(1, 2, 50), parts(3, 2, 50), parts(3, 4, 50), parts(3, 4, 51), parts(3, 4, 51)];
    for (number, bytes) in (0..).zip(&all) {
        let sharing = if number == 0 { Sharing::Nothing } else { Sharing::Since(number) };
        let name = format!("a@{number}");
        let mut taking = store.begin(&NewSnapshot { sharing, ..new(&name, 0) }).unwrap();
        taking.attach(AttachmentKind::CONFIG_JSON, bytes).unwrap();
        taking.seal(&SealInfo::default()).unwrap();
    }
    let mut catalog = Catalog::open(disk.clone()).map_err(|failed| failed.error).unwrap();
    for (number, bytes) in all.iter().enumerate() {
        let found = catalog.snapshot(&format!("a@{number}")).unwrap().attachment(AttachmentKind::CONFIG_JSON).unwrap();
        assert!(found.as_ref() == Some(bytes), "a@{number}");
    }
    assert!(catalog.check(true, &mut |_, _| {}).unwrap().is_clean());
}

#[test]
fn names_within_their_limits_are_taken_and_longer_ones_refused() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    let (guest, mode) = ("g".repeat(257), "m".repeat(17));
    let before = disk.image();
    for (guest_name, mode) in [(guest.as_str(), "live"), ("web01", mode.as_str())] {
        let refused = store.begin(&NewSnapshot { guest_name, mode, ..new("a@1", 0) }).map(|_| ());
        assert!(matches!(refused, Err(StoreError::TooLong { .. })), "{refused:?}");
    }
    assert!(disk.image() == before, "nothing was written");
    let longest = NewSnapshot { guest_name: &guest[1..], mode: &mode[1..], ..new("a@1", 0) };
    store.begin(&longest).unwrap().seal(&SealInfo::default()).unwrap();
    let listed = store.list().unwrap();
    let info = listed[0].snapshot.as_ref().unwrap();
    assert_eq!((info.guest_name.len(), info.mode.len()), (256, 16));
}

#[test]
fn a_snapshot_is_known_by_its_number_until_it_is_removed() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    let digests = [1, 2].map(|salt| {
        take(&mut store, &format!("a@{salt}"), &[run(0, 5, salt)]).unwrap();
        let (name, digest) = store.named(salt).unwrap();
        assert_eq!(name, format!("a@{salt}"));
        digest
    });
    assert!(digests[0] != digests[1], "other pages");
    store.remove("a@1").unwrap();
    assert_eq!(store.named(1), Err(StoreError::NotFound));
    assert_eq!(store.named(2).unwrap().1, digests[1]);
}

#[test]
fn an_attachment_has_so_many_parts_at_most_and_an_empty_one_none() {
    let disk = formatted(2 * BLOCKS);
    let mut store = open(&disk);
    let mut taking = store.begin(&new("a@1", 0)).unwrap();
    for bytes in [PARTS_MAX * PART_BYTES + 1, (PARTS_MAX + 1) * PART_BYTES + 1] {
        let refused = taking.attach(AttachmentKind::TRACE, &vec![1; bytes]);
        assert!(matches!(refused, Err(StoreError::TooLong { .. })), "{bytes}: {refused:?}");
    }
    taking.attach(AttachmentKind::CONFIG_JSON, &[]).unwrap();
    taking.attach(AttachmentKind::TRACE, &vec![1; PARTS_MAX * PART_BYTES]).unwrap();
    taking.seal(&SealInfo::default()).unwrap();
    let mut catalog = Catalog::open(disk.clone()).map_err(|failed| failed.error).unwrap();
    let mut snapshot = catalog.snapshot("a@1").unwrap();
    assert_eq!(snapshot.attachment(AttachmentKind::CONFIG_JSON).unwrap(), None);
    assert_eq!(
        snapshot.attachment(AttachmentKind::TRACE).unwrap().map(|bytes| bytes.len()),
        Some(PARTS_MAX * PART_BYTES)
    );
}

#[test]
fn what_the_take_and_its_end_are_told_is_listed() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    let told = NewSnapshot { created_unix: 11, guest_name: "web02", mode: "live", ..new("a@1", 0) };
    let taking = store.begin(&told).unwrap();
    let end = SealInfo { sealed_unix: 12, rounds: 13, pages_sent: 14, pause_us: 15, elapsed_us: 16 };
    let summary = taking.seal(&end).unwrap();
    let listed = store.list().unwrap().remove(0).snapshot.unwrap();
    let numbers = (listed.sealed_unix, listed.rounds, listed.pages_sent, listed.pause_us, listed.elapsed_us);
    assert_eq!(numbers, (12, 13, 14, 15, 16));
    assert_eq!((listed.created_unix, &*listed.guest_name, &*listed.mode), (11, "web02", "live"));
    assert_eq!((listed.id, listed.generation), (summary.id, summary.generation));
    assert_eq!((listed.guest_uuid, listed.max_gfn), (told.guest_uuid, told.max_gfn));
}
