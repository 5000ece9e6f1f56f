//! Small promises at their edges: labels, places of leases, whose heartbeat it is, what a guard lets through, what a
//! digest covers, what is counted.

use snapshot::ports::{BlockDevice, BlockIdx, IoError, Pace};
use snapshot::store::{
    Digest, FormatOptions, Generation, Guarded, Heartbeat, LEASE_PATIENCE_NS, Lease, StoreError, StoreId, format,
};

use crate::disk::{Disk, Faults};
use crate::space::{lease, put};
use crate::world::{Run, catalog, formatted, new, open, run, take};

/// 16 MiB.
const BLOCKS: u64 = 4096;
/// The format has 64 bytes for it, and one of them is nought.
const LABEL_MAX: usize = 63;

#[test]
fn a_label_has_so_many_bytes_at_most_and_none_is_nought() {
    let with = |label: &str| {
        let mut disk = Disk::new(BLOCKS);
        let made = format(&mut disk, &FormatOptions { label, store_id: [1; 16], key: [2; 32], now_unix: 3 });
        made.map(|_| open(&disk).info().label)
    };
    let longest = "l".repeat(LABEL_MAX);
    assert_eq!((with(&longest), with("")), (Ok(longest.clone()), Ok(String::new())));
    for label in [format!("{longest}l"), "a\0b".to_owned()] {
        assert!(matches!(with(&label), Err(StoreError::TooLong { what: "label", .. })), "{label:?}");
    }
}

#[test]
fn leases_have_places_of_their_own_and_the_last_serves_for_all_beyond() {
    let (id, mut disk) = (StoreId([1; 16]), formatted(BLOCKS));
    let one = |sequence| Lease { reader: [8; 16], generation: Generation(2), sequence, unix: 5, in_use: true };
    for place in 0..Lease::COUNT {
        one(u64::from(place)).write(&mut disk, id, place).unwrap();
    }
    let sequences = |disk: &mut Disk| Lease::all(disk, id).unwrap().map(|lease| lease.map(|lease| lease.sequence));
    assert_eq!(sequences(&mut disk), [Some(0), Some(1), Some(2), Some(3)]);
    one(9).write(&mut disk, id, 77).unwrap();
    assert_eq!(sequences(&mut disk), [Some(0), Some(1), Some(2), Some(9)]);
    assert_eq!(Lease::all(&mut disk, StoreId([2; 16])), Ok([None; 4]), "of another store");
}

#[test]
fn a_reader_is_waited_for_as_long_as_it_may_be_silent_and_no_longer() {
    let disk = formatted(BLOCKS);
    take(&mut open(&disk), "a@1", &[run(0, 9, 1)]).unwrap();
    put(&disk, &lease(Generation(1), 1, true));
    let mut store = open(&disk);
    let start = 1_000 * LEASE_PATIENCE_NS;
    for (now_ns, waits) in [(start, true), (start + LEASE_PATIENCE_NS - 1, true), (start + LEASE_PATIENCE_NS, false)] {
        store.set_now(now_ns);
        assert_eq!(store.begin(&new("b@1", 0)).err(), waits.then_some(StoreError::HeldByReaders), "{now_ns}");
    }
}

#[test]
fn a_heartbeat_of_another_store_is_nobodys() {
    let mut disk = formatted(BLOCKS);
    let beat = Heartbeat { writer: [3; 16], sequence: 4, unix: 5, in_use: true };
    beat.write(&mut disk, StoreId([1; 16])).unwrap();
    assert_eq!(Heartbeat::read(&mut disk, StoreId([1; 16])), Ok(Some(beat)));
    assert_eq!(Heartbeat::read(&mut disk, StoreId([2; 16])), Ok(None));
}

#[test]
fn after_an_error_of_a_write_a_guard_lets_nothing_through() {
    let disk = Disk::new(BLOCKS);
    let mut guard = Guarded::new(disk.clone());
    let page = [1; 4096];
    guard.write(BlockIdx(1), &page).unwrap();
    disk.plan(Faults { fail_at: Some(0), ..Faults::default() });
    let failed = Err(IoError::Failed { at: BlockIdx(2) });
    assert_eq!(guard.write(BlockIdx(2), &page), failed);
    let operations = disk.0.borrow().operations;
    assert!(guard.poisoned());
    assert_eq!([guard.write(BlockIdx(3), &page), guard.settle(), guard.flush()], [failed; 3]);
    assert_eq!(guard.read(BlockIdx(1), &mut [0; 4096]), failed);
    assert_eq!((guard.bytes_written(), disk.0.borrow().operations), (4096, operations));
}

/// A device that says how fast it is.
struct Fast(Disk);

impl BlockDevice for Fast {
    fn blocks(&self) -> u64 {
        self.0.blocks()
    }
    fn read_only(&self) -> bool {
        self.0.read_only()
    }
    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        self.0.write(at, data)
    }
    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        self.0.read(at, into)
    }
    fn flush(&mut self) -> Result<(), IoError> {
        self.0.flush()
    }
    fn pace(&mut self) -> Pace {
        Pace { gathered_bytes: 77, ..self.0.pace() }
    }
}

#[test]
fn a_guard_tells_how_fast_its_device_is() {
    assert_eq!(Guarded::new(Fast(Disk::new(BLOCKS))).pace().gathered_bytes, 77);
}

#[test]
fn a_page_of_zeros_between_two_others_is_not_their_range() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    let zeros: [&[u64]; 3] = [&[1, 2, 3], &[1, 3], &[1, 2]];
    let digests = [1_u64, 2, 3].map(|number| {
        let pages: Run = zeros[number as usize - 1].iter().map(|gfn| (*gfn, Some(0))).collect();
        take(&mut store, &format!("a@{number}"), &[pages]).unwrap();
        store.named(number).unwrap().1
    });
    assert!(digests[0] != digests[1] && digests[1] != digests[2] && digests[0] != digests[2]);
    let said = Digest([0xa5; 16]).to_string();
    assert_eq!(said, "a5".repeat(16));
}

#[test]
fn what_a_verification_reads_is_what_the_disk_was_asked_for() {
    let disk = formatted(BLOCKS);
    take(&mut open(&disk), "a@1", &[run(0, 700, 1)]).unwrap();
    let mut reader = catalog(BLOCKS, &disk.image()).unwrap();
    let report = reader.snapshot("a@1").unwrap().verify(&mut |_, _| {}).unwrap();
    // Pages with data, an index of 700 entries in leaves of 127, its node.
    assert_eq!(report.bytes_read, (560 + 700_u64.div_ceil(127) + 1) * 4096);
}

#[test]
fn a_device_that_is_too_small_is_told_with_its_size() {
    let said = format!("{}", StoreError::TooSmall { blocks: 100, need: 1287 });
    assert!(said.contains("400 KiB") && said.contains("5148 KiB"), "{said}");
}
