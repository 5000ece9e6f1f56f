//! What an opened store knows, for writers and readers alike: superblock, keys, segment table, catalog.
//!
//! Invariants: every value here was checked; a blob is returned only when its digest holds. Nothing here writes.

use alloc::vec;
use alloc::vec::Vec;

use crate::ports::{BlockDevice, BlockIdx};
use crate::store::catalog::{self, CatalogEntry};
use crate::store::digest::Keys;
use crate::store::error::{Result, StoreError};
use crate::store::geometry::{Address, SegmentId};
use crate::store::layout::{BLOCK, Kind, index};
use crate::store::meta;
use crate::store::pointer::Ptr;
use crate::store::sabotage::{Safeguard, out};
use crate::store::superblock::Superblock;
use crate::store::table::SegmentTable;

/// An opened store.
#[derive(PartialEq)]
pub struct Volume {
    /// The superblock that was believed.
    pub superblock: Superblock,
    /// Keys of the digests.
    pub keys: Keys,
    /// From segment to address.
    pub table: SegmentTable,
    /// The snapshots.
    pub entries: Vec<CatalogEntry>,
}

impl Volume {
    /// Reads catalog and segment table of a superblock.
    pub fn load<D: BlockDevice>(device: &mut D, superblock: Superblock) -> Result<Self> {
        let keys = Keys::of(&superblock.key);
        let pointer = superblock.catalog;
        let raw = meta::read(device, &superblock.geometry, &keys, Kind::CATALOG, &pointer)?;
        let damaged = StoreError::corrupt(Kind::CATALOG.name(), pointer.block);
        let entries = catalog::decode(&raw, &superblock).ok_or(damaged)?;
        let table = SegmentTable::load(device, &superblock.geometry, &keys, &superblock.directory)?;
        Ok(Self { superblock, keys, table, entries })
    }

    /// The snapshot of this name.
    pub fn find(&self, name: &str) -> Result<&CatalogEntry> {
        self.entries.iter().find(|entry| entry.name == name).ok_or(StoreError::NotFound)
    }

    /// The block in which a place of a segment lies.
    pub fn block(&self, segment: SegmentId, slot: u64) -> Result<u64> {
        self.table.address(segment).map(|address: Address| address.block().saturating_add(slot))
    }

    /// Reads what a pointer points at, into a buffer that is made as long as the content.
    pub fn read_into<D: BlockDevice>(&self, device: &mut D, pointer: &Ptr, content: &mut Vec<u8>) -> Result<u64> {
        let at = self.block(pointer.segment, u64::from(pointer.slot))?;
        content.clear();
        content.resize(index(pointer.blocks()) * BLOCK, 0);
        device.read(BlockIdx(at), content)?;
        if self.keys.meta(pointer.kind, pointer.bytes, content) != pointer.digest && !out(Safeguard::BlobDigest) {
            return Err(StoreError::corrupt(pointer.kind.name(), at));
        }
        content.truncate(index(u64::from(pointer.bytes)));
        Ok(at)
    }

    /// Reads what a pointer points at, and the block where it lies.
    pub fn read_blob<D: BlockDevice>(&self, device: &mut D, pointer: &Ptr) -> Result<(Vec<u8>, u64)> {
        let mut content = vec![];
        let at = self.read_into(device, pointer, &mut content)?;
        Ok((content, at))
    }
}
