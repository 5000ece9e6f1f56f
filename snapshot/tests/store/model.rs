//! The store against a model: maps. Random takes, rounds, aborts, removals and restarts.

use proptest::prelude::*;
use snapshot::store::{Catalog, StoreError};

use crate::disk::Disk;
use crate::world::{Expected, PACKS, Run, compare, fill, flatten, formatted, names, new, open, take};

/// 12 MiB: full now and then.
const BLOCKS: u64 = 3072;

#[derive(Clone, Debug)]
enum Step {
    Take(u8, Vec<Run>),
    Abort(Vec<Run>),
    Remove(u8),
    Clean,
    Restart,
}

/// Ranges and points, sparse and dense, near each other so that rounds overlap.
fn any_run() -> impl Strategy<Value = Run> {
    let packs = (PACKS..PACKS + 9).prop_map(Some);
    let content = prop_oneof![2 => (1..50u64).prop_map(Some), 2 => packs, 2 => Just(Some(0)), 1 => Just(None)];
    let point = (0..60u64, content.clone(), 1..12u64);
    prop::collection::vec(point, 0..12).prop_map(|points| {
        let spread = points.into_iter().flat_map(|(from, content, count)| {
            let far = if from > 55 { (from - 55) << 30 } else { 0 };
            (from..from + count).map(move |gfn| (far + gfn, content))
        });
        spread.collect()
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let runs = || prop::collection::vec(any_run(), 0..5);
    prop_oneof![
        5 => (0..6u8, runs()).prop_map(|(name, runs)| Step::Take(name, runs)),
        1 => runs().prop_map(Step::Abort),
        2 => (0..6u8).prop_map(Step::Remove),
        1 => Just(Step::Clean),
        1 => Just(Step::Restart),
    ]
}

fn check(disk: &Disk, expected: &Expected) {
    let mut catalog = Catalog::open(disk.clone()).map_err(|failed| failed.error).unwrap();
    let mut found = names(&mut catalog);
    found.sort();
    assert!(found.iter().eq(expected.keys()), "{found:?}");
    expected.iter().for_each(|(name, pages)| compare(&mut catalog, name, pages).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_maps_do(steps in prop::collection::vec(any_step(), 1..14)) {
        let disk = formatted(BLOCKS);
        let mut store = open(&disk);
        let mut expected = Expected::new();
        for step in steps {
            match step {
                Step::Take(name, runs) => {
                    let name = format!("g@{name}");
                    match take(&mut store, &name, &runs) {
                        Ok(()) => assert!(expected.insert(name, flatten(&runs)).is_none()),
                        Err(StoreError::NameTaken) => assert!(expected.contains_key(&name)),
                        Err(StoreError::Full { .. }) => assert!(!expected.is_empty(), "an empty store is never full"),
                        Err(error) => panic!("{error}"),
                    }
                }
                Step::Abort(runs) => {
                    if let Ok(mut taking) = store.begin(&new("gone@1", 0)) {
                        let _ = fill(&mut taking, &runs);
                    }
                }
                Step::Remove(name) => {
                    let name = format!("g@{name}");
                    let removed = store.remove(&name);
                    assert_eq!(removed.is_ok(), expected.remove(&name).is_some(), "{removed:?}");
                }
                Step::Clean => _ = crate::space::clean(&mut store),
                Step::Restart => {
                    let free = store.info().free_segments;
                    store = open(&disk);
                    assert_eq!(store.info().free_segments, free, "mark and sweep finds what was known");
                }
            }
            check(&disk, &expected);
        }
    }
}

/// More entries than a leaf, and than a node, holds; zero ranges and holes between them.
#[test]
fn an_index_of_three_levels() {
    let disk = formatted(262_144);
    let mut store = open(&disk);
    // Alternating zero pages and holes: two entries for three gfns, without page data.
    let count = 130_000u64;
    let sparse: Run = (0..count).map(|gfn| (gfn, if gfn % 3 == 0 { None } else { Some(0) })).collect();
    take(&mut store, "g@wide", &[sparse.clone(), Run::from([(70_000, Some(5)), (70_001, None)])]).unwrap();
    let mut expected = flatten(&[sparse]);
    expected.insert(70_000, 5);
    expected.remove(&70_001);
    let mut reader = store.snapshot("g@wide").unwrap();
    let report = reader.verify(&mut |_, _| {}).unwrap();
    assert_eq!((report.zero_pages, report.data_pages), (expected.len() as u64 - 1, 1));
    let mut pages = reader.pages().unwrap();
    for gfn in expected.keys() {
        assert_eq!(pages.next_page().unwrap().map(|(found, _)| found.raw()), Some(*gfn));
    }
    assert!(pages.next_page().unwrap().is_none());
}
