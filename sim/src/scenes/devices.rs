//! Devices that a writer has to leave alone, byte for byte, with the right word.

use std::cell::Cell;
use std::rc::Rc;

use snapshot::ports::{BlockDevice, BlockIdx, IoError, PAGE_SIZE, Page};
use snapshot::store::layout::{VERSION, superblock};
use snapshot::store::{Store, StoreError};

use crate::content::run;
use crate::disk::Disk;
use crate::forge::sealed;
use crate::history::{History, ROOMY};
use crate::image::{Block, Image};
use crate::judge::Verdict;

/// A device that may be smaller than what it holds, or not writable, and remembers who did not heed it.
struct Strict {
    disk: Disk,
    blocks: u64,
    read_only: bool,
    outside: Rc<Cell<bool>>,
}

impl Strict {
    fn within(&self, at: BlockIdx, bytes: usize) -> Result<(), IoError> {
        let inside = at.0 + (bytes / PAGE_SIZE) as u64 <= self.blocks;
        self.outside.set(self.outside.get() || !inside);
        if inside { Ok(()) } else { Err(IoError::Failed { at }) }
    }
}

impl BlockDevice for Strict {
    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        self.within(at, data.len())?;
        self.disk.write(at, data)
    }

    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        self.within(at, into.len())?;
        self.disk.read(at, into)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.disk.flush()
    }
}

/// A device, and the word with which it is refused.
struct Case {
    what: &'static str,
    image: Image,
    blocks: u64,
    read_only: bool,
    word: fn(&StoreError) -> bool,
}

impl Case {
    fn new(what: &'static str, image: Image, word: fn(&StoreError) -> bool) -> Self {
        Self { what, image, blocks: ROOMY, read_only: false, word }
    }

    fn verdict(self) -> Verdict {
        let disk = Disk::with(ROOMY, self.image);
        let outside = Rc::new(Cell::new(false));
        let device =
            Strict { disk: disk.clone(), blocks: self.blocks, read_only: self.read_only, outside: outside.clone() };
        let opened = Store::open(device).map(drop).map_err(|failed| failed.error);
        let wrong = match opened {
            _ if outside.get() => "is accessed behind its end".to_owned(),
            _ if !disk.0.borrow().log.is_empty() => "is written to".to_owned(),
            Ok(()) => "is opened by a writer".to_owned(),
            Err(error) if !(self.word)(&error) => format!("is refused with the wrong word: {error}"),
            Err(_) => return Ok(()),
        };
        Err(format!("{} {wrong}", self.what))
    }
}

/// A store of so many takes more than one, with a format of its own.
fn store(id: u8, salts: &[u64]) -> Image {
    let mut history = History::blank(ROOMY);
    let _ = history.format(id);
    if let Ok(mut store) = history.open() {
        for salt in salts {
            let _ = history.take(&mut store, &format!("a@{salt}"), &[run(0, 5, *salt)]);
        }
    }
    history.disk.image()
}

fn head(image: &Image, change: impl FnOnce(&mut Page)) -> Image {
    let (mut image, mut head) = (image.clone(), image.bytes(0));
    change(&mut head);
    let head = Block::new(sealed(head));
    image.put(0, head.clone());
    image.put(ROOMY - 1, head);
    image
}

fn with(image: &Image, at: u64, block: Page) -> Image {
    let mut image = image.clone();
    image.put(at, Block::new(block));
    image
}

/// None of them is opened, none is touched.
pub fn left_alone() -> Verdict {
    let (ours, other, sister) = (store(1, &[1, 2]), store(2, &[1]), store(1, &[1, 3]));
    let last = ROOMY - 1;
    let mut table = [0; PAGE_SIZE];
    table[..8].copy_from_slice(b"EFI PART");
    table[3000] = 1;
    let corrupt: fn(&StoreError) -> bool =
        |error| matches!(error, StoreError::Corrupt { what: "pair of superblocks", .. });
    let foreign: fn(&StoreError) -> bool = |error| *error == StoreError::Foreign;
    let unknown: fn(&StoreError) -> bool = |error| matches!(error, StoreError::UnknownFeatures { .. });
    let newer = head(&ours, |head| superblock::VERSION.put(head, &(VERSION + 1).to_le_bytes()));
    let incompat = head(&ours, |head| superblock::INCOMPAT.put(head, &(1u64 << 40).to_le_bytes()));
    let ro_compat = head(&ours, |head| superblock::RO_COMPAT.put(head, &1u64.to_le_bytes()));
    let read_only = Case::new("a device that may not be written", ours.clone(), |error| *error == StoreError::ReadOnly);
    let shrunk = Case::new("a device that shrank", ours.clone(), |error| matches!(error, StoreError::Shrunk { .. }));
    let cases = [
        Case { read_only: true, ..read_only },
        Case { blocks: ROOMY - 256, ..shrunk },
        Case::new("a store with another's table in its last block", with(&ours, last, table), foreign),
        Case::new("a store with another's table in its first block", with(&ours, 0, table), foreign),
        Case::new("a store with the end of another store", with(&ours, last, other.bytes(last)), corrupt),
        Case::new("a store with the beginning of another store", with(&ours, 0, other.bytes(0)), corrupt),
        Case::new("a store with the end of its copy that went on", with(&ours, last, sister.bytes(last)), corrupt),
        Case::new("a store of a newer version", newer, |error| matches!(error, StoreError::NewerVersion { .. })),
        Case::new("a store with unknown features", incompat, unknown),
        Case::new("a store with features unknown to its writer", ro_compat, unknown),
    ];
    Store::open(Disk::with(ROOMY, ours)).map_err(|failed| format!("a sound store: {}", failed.error))?;
    cases.into_iter().try_for_each(Case::verdict)
}
