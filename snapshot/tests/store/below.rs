//! A take beside an older snapshot that is damaged, or on a device that is gone: damage costs what could have been
//! shared, nothing else; a device that is gone is no damage.

use snapshot::ports::IoError;
use snapshot::store::{NewSnapshot, SealInfo, Sharing, StoreError};
use xen_hypercall::types::Gfn;

use crate::disk::{Disk, Faults};
use crate::hostile::{newest_root, sealed};
use crate::world::{SMALL, catalog, compare, damaged, fill, flatten, new, open, page, run, take};

fn beside(disk: &Disk) -> Result<u64, StoreError> {
    let mut store = open(disk);
    let mut taking = store.begin(&NewSnapshot { sharing: Sharing::Equal(1), ..new("a@2", 0) })?;
    fill(&mut taking, &[run(0, 12, 1)])?;
    let shared = taking.shared_pages();
    taking.seal(&SealInfo::default()).map(|_| shared)
}

#[test]
fn pages_of_a_sound_one_are_shared_and_those_of_a_damaged_one_are_not() {
    let (image, map) = sealed();
    let data = flatten(&[run(0, 12, 1)]).values().filter(|content| **content != 0).count() as u64;
    for (disk, shared) in [(Disk::with(SMALL, image.clone()), data), (damaged(SMALL, &image, map.leaf), 0)] {
        assert_eq!(beside(&disk), Ok(shared));
        let mut reader = catalog(SMALL, &disk.image()).unwrap();
        compare(&mut reader, "a@2", &flatten(&[run(0, 12, 1)])).unwrap();
    }
}

#[test]
fn a_device_that_is_gone_is_no_damage() {
    let (image, _) = sealed();
    let disk = Disk::with(SMALL, image);
    let mut store = open(&disk);
    let mut taking = store.begin(&NewSnapshot { sharing: Sharing::Equal(1), ..new("a@2", 0) }).unwrap();
    taking.run_begin().unwrap();
    disk.plan(Faults { gone: true, ..Faults::default() });
    assert_eq!(taking.page(Gfn::new(0), &page(1_000_001)), Err(StoreError::Io(IoError::Disconnected)));
    drop(taking);
    disk.plan(Faults::default());
    let mut store = open(&disk);
    disk.plan(Faults { gone: true, ..Faults::default() });
    assert_eq!(store.newest_of(&[7; 16]), Err(StoreError::Io(IoError::Disconnected)));
}

#[test]
fn the_newest_of_a_guest_that_can_be_read_is_found() {
    let (image, _) = sealed();
    let disk = Disk::with(SMALL, image);
    take(&mut open(&disk), "a@2", &[run(0, 3, 2)]).unwrap();
    let newest = |disk: &Disk, uuid: u8| open(disk).newest_of(&[uuid; 16]).unwrap();
    assert_eq!((newest(&disk, 7), newest(&disk, 8)), (Some((2, "a@2".to_owned())), None));
    let image = disk.image();
    assert_eq!(newest(&damaged(SMALL, &image, newest_root(&image)), 7), Some((1, "a@1".to_owned())));
}
