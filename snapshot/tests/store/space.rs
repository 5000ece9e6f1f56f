//! Space: what the cleaner frees, what a full store can still do, and what readers hold.

use snapshot::store::{
    Catalog, Cleaned, Compression, Generation, LEASE_PATIENCE_NS, Lease, NewSnapshot, SealInfo, Store, StoreError,
    StoreId,
};

use crate::disk::{Disk, Rng};
use crate::world::{Expected, Run, SMALL, compare, fill, flatten, formatted, names, new, open, packed_run, run, take};

/// 64 MiB.
const LARGE: u64 = 16_384;
const ID: StoreId = StoreId([1; 16]);

/// Cleans until there is nothing to gain; returns the segments freed.
pub fn clean(store: &mut Store<Disk>) -> u32 {
    let mut freed = 0;
    for _ in 0..10_000 {
        match store.clean_step().unwrap() {
            Cleaned::Nothing => return freed,
            Cleaned::Working => {}
            Cleaned::Freed { segments, .. } => freed += segments,
        }
    }
    panic!("the cleaner does not come to an end");
}

fn reader(disk: &Disk) -> Catalog<Disk> {
    Catalog::open(disk.clone()).map_err(|failed| failed.error).unwrap()
}

/// Rounds over the same pages, each of which supersedes some of the rounds before.
pub fn rounds(pages: u64, rounds: u64, salt: u64) -> Vec<Run> {
    let mut rng = Rng(salt);
    let mut all = vec![run(0, pages, salt)];
    for round in 1..rounds {
        let one = (0..pages).filter(|_| rng.below(2) == 0);
        all.push(one.map(|gfn| (gfn, Some(salt * 7_000_000 + round * 100_000 + gfn))).collect());
    }
    all
}

#[test]
fn superseded_pages_are_given_back_and_the_snapshot_stays_what_it_was() {
    let disk = formatted(LARGE);
    let mut store = open(&disk);
    let runs = rounds(3000, 4, 1);
    take(&mut store, "a@1", &runs).unwrap();
    let before = (store.info().free_segments.unwrap(), store.list().unwrap()[0].snapshot.clone().unwrap());
    let freed = clean(&mut store);
    let after = (store.info().free_segments.unwrap(), store.list().unwrap()[0].snapshot.clone().unwrap());
    assert!(freed >= 10, "{freed}");
    assert!(after.0 > before.0);
    assert_eq!(after.1, before.1, "root digest and all else");
    let live = flatten(&runs).len() as u64 * 4096;
    let used = u64::from(store.info().segments - after.0) << 20;
    assert!(used * 10 <= live * 13, "{used} used for {live}");
    let mut reader = reader(&disk);
    compare(&mut reader, "a@1", &flatten(&runs)).unwrap();
    let report = reader.check(true, &mut |_, _| {}).unwrap();
    assert!(report.is_clean() && report.stale == 0, "{report:?}");
    assert_eq!(open(&disk).info().free_segments, Some(after.0), "as a new mark and sweep finds it");
    assert_eq!(clean(&mut open(&disk)), 0, "and there is nothing more to gain");
}

#[test]
fn what_is_dense_is_left_alone() {
    let disk = formatted(LARGE);
    let mut store = open(&disk);
    take(&mut store, "a@1", &[packed_run(0, 4000, 1)]).unwrap();
    take(&mut store, "a@2", &[run(0, 2000, 1)]).unwrap();
    let generation = store.info().generation;
    assert_eq!((clean(&mut store), store.info().generation), (0, generation));
}

#[test]
fn a_request_throws_half_a_cleaning_away() {
    let disk = formatted(LARGE);
    let mut store = open(&disk);
    let runs = rounds(2000, 4, 1);
    take(&mut store, "a@1", &runs).unwrap();
    let free = store.info().free_segments;
    for steps in 1..12 {
        let generation = store.info().generation;
        (0..steps).for_each(|_| assert_ne!(store.clean_step(), Ok(Cleaned::Nothing)));
        store.stop_cleaning();
        if store.info().generation != generation {
            // It came to its end.
            assert!(steps > 3);
            break;
        }
        assert_eq!(store.info().free_segments, free, "{steps} steps");
        take(&mut store, "b@1", &[run(0, 10, 9)]).unwrap();
        store.remove("b@1").unwrap();
        assert_eq!(store.info().free_segments, free, "after {steps} steps");
    }
    clean(&mut store);
    compare(&mut reader(&disk), "a@1", &flatten(&runs)).unwrap();
}

#[test]
fn a_full_store_can_be_cleaned() {
    let disk = formatted(LARGE);
    let mut store = open(&disk);
    let mut expected = Expected::new();
    for number in 0..9 {
        let (name, runs) = (format!("a@{number}"), rounds(900, 4, number + 1));
        if take(&mut store, &name, &runs).is_ok() {
            expected.insert(name, flatten(&runs));
        }
    }
    assert!(expected.len() > 2 && expected.len() < 9, "full");
    assert!(clean(&mut store) > 5);
    let count = expected.len();
    for number in 10..19 {
        let (name, runs) = (format!("a@{number}"), rounds(900, 4, number + 1));
        if take(&mut store, &name, &runs).is_ok() {
            expected.insert(name, flatten(&runs));
        }
        clean(&mut store);
    }
    assert!(expected.len() > count, "what was cleaned is used");
    let mut reader = reader(&disk);
    expected.iter().for_each(|(name, pages)| compare(&mut reader, name, pages).unwrap());
}

/// Keeps the last 7 of 100 takes with rounds: the store stays near the live data.
#[test]
fn after_a_hundred_takes_the_store_is_near_the_live_data() {
    let disk = formatted(2 * LARGE);
    let mut store = open(&disk);
    let mut expected = Expected::new();
    for number in 0..100u64 {
        let name = format!("a@{number:03}");
        let mut runs = vec![packed_run(0, 4000, number + 1)];
        runs.push(
            (0..4000).filter(|gfn| gfn % 8 == number % 8).map(|gfn| (gfn, Some(number << 20 | (gfn + 1)))).collect(),
        );
        take(&mut store, &name, &runs).unwrap();
        expected.insert(name, flatten(&runs));
        if expected.len() > 7 {
            let oldest = expected.pop_first().unwrap().0;
            store.remove(&oldest).unwrap();
        }
        clean(&mut store);
    }
    let info = store.info();
    let used = u64::from(info.segments - info.free_segments.unwrap()) << 20;
    let live: u64 = store.list().unwrap().iter().map(|one| one.snapshot.as_ref().unwrap().stored_bytes).sum();
    println!("{used} bytes used for {live} live ones");
    assert!(used * 10 <= live * 13, "{used} for {live}");
    let mut reader = reader(&disk);
    expected.iter().for_each(|(name, pages)| compare(&mut reader, name, pages).unwrap());
}

pub fn lease(generation: Generation, sequence: u64, in_use: bool) -> Lease {
    Lease { reader: [8; 16], generation, sequence, unix: 5, in_use }
}

pub fn put(disk: &Disk, lease: &Lease) {
    lease.write(&mut disk.clone(), ID, 1).unwrap();
}

#[test]
fn what_a_reader_reads_is_not_used_again_before_it_ends() {
    for ending in 0..3 {
        let disk = formatted(SMALL + 512);
        let mut store = open(&disk);
        store.set_now(1);
        let pages = run(0, 500, 1);
        take(&mut store, "a@1", std::slice::from_ref(&pages)).unwrap();
        let mut catalog = reader(&disk);
        put(&disk, &lease(catalog.info().generation, 1, true));
        assert_eq!(catalog.refresh(), Ok(false));
        let before = store.info().free_segments.unwrap();
        store.remove("a@1").unwrap();
        assert_eq!(store.info().free_segments, Some(before), "held");
        assert!(store.waiting_segments() >= 2);
        for number in 0..4 {
            // Full or not: what is read stays.
            let _ = take(&mut store, &format!("b@{number}"), &[run(0, 300, 7)]);
            let _ = store.remove(&format!("b@{number}"));
        }
        compare(&mut catalog, "a@1", &flatten(std::slice::from_ref(&pages))).unwrap();
        match ending {
            0 => put(&disk, &lease(catalog.info().generation, 1, false)),
            1 => put(&disk, &lease(store.info().generation, 2, true)),
            _ => {
                store.set_now(LEASE_PATIENCE_NS);
                assert_eq!(store.reclaim(), Ok(0), "not yet");
                store.set_now(2 + LEASE_PATIENCE_NS);
            }
        }
        assert!(store.reclaim().unwrap() >= 2, "ending {ending}");
        assert_eq!((store.info().free_segments, store.waiting_segments()), (Some(store.info().segments), 0));
    }
}

#[test]
fn a_lease_that_is_renewed_lives_on() {
    let disk = formatted(SMALL + 512);
    let mut store = open(&disk);
    store.set_now(1);
    take(&mut store, "a@1", &[run(0, 300, 1)]).unwrap();
    let generation = store.info().generation;
    put(&disk, &lease(generation, 1, true));
    store.remove("a@1").unwrap();
    for renewal in 2..6 {
        put(&disk, &lease(generation, renewal, true));
        store.set_now(renewal * (LEASE_PATIENCE_NS - 1));
        assert_eq!(store.reclaim(), Ok(0));
    }
    // Of another store, or torn: no lease.
    lease(generation, 9, true).write(&mut disk.clone(), StoreId([9; 16]), 1).unwrap();
    assert!(store.reclaim().unwrap() > 0);
}

#[test]
fn the_cleaner_leaves_what_a_reader_reads() {
    let disk = formatted(LARGE);
    let mut store = open(&disk);
    store.set_now(1);
    let runs = rounds(2000, 4, 1);
    take(&mut store, "a@1", &runs).unwrap();
    let mut catalog = reader(&disk);
    put(&disk, &lease(catalog.info().generation, 1, true));
    let freed = clean(&mut store);
    assert!(freed > 0 && store.waiting_segments() == freed);
    for number in 0..3 {
        let _ = take(&mut store, &format!("b@{number}"), &[run(0, 2000, 3 + number)]);
    }
    // The old generation, and the new one.
    compare(&mut catalog, "a@1", &flatten(&runs)).unwrap();
    assert_eq!(catalog.refresh(), Ok(true));
    compare(&mut catalog, "a@1", &flatten(&runs)).unwrap();
}

#[test]
fn a_writer_that_comes_after_a_reader_waits_for_it() {
    let disk = formatted(SMALL + 512);
    let mut store = open(&disk);
    take(&mut store, "a@1", &[run(0, 300, 1)]).unwrap();
    let generation = store.info().generation;
    let mut catalog = reader(&disk);
    put(&disk, &lease(generation, 1, true));
    store.remove("a@1").unwrap();
    drop(store);
    let mut store = open(&disk);
    store.set_now(1_000 * LEASE_PATIENCE_NS);
    assert_eq!(store.begin(&new("b@1", 0)).err(), Some(StoreError::HeldByReaders));
    assert_eq!(store.clean_step(), Ok(Cleaned::Nothing));
    compare(&mut catalog, "a@1", &flatten(&[run(0, 300, 1)])).unwrap();
    store.set_now(1_001 * LEASE_PATIENCE_NS + 1);
    take(&mut store, "b@1", &[run(0, 300, 1)]).unwrap();
    drop(store);
    // A reader of the newest generation is in nobody's way.
    let mut store = open(&disk);
    put(&disk, &lease(store.info().generation, 2, true));
    drop(store);
    store = open(&disk);
    take(&mut store, "b@2", &[run(0, 30, 1)]).unwrap();
}

#[test]
fn the_root_digest_is_of_the_content_not_of_its_place() {
    let digest = |compression, runs: &[Run]| {
        let disk = formatted(LARGE);
        let mut store = open(&disk);
        let mut taking = store.begin(&NewSnapshot { compression, ..new("a@1", 0) }).unwrap();
        fill(&mut taking, runs).unwrap();
        let sealed = taking.seal(&SealInfo::default()).unwrap().root_digest;
        let mut reader = store.snapshot("a@1").unwrap();
        assert_eq!(reader.info().root_digest, sealed);
        assert_eq!(reader.verify(&mut |_, _| {}).unwrap().root_digest, Some(sealed), "computed afresh");
        sealed
    };
    let runs = [packed_run(0, 300, 1), run(40, 60, 2)];
    let mut whole = Run::new();
    runs.iter().for_each(|run| whole.extend(run));
    let (packed, raw) = (digest(Compression::Lz4, &runs), digest(Compression::None, &[whole.clone()]));
    assert_eq!(packed, raw);
    for change in [Some(77), Some(0), None] {
        let mut other = whole.clone();
        other.insert(41, change);
        assert_ne!(digest(Compression::None, &[other]), raw, "{change:?}");
    }
}

#[test]
fn names_survive_the_cleaner() {
    let disk = formatted(LARGE);
    let mut store = open(&disk);
    take(&mut store, "a@1", &rounds(1500, 3, 1)).unwrap();
    take(&mut store, "a@2", &rounds(1500, 3, 2)).unwrap();
    clean(&mut store);
    assert_eq!(names(&mut reader(&disk)), ["a@1", "a@2"]);
    store.remove("a@1").unwrap();
    store.remove("a@2").unwrap();
    assert_eq!(store.info().free_segments, Some(store.info().segments));
}

#[test]
fn a_store_lists_so_many_snapshots_and_refuses_the_next_before_it_writes() {
    const MOST: u64 = 2048;
    let disk = formatted((MOST + 100) * 256);
    let mut store = open(&disk);
    let one = [run(0, 1, 1)];
    (0..MOST).for_each(|n| take(&mut store, &format!("a@{n}"), &one).unwrap());
    let (before, generation) = (disk.image(), store.info().generation);
    let refused = take(&mut store, "a@more", &one);
    assert!(matches!(refused, Err(StoreError::TooManySnapshots { limit: MOST })), "{refused:?}");
    assert!(disk.image() == before && store.info().generation == generation, "nothing was written");
    assert_eq!(reader(&disk).list().unwrap().len() as u64, MOST);
    store.remove("a@7").unwrap();
    take(&mut store, "a@more", &one).unwrap();
    compare(&mut reader(&disk), "a@more", &flatten(&one)).unwrap();
}
