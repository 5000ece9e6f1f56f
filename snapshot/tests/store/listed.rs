//! What a listing says: whose bytes are whose, what a snapshot was made beside, which store and generation it is.

use snapshot::store::layout::{PART_BYTES, SEGMENT_BYTES};
use snapshot::store::{
    AttachmentKind, Compression, Generation, Heartbeat, Lineage, NewSnapshot, SealInfo, Sharing, StoreId,
    device_blocks, layout,
};

use crate::disk::Disk;
use crate::hostile::newest_root;
use crate::world::{PACKS, Run, fill, formatted, new, open, run, take};

/// 32 MiB.
const BLOCKS: u64 = 8192;

fn exclusive(disk: &Disk) -> Vec<Option<u64>> {
    open(disk).list().unwrap().into_iter().map(|one| one.exclusive_bytes).collect()
}

#[test]
fn exclusive_bytes_are_what_a_removal_frees() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    take(&mut store, "a@1", &[run(0, 1000, 1)]).unwrap();
    take(&mut store, "b@1", &[run(0, 300, 2)]).unwrap();
    let sharing = Sharing::Since(1);
    let mut taking = store.begin(&NewSnapshot { sharing, ..new("a@2", 0) }).unwrap();
    fill(&mut taking, &[run(0, 10, 3)]).unwrap();
    taking.seal(&SealInfo::default()).unwrap();
    for name in ["a@2", "b@1", "a@1"] {
        let listed = open(&disk).list().unwrap();
        let bytes = listed.iter().find(|one| one.name == name).unwrap().exclusive_bytes.unwrap();
        let before = open(&disk).info().free_segments.unwrap();
        open(&disk).remove(name).unwrap();
        let freed = u64::from(open(&disk).info().free_segments.unwrap() - before) * SEGMENT_BYTES;
        assert_eq!(freed, bytes, "{name}");
        assert!(bytes > 0);
    }
}

#[test]
fn exclusive_bytes_are_unknown_where_a_snapshot_is_damaged() {
    let disk = formatted(BLOCKS);
    take(&mut open(&disk), "a@1", &[run(0, 100, 1)]).unwrap();
    take(&mut open(&disk), "b@1", &[run(0, 100, 2)]).unwrap();
    assert!(exclusive(&disk).iter().all(|bytes| *bytes >= Some(SEGMENT_BYTES)));
    let root = newest_root(&disk.image());
    disk.0.borrow_mut().view.insert(root, std::rc::Rc::new([0x5a; 4096]));
    assert_eq!(exclusive(&disk), [None, None]);
}

#[test]
fn a_snapshot_says_what_it_was_made_beside() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    let pages: Run = (0..50).map(|gfn| (gfn, Some(gfn + 1))).collect();
    let mut made = |name: &str, sharing, why_full, pages: &Run| {
        let mut taking = store.begin(&NewSnapshot { sharing, why_full, ..new(name, 0) }).unwrap();
        fill(&mut taking, std::slice::from_ref(pages)).unwrap();
        taking.seal(&SealInfo::default()).unwrap();
        store.list().unwrap().pop().unwrap().snapshot.unwrap().lineage
    };
    let lineage = |kind: &str, base: &str, why_full: &str, shared_pages| Lineage {
        kind: kind.to_owned(),
        base: base.to_owned(),
        why_full: why_full.to_owned(),
        shared_pages,
    };
    let few: Run = (0..5).map(|gfn| (gfn, Some(9000 + gfn))).collect();
    assert_eq!(made("a@1", Sharing::Nothing, "", &pages), lineage("", "", "", 0));
    assert_eq!(made("a@2", Sharing::Equal(1), "", &pages), lineage("diff", "a@1", "", 50));
    assert_eq!(made("a@3", Sharing::Since(2), "", &few), lineage("incremental", "a@2", "", 45));
    assert_eq!(made("a@4", Sharing::Nothing, "it was moved", &pages), lineage("full", "", "it was moved", 0));
}

#[test]
fn a_store_that_has_packed_pages_says_so_for_good() {
    let disk = formatted(BLOCKS);
    for number in 0..3 {
        let mut store = open(&disk);
        let name = format!("a@{number}");
        let mut taking = store.begin(&NewSnapshot { compression: Compression::Lz4, ..new(&name, 0) }).unwrap();
        fill(&mut taking, &[(0..9).map(|gfn| (gfn, Some(PACKS | (gfn + 1)))).collect()]).unwrap();
        taking.seal(&SealInfo::default()).unwrap();
        assert_eq!(layout::superblock::INCOMPAT.u64(&disk.image()[&0][..]), 1, "{name}");
    }
}

#[test]
fn a_store_tells_who_beats_and_names_itself() {
    let mut disk = formatted(BLOCKS);
    assert_eq!(open(&disk).heartbeat(), Ok(None));
    let beat = Heartbeat { writer: [3; 16], sequence: 4, unix: 5, in_use: true };
    beat.write(&mut disk, StoreId([1; 16])).unwrap();
    assert_eq!(open(&disk).heartbeat(), Ok(Some(beat)));
    assert_eq!((StoreId([0xa5; 16]).to_string(), Generation(77).to_string()), ("a5".repeat(16), "77".to_owned()));
}

#[test]
fn a_device_that_is_told_to_be_large_enough_is_and_a_smaller_one_is_not() {
    for (memory, keep, factor) in [(64 << 20, 2, 2), (1 << 30, 7, 5)] {
        let blocks = device_blocks(memory, keep, factor).unwrap();
        let usable = |blocks: u64| {
            let info = open(&formatted(blocks)).info();
            u64::from(info.free_segments.unwrap() - info.slop_segments)
        };
        assert!(usable(blocks) > usable(blocks - 1), "{blocks}");
    }
}

#[test]
fn attachments_of_several_kinds_and_parts_come_back_as_they_are() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    let mut taking = store.begin(&new("a@1", 0)).unwrap();
    let bytes = |salt: u8, length: usize| -> Vec<u8> { (0..length).map(|at| (at / 9) as u8 ^ salt).collect() };
    let kinds = [(AttachmentKind::CONFIG_JSON, PART_BYTES + 7), (AttachmentKind::DISKS, 2 * PART_BYTES)];
    for (salt, (kind, length)) in (1..).zip(kinds) {
        taking.attach(kind, &bytes(salt, length)).unwrap();
    }
    taking.seal(&SealInfo::default()).unwrap();
    let mut reader = crate::world::catalog(BLOCKS, &disk.image()).unwrap();
    for (salt, (kind, length)) in (1..).zip(kinds) {
        let found = reader.snapshot("a@1").unwrap().attachment(kind).unwrap().unwrap();
        assert!(found == bytes(salt, length));
    }
}
