//! What a take costs a block backend: requests and events, counted where the stub counts them, in the frontend itself
//! on the fake backend of its own tests.
//!
//! The device has what Linux' blkback offers: requests of 256 segments, a cache that is flushed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::cell::RefCell;
use std::rc::Rc;

use snapshot::ports::{BlockDevice, BlockIdx, IoError, Page};
use snapshot::store::{Compression, FormatOptions, Heartbeat, NewSnapshot, SealInfo, Sharing, Store, format};
use xen_drivers::blkfront::fake_backend::{Config, FRONT, FakeDisk, VDEV};
use xen_drivers::blkfront::{Blkfront, Options, Stats, connect};
use xen_drivers::platform::Platform;
use xen_drivers::platform::fake::{FakeHost, FakePlatform};
use xen_drivers::xenstore::Client;
use xen_drivers::xenstore::fake::FakeStore;
use xen_hypercall::types::Gfn;

use crate::rng::Rng;

/// Pages of the guest: 64 MiB.
const PAGES: u64 = 16_384;
/// Blocks of the device: 160 MiB.
const BLOCKS: u64 = 40_960;
const MIB: u64 = 1 << 20;
/// The most requests for each MiB that is written, whatever they are for.
const REQUESTS_PER_MIB: u64 = 2;
/// Pages between two heartbeats: 4 MiB, what a slow stub copies in that time.
const BEAT_PAGES: u64 = 1024;

/// A handle of the frontend, as the stub's: the store has one, the heartbeat another.
#[derive(Clone)]
struct Disk(Rc<RefCell<Blkfront<FakePlatform>>>);

impl BlockDevice for Disk {
    fn blocks(&self) -> u64 {
        self.0.borrow().geometry().blocks()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        self.0.borrow_mut().write(at.0, data).map_err(|_| IoError::Failed { at })
    }

    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        self.0.borrow_mut().read(at.0, into).map_err(|_| IoError::Failed { at })
    }

    fn settle(&mut self) -> Result<(), IoError> {
        self.0.borrow_mut().rest().map_err(|_| IoError::Disconnected)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.0.borrow_mut().flush().map_err(|_| IoError::Disconnected)
    }
}

/// What a page is, by its number.
fn raw(number: u64) -> Page {
    let mut page = [0; 4096];
    let mut rng = Rng(number);
    page.as_chunks_mut().0.iter_mut().for_each(|word: &mut [u8; 8]| *word = rng.next().to_le_bytes());
    page
}

/// One that packs to half.
fn packs(number: u64) -> Page {
    let mut page = raw(number);
    page[2048..].fill(7);
    page
}

/// A take in rounds of so many pages each, the first of all; what it cost the backend.
fn take(rounds: &[u64], content: fn(u64) -> Page, beats: bool) -> Stats {
    let (host, xenstore) = (FakeHost::default(), FakeStore::default());
    let _backend = FakeDisk::attach(&host, &xenstore, Config { sectors: BLOCKS * 8, ..Config::default() });
    let mut client = Client::new(xenstore.connect(&host, FRONT, 4096));
    let deadline_ns = host.now_ns() + 10_000_000_000;
    let front = connect(FakePlatform::clone(&host), &mut client, VDEV, &Options::default(), deadline_ns).unwrap();
    let mut disk = Disk(Rc::new(RefCell::new(front)));
    let options = FormatOptions { label: "", store_id: [1; 16], key: [2; 32], now_unix: 0 };
    format(&mut disk, &options).unwrap();
    let mut store = Store::open(disk.clone()).map_err(|failed| failed.error).unwrap();
    let before = disk.0.borrow().stats();
    fill(&mut store, rounds, content, beats.then_some(disk.clone()));
    let after = disk.0.borrow().stats();
    drop(store);
    let front = Rc::into_inner(disk.0).unwrap().into_inner();
    front.close(&mut client, host.now_ns() + 10_000_000_000).drained.unwrap();
    Stats {
        requests: after.requests - before.requests,
        notifications: after.notifications - before.notifications,
        written_bytes: after.written_bytes - before.written_bytes,
        read_bytes: after.read_bytes - before.read_bytes,
        in_flight_max: after.in_flight_max,
        ..Stats::default()
    }
}

fn fill(store: &mut Store<Disk>, rounds: &[u64], content: fn(u64) -> Page, mut beats: Option<Disk>) {
    let id = store.info().id;
    let new = NewSnapshot {
        name: "web01@one",
        guest_name: "web01",
        guest_uuid: [7; 16],
        mode: "live",
        created_unix: 0,
        max_gfn: Gfn::new(PAGES),
        reserve_bytes: 0,
        compression: Compression::Lz4,
        sharing: Sharing::Nothing,
        why_full: "",
    };
    let mut taking = store.begin(&new).unwrap();
    for (round, pages) in (0..).zip(rounds) {
        taking.run_begin().unwrap();
        for gfn in 0..*pages {
            taking.page(Gfn::new(gfn), &content(round << 32 | gfn)).unwrap();
            if let Some(disk) = beats.as_mut().filter(|_| gfn % BEAT_PAGES == BEAT_PAGES / 2) {
                Heartbeat { writer: [1; 16], sequence: gfn, unix: gfn, in_use: true }.write(disk, id).unwrap();
            }
        }
        taking.run_end().unwrap();
    }
    taking.seal(&SealInfo::default()).unwrap();
}

/// Requests are few, and the backend is not woken more often than there are.
fn judge(what: &str, stats: &Stats, limit: u64) {
    let mib = stats.written_bytes / MIB;
    println!("{what}: {stats:?}, {:.2} requests a MiB", stats.requests as f64 / mib as f64);
    assert!(stats.requests <= limit * mib, "{what}: {stats:?}");
    assert!(stats.notifications <= stats.requests, "{what}: {stats:?}");
}

#[test]
fn a_take_of_raw_pages_costs_at_most_two_requests_a_mebibyte() {
    judge("one round", &take(&[PAGES], raw, false), REQUESTS_PER_MIB);
    judge("one round, heartbeats", &take(&[PAGES], raw, true), REQUESTS_PER_MIB);
    judge("two rounds, heartbeats", &take(&[PAGES, 100], raw, true), REQUESTS_PER_MIB);
    judge("one round, packed", &take(&[PAGES], packs, true), REQUESTS_PER_MIB);
    // A merge reads an index as long as that of raw pages, while less is written.
    judge("two rounds, packed", &take(&[PAGES, 100], packs, true), REQUESTS_PER_MIB + 1);
}
