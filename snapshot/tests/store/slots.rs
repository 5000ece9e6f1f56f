//! Two superblocks of which one is believed, and what a verification says.

use std::rc::Rc;

use snapshot::ports::{BlockIdx, IoError};
use snapshot::store::{Catalog, Store, StoreError, layout};

use crate::disk::{Disk, Image};
use crate::hostile::{resign, sealed};
use crate::world::{SMALL, catalog, format_disk, formatted, open, run, take};

fn opened(blocks: u64, image: Image) -> Result<(), StoreError> {
    Store::open(Disk::with(blocks, image)).map(drop).map_err(|failed| failed.error)
}

/// The first image, with the last block of the second.
fn joined(first: &Image, second: &Image) -> Image {
    let mut image = first.clone();
    image.insert(SMALL - 1, second[&(SMALL - 1)].clone());
    image
}

#[test]
fn superblocks_of_two_stores_are_no_store() {
    let of = |id: u8| {
        let mut disk = Disk::new(SMALL);
        format_disk(&mut disk, id);
        disk.image()
    };
    assert_eq!(opened(SMALL, joined(&of(1), &of(1))), Ok(()));
    let refused = opened(SMALL, joined(&of(1), &of(2)));
    assert!(matches!(refused, Err(StoreError::Corrupt { what: "pair of superblocks", .. })), "{refused:?}");
}

#[test]
fn superblocks_of_two_histories_are_no_store() {
    let disk = formatted(SMALL);
    let start = disk.image();
    let with = |salt: u64| {
        let disk = Disk::with(SMALL, start.clone());
        take(&mut open(&disk), "a@1", &[run(0, 5, salt)]).unwrap();
        disk.image()
    };
    assert_eq!(opened(SMALL, joined(&with(1), &with(1))), Ok(()));
    let refused = opened(SMALL, joined(&with(1), &with(2)));
    assert!(matches!(refused, Err(StoreError::Corrupt { what: "pair of superblocks", .. })), "{refused:?}");
    // A generation behind is what a commit that was cut off leaves.
    assert_eq!(opened(SMALL, joined(&with(1), &start)), Ok(()));
}

#[test]
fn where_no_superblock_can_be_read_the_device_failed() {
    let disk = formatted(SMALL);
    disk.0.borrow_mut().bad.extend([0, SMALL - 1]);
    let failed = Store::open(disk.clone()).map(drop).map_err(|failed| failed.error);
    assert_eq!(failed, Err(StoreError::Io(IoError::Failed { at: BlockIdx(0) })));
    disk.0.borrow_mut().bad.remove(&0);
    assert!(Store::open(disk).is_ok(), "one is enough");
}

#[test]
fn on_a_device_that_grew_both_superblocks_are_found() {
    let disk = formatted(SMALL);
    take(&mut open(&disk), "a@1", &[run(0, 5, 1)]).unwrap();
    let grown = Disk::with(SMALL + 700, disk.image());
    let mut reader = Catalog::open(grown).map_err(|failed| failed.error).unwrap();
    let report = reader.check(true, &mut |_, _| {}).unwrap();
    assert!(report.is_clean() && !report.unsettled, "{report:?}");
}

#[test]
fn a_segment_table_that_makes_no_sense_is_refused() {
    let (image, map) = sealed();
    let cases: [(&str, u64, layout::Field, u32); 4] = [
        ("a directory of another magic", map.directory, layout::directory::MAGIC, 7),
        ("a directory of two leaves", map.directory, layout::directory::COUNT, 2),
        ("a leaf of another magic", map.table, layout::table_leaf::MAGIC, 7),
        ("another leaf", map.table, layout::table_leaf::INDEX, 1),
    ];
    for (what, block, field, value) in cases {
        let mut forged = image.clone();
        let mut page = *forged[&block];
        field.put(&mut page, &value.to_le_bytes());
        forged.insert(block, Rc::new(page));
        resign(&mut forged, &map);
        let read = catalog(SMALL, &forged).and_then(|mut reader| reader.snapshot("a@1").map(|_| ()));
        assert!(read.is_err(), "{what}");
    }
}

#[test]
fn a_verification_names_the_first_and_counts_all_and_says_how_far_it_is() {
    let disk = formatted(4 * SMALL);
    take(&mut open(&disk), "a@1", &[run(0, 3000, 1)]).unwrap();
    let wrong: Vec<_> = (0..20).map(|n| crate::world::page(1_000_000 + 5 * n + 1)).collect();
    let mut image = disk.image();
    image.values_mut().filter(|block| wrong.contains(block)).for_each(|block| Rc::make_mut(block)[5] ^= 1);
    let mut reader = catalog(4 * SMALL, &image).unwrap();
    let mut told = Vec::new();
    let report = reader.snapshot("a@1").unwrap().verify(&mut |done, total| told.push((done, total))).unwrap();
    assert_eq!((report.damaged, report.first_damaged.len(), report.root_digest), (20, 16, None));
    assert_eq!((report.data_pages, report.zero_pages), (2380, 600));
    assert_eq!(told, [(1024, 3000), (2048, 3000), (3000, 3000)]);
}

#[test]
fn a_content_that_is_not_what_was_sealed_is_no_clean_verification() {
    let (image, map) = sealed();
    let verified = |image: &Image| {
        let mut reader = catalog(SMALL, image).unwrap();
        let mut snapshot = reader.snapshot("a@1").unwrap();
        snapshot.verify(&mut |_, _| {}).map(|report| report.is_clean())
    };
    assert_eq!(verified(&image), Ok(true));
    let mut forged = image.clone();
    let mut page = *forged[&map.root];
    page[layout::root::CONTENT.offset] ^= 1;
    forged.insert(map.root, Rc::new(page));
    resign(&mut forged, &map);
    assert!(matches!(verified(&forged), Err(StoreError::Corrupt { .. })));
}
