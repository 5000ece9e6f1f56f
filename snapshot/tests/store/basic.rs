//! The store as its users see it: takes, rounds, listings, removal, refusals.

use snapshot::ports::IoError;
use snapshot::store::{AttachmentKind, Catalog, Probe, SealInfo, Store, StoreError, TAKE_RUNS_MAX, probe};
use xen_hypercall::types::Gfn;

use crate::disk::{Disk, Faults};
use crate::world::{
    Run, SMALL, catalog, compare, fill, flatten, format_disk, formatted, names, new, open, page, run, take,
};

/// 32 MiB.
const MEDIUM: u64 = 8192;

#[test]
fn a_snapshot_comes_back_as_it_was_taken() {
    let disk = formatted(MEDIUM);
    let runs = [run(0, 700, 1), run(100, 50, 2), Run::from([(3, None), (105, None), (900, Some(9))])];
    take(&mut open(&disk), "web01@one", &runs).unwrap();
    let mut catalog = Catalog::open(disk.clone()).map_err(|failed| failed.error).unwrap();
    compare(&mut catalog, "web01@one", &flatten(&runs)).unwrap();
    let listed = catalog.list().unwrap();
    let info = listed[0].snapshot.clone().unwrap();
    assert_eq!((info.runs, info.rounds, info.mode.as_str(), info.max_gfn), (1, 3, "live", Gfn::new(0xffff)));
    assert_eq!(info.attachments, [(AttachmentKind::CONFIG_JSON, 2)]);
    assert_eq!((info.sealed_unix, info.created_unix, info.guest_uuid), (2, 1_700_000_001, [7; 16]));
    assert!(disk.0.borrow().largest_write <= 1 << 20);
}

#[test]
fn thirty_rounds_become_one_run_and_superseded_segments_are_free_again() {
    let disk = formatted(4 * MEDIUM);
    let mut store = open(&disk);
    let free = store.info().free_segments.unwrap();
    let runs: Vec<Run> = (0..30).map(|round| run(0, 500, round + 1)).collect();
    take(&mut store, "web01@live", &runs).unwrap();
    // 400 pages with data: two segments, and what shares a segment with the last indexes.
    let used = free - store.info().free_segments.unwrap();
    assert!(used <= 5, "{used} segments for one round's pages");
    drop(store);
    let mut catalog = Catalog::open(disk.clone()).map_err(|failed| failed.error).unwrap();
    assert_eq!(catalog.list().unwrap()[0].snapshot.as_ref().unwrap().runs, 1);
    compare(&mut catalog, "web01@live", &flatten(&runs)).unwrap();
    assert_eq!(open(&disk).info().free_segments, Some(free - used), "as a new mark and sweep finds it");
}

#[test]
fn a_page_of_zeros_takes_no_room_whoever_looked_for_zeros() {
    let sealed = [false, true].map(|looked| {
        let disk = formatted(MEDIUM);
        let mut store = open(&disk);
        let mut taking = store.begin(&new("a@b", 0)).unwrap();
        taking.run_begin().unwrap();
        for gfn in (0..1000).map(Gfn::new) {
            if looked { taking.zero(gfn) } else { taking.page(gfn, &page(0)) }.unwrap();
        }
        taking.run_end().unwrap();
        taking.seal(&SealInfo::default()).unwrap()
    });
    assert_eq!((sealed[0].data_pages, sealed[0].zero_pages), (0, 1000));
    assert_eq!(sealed[0], sealed[1], "the same snapshot, to the last byte written");
}

#[test]
fn rounds_have_a_bound() {
    let disk = formatted(SMALL);
    let mut store = open(&disk);
    let mut taking = store.begin(&new("a@b", 0)).unwrap();
    for gfn in 0..TAKE_RUNS_MAX as u64 {
        taking.run_begin().unwrap();
        taking.zero(Gfn::new(gfn)).unwrap();
        taking.run_end().unwrap();
    }
    assert!(matches!(taking.run_begin(), Err(StoreError::TooLong { .. })));
    taking.seal(&SealInfo::default()).unwrap();
}

#[test]
fn removing_gives_all_space_back_and_others_stay() {
    let disk = formatted(MEDIUM);
    let mut store = open(&disk);
    let free = store.info().free_segments;
    take(&mut store, "a@1", &[run(0, 300, 1)]).unwrap();
    take(&mut store, "a@2", &[run(0, 300, 2)]).unwrap();
    store.remove("a@1").unwrap();
    assert_eq!(store.remove("a@1"), Err(StoreError::NotFound));
    take(&mut store, "a@3", &[run(0, 300, 3)]).unwrap();
    let mut reader = catalog(MEDIUM, &disk.image()).unwrap();
    assert_eq!(names(&mut reader), ["a@2", "a@3"]);
    compare(&mut reader, "a@2", &flatten(&[run(0, 300, 2)])).unwrap();
    compare(&mut reader, "a@3", &flatten(&[run(0, 300, 3)])).unwrap();
    store.remove("a@2").unwrap();
    store.remove("a@3").unwrap();
    assert_eq!(store.info().free_segments, free);
}

#[test]
fn an_aborted_take_leaves_nothing() {
    let disk = formatted(MEDIUM);
    let mut store = open(&disk);
    let free = store.info().free_segments;
    let mut taking = store.begin(&new("a@1", 0)).unwrap();
    fill(&mut taking, &[run(0, 600, 1)]).unwrap();
    taking.sync().unwrap();
    assert!(taking.bytes_written() >= 480 * 4096);
    taking.abort();
    assert_eq!(store.info().free_segments, free);
    assert!(names(&mut catalog(MEDIUM, &disk.image()).unwrap()).is_empty());
    take(&mut store, "a@1", &[run(0, 10, 1)]).unwrap();
}

#[test]
fn a_full_store_says_so_and_still_deletes() {
    let disk = formatted(SMALL);
    let mut store = open(&disk);
    take(&mut store, "a@1", &[run(0, 100, 1)]).unwrap();
    let mut taking = store.begin(&new("a@2", 0)).unwrap();
    taking.run_begin().unwrap();
    let error = (0..2000).find_map(|gfn| taking.page(Gfn::new(gfn), &page(gfn + 1)).err());
    assert!(matches!(error, Some(StoreError::Full { available: 0, .. })), "{error:?}");
    drop(taking);
    let wanted = store.begin(&new("a@2", 64 << 20)).err();
    assert!(matches!(wanted, Some(StoreError::Full { wanted, available }) if wanted > 64 << 20 && available < 4 << 20));
    let mut count = 1;
    while take(&mut store, &format!("b@{count}"), &[run(0, 10, 7)]).is_ok() {
        count += 1;
    }
    assert!(count > 1);
    store.remove("a@1").unwrap();
    take(&mut store, "a@3", &[run(0, 10, 8)]).unwrap();
    assert!(!store.poisoned());
}

#[test]
fn names_are_legal_and_unique() {
    let disk = formatted(SMALL);
    let mut store = open(&disk);
    take(&mut store, "a@1", &[run(0, 3, 1)]).unwrap();
    assert_eq!(store.begin(&new("a@1", 0)).err(), Some(StoreError::NameTaken));
    for bad in ["", "a", "@", "a@", "a@b@c", "a/b@c", "a b@c"] {
        assert!(matches!(store.begin(&new(bad, 0)).err(), Some(StoreError::BadName(_))), "{bad}");
    }
}

#[test]
fn calls_in_the_wrong_order_are_refused() {
    let disk = formatted(SMALL);
    let mut store = open(&disk);
    let mut taking = store.begin(&new("a@1", 0)).unwrap();
    let misuse = |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::Misuse { .. })));
    misuse(taking.page(Gfn::new(1), &page(1)));
    misuse(taking.run_end());
    taking.run_begin().unwrap();
    misuse(taking.run_begin());
    taking.page(Gfn::new(5), &page(1)).unwrap();
    assert_eq!(taking.page(Gfn::new(5), &page(1)), Err(StoreError::OutOfOrder { gfn: Gfn::new(5) }));
    assert_eq!(taking.zero(Gfn::new(4)), Err(StoreError::OutOfOrder { gfn: Gfn::new(4) }));
    let beyond = Gfn::new(1 << 40);
    assert_eq!(taking.zero(beyond), Err(StoreError::OutOfOrder { gfn: beyond }));
    taking.attach(AttachmentKind::STATS, b"x").unwrap();
    misuse(taking.attach(AttachmentKind::STATS, b"y"));
    misuse(taking.seal(&SealInfo::default()).map(|_| ()));
    assert!(names(&mut catalog(SMALL, &disk.image()).unwrap()).is_empty());
}

#[test]
fn large_attachments_are_cut_and_joined() {
    let disk = formatted(MEDIUM);
    let mut store = open(&disk);
    let large: Vec<u8> = (0..700_001u32).map(|byte| byte as u8).collect();
    let mut taking = store.begin(&new("a@1", 0)).unwrap();
    taking.attach(AttachmentKind::PLATFORM_RECORDS, &large).unwrap();
    taking.seal(&SealInfo::default()).unwrap();
    let mut reader = store.snapshot("a@1").unwrap();
    assert_eq!(reader.attachment(AttachmentKind::PLATFORM_RECORDS), Ok(Some(large)));
    assert_eq!(reader.attachment(AttachmentKind::STATS), Ok(None));
    assert_eq!(reader.info().attachments, [(AttachmentKind::PLATFORM_RECORDS, 700_001)]);
}

#[test]
fn each_refusal_to_open_has_its_own_name() {
    let error = |disk: &Disk| {
        let before = disk.image();
        let refused = Store::open(disk.clone()).map_err(|failed| failed.error).err();
        assert!(refused.is_none() || disk.image() == before, "{refused:?}: something was written");
        refused
    };
    let mut blank = Disk::new(SMALL);
    assert_eq!((error(&blank), probe(&mut blank)), (Some(StoreError::NotFormatted), Ok(Probe::Blank)));
    assert!(matches!(error(&Disk::new(1)), Some(StoreError::TooSmall { blocks: 1, need: SMALL })));
    let mut foreign = Disk::new(SMALL);
    snapshot::ports::BlockDevice::write(&mut foreign, snapshot::ports::BlockIdx(0), &page(1)).unwrap();
    assert_eq!((error(&foreign), probe(&mut foreign)), (Some(StoreError::Foreign), Ok(Probe::Foreign)));
    let mut hidden = Disk::new(SMALL);
    snapshot::ports::BlockDevice::write(&mut hidden, snapshot::ports::BlockIdx(16), &page(1)).unwrap();
    assert_eq!(probe(&mut hidden), Ok(Probe::Foreign), "a signature at 64 KiB");

    let good = formatted(SMALL + 300);
    assert!(matches!(probe(&mut good.clone()), Ok(Probe::LiveSave { .. })));
    let mut shrunk = Disk::with(SMALL, good.image());
    assert_eq!(error(&shrunk), Some(StoreError::Shrunk { blocks: SMALL, formatted: SMALL + 300 }));
    assert_eq!(probe(&mut shrunk), Ok(Probe::DamagedLiveSave));
    assert_eq!(error(&Disk::with(SMALL + 900, good.image())), None, "a device that grew");
    let locked = formatted(SMALL);
    locked.0.borrow_mut().read_only = true;
    assert_eq!(error(&locked), Some(StoreError::ReadOnly));
    assert!(Catalog::open(locked).is_ok());
    let mut overwritten = formatted(SMALL);
    snapshot::ports::BlockDevice::write(&mut overwritten, snapshot::ports::BlockIdx(0), &page(1)).unwrap();
    assert_eq!(error(&overwritten), Some(StoreError::Foreign), "somebody else wrote to the front");
    assert!(catalog(SMALL, &overwritten.image()).is_ok(), "but reading what is left is fine");
}

#[test]
fn an_error_of_the_device_poisons_until_it_is_opened_again() {
    let disk = formatted(SMALL);
    let mut store = open(&disk);
    take(&mut store, "a@1", &[run(0, 10, 1)]).unwrap();
    disk.plan(Faults { fail_at: Some(0), ..Faults::default() });
    let failed = take(&mut store, "a@2", &[run(0, 10, 1)]);
    assert!(matches!(failed, Err(StoreError::Io(IoError::Failed { .. }))), "{failed:?}");
    assert_eq!(take(&mut store, "a@3", &[run(0, 10, 1)]), Err(StoreError::Poisoned));
    assert_eq!(store.remove("a@1"), Err(StoreError::Poisoned));
    assert!(store.poisoned());
    drop(store);
    take(&mut open(&disk), "a@2", &[run(0, 10, 1)]).unwrap();
}

#[test]
fn a_heartbeat_is_seen_by_others() {
    let disk = formatted(SMALL);
    let mut store = open(&disk);
    assert_eq!(store.heartbeat(), Ok(None));
    store.beat([9; 16], 5).unwrap();
    store.beat([9; 16], 6).unwrap();
    let beat = catalog(SMALL, &disk.image()).unwrap().heartbeat().unwrap().unwrap();
    assert_eq!((beat.writer, beat.sequence, beat.unix, beat.in_use), ([9; 16], 2, 6, true));
}

#[test]
fn a_reader_follows_the_writer() {
    let disk = formatted(SMALL);
    let mut reader = Catalog::open(disk.clone()).map_err(|failed| failed.error).unwrap();
    let mut store = open(&disk);
    let before = reader.info().generation;
    take(&mut store, "a@1", &[run(0, 10, 1)]).unwrap();
    assert!(names(&mut reader).is_empty());
    assert_eq!(reader.refresh(), Ok(true));
    assert_eq!(names(&mut reader), ["a@1"]);
    assert_eq!(reader.info().generation.0, before.0 + 1);
    assert_eq!(reader.refresh(), Ok(false));
    format_disk(&mut disk.clone(), 2);
    assert_eq!(reader.refresh(), Ok(true), "another store took its place");
}

/// What a reader reads is removed and written over while it reads: it notices, and never hands out a wrong page.
#[test]
fn space_that_is_used_again_under_a_reader_is_noticed() {
    let disk = formatted(SMALL + 512);
    let mut store = open(&disk);
    let expected = run(0, 700, 1);
    take(&mut store, "a@1", std::slice::from_ref(&expected)).unwrap();
    let mut reader = Catalog::open(disk.clone()).map_err(|failed| failed.error).unwrap();
    let mut snapshot = reader.snapshot("a@1").unwrap();
    let mut pages = snapshot.pages().unwrap();
    assert!(pages.next_page().unwrap().is_some());
    store.remove("a@1").unwrap();
    for number in 0..3 {
        take(&mut store, &format!("b@{number}"), &[run(0, 700, 2)]).unwrap();
        store.remove(&format!("b@{number}")).unwrap();
    }
    let mut damaged = 0;
    loop {
        match pages.next_page() {
            Ok(Some((gfn, found))) => assert_eq!(*found.bytes(), page(expected[&gfn.raw()].unwrap())),
            Ok(None) => break,
            Err(StoreError::DamagedPage { .. }) => damaged += 1,
            Err(_) => {
                damaged += 1;
                break;
            }
        }
    }
    assert!(damaged > 0);
    assert_eq!(reader.refresh(), Ok(true));
    assert_eq!(reader.snapshot("a@1").err(), Some(StoreError::NotFound), "a new look explains it");
}
