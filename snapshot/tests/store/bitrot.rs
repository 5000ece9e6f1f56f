//! Damage: every bit of a small store, and blocks that are swapped, stale or unreadable. Never a wrong page.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use snapshot::ports::{BlockDevice, Page};
use snapshot::store::{Catalog, Geometry, Store, StoreError, layout};
use xen_hypercall::types::Gfn;

use crate::disk::{Disk, Faults, Image, Rng};
use crate::world::{Expected, SMALL, catalog, compare, flatten, formatted, names, open, run, take};

/// Bytes at the start and end of a block of which every bit is tried; of the others, one bit in each `STRIDE`.
const DENSE: usize = 144;
const STRIDE: usize = 29;

fn small_store() -> (Image, Expected) {
    let disk = formatted(SMALL + 256);
    let mut store = open(&disk);
    let mut expected = Expected::new();
    for (name, salt) in [("a@1", 1), ("a@2", 2)] {
        take(&mut store, name, &[run(0, 4, salt)]).unwrap();
        expected.insert(name.into(), flatten(&[run(0, 4, salt)]));
    }
    (disk.image(), expected)
}

/// Blocks whose loss costs nothing: the meta areas and the slots (two copies of each), and what nothing reaches.
fn redundant(block: u64, blocks: u64) -> bool {
    let geometry = Geometry::of(blocks).unwrap();
    let first = u64::from(geometry.first_segment) * layout::SEGMENT_BLOCKS;
    let end = first + u64::from(geometry.segments) * layout::SEGMENT_BLOCKS;
    !(first..end).contains(&block)
}

/// What reading an image yields: names of the snapshots that are whole. A wrong page panics.
fn readable(image: &Image, expected: &Expected) -> Result<BTreeSet<String>, StoreError> {
    let mut catalog = catalog(SMALL + 256, image)?;
    assert_eq!(names(&mut catalog), ["a@1", "a@2"]);
    let whole = expected.iter().filter(|(name, pages)| compare(&mut catalog, name, pages).is_ok());
    Ok(whole.map(|(name, _)| name.clone()).collect())
}

fn flipped(image: &Image, block: u64, bit: usize) -> Image {
    let mut image = image.clone();
    let mut page: Page = *image[&block];
    page[bit / 8] ^= 1 << (bit % 8);
    image.insert(block, Rc::new(page));
    image
}

/// All bits where a structure may lie, some in the rest; all with `LIVESAVE_EVERY_BIT` set.
fn bits() -> impl Iterator<Item = usize> {
    let every = std::env::var_os("LIVESAVE_EVERY_BIT").is_some();
    (0..4096 * 8).filter(move |bit| {
        let byte = bit / 8;
        every || !(DENSE..4096 - 16).contains(&byte) || (byte % STRIDE == 0 && bit % 8 == byte / STRIDE % 8)
    })
}

#[test]
fn every_flipped_bit_is_harmless_or_noticed() {
    let (image, expected) = small_store();
    let whole: BTreeSet<String> = expected.keys().cloned().collect();
    let (mut tried, mut noticed) = (0, BTreeMap::<u64, usize>::new());
    for block in image.keys().copied() {
        for bit in bits() {
            let found = readable(&flipped(&image, block, bit), &expected);
            tried += 1;
            if redundant(block, SMALL + 256) {
                assert_eq!(found.as_ref(), Ok(&whole), "block {block}, bit {bit}: has a second copy");
                continue;
            }
            let found = found.unwrap_or_else(|error| panic!("block {block}, bit {bit}: lost the store: {error}"));
            // A block of a segment belongs to one snapshot, or to none.
            assert!(found.len() >= whole.len() - 1, "block {block}, bit {bit}: damaged both");
            *noticed.entry(block).or_default() += usize::from(found != whole);
        }
    }
    let per_block = tried / image.len();
    println!("{tried} flips in {} blocks", image.len());
    assert!(
        noticed.values().all(|count| *count == 0 || *count == per_block),
        "a flip that is not noticed: {noticed:?}"
    );
    // Of each snapshot: three pages, index, set of segments, attachment, root.
    assert_eq!(noticed.values().filter(|count| **count == per_block).count(), 2 * 7, "{noticed:?}");
}

#[test]
fn swapped_and_stale_blocks_are_noticed() {
    let (image, expected) = small_store();
    let blocks: Vec<u64> = image.keys().copied().collect();
    let mut rng = Rng(1);
    let mut damaged = 0;
    for from in &blocks {
        for to in &blocks {
            let mut moved = image.clone();
            moved.insert(*to, image[from].clone());
            if rng.below(2) == 0 {
                moved.insert(*from, image[to].clone());
            }
            match readable(&moved, &expected) {
                Ok(found) => damaged += usize::from(found.len() < 2),
                Err(_) => damaged += 1,
            }
        }
    }
    assert!(damaged > blocks.len() * 14 / 2, "{damaged}");
}

#[test]
fn a_damaged_page_is_named_and_the_rest_is_read() {
    let disk = formatted(SMALL + 1024);
    let pages = run(0, 40, 3);
    take(&mut open(&disk), "a@1", std::slice::from_ref(&pages)).unwrap();
    let image = disk.image();
    let is = |wanted: u64| image.iter().find(|(_, found)| ***found == crate::world::page(wanted)).map(|(at, _)| *at);
    let at = is(3_000_000 + 17 + 1).unwrap();
    let mut broken = catalog(SMALL + 1024, &flipped(&image, at, 77)).unwrap();
    let mut reader = broken.snapshot("a@1").unwrap();
    let report = reader.verify(&mut |_, _| {}).unwrap();
    let named: Vec<Gfn> = report.first_damaged.iter().map(|(gfn, _)| *gfn).collect();
    assert_eq!((report.damaged, named), (1, vec![Gfn::new(17)]));
    assert_eq!(report.data_pages + report.zero_pages, 39);
    let mut stream = reader.pages().unwrap();
    let (mut good, mut bad) = (0, vec![]);
    loop {
        match stream.next_page() {
            Ok(Some(_)) => good += 1,
            Ok(None) => break,
            Err(StoreError::DamagedPage { gfn, .. }) => bad.push(gfn.raw()),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((good, bad), (39, vec![17]));
}

#[test]
fn a_damaged_root_costs_one_snapshot_and_the_writer_waits_until_it_is_removed() {
    let (image, expected) = small_store();
    let root = image.iter().find(|(_, page)| page.starts_with(&layout::ROOT_MAGIC)).map(|(at, _)| *at).unwrap();
    let disk = Disk::with(SMALL + 256, flipped(&image, root, 500));
    let mut store = open(&disk);
    let listed = store.list().unwrap();
    assert!(matches!(listed[0].snapshot, Err(StoreError::Corrupt { what: "snapshot root", .. })));
    assert_eq!(listed[0].name, "a@1", "its name is known still");
    assert!(listed[1].snapshot.is_ok());
    assert_eq!(take(&mut store, "a@3", &[run(0, 4, 3)]), Err(StoreError::DamagedSnapshot { id: listed[0].id }));
    store.remove("a@1").unwrap();
    take(&mut store, "a@3", &[run(0, 4, 3)]).unwrap();
    let mut reader = catalog(SMALL + 256, &disk.image()).unwrap();
    compare(&mut reader, "a@2", &expected["a@2"]).unwrap();
    assert_eq!(names(&mut reader), ["a@2", "a@3"]);
}

#[test]
fn one_lost_block_of_the_meta_area_costs_nothing() {
    let (image, expected) = small_store();
    for block in image.keys().copied().filter(|block| redundant(*block, SMALL + 256)) {
        let mut lost = image.clone();
        lost.remove(&block);
        assert_eq!(readable(&lost, &expected).unwrap().len(), 2, "block {block}");
        // A writer heals what it can and goes on.
        let disk = Disk::with(SMALL + 256, lost);
        take(&mut open(&disk), "a@3", &[run(0, 4, 3)]).unwrap();
        assert_eq!(names(&mut catalog(SMALL + 256, &disk.image()).unwrap()), ["a@1", "a@2", "a@3"]);
    }
}

#[test]
fn an_unreadable_block_is_an_error_and_never_a_wrong_page() {
    let (image, expected) = small_store();
    for failing in 0..60 {
        let disk = Disk::with(SMALL + 256, image.clone());
        disk.plan(Faults { fail_at: Some(failing), ..Faults::default() });
        let Ok(mut reader) = Catalog::open(disk) else { continue };
        for (name, pages) in &expected {
            let _ = compare(&mut reader, name, pages);
        }
    }
}

/// Random garbage with right checksums cannot be made from outside, so hostile structures are tried in the unit tests;
/// here: garbage anywhere never panics.
#[test]
fn garbage_never_panics() {
    let (image, expected) = small_store();
    let blocks: Vec<u64> = image.keys().copied().collect();
    let mut rng = Rng(99);
    for _ in 0..300 {
        let mut damaged = image.clone();
        for _ in 0..1 + rng.below(6) {
            let at = blocks[rng.below(blocks.len() as u64) as usize];
            let mut page: Page = *damaged[&at];
            let (from, length) = (rng.below(4096) as usize, rng.below(600) as usize);
            page.iter_mut().skip(from).take(length).for_each(|byte| *byte = rng.next() as u8);
            damaged.insert(at, Rc::new(page));
        }
        let disk = Disk::with(SMALL + 256, damaged.clone());
        if let Ok(mut store) = Store::open(disk.clone()) {
            let _ = take(&mut store, "a@3", &[run(0, 4, 3)]);
            let _ = store.remove("a@1");
        }
        if let Ok(mut reader) = Catalog::open(disk) {
            for (name, pages) in &expected {
                let _ = compare(&mut reader, name, pages);
            }
            let _ = reader.into_device().flush();
        }
    }
}
