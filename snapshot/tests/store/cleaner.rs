//! When the cleaner works and when it leaves everything as it is.

use std::rc::Rc;

use snapshot::store::{Cleaned, LEASE_PATIENCE_NS};

use crate::disk::Disk;
use crate::hostile::newest_root;
use crate::space::{clean, lease, put, rounds};
use crate::world::{compare, damaged, flatten, formatted, open, run, take};

/// 64 MiB.
const LARGE: u64 = 16_384;

/// A store in which there is something to gain, and a second snapshot.
fn sparse() -> Disk {
    let disk = formatted(LARGE);
    let mut store = open(&disk);
    take(&mut store, "a@1", &rounds(2000, 4, 1)).unwrap();
    take(&mut store, "b@1", &[run(0, 300, 9)]).unwrap();
    disk
}

#[test]
fn it_waits_for_a_reader_that_was_there_before_the_writer() {
    let disk = sparse();
    let before = open(&disk).info().generation;
    put(&disk, &lease(before, 1, true));
    take(&mut open(&disk), "c@1", &[run(0, 10, 8)]).unwrap();
    let mut store = open(&disk);
    store.set_now(1_000 * LEASE_PATIENCE_NS);
    let image = disk.image();
    assert_eq!(store.clean_step(), Ok(Cleaned::Nothing));
    assert!(disk.image() == image);
    store.set_now(1_001 * LEASE_PATIENCE_NS + 1);
    assert!(clean(&mut store) > 5);
}

#[test]
fn it_leaves_a_store_alone_in_which_a_snapshot_is_damaged() {
    let image = sparse().image();
    let root = newest_root(&image);
    let mut store = open(&damaged(LARGE, &image, root));
    assert_eq!(store.clean_step(), Ok(Cleaned::Nothing));
    store.remove("b@1").unwrap();
    assert!(clean(&mut store) > 5);
}

/// Damage that comes while the writer is there: what can be read stays as it is, and is no error of the writer.
#[test]
fn it_leaves_alone_what_it_cannot_read() {
    let disk = sparse();
    let mut store = open(&disk);
    let root = newest_root(&disk.image());
    disk.0.borrow_mut().view.insert(root, Rc::new([0x5a; 4096]));
    let image = disk.image();
    assert_eq!(store.clean_step(), Ok(Cleaned::Nothing));
    assert!(disk.image() == image);
}

#[test]
fn it_goes_on_from_one_family_to_the_next() {
    let disk = formatted(LARGE);
    let mut store = open(&disk);
    let runs: Vec<_> = (1..4).map(|salt| rounds(1000, 4, salt)).collect();
    for (name, runs) in ["a@1", "b@1", "c@1"].into_iter().zip(&runs) {
        take(&mut store, name, runs).unwrap();
    }
    let used = |free: Option<u32>, segments: u32| u64::from(segments - free.unwrap()) << 20;
    assert!(clean(&mut store) > 5);
    let info = store.info();
    let live: u64 = runs.iter().map(|runs| flatten(runs).len() as u64 * 4096).sum();
    // A segment of each may be filled in part, and has its index.
    assert!(used(info.free_segments, info.segments) <= live * 13 / 10 + (6 << 20), "{live}");
    assert_eq!(clean(&mut open(&disk)), 0, "nothing more to gain");
    let mut reader = crate::world::catalog(LARGE, &disk.image()).unwrap();
    for (name, runs) in ["a@1", "b@1", "c@1"].into_iter().zip(&runs) {
        compare(&mut reader, name, &flatten(runs)).unwrap();
    }
}
