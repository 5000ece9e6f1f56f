//! `check` finds nothing in a sound store, and each kind of flaw by its name; it never writes.

use std::collections::BTreeSet;
use std::rc::Rc;

use snapshot::store::layout::{Field, root, run_record, segment_group, segment_set, table_leaf};
use snapshot::store::{CheckReport, Flaw, SegmentId, Slot, StoreError};
use xen_hypercall::types::Gfn;

use crate::disk::{Disk, Image};
use crate::hostile::{Map, resign, sealed};
use crate::world::{SMALL, catalog, formatted, open, run, take};

fn check(image: &Image, pages: bool) -> CheckReport {
    catalog(SMALL, image).unwrap().check(pages, &mut |_, _| {}).unwrap()
}

fn change(image: &Image, map: &Map, block: u64, change: impl Fn(&mut [u8; 4096])) -> Image {
    let mut image = image.clone();
    let mut page = *image[&block];
    change(&mut page);
    image.insert(block, Rc::new(page));
    resign(&mut image, map);
    for front in [map.catalog, map.directory, map.table] {
        image.insert(mirror(front), image[&front].clone());
    }
    image
}

/// The second copy of a block of the meta area, which has 6 blocks here.
fn mirror(front: u64) -> u64 {
    front - 72 + SMALL - 1 - 6
}

fn flaws(image: &Image) -> Vec<Flaw> {
    let report = check(image, true);
    assert_eq!(report.flaws, report.first.len() as u64);
    assert_eq!(report.is_clean(), report.first.is_empty());
    report.first
}

#[test]
fn a_sound_store_has_no_flaw_and_its_segments_are_counted() {
    let disk = formatted(SMALL + 1024);
    let mut store = open(&disk);
    take(&mut store, "a@1", &[run(0, 300, 1)]).unwrap();
    take(&mut store, "a@2", &[run(0, 30, 2), run(10, 30, 3)]).unwrap();
    store.remove("a@1").unwrap();
    let info = store.info();
    drop(store);
    let mut reader = snapshot::store::Catalog::open(disk.clone()).map_err(|failed| failed.error).unwrap();
    let report = reader.check(true, &mut |_, _| {}).unwrap();
    assert!(report.is_clean(), "{:?}", report.first);
    assert_eq!(Some(report.segments - report.reached), info.free_segments);
    assert_eq!((report.snapshots, report.generation), (1, info.generation.0));
    assert_eq!(report.pages, 24 + 8, "each page with data once");
}

#[test]
fn a_segment_that_is_used_and_not_listed() {
    let (image, map) = sealed();
    let none = change(&image, &map, map.set, |page| {
        segment_group::MASK.put(&mut page[segment_set::SIZE..], &0b1000u64.to_le_bytes());
    });
    // Segment 3 is listed instead, which nothing maps: the snapshot cannot be trusted at all.
    assert!(matches!(flaws(&none)[..], [Flaw::Snapshot { snapshot: 1, .. }]));
    let mapped = change(&none, &map, map.table, |page| {
        let third = Field { name: "", offset: table_leaf::SIZE + 12, size: 4 };
        third.put(page, &4u32.to_le_bytes());
    });
    assert_eq!(flaws(&mapped), [Flaw::Unlisted { snapshot: 1, segment: SegmentId(0) }]);
}

#[test]
fn a_segment_that_is_mapped_and_not_reached() {
    let (image, map) = sealed();
    let leaked = change(&image, &map, map.table, |page| {
        let third = Field { name: "", offset: table_leaf::SIZE + 12, size: 4 };
        third.put(page, &4u32.to_le_bytes());
    });
    let report = check(&leaked, true);
    assert!(report.is_clean() && report.stale == 1, "harmless: whoever opens it for writing takes it for free");
}

#[test]
fn a_segment_that_is_reached_twice() {
    let (image, map) = sealed();
    let listed = change(&image, &map, map.set, |page| {
        segment_group::MASK.put(&mut page[segment_set::SIZE..], &0b11u64.to_le_bytes());
    });
    let shared = change(&listed, &map, map.table, |page| {
        page.copy_within(table_leaf::SIZE..table_leaf::SIZE + 4, table_leaf::SIZE + 4);
    });
    assert!(matches!(flaws(&shared)[..], [Flaw::Shared { segment: SegmentId(1), .. }]));
}

#[test]
fn counts_that_do_not_hold() {
    let (image, map) = sealed();
    for field in [run_record::ENTRIES, run_record::DATA_PAGES, run_record::ZERO_PAGES] {
        let at = Field { offset: root::SIZE + field.offset, ..field };
        let wrong = change(&image, &map, map.root, |page| at.put(page, &7u64.to_le_bytes()));
        assert!(flaws(&wrong).contains(&Flaw::Counts { snapshot: 1 }), "{}", field.name);
    }
    let wrong = change(&image, &map, map.root, |page| root::DATA_PAGES.put(page, &7u64.to_le_bytes()));
    assert!(flaws(&wrong).contains(&Flaw::Counts { snapshot: 1 }));
}

#[test]
fn one_copy_that_is_left_of_two() {
    let (image, map) = sealed();
    for block in [map.catalog, map.directory, map.table] {
        for at in [block, mirror(block)] {
            let mut damaged = image.clone();
            let mut page = *damaged[&at];
            page[100] ^= 1;
            damaged.insert(at, Rc::new(page));
            let found = flaws(&damaged);
            assert!(matches!(found[..], [Flaw::Copy { block, .. }] if block == at), "{at}: {found:?}");
        }
    }
    for (slot, at) in [(Slot::A, 0), (Slot::B, SMALL - 1)] {
        let mut damaged = image.clone();
        let mut page = *damaged[&at];
        page[4000] ^= 1;
        damaged.insert(at, Rc::new(page));
        assert_eq!(flaws(&damaged), [Flaw::Slot(slot)]);
    }
}

/// A commit writes slot A, then slot B; a cut leaves them one generation apart, never more, never the other way round.
#[test]
fn a_commit_that_was_cut_off_between_the_slots_is_no_flaw() {
    let disk = formatted(SMALL);
    let mut store = open(&disk);
    let images = [1, 2, 3].map(|n| {
        if n == 2 {
            store.remove("a@1").unwrap()
        } else {
            take(&mut store, "a@1", &[run(0, 3, n)]).unwrap()
        };
        disk.image()
    });
    let (a, b) = (0, SMALL - 1);
    let behind = |slot: u64, by: usize| {
        let mut image = images[2].clone();
        image.insert(slot, images[2 - by][&slot].clone());
        image
    };
    for (slot, by, unsettled, found) in [
        (b, 0, false, vec![]),
        (b, 1, true, vec![]),
        (b, 2, false, vec![Flaw::Slot(Slot::B)]),
        (a, 1, false, vec![Flaw::Slot(Slot::A)]),
    ] {
        let image = behind(slot, by);
        let report = check(&image, true);
        assert_eq!((report.unsettled, report.first), (unsettled, found), "block {slot}, {by} behind");
        let settled = Disk::with(SMALL, image);
        drop(open(&settled));
        let report = check(&settled.image(), true);
        assert!(report.is_clean() && !report.unsettled, "the next open sets it right: {report:?}");
        assert_eq!(report.snapshots, 1);
    }
}

#[test]
fn damaged_pages_are_named_and_counted_only_when_pages_are_read() {
    let (image, _) = sealed();
    let mut damaged = image.clone();
    for (block, page) in &image {
        if (1..=12).any(|gfn| **page == crate::world::page(1_000_000 + gfn)) {
            let mut page = **page;
            page[5] ^= 1;
            damaged.insert(*block, Rc::new(page));
        }
    }
    assert!(check(&damaged, false).is_clean());
    let report = check(&damaged, true);
    assert_eq!(report.flaws, 10);
    assert!(report.first.iter().all(|flaw| matches!(flaw, Flaw::Page { snapshot: 1, .. })));
}

#[test]
fn of_many_flaws_the_first_are_named_and_all_are_counted() {
    let disk = formatted(4 * SMALL);
    let mut store = open(&disk);
    (1..=5).for_each(|n| take(&mut store, &format!("a@{n}"), &[run(0, 25, n)]).unwrap());
    let mut image = disk.image();
    let contents = (1..=5).flat_map(|n| (1..=25).map(move |gfn| n * 1_000_000 + gfn));
    let pages: Vec<_> = contents.map(crate::world::page).collect();
    image.values_mut().filter(|block| pages.contains(block)).for_each(|block| Rc::make_mut(block)[5] ^= 1);
    let report = catalog(4 * SMALL, &image).unwrap().check(true, &mut |_, _| {}).unwrap();
    // Of each snapshot's twenty a verification names sixteen.
    assert_eq!((report.flaws, report.first.len(), report.is_clean()), (100, 64, false));
}

#[test]
fn each_flaw_says_which_snapshot_it_concerns_and_what_it_is() {
    let (segment, error) = (SegmentId(7), StoreError::NotFound);
    let of_seven = [
        Flaw::Unlisted { snapshot: 7, segment },
        Flaw::Counts { snapshot: 7 },
        Flaw::Page { snapshot: 7, gfn: Gfn::new(3), error },
        Flaw::Snapshot { snapshot: 7, error },
    ];
    let of_none = [Flaw::Slot(Slot::A), Flaw::Copy { what: "catalog", block: 9 }, Flaw::Shared { segment, block: 9 }];
    assert!(of_seven.iter().all(|flaw| flaw.snapshot() == Some(7)));
    assert!(of_none.iter().all(|flaw| flaw.snapshot().is_none()));
    let said: BTreeSet<String> = of_seven[1..].iter().chain(&of_none).map(|flaw| flaw.to_string()).collect();
    assert!(said.len() == 5 && said.iter().all(|text| text.len() > 10), "{said:?}");
}

/// How often a check begins, if something comes to pass each time that it does.
fn attempts(disk: &Disk, mut meanwhile: impl FnMut(u64)) -> u64 {
    let mut reader = snapshot::store::Catalog::open(disk.clone()).map_err(|failed| failed.error).unwrap();
    let (mut attempts, mut last) = (0, (u32::MAX, u64::MAX));
    let mut progress = |(done, _): (u32, u32), (page, _): (u64, u64)| {
        if (done, page) <= last {
            attempts += 1;
            meanwhile(attempts);
        }
        last = (done, page);
    };
    reader.check(true, &mut progress).unwrap();
    attempts
}

/// What a writer did meanwhile may look like a flaw; without one a flaw is one at once.
#[test]
fn a_check_with_flaws_begins_anew_as_long_as_somebody_writes_and_not_for_ever() {
    for (is_flawed, is_busy, expected) in [(false, false, 1), (false, true, 1), (true, false, 1), (true, true, 3)] {
        let disk = formatted(4 * SMALL);
        take(&mut open(&disk), "a@1", &[run(0, 300, 1)]).unwrap();
        let wanted = crate::world::page(1_000_011);
        let at = *disk.0.borrow().view.iter().find(|(_, block)| ***block == wanted).unwrap().0;
        if is_flawed {
            disk.0.borrow_mut().view.insert(at, Rc::new([9; 4096]));
        }
        let writes = |number| {
            if is_busy {
                take(&mut open(&disk), &format!("w@{number}"), &[run(0, 3, number)]).unwrap();
            }
        };
        assert_eq!(attempts(&disk, writes), expected, "flawed: {is_flawed}, busy: {is_busy}");
    }
}
