//! The engine on the real store: what is sealed reads back as the guest was at the suspend, and what is not leaves no
//! trace.

use snapshot::ports::{BlockDevice, BlockIdx, IoError, PAGE_SIZE};
use snapshot::request::Mode;
use snapshot::status::{State, Status};
use snapshot::store::{AttachmentKind, Catalog, FormatOptions, PageRef, Store, format};
use snapshot::take::{Engine, Options, StoreRecorder};
use snapshot::trace::Trace;

use super::fakes::{Line, Target};
use super::world::{Event, Setup, Shared, World, take_request};

/// A disk in memory.
#[derive(Clone)]
pub struct Disk(Vec<u8>);

impl Disk {
    /// 64 MiB of zeros.
    pub fn blank() -> Self {
        Self(vec![0; 64 << 20])
    }

    fn range(at: BlockIdx, length: usize) -> std::ops::Range<usize> {
        let start = at.0 as usize * PAGE_SIZE;
        start..start + length
    }
}

impl BlockDevice for Disk {
    fn blocks(&self) -> u64 {
        (self.0.len() / PAGE_SIZE) as u64
    }

    fn read_only(&self) -> bool {
        false
    }

    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        self.0[Self::range(at, data.len())].copy_from_slice(data);
        Ok(())
    }

    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        into.copy_from_slice(&self.0[Self::range(at, into.len())]);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}

fn run(setup: Setup) -> (Status, Shared, Disk) {
    let mut disk = Disk(vec![0; 64 << 20]);
    let options = FormatOptions { label: "test", store_id: [1; 16], key: [2; 32], now_unix: 1 };
    format(&mut disk, &options).unwrap();
    let take = take_request(&setup);
    let options = Options { memory_bytes: 1 << 20, hold: None };
    let world = World::new(setup);
    let (mut target, mut line) = (Target(world.clone()), Line(world.clone()));
    let mut store = Store::open(disk).map_err(|failed| failed.error).unwrap();
    let mut recorder = StoreRecorder::new(&mut store);
    let status = Engine::new(&mut target, &mut line, &mut recorder, &take, b"{}", options).run();
    drop(recorder);
    (status, world, store.into_device())
}

#[test]
fn a_take_reads_back_from_the_disk() {
    for (seed, mode) in [(1, Mode::Save), (2, Mode::Live), (3, Mode::Live)] {
        let (status, world, disk) = run(Setup { seed, mode, ..Setup::default() });
        assert_eq!(status.state, State::Sealed, "{status:?}");
        let mut catalog = Catalog::open(disk).map_err(|failed| failed.error).unwrap();
        let mut snapshot = catalog.snapshot("web01@now").unwrap();
        assert_eq!(snapshot.info().attachments.len(), 6);
        let disks = snapshot.attachment(AttachmentKind::DISKS).unwrap();
        assert_eq!(disks.as_deref(), Some(super::world::KEPT.as_bytes()));
        let trace = Trace::decode(&snapshot.attachment(AttachmentKind::TRACE).unwrap().unwrap()).unwrap();
        assert_eq!(trace.rounds.len() as u64, status.counters.round);
        let mut pages = snapshot.pages().unwrap();
        let mut found = vec![None; super::world::GFNS];
        while let Some((gfn, page)) = pages.next_page().unwrap() {
            let content = match page {
                PageRef::Zero => 0,
                PageRef::Data(page) => u64::from_le_bytes(page[..8].try_into().unwrap()),
            };
            assert!(found[gfn.raw() as usize].replace(content).is_none());
        }
        assert_eq!(Some(found), world.borrow().at_suspend, "seed {seed}");
    }
}

#[test]
fn a_take_that_is_void_leaves_the_store_as_it_was() {
    let events = vec![(60, Event::Cancel)];
    let (status, _, disk) = run(Setup { events, writes: 60, ..Setup::default() });
    assert_eq!(status.state, State::Void, "{status:?}");
    let mut catalog = Catalog::open(disk).map_err(|failed| failed.error).unwrap();
    assert!(catalog.list().unwrap().is_empty());
}
