//! A disk that lies with right checksums: structures are changed at random and every digest above is made right again,
//! by somebody who has the key. Nothing may panic, loop, or read outside the device (the disk asserts it).

use std::rc::Rc;

use snapshot::ports::Page;
use snapshot::store::layout::{
    Field, Kind, catalog, catalog_entry, directory, directory_entry, meta_pointer, pointer, root, run_record,
    superblock, table_leaf,
};
use snapshot::store::{Catalog, Store, StoreError};

use crate::disk::{Disk, Image, Rng};
use crate::world::{SMALL, formatted, open, run, take};

/// The key of `world::formatted`.
const KEY: [u8; 32] = [0x5b; 32];

/// Where the structures of a store with one snapshot lie, found before anything is changed.
pub struct Map {
    pub catalog: u64,
    pub directory: u64,
    pub table: u64,
    pub root: u64,
    pub leaf: u64,
    pub set: u64,
}

fn block_of(image: &Image, table: u64, raw: &[u8]) -> u64 {
    let (segment, slot) = (pointer::SEGMENT.u32(raw) as usize, pointer::SLOT.u16(raw));
    let entry = table_leaf::SIZE + 4 * segment;
    let address = u32::from_le_bytes(image[&table][entry..entry + 4].try_into().unwrap());
    u64::from(address) * 256 + u64::from(slot)
}

impl Map {
    fn of(image: &Image) -> Self {
        let head = &image[&0][..];
        let catalog_at = meta_pointer::BLOCK.u64(superblock::CATALOG.of(head));
        let directory_at = meta_pointer::BLOCK.u64(superblock::DIRECTORY.of(head));
        let table = directory_entry::BLOCK.u64(&image[&directory_at][directory::SIZE..]);
        let root_at = block_of(image, table, catalog_entry::ROOT.of(&image[&catalog_at][catalog::SIZE..]));
        let record = &image[&root_at][root::SIZE..];
        let leaf = block_of(image, table, run_record::TREE.of(record));
        let set = block_of(image, table, run_record::SEGMENTS.of(record));
        Self { catalog: catalog_at, directory: directory_at, table, root: root_at, leaf, set }
    }
}

/// The root of the newest snapshot.
pub fn newest_root(image: &Image) -> u64 {
    let map = Map::of(image);
    let entries = &image[&map.catalog][..];
    let newest = catalog::COUNT.u32(entries) as usize - 1;
    block_of(image, map.table, catalog_entry::ROOT.of(&entries[catalog::SIZE + newest * catalog_entry::SIZE..]))
}

fn digest(kind: Kind, bytes: u32, page: &Page) -> [u8; 16] {
    let key = blake3::keyed_hash(&KEY, b"livesave v1 meta");
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    hasher.update(&kind.0).update(&bytes.to_le_bytes()).update(page);
    hasher.finalize().as_bytes()[..16].try_into().unwrap()
}

/// Makes a pointer at an offset of a block right for what it points at.
fn sign(image: &mut Image, holder: u64, offset: usize, kind: Kind, target: u64) {
    let mut page = *image[&holder];
    let bytes = pointer::BYTES.u32(&page[offset..]);
    pointer::DIGEST.put(&mut page[offset..], &digest(kind, bytes, &image[&target]));
    image.insert(holder, Rc::new(page));
}

/// Makes every digest right again, from the bottom up.
pub fn resign(image: &mut Image, map: &Map) {
    sign(image, map.root, root::SIZE + run_record::TREE.offset, Kind::RUN_LEAF, map.leaf);
    sign(image, map.root, root::SIZE + run_record::SEGMENTS.offset, Kind::SEGMENT_SET, map.set);
    sign(image, map.catalog, catalog::SIZE + catalog_entry::ROOT.offset, Kind::ROOT, map.root);
    let mut page = *image[&map.directory];
    let leaf = digest(Kind::TABLE_LEAF, 4096, &image[&map.table]);
    directory_entry::DIGEST.put(&mut page[directory::SIZE..], &leaf);
    image.insert(map.directory, Rc::new(page));
    let mut head = *image[&0];
    for (field, kind, at) in
        [(superblock::CATALOG, Kind::CATALOG, map.catalog), (superblock::DIRECTORY, Kind::DIRECTORY, map.directory)]
    {
        let bytes = meta_pointer::BYTES.u32(field.of(&head));
        meta_pointer::DIGEST.put(&mut head[field.offset..], &digest(kind, bytes, &image[&at]));
    }
    let sum = blake3::hash(&head[..superblock::CHECKSUM.offset]);
    superblock::CHECKSUM.put(&mut head, &sum.as_bytes()[..16]);
    image.insert(0, Rc::new(head));
    image.insert(SMALL - 1, Rc::new(head));
}

pub fn sealed() -> (Image, Map) {
    let disk = formatted(SMALL);
    take(&mut open(&disk), "a@1", &[run(0, 12, 1)]).unwrap();
    let image = disk.image();
    let map = Map::of(&image);
    (image, map)
}

/// Uses a store in every way. True if its snapshot could be read.
fn use_it(image: &Image) -> bool {
    let disk = Disk::with(SMALL, image.clone());
    let readable = Catalog::open(disk.clone()).is_ok_and(|mut reader| {
        let verified = reader.snapshot("a@1").is_ok_and(|mut one| one.verify(&mut |_, _| {}).is_ok());
        reader.list().is_ok() && verified
    });
    if let Ok(mut store) = Store::open(disk) {
        let _ = take(&mut store, "a@2", &[run(0, 4, 2)]);
        let _ = store.remove("a@1");
        let _ = take(&mut store, "a@3", &[run(0, 4, 2)]);
    }
    readable
}

#[test]
fn a_forgery_that_changes_nothing_is_read() {
    let (mut image, map) = sealed();
    let before = image.clone();
    resign(&mut image, &map);
    assert!(image == before, "the test signs as the store does");
    assert!(use_it(&image));
}

#[test]
fn structures_with_right_digests_and_wrong_content() {
    let (image, map) = sealed();
    let mut rng = Rng(5);
    let mut refused = 0;
    for round in 0..4000 {
        let (block, length) = match round % 6 {
            0 => (map.catalog, 232),
            1 => (map.directory, 40),
            2 => (map.table, 32),
            3 => (map.root, 360),
            4 => (map.leaf, 32 + 32 * 12),
            _ => (map.set, 48),
        };
        let mut forged = image.clone();
        let mut page = *forged[&block];
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(length) as usize;
            page[at] = [0, 1, 0x7f, 0x80, 0xff, rng.next() as u8, page[at] ^ 1, page[at].wrapping_add(1)]
                [rng.below(8) as usize];
        }
        forged.insert(block, Rc::new(page));
        resign(&mut forged, &map);
        refused += usize::from(!use_it(&forged));
    }
    assert!(refused > 2000, "{refused} of 4000 refused");
}

/// One field of the run's leaf at a time, each with values that a check must refuse.
#[test]
fn a_leaf_that_makes_no_sense_is_refused() {
    use snapshot::store::layout::{entry, run_block};
    let (image, map) = sealed();
    let second = |field: Field| Field { offset: run_block::SIZE + entry::SIZE + field.offset, ..field };
    let cases: [(&str, Field, u64); 9] = [
        ("no entry", run_block::COUNT, 0),
        ("more entries than bytes", run_block::COUNT, 400),
        ("a level that is not the pointer's", run_block::LEVEL, 1),
        ("entries of another size", run_block::ENTRY_BYTES, 48),
        ("an end before the last entry", run_block::END_GFN, 3),
        ("an end beyond the snapshot", run_block::END_GFN, 1 << 41),
        ("a gfn twice", second(entry::GFN), 0),
        ("a segment that does not exist", second(entry::SEGMENT), 4),
        ("a place between blocks", second(entry::PLACE), 257),
    ];
    for (what, field, value) in cases {
        let mut forged = image.clone();
        let mut page = *forged[&map.leaf];
        field.put(&mut page, &value.to_le_bytes());
        forged.insert(map.leaf, Rc::new(page));
        resign(&mut forged, &map);
        assert!(!use_it(&forged), "{what}");
    }
}

#[test]
fn two_ids_at_one_address_are_refused_by_a_writer() {
    use snapshot::store::layout::{segment_group, segment_set};
    let (mut image, map) = sealed();
    let (mut table, mut set) = (*image[&map.table], *image[&map.set]);
    table.copy_within(table_leaf::SIZE..table_leaf::SIZE + 4, table_leaf::SIZE + 4);
    segment_group::MASK.put(&mut set[segment_set::SIZE..], &0b11u64.to_le_bytes());
    image.insert(map.table, Rc::new(table));
    image.insert(map.set, Rc::new(set));
    resign(&mut image, &map);
    let failed = Store::open(Disk::with(SMALL, image)).err().map(|failed| failed.error);
    assert!(matches!(failed, Some(StoreError::Corrupt { what: "segment that two ids share", .. })), "{failed:?}");
}

/// One field of the catalog at a time, in a store of two snapshots.
#[test]
fn a_catalog_that_makes_no_sense_is_refused() {
    let disk = formatted(SMALL);
    take(&mut open(&disk), "a@1", &[run(0, 12, 1)]).unwrap();
    take(&mut open(&disk), "a@2", &[run(0, 12, 2)]).unwrap();
    let (image, map) = (disk.image(), Map::of(&disk.image()));
    let second = |field: Field| Field { offset: catalog::SIZE + catalog_entry::SIZE + field.offset, ..field };
    let generation = catalog::GENERATION.u64(&image[&map.catalog][..]);
    let name = catalog_entry::NAME.of(&image[&map.catalog][catalog::SIZE..]);
    let number = |value: u64| value.to_le_bytes().to_vec();
    let cases: [(&str, Field, Vec<u8>); 8] = [
        ("another magic", catalog::MAGIC, vec![0; 4]),
        ("another generation", catalog::GENERATION, number(generation + 1)),
        ("fewer entries than bytes", catalog::COUNT, number(1)),
        ("more entries than bytes", catalog::COUNT, number(3)),
        ("a number twice", second(catalog_entry::SNAPSHOT_ID), number(1)),
        ("numbers that descend", second(catalog_entry::SNAPSHOT_ID), number(0)),
        ("a number that is still to be given", second(catalog_entry::SNAPSHOT_ID), number(3)),
        ("a name twice", second(catalog_entry::NAME), name.to_vec()),
    ];
    for (what, field, value) in cases {
        let mut forged = image.clone();
        let mut page = *forged[&map.catalog];
        field.put(&mut page, &value[..field.size.min(value.len())]);
        forged.insert(map.catalog, Rc::new(page));
        resign(&mut forged, &map);
        assert!(crate::world::catalog(SMALL, &forged).is_err(), "{what}");
    }
    let mut same = image.clone();
    resign(&mut same, &map);
    assert!(same == image && crate::world::catalog(SMALL, &same).is_ok(), "the test signs as the store does");
}

/// One field of the root at a time.
#[test]
fn a_root_that_makes_no_sense_is_refused() {
    let (image, map) = sealed();
    let of_run = |field: Field| Field { offset: root::SIZE + field.offset, ..field };
    let cases: [(&str, Field, u64); 11] = [
        ("another snapshot's", root::SNAPSHOT_ID, 2),
        ("of another time", root::CREATED_UNIX, 5),
        ("frames beyond any guest", root::GFN_END, 1 << 41),
        ("pages beyond any guest", root::DATA_PAGES, 1 << 41),
        ("more runs than it has", root::RUN_COUNT, 2),
        ("more runs than any has", root::RUN_COUNT, 17),
        ("more parts than it has", root::ATTACHMENT_COUNT, 2),
        ("another length of its description", root::METADATA_BYTES, 7),
        ("a run of too many levels", of_run(run_record::LEVEL), 99),
        ("a run of too many entries", of_run(run_record::ENTRIES), 1 << 41),
        ("a run of too many pages", of_run(run_record::DATA_PAGES), 1 << 41),
    ];
    for (what, field, value) in cases {
        let mut forged = image.clone();
        let mut page = *forged[&map.root];
        field.put(&mut page, &value.to_le_bytes()[..field.size]);
        forged.insert(map.root, Rc::new(page));
        resign(&mut forged, &map);
        let mut reader = crate::world::catalog(SMALL, &forged).unwrap();
        assert!(reader.snapshot("a@1").is_err(), "{what}");
    }
}
