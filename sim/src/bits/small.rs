//! The store whose bits are flipped: as small as the format allows, with every kind of block in it; and what lies in
//! each block, found out from the bytes and the format's document alone, so that it can be compared with what the
//! production code does.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use snapshot::ports::Page;
use snapshot::store::{Geometry, Lease, StoreError, StoreId, layout};

use crate::content::{Held, Run, packed_run, run};
use crate::history::{History, SMALL};
use crate::image::Image;

/// Blocks of the device: the least that has room for these snapshots, and for one more take.
pub const BLOCKS: u64 = SMALL + 512;
/// Zero pages with holes between them: more than one leaf of an index has room for.
const RANGES: u64 = 520;

/// Names of kinds that a writer has to know.
pub const ROOT: &str = "root";
pub const SET: &str = "set of segments";

/// What lies in a block, as far as it decides what a flipped bit may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A superblock slot: the other one serves, and a writer sets it right.
    Slot,
    /// An object of the meta areas, front or mirror: the other copy serves.
    Copy(&'static str),
    /// There is only this one.
    Alone(&'static str),
    /// Packed pages, and the room beside them.
    Packed,
    /// A heartbeat or a lease, or a place for one: a damaged one is an absent one.
    Note,
    /// Nothing reaches it in this generation.
    Unused,
}

/// The store.
pub struct Small {
    /// Its blocks.
    pub image: Image,
    /// What it must hold.
    pub held: Held,
    /// What lies where.
    pub kinds: BTreeMap<u64, Kind>,
    /// The bytes of blocks with packed pages that belong to a page.
    pub packed: BTreeMap<u64, BTreeSet<usize>>,
}

impl Small {
    /// Makes it; the same each time.
    pub fn new() -> Result<Self> {
        let history = history().map_err(|error| anyhow::anyhow!("no store to flip bits of: {error}"))?;
        let held = history.possible.last().cloned().flatten();
        let (kinds, packed) = Survey::of(&history.disk.image())?;
        Ok(Self { image: history.disk.image(), held, kinds, packed })
    }
}

/// Raw, packed, equal and zero pages; a snapshot on top of that one; and one whose index has two levels.
fn history() -> Result<History, StoreError> {
    let mut history = History::empty(BLOCKS);
    let mut store = history.open()?;
    let full = packed_run(0, 9, 2);
    history.take(&mut store, "a@1", std::slice::from_ref(&full))?;
    let changed = run(1, 2, 3);
    history.since(&mut store, ("a@2", "a@1"), std::slice::from_ref(&changed), &[full, changed.clone()])?;
    let mut wide: Run = (0..RANGES).map(|number| (2 * number, Some(0))).collect();
    wide.extend(run(2 * RANGES, 1, 4));
    history.take(&mut store, "b@1", &[wide])?;
    store.beat([3; 16], 1_700_000_002)?;
    let generation = store.info().generation;
    let lease = Lease { reader: [8; 16], generation, sequence: 1, unix: 5, in_use: true };
    lease.write(&mut history.disk.clone(), StoreId([1; 16]), 1)?;
    drop(store);
    Ok(history)
}

/// Reads the bytes as the document says.
struct Survey<'a> {
    image: &'a Image,
    geometry: Geometry,
    kinds: BTreeMap<u64, Kind>,
    packed: BTreeMap<u64, BTreeSet<usize>>,
}

type Found = (BTreeMap<u64, Kind>, BTreeMap<u64, BTreeSet<usize>>);

impl<'a> Survey<'a> {
    fn of(image: &'a Image) -> Result<Found> {
        let geometry = Geometry::of(BLOCKS).map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut survey = Self { image, geometry, kinds: BTreeMap::new(), packed: BTreeMap::new() };
        survey.fixed();
        let table = survey.meta()?;
        survey.segments(&table);
        Ok((survey.kinds, survey.packed))
    }

    /// Slots, heartbeat, leases, and everything in the meta areas as not used.
    fn fixed(&mut self) {
        let leases = layout::LEASE_FIRST..layout::LEASE_FIRST + u64::from(layout::LEASES);
        self.kinds.extend(leases.chain([layout::HEARTBEAT_BLOCK]).map(|at| (at, Kind::Note)));
        let first = layout::META_FIRST;
        for at in first..first + self.geometry.meta_blocks {
            self.kinds.extend([at, self.geometry.mirror(at)].map(|at| (at, Kind::Unused)));
        }
        self.kinds.extend([0, BLOCKS - 1].map(|at| (at, Kind::Slot)));
    }

    /// The homes that are used. Returns the addresses of the segments, by id.
    fn meta(&mut self) -> Result<Vec<u64>> {
        let slot = self.image.bytes(0);
        let block = |pointer: &[u8]| layout::meta_pointer::BLOCK.u64(pointer);
        let catalog = block(layout::superblock::CATALOG.of(&slot));
        let directory = block(layout::superblock::DIRECTORY.of(&slot));
        let entry = self.image.bytes(directory);
        let leaf = layout::directory_entry::BLOCK.u64(entry.get(layout::directory::SIZE..).context("a directory")?);
        for (name, at) in [("catalog", catalog), ("directory", directory), ("leaf of the segment table", leaf)] {
            self.kinds.extend([at, self.geometry.mirror(at)].map(|at| (at, Kind::Copy(name))));
        }
        let table = self.image.bytes(leaf);
        let words = table.as_chunks::<4>().0.iter().skip(layout::table_leaf::SIZE / 4);
        Ok(words.map(|word| u64::from(u32::from_le_bytes(*word)) * layout::SEGMENT_BLOCKS).collect())
    }

    /// What lies in the segments: structures by their magic, pages by the entries that name them.
    fn segments(&mut self, table: &[u64]) {
        let first = u64::from(self.geometry.first_segment) * layout::SEGMENT_BLOCKS;
        let used = self.image.used().filter(|at| (first..self.geometry.mirror(layout::META_FIRST)).contains(at));
        for at in used.collect::<Vec<_>>() {
            let bytes = self.image.bytes(at);
            let kind = match bytes {
                bytes if bytes.starts_with(&layout::ROOT_MAGIC) => ROOT,
                bytes if bytes.starts_with(&layout::Kind::RUN_NODE.0) => "node of an index",
                bytes if bytes.starts_with(&layout::Kind::SEGMENT_SET.0) => SET,
                bytes if bytes.starts_with(b"{}") => "attachment",
                bytes if bytes.starts_with(&layout::Kind::RUN_LEAF.0) => {
                    self.leaf(at, table);
                    continue;
                }
                _ => continue,
            };
            self.kinds.insert(at, Kind::Alone(kind));
        }
    }

    fn leaf(&mut self, at: u64, table: &[u64]) {
        let count = layout::run_block::COUNT.u32(&self.image.bytes(at)) as usize;
        let length = layout::run_block::SIZE + count * layout::entry::SIZE;
        let blocks = at..at + length.div_ceil(layout::BLOCK) as u64;
        let bytes: Vec<Page> = blocks.clone().map(|at| self.image.bytes(at)).collect();
        self.kinds.extend(blocks.map(|at| (at, Kind::Alone("leaf of an index"))));
        let entries = bytes.as_flattened().get(layout::run_block::SIZE..length).unwrap_or_default();
        for entry in entries.chunks(layout::entry::SIZE) {
            self.page(entry, table);
        }
    }

    fn page(&mut self, entry: &[u8], table: &[u64]) {
        let (encoding, stored) = (layout::entry::SHAPE.u16(entry) >> 13, layout::entry::SHAPE.u16(entry) & 0x1fff);
        let segment = table.get(layout::entry::SEGMENT.u32(entry) as usize).copied().unwrap_or_default();
        let from = segment as usize * layout::BLOCK + usize::from(layout::entry::PLACE.u16(entry)) * 16;
        let bytes = from..from + usize::from(stored);
        match encoding {
            2 => drop(self.kinds.insert((from / layout::BLOCK) as u64, Kind::Alone("page"))),
            3 => {
                for byte in bytes {
                    let at = (byte / layout::BLOCK) as u64;
                    self.kinds.insert(at, Kind::Packed);
                    self.packed.entry(at).or_default().insert(byte % layout::BLOCK);
                }
            }
            _ => {}
        }
    }
}
