//! The list of snapshots, as it lies in the meta area (docs/format/store-v1.md, section 7).
//!
//! Invariants: ids ascend, names are legal and unique, every root pointer stays inside a segment that exists.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use crate::names::SnapshotName;
use crate::store::geometry::Geometry;
use crate::store::layout::{Kind, catalog as field, catalog_entry as entry, index, length32};
use crate::store::pointer::Ptr;
use crate::store::superblock::{Generation, Superblock};

/// One snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CatalogEntry {
    /// Its number, never used twice.
    pub id: u64,
    /// Its root.
    pub root: Ptr,
    /// When its take began.
    pub created_unix: u64,
    /// `GUEST@NAME`, legal.
    pub name: String,
}

/// The bytes of a catalog.
pub fn encode(entries: &[CatalogEntry], generation: Generation) -> Vec<u8> {
    let mut out = vec![0; field::SIZE];
    field::MAGIC.put(&mut out, &Kind::CATALOG.0);
    field::COUNT.put(&mut out, &length32(entries.len()).to_le_bytes());
    field::GENERATION.put(&mut out, &generation.0.to_le_bytes());
    for one in entries {
        let mut raw = [0; entry::SIZE];
        entry::SNAPSHOT_ID.put(&mut raw, &one.id.to_le_bytes());
        entry::ROOT.put(&mut raw, &one.root.encode());
        entry::CREATED_UNIX.put(&mut raw, &one.created_unix.to_le_bytes());
        entry::NAME_BYTES.put(&mut raw, &length32(one.name.len()).to_le_bytes());
        entry::NAME.put(&mut raw, one.name.as_bytes());
        out.extend_from_slice(&raw);
    }
    out
}

/// The entries. None if anything in it is not as it must be.
pub fn decode(raw: &[u8], superblock: &Superblock) -> Option<Vec<CatalogEntry>> {
    let entries = raw.get(field::SIZE..)?;
    let count = index(u64::from(field::COUNT.u32(raw)));
    let right = field::MAGIC.of(raw) == Kind::CATALOG.0
        && field::GENERATION.u64(raw) == superblock.generation.0
        && count <= index(superblock.geometry.snapshots)
        && entries.len() == count.checked_mul(entry::SIZE)?;
    if !right {
        return None;
    }
    let mut found: Vec<CatalogEntry> = Vec::with_capacity(count);
    for one in entries.chunks(entry::SIZE) {
        let next = decode_entry(one, &superblock.geometry)?;
        let ascending = found.last().is_none_or(|last| last.id < next.id) && next.id < superblock.next_snapshot;
        if !ascending || found.iter().any(|other| other.name == next.name) {
            return None;
        }
        found.push(next);
    }
    Some(found)
}

fn decode_entry(raw: &[u8], geometry: &Geometry) -> Option<CatalogEntry> {
    let name = entry::NAME.of(raw).get(..usize::from(entry::NAME_BYTES.u16(raw)))?;
    let name: SnapshotName = core::str::from_utf8(name).ok()?.parse().ok()?;
    Some(CatalogEntry {
        id: entry::SNAPSHOT_ID.u64(raw),
        root: Ptr::parse(entry::ROOT.of(raw), &[Kind::ROOT], geometry)?,
        created_unix: entry::CREATED_UNIX.u64(raw),
        name: name.to_string(),
    })
}
