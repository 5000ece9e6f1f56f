//! The segment table: from a segment's id to its address (docs/format/store-v1.md, section 6).
//!
//! Invariants: the table in memory costs 4 bytes per MiB of the device, whatever the guests' size. A leaf that is
//! damaged in both copies makes its ids unknown, not the others. Only changed leaves are written, to the home that the
//! committed generation does not use.

use alloc::vec;
use alloc::vec::Vec;

use crate::ports::{BlockDevice, BlockIdx};
use crate::store::digest::{Digest, Keys};
use crate::store::error::{Result, StoreError};
use crate::store::geometry::{Address, Geometry, MetaObject, SegmentId};
use crate::store::layout::{
    BLOCK, Kind, TABLE_LEAF_ENTRIES, directory, directory_entry, index, length32, table_leaf as field,
};
use crate::store::meta::{self, MetaPtr};
use crate::store::sabotage::{Safeguard, out};

/// Leaves whose homes are read at once: 64 blocks, 256 KiB.
const LEAVES_PER_READ: usize = 32;

/// What is known of a leaf besides its addresses.
#[derive(Clone, Copy, PartialEq)]
struct Leaf {
    block: u64,
    digest: Digest,
    damaged: bool,
    changed: bool,
}

/// The table, in memory.
#[derive(PartialEq)]
pub struct SegmentTable {
    addresses: Vec<u32>,
    leaves: Vec<Leaf>,
    geometry: Geometry,
}

impl SegmentTable {
    /// Nothing mapped; every leaf is to be written.
    pub fn empty(geometry: &Geometry) -> Self {
        let leaf = |number| Leaf {
            block: geometry.homes(MetaObject::Leaf(number)).home[1],
            digest: Digest::default(),
            damaged: false,
            changed: true,
        };
        Self {
            addresses: vec![0; index(u64::from(geometry.segments))],
            leaves: (0..length32(index(geometry.leaves))).map(leaf).collect(),
            geometry: *geometry,
        }
    }

    /// Reads directory and leaves.
    pub fn load<D: BlockDevice>(device: &mut D, geometry: &Geometry, keys: &Keys, pointer: &MetaPtr) -> Result<Self> {
        let raw = meta::read(device, geometry, keys, Kind::DIRECTORY, pointer)?;
        let mut table = Self::empty(geometry);
        table.parse_directory(&raw).ok_or(StoreError::corrupt(Kind::DIRECTORY.name(), pointer.block))?;
        let mut buffer = vec![0; 2 * LEAVES_PER_READ.min(table.leaves.len()) * BLOCK];
        for first in (0..table.leaves.len()).step_by(LEAVES_PER_READ) {
            let end = table.leaves.len().min(first + LEAVES_PER_READ);
            table.load_leaves(device, keys, first..end, &mut buffer);
        }
        Ok(table)
    }

    fn parse_directory(&mut self, raw: &[u8]) -> Option<()> {
        let entries = raw.get(directory::SIZE..)?;
        let exact = entries.len() == self.leaves.len() * directory_entry::SIZE;
        let count = index(u64::from(directory::COUNT.u32(raw)));
        if directory::MAGIC.of(raw) != Kind::DIRECTORY.0 || count != self.leaves.len() || !exact {
            return None;
        }
        for ((number, leaf), entry) in (0..).zip(&mut self.leaves).zip(entries.chunks(directory_entry::SIZE)) {
            let block = directory_entry::BLOCK.u64(entry);
            if !self.geometry.homes(MetaObject::Leaf(number)).contains(block) {
                return None;
            }
            let digest = Digest(directory_entry::DIGEST.array(entry));
            *leaf = Leaf { block, digest, damaged: false, changed: false };
        }
        Some(())
    }

    /// Reads the front homes of some leaves in one request; a leaf that does not match is tried in the mirror.
    fn load_leaves<D: BlockDevice>(
        &mut self,
        device: &mut D,
        keys: &Keys,
        range: core::ops::Range<usize>,
        buffer: &mut [u8],
    ) {
        let first = self.geometry.homes(MetaObject::Leaf(length32(range.start))).home[0];
        let front = buffer.get_mut(..2 * range.len() * BLOCK).unwrap_or_default();
        let readable = device.read(BlockIdx(first), front).is_ok();
        for number in range {
            let Some(leaf) = self.leaves.get(number).copied() else { continue };
            let offset = index(leaf.block.saturating_sub(first)) * BLOCK;
            let copy = front.get(offset..offset + BLOCK).unwrap_or_default();
            let good = readable && self.parse_leaf(keys, number, copy).is_some();
            if !good && self.load_mirror(device, keys, number).is_none() {
                self.leaves.iter_mut().skip(number).take(1).for_each(|leaf| leaf.damaged = true);
            }
        }
    }

    fn load_mirror<D: BlockDevice>(&mut self, device: &mut D, keys: &Keys, number: usize) -> Option<()> {
        let mut block = [0; BLOCK];
        let at = self.geometry.mirror(self.leaves.get(number)?.block);
        device.read(BlockIdx(at), &mut block).ok()?;
        self.parse_leaf(keys, number, &block)
    }

    fn parse_leaf(&mut self, keys: &Keys, number: usize, block: &[u8]) -> Option<()> {
        let leaf = self.leaves.get(number)?;
        let holds = keys.meta(Kind::TABLE_LEAF, length32(BLOCK), block) == leaf.digest || out(Safeguard::LeafDigest);
        let right =
            holds && field::MAGIC.of(block) == Kind::TABLE_LEAF.0 && field::INDEX.u32(block) == length32(number);
        if !right {
            return None;
        }
        let first = number * index(TABLE_LEAF_ENTRIES);
        let words = block.get(field::SIZE..)?.chunks(4).map(|raw| u32::from_le_bytes(raw.try_into().unwrap_or([0; 4])));
        self.addresses.iter_mut().skip(first).zip(words).for_each(|(address, word)| *address = word);
        Some(())
    }

    /// Where the segment lies.
    pub fn address(&self, id: SegmentId) -> Result<Address> {
        let number = u64::from(id.0) / TABLE_LEAF_ENTRIES;
        let leaf = self.leaves.get(index(number)).filter(|leaf| !leaf.damaged);
        let raw = leaf.and(self.addresses.get(index(u64::from(id.0)))).copied();
        let at = self.geometry.homes(MetaObject::Leaf(length32(index(number)))).home[0];
        raw.and_then(|raw| self.geometry.address(raw)).ok_or(StoreError::corrupt("segment table entry", at))
    }

    /// Maps the segment.
    pub fn map(&mut self, id: SegmentId, address: Address) {
        self.put(id, address.0);
    }

    /// Unmaps it.
    pub fn unmap(&mut self, id: SegmentId) {
        self.put(id, 0);
    }

    fn put(&mut self, id: SegmentId, raw: u32) {
        let leaf = self.leaves.get_mut(index(u64::from(id.0) / TABLE_LEAF_ENTRIES));
        if let (Some(entry), Some(leaf)) = (self.addresses.get_mut(index(u64::from(id.0))), leaf)
            && *entry != raw
        {
            *entry = raw;
            leaf.changed = true;
        }
    }

    /// Ids that are mapped.
    pub fn mapped(&self) -> impl Iterator<Item = SegmentId> + '_ {
        (0..).zip(&self.addresses).filter(|(_, raw)| **raw != 0).map(|(id, _)| SegmentId(id))
    }

    /// Pointers to the leaves.
    pub fn leaves(&self) -> impl Iterator<Item = MetaPtr> + '_ {
        let bytes = length32(BLOCK);
        self.leaves.iter().map(move |leaf| MetaPtr { block: leaf.block, bytes, digest: leaf.digest })
    }

    /// Writes the changed leaves and a directory that points at them. Returns the pointer to the directory, which is
    /// the old one if nothing changed.
    pub fn write<D: BlockDevice>(&mut self, device: &mut D, keys: &Keys, current: &MetaPtr) -> Result<MetaPtr> {
        if !self.leaves.iter().any(|leaf| leaf.changed) {
            return Ok(*current);
        }
        for number in 0..self.leaves.len() {
            self.write_leaf(device, keys, number)?;
        }
        let home = self.geometry.homes(MetaObject::Directory).other(current.block);
        meta::write(device, &self.geometry, keys, Kind::DIRECTORY, home, self.encode_directory())
    }

    fn write_leaf<D: BlockDevice>(&mut self, device: &mut D, keys: &Keys, number: usize) -> Result<()> {
        let geometry = self.geometry;
        let first = number * index(TABLE_LEAF_ENTRIES);
        let Some(leaf) = self.leaves.get_mut(number).filter(|leaf| leaf.changed) else { return Ok(()) };
        let mut block = vec![0; field::SIZE];
        field::MAGIC.put(&mut block, &Kind::TABLE_LEAF.0);
        field::INDEX.put(&mut block, &length32(number).to_le_bytes());
        let entries = self.addresses.iter().skip(first).take(index(TABLE_LEAF_ENTRIES));
        entries.for_each(|raw| block.extend_from_slice(&raw.to_le_bytes()));
        block.resize(BLOCK, 0);
        let home = geometry.homes(MetaObject::Leaf(length32(number))).other(leaf.block);
        let written = meta::write(device, &geometry, keys, Kind::TABLE_LEAF, home, block)?;
        *leaf = Leaf { block: home, digest: written.digest, damaged: false, changed: false };
        Ok(())
    }

    fn encode_directory(&self) -> Vec<u8> {
        let mut out = vec![0; directory::SIZE];
        directory::MAGIC.put(&mut out, &Kind::DIRECTORY.0);
        directory::COUNT.put(&mut out, &length32(self.leaves.len()).to_le_bytes());
        for leaf in &self.leaves {
            let mut entry = [0; directory_entry::SIZE];
            directory_entry::BLOCK.put(&mut entry, &leaf.block.to_le_bytes());
            directory_entry::DIGEST.put(&mut entry, &leaf.digest.0);
            out.extend_from_slice(&entry);
        }
        out
    }
}
