//! The bytes of a store, written down: a change of format cannot happen by accident.

use snapshot::store::{StoreError, layout};

use crate::disk::{Disk, Image};
use crate::world::{SMALL, formatted, open, run, take};

/// Changes some bytes of both slots and makes their checksums right again.
fn both_slots(change: impl Fn(&mut [u8; 4096])) -> Disk {
    let mut image: Image = formatted(SMALL).image();
    for slot in [0, SMALL - 1] {
        let mut block = *image[&slot];
        change(&mut block);
        let sum = blake3::hash(&block[..layout::superblock::CHECKSUM.offset]);
        layout::superblock::CHECKSUM.put(&mut block, &sum.as_bytes()[..16]);
        image.insert(slot, block.into());
    }
    Disk::with(SMALL, image)
}

/// Why it cannot be opened for writing. Whoever refuses has written nothing.
fn error(disk: Disk) -> Option<StoreError> {
    let before = disk.image();
    let refused = snapshot::store::Store::open(disk.clone()).err().map(|failed| failed.error);
    assert!(refused.is_none() || disk.image() == before, "{refused:?}");
    refused
}

#[test]
fn the_superblock_of_a_new_store() {
    let image = formatted(SMALL).image();
    let block = &image[&0];
    assert_eq!(block, &image[&(SMALL - 1)]);
    let mut golden = [0u8; 4096];
    golden[..16].copy_from_slice(b"LIVESAVE\x01\0\0\0\0\x10\0\0");
    golden[40..56].fill(1);
    golden[56] = 1; // generation
    golden[64..66].copy_from_slice(&1287u16.to_le_bytes());
    golden[73] = 1; // 256 blocks in a segment
    golden[76] = 1; // slop
    golden[80] = 72; // the meta area's first block
    golden[88] = 6;
    golden[96] = 1; // first segment
    golden[100] = 4;
    golden[104] = 1; // next snapshot
    golden[112..116].copy_from_slice(&1_700_000_000u32.to_le_bytes());
    golden[130] = 1; // digest suite
    golden[132] = 64;
    golden[136] = 8;
    golden[144..176].fill(0x5b);
    golden[176] = 72; // the catalog: first home, 32 bytes
    golden[184] = 32;
    golden[208] = 74; // the directory: first home, 40 bytes
    golden[216] = 40;
    golden[192..208].copy_from_slice(&block[192..208]);
    golden[224..240].copy_from_slice(&block[224..240]);
    golden[240..244].copy_from_slice(b"test");
    let sum = blake3::hash(&golden[..4080]);
    golden[4080..].copy_from_slice(&sum.as_bytes()[..16]);
    assert!(block[..] == golden[..], "{:?}", block.iter().zip(&golden).position(|(a, b)| a != b));
    let meta = blake3::keyed_hash(&[0x5b; 32], b"livesave v1 meta");
    let mut catalog = b"LSCT\x20\0\0\0".to_vec();
    catalog.extend_from_slice(&image[&72][..]);
    assert_eq!(block[192..208], blake3::keyed_hash(meta.as_bytes(), &catalog).as_bytes()[..16]);
}

#[test]
fn every_block_of_a_store_with_a_snapshot() {
    let disk = formatted(SMALL);
    take(&mut open(&disk), "a@1", &[run(0, 9, 1), run(3, 2, 2)]).unwrap();
    let line =
        |(at, page): (&u64, &std::rc::Rc<[u8; 4096]>)| format!("{at} {}\n", &blake3::hash(&page[..]).to_hex()[..16]);
    let found: String = disk.image().iter().map(line).collect();
    let golden = include_str!("golden.txt");
    assert!(found == golden, "the format changed; if that is meant, the document comes first. Now:\n{found}");
}

#[test]
fn newer_versions_and_unknown_features_are_refused_by_name() {
    let newer = both_slots(|block| layout::superblock::VERSION.put(block, &2u32.to_le_bytes()));
    assert_eq!(error(newer), Some(StoreError::NewerVersion { found: 2 }));
    let unknown = both_slots(|block| layout::superblock::INCOMPAT.put(block, &4u64.to_le_bytes()));
    assert_eq!(error(unknown), Some(StoreError::UnknownFeatures { bits: 4 }));
    let write_only = both_slots(|block| layout::superblock::RO_COMPAT.put(block, &8u64.to_le_bytes()));
    assert!(snapshot::store::Catalog::open(write_only.clone()).is_ok(), "a reader may go on");
    assert_eq!(error(write_only), Some(StoreError::UnknownFeatures { bits: 8 }));
    let ignored = both_slots(|block| layout::superblock::COMPAT.put(block, &1u64.to_le_bytes()));
    assert_eq!(error(ignored), None);
}

#[test]
fn a_superblock_that_contradicts_its_geometry_is_damage() {
    use layout::superblock as field;
    let fields =
        [field::SEGMENT_COUNT, field::FIRST_SEGMENT, field::META_BLOCKS, field::META_FIRST, field::SEGMENT_BLOCKS];
    let others = [field::BLOCK_BYTES, field::DIGEST_SUITE, field::CIPHER_SUITE, field::CATALOG, field::DIRECTORY];
    for field in fields.into_iter().chain(others).chain([field::SLOP_SEGMENTS]) {
        for value in [u64::MAX, 7, 0x8001] {
            let disk = both_slots(|block| field.put(block, &value.to_le_bytes()));
            assert!(matches!(error(disk), Some(StoreError::Corrupt { .. })), "{} = {value}", field.name);
        }
    }
    let zero = both_slots(|block| field::GENERATION.put(block, &[0; 8]));
    assert!(matches!(error(zero), Some(StoreError::Corrupt { .. })));
}
