//! The meta areas: objects with two homes, each home with a mirror (docs/format/store-v1.md, sections 2 and 4).
//!
//! Invariants: a write goes to the home that the committed generation does not use, front and mirror alike; a read
//! returns only bytes that match the pointer's digest, from whichever copy has them.

use alloc::vec;
use alloc::vec::Vec;

use crate::ports::{BlockDevice, BlockIdx};
use crate::store::digest::{Digest, Keys};
use crate::store::error::{Result, StoreError};
use crate::store::geometry::{Geometry, Homes};
use crate::store::layout::{BLOCK, Kind, blocks_of, index, length32, meta_pointer as field};
use crate::store::sabotage::{Safeguard, out};

/// A pointer to a catalog or a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetaPtr {
    /// First block, in the front area.
    pub block: u64,
    /// Bytes of content.
    pub bytes: u32,
    /// Over the whole blocks.
    pub digest: Digest,
}

impl MetaPtr {
    /// As it is written.
    pub fn encode(&self) -> [u8; field::SIZE] {
        let mut raw = [0; field::SIZE];
        field::BLOCK.put(&mut raw, &self.block.to_le_bytes());
        field::BYTES.put(&mut raw, &self.bytes.to_le_bytes());
        field::DIGEST.put(&mut raw, &self.digest.0);
        raw
    }

    /// Checked against the homes of what it should point at.
    pub fn parse(raw: &[u8], homes: &Homes) -> Option<Self> {
        let found = Self {
            block: field::BLOCK.u64(raw),
            bytes: field::BYTES.u32(raw),
            digest: Digest(field::DIGEST.array(raw)),
        };
        let fits = found.bytes != 0 && u64::from(found.bytes) <= homes.capacity();
        (homes.contains(found.block) && fits).then_some(found)
    }
}

/// Reads what a pointer points at; the mirror serves when the front copy does not match.
pub fn read<D: BlockDevice>(
    device: &mut D,
    geometry: &Geometry,
    keys: &Keys,
    kind: Kind,
    pointer: &MetaPtr,
) -> Result<Vec<u8>> {
    let mut content = vec![0; index(blocks_of(u64::from(pointer.bytes))) * BLOCK];
    let mut failure = StoreError::corrupt(kind.name(), pointer.block);
    for at in [pointer.block, geometry.mirror(pointer.block)] {
        match device.read(BlockIdx(at), &mut content) {
            Ok(()) if keys.meta(kind, pointer.bytes, &content) == pointer.digest || out(Safeguard::MetaDigest) => {
                content.truncate(index(u64::from(pointer.bytes)));
                return Ok(content);
            }
            Ok(()) => {}
            Err(error) => failure = error.into(),
        }
    }
    Err(failure)
}

/// Does the copy at this block match the pointer?
pub fn copy_holds<D: BlockDevice>(device: &mut D, keys: &Keys, kind: Kind, pointer: &MetaPtr, at: u64) -> bool {
    let mut content = vec![0; index(blocks_of(u64::from(pointer.bytes))) * BLOCK];
    let read = device.read(BlockIdx(at), &mut content);
    read.is_ok() && keys.meta(kind, pointer.bytes, &content) == pointer.digest
}

/// Writes an object to the given home, front and mirror, and returns the pointer to it.
pub fn write<D: BlockDevice>(
    device: &mut D,
    geometry: &Geometry,
    keys: &Keys,
    kind: Kind,
    home: u64,
    mut content: Vec<u8>,
) -> Result<MetaPtr> {
    let bytes = length32(content.len());
    content.resize(content.len().next_multiple_of(BLOCK), 0);
    device.write(BlockIdx(home), &content)?;
    if !out(Safeguard::Mirror) {
        device.write(BlockIdx(geometry.mirror(home)), &content)?;
    }
    Ok(MetaPtr { block: home, bytes, digest: keys.meta(kind, bytes, &content) })
}
