//! The superblock and its two slots (docs/format/store-v1.md, section 4).
//!
//! Invariants: a [`Superblock`] exists only for bytes whose magic, checksum, version, flags and geometry were checked;
//! until then they are a [`RawSuperblock`]. Which slot is believed is decided in [`Slots::newest`], nowhere else.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use crate::ports::{BlockDevice, BlockIdx, Page};
use crate::store::digest::{Digest, checksum};
use crate::store::error::{Result, StoreError};
use crate::store::geometry::{Geometry, MetaObject, Slot};
use crate::store::layout::{
    BLOCK, DEVICE_BLOCKS_MAX, DEVICE_BLOCKS_MIN, DIGEST_SUITE, INCOMPAT_KNOWN, KEY_AREA_BLOCKS, KEY_AREA_FIRST,
    META_FIRST, SEGMENT_BLOCKS, SUPERBLOCK_MAGIC, VERSION, length32, superblock as field,
};
use crate::store::meta::MetaPtr;
use crate::store::sabotage::{Safeguard, out};

/// Bits by which the magic of a damaged slot may differ from ours.
const MAGIC_DAMAGE_BITS: u32 = 8;
/// Most bytes of a label.
pub const LABEL_MAX: usize = 63;

/// Identity of a store, chosen when it was formatted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// Counts the commits of a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// A superblock that makes sense.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Identity.
    pub id: StoreId,
    /// Commits so far.
    pub generation: Generation,
    /// Sizes and places.
    pub geometry: Geometry,
    /// Free segments that no take may use.
    pub slop: u32,
    /// Features that whoever does not know them must refuse.
    pub incompat: u64,
    /// The next snapshot's id.
    pub next_snapshot: u64,
    /// When it was formatted.
    pub created_unix: u64,
    /// Key of the digests.
    pub key: [u8; 32],
    /// Flags that a writer must know; none is known here.
    pub ro_compat: u64,
    /// Flags that may be ignored, kept as they are.
    pub compat: u64,
    /// Where the catalog lies.
    pub catalog: MetaPtr,
    /// Where the directory of the segment table lies.
    pub directory: MetaPtr,
    /// The operator's name for the store.
    pub label: String,
}

impl Superblock {
    /// The block as it is written.
    pub fn encode(&self) -> Page {
        let mut block = [0; BLOCK];
        field::MAGIC.put(&mut block, &SUPERBLOCK_MAGIC);
        field::VERSION.put(&mut block, &VERSION.to_le_bytes());
        field::BLOCK_BYTES.put(&mut block, &length32(BLOCK).to_le_bytes());
        field::COMPAT.put(&mut block, &self.compat.to_le_bytes());
        field::RO_COMPAT.put(&mut block, &self.ro_compat.to_le_bytes());
        field::INCOMPAT.put(&mut block, &self.incompat.to_le_bytes());
        field::STORE_ID.put(&mut block, &self.id.0);
        field::GENERATION.put(&mut block, &self.generation.0.to_le_bytes());
        field::SLOP_SEGMENTS.put(&mut block, &self.slop.to_le_bytes());
        field::NEXT_SNAPSHOT_ID.put(&mut block, &self.next_snapshot.to_le_bytes());
        field::CREATED_UNIX.put(&mut block, &self.created_unix.to_le_bytes());
        field::DIGEST_SUITE.put(&mut block, &DIGEST_SUITE.to_le_bytes());
        field::KEY_AREA_BLOCKS.put(&mut block, &KEY_AREA_BLOCKS.to_le_bytes());
        field::KEY_AREA_FIRST.put(&mut block, &KEY_AREA_FIRST.to_le_bytes());
        field::DIGEST_KEY.put(&mut block, &self.key);
        field::CATALOG.put(&mut block, &self.catalog.encode());
        field::DIRECTORY.put(&mut block, &self.directory.encode());
        field::LABEL.put(&mut block, self.label.as_bytes());
        put_geometry(&mut block, &self.geometry);
        let sum = checksum(block.get(..field::CHECKSUM.offset).unwrap_or(&[]));
        field::CHECKSUM.put(&mut block, &sum.0);
        block
    }
}

fn put_geometry(block: &mut Page, geometry: &Geometry) {
    field::DEVICE_BLOCKS.put(block, &geometry.blocks.to_le_bytes());
    field::SEGMENT_BLOCKS.put(block, &segment_blocks().to_le_bytes());
    field::META_FIRST.put(block, &META_FIRST.to_le_bytes());
    field::META_BLOCKS.put(block, &geometry.meta_blocks.to_le_bytes());
    field::FIRST_SEGMENT.put(block, &geometry.first_segment.to_le_bytes());
    field::SEGMENT_COUNT.put(block, &geometry.segments.to_le_bytes());
}

fn segment_blocks() -> u32 {
    u32::try_from(SEGMENT_BLOCKS).unwrap_or(u32::MAX)
}

/// A slot that says nothing but whose it is: formatting begins with it, so that no tear of it looks foreign.
pub fn void_slot() -> Page {
    let mut block = [0; BLOCK];
    field::MAGIC.put(&mut block, &SUPERBLOCK_MAGIC);
    block
}

/// A block that may be a superblock.
pub struct RawSuperblock<'a> {
    block: &'a Page,
    at: u64,
}

impl<'a> RawSuperblock<'a> {
    /// The bytes of a block, and where it lies.
    pub fn new(block: &'a Page, at: u64) -> Self {
        Self { block, at }
    }

    /// What it is. An error is damage behind a valid checksum, or a version or feature that is unknown.
    pub fn classify(&self) -> Result<SlotState> {
        let magic: [u8; 8] = field::MAGIC.array(self.block);
        let sum = checksum(self.block.get(..field::CHECKSUM.offset).unwrap_or(&[]));
        let holds = Digest(field::CHECKSUM.array(self.block)) == sum || out(Safeguard::SlotChecksum);
        if magic == SUPERBLOCK_MAGIC && holds {
            return self.parse().map(|found| SlotState::Valid(Box::new(found)));
        }
        let empty = self.block.get(field::MAGIC.size..).is_some_and(|rest| rest.iter().all(|byte| *byte == 0));
        if empty && (magic == [0; 8] || magic == SUPERBLOCK_MAGIC) {
            return Ok(SlotState::Blank);
        }
        let differing: u32 = magic.iter().zip(&SUPERBLOCK_MAGIC).map(|(a, b)| (a ^ b).count_ones()).sum();
        Ok(if differing <= MAGIC_DAMAGE_BITS { SlotState::Damaged } else { SlotState::Foreign })
    }

    /// The checksum holds: now version, flags, geometry, in this order.
    fn parse(&self) -> Result<Superblock> {
        let block = self.block;
        let found = field::VERSION.u32(block);
        if found > VERSION && !out(Safeguard::NewerVersion) {
            return Err(StoreError::NewerVersion { found });
        }
        let bits = field::INCOMPAT.u64(block) & !INCOMPAT_KNOWN;
        if bits != 0 && !out(Safeguard::UnknownFeatures) {
            return Err(StoreError::UnknownFeatures { bits });
        }
        let geometry = Geometry::of(field::DEVICE_BLOCKS.u64(block)).map_err(|_| self.corrupt())?;
        let mut expected = [0; BLOCK];
        put_geometry(&mut expected, &geometry);
        let same = [
            field::DEVICE_BLOCKS,
            field::SEGMENT_BLOCKS,
            field::META_FIRST,
            field::META_BLOCKS,
            field::FIRST_SEGMENT,
            field::SEGMENT_COUNT,
        ]
        .iter()
        .all(|one| one.of(block) == one.of(&expected));
        let constants = found == VERSION
            && field::BLOCK_BYTES.u32(block) == length32(BLOCK)
            && field::CIPHER_SUITE.u16(block) == 0
            && field::DIGEST_SUITE.u16(block) == DIGEST_SUITE
            && field::SLOP_SEGMENTS.u32(block) < geometry.segments
            && field::GENERATION.u64(block) != 0;
        if !same || !constants {
            return Err(self.corrupt());
        }
        self.assemble(geometry)
    }

    fn assemble(&self, geometry: Geometry) -> Result<Superblock> {
        let block = self.block;
        let pointer = |raw: &[u8], object| MetaPtr::parse(raw, &geometry.homes(object)).ok_or(self.corrupt());
        let label = field::LABEL.of(block).split(|byte| *byte == 0).next().unwrap_or(&[]);
        Ok(Superblock {
            id: StoreId(field::STORE_ID.array(block)),
            generation: Generation(field::GENERATION.u64(block)),
            slop: field::SLOP_SEGMENTS.u32(block),
            incompat: field::INCOMPAT.u64(block),
            next_snapshot: field::NEXT_SNAPSHOT_ID.u64(block),
            created_unix: field::CREATED_UNIX.u64(block),
            key: field::DIGEST_KEY.array(block),
            ro_compat: field::RO_COMPAT.u64(block),
            compat: field::COMPAT.u64(block),
            catalog: pointer(field::CATALOG.of(block), MetaObject::Catalog)?,
            directory: pointer(field::DIRECTORY.of(block), MetaObject::Directory)?,
            label: core::str::from_utf8(label).map(String::from).map_err(|_| self.corrupt())?,
            geometry,
        })
    }

    fn corrupt(&self) -> StoreError {
        StoreError::corrupt("superblock", self.at)
    }
}

/// What lies in a slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SlotState {
    /// Checked.
    Valid(Box<Superblock>),
    /// Ours, but the checksum does not match.
    Damaged,
    /// The device cannot read it.
    Unreadable(StoreError),
    /// All zero, or void: formatting has begun and not ended.
    Blank,
    /// Somebody else's.
    Foreign,
}

/// Both slots, as they were read.
pub struct Slots {
    a: SlotState,
    b: SlotState,
}

impl Slots {
    /// Reads both. Slot B is where slot A says, or at the end of the device.
    pub fn read<D: BlockDevice>(device: &mut D) -> Result<Self> {
        let end = device.blocks().min(DEVICE_BLOCKS_MAX);
        if end < 2 {
            return Err(StoreError::TooSmall { blocks: end, need: DEVICE_BLOCKS_MIN });
        }
        let a = read_slot(device, 0)?;
        let at = match &a {
            SlotState::Valid(found) if found.geometry.blocks > device.blocks() && !out(Safeguard::ShrunkDevice) => {
                return Err(StoreError::Shrunk { blocks: device.blocks(), formatted: found.geometry.blocks });
            }
            SlotState::Valid(found) => found.geometry.slot(Slot::B),
            _ => end - 1,
        };
        let b = read_slot(device, at)?;
        Ok(Self { a, b })
    }

    /// What lies in slot A and in slot B.
    pub fn states(self) -> [SlotState; 2] {
        [self.a, self.b]
    }

    /// True if either slot holds something else than a superblock of ours.
    pub fn foreign(&self) -> bool {
        self.a == SlotState::Foreign || self.b == SlotState::Foreign
    }

    /// The superblock to believe, and where it lies.
    pub fn newest(self) -> Result<(Slot, Superblock)> {
        match (self.a, self.b) {
            (SlotState::Valid(a), SlotState::Valid(b)) => newest_of(*a, *b),
            (SlotState::Valid(a), _) => Ok((Slot::A, *a)),
            (_, SlotState::Valid(b)) => Ok((Slot::B, *b)),
            (SlotState::Unreadable(error), _) | (_, SlotState::Unreadable(error)) => Err(error),
            (SlotState::Foreign, _) | (_, SlotState::Foreign) => Err(StoreError::Foreign),
            (SlotState::Blank, SlotState::Blank) => Err(StoreError::NotFormatted),
            _ => Err(StoreError::corrupt("superblock", 0)),
        }
    }
}

fn newest_of(a: Superblock, b: Superblock) -> Result<(Slot, Superblock)> {
    let two_stores = (a.id != b.id || a.geometry != b.geometry) && !out(Safeguard::SlotsOfOneStore);
    let two_histories = a.id == b.id && a.generation == b.generation && a != b && !out(Safeguard::SlotsOfOneHistory);
    if two_stores || two_histories {
        return Err(StoreError::corrupt("pair of superblocks", a.geometry.slot(Slot::B)));
    }
    Ok(if a.generation >= b.generation || out(Safeguard::NewestSlot) { (Slot::A, a) } else { (Slot::B, b) })
}

fn read_slot<D: BlockDevice>(device: &mut D, at: u64) -> Result<SlotState> {
    let mut block = [0; BLOCK];
    match device.read(BlockIdx(at), &mut block) {
        Ok(()) => RawSuperblock::new(&block, at).classify(),
        Err(error) => Ok(SlotState::Unreadable(error.into())),
    }
}
