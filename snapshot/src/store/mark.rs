//! Mark: which segments the snapshots reach (docs/format/store-v1.md, sections 9 to 11).
//!
//! Invariant: a snapshot whose root or sets cannot be read is reported as damaged, never counted as reaching nothing.

use alloc::vec::Vec;

use crate::ports::BlockDevice;
use crate::store::bitmap::Bitmap;
use crate::store::catalog::CatalogEntry;
use crate::store::error::{Result, StoreError};
use crate::store::geometry::SegmentId;
use crate::store::root::Root;
use crate::store::sabotage::{Safeguard, out};
use crate::store::volume::Volume;

/// What was found.
pub struct Marked {
    /// Segments that the readable snapshots reach.
    pub reached: Bitmap,
    /// Ids of the snapshots that could not be read.
    pub damaged: Vec<u64>,
}

/// Marks what these snapshots reach.
pub fn mark<D: BlockDevice>(device: &mut D, volume: &Volume, entries: &[CatalogEntry]) -> Result<Marked> {
    let mut found = Marked { reached: Bitmap::new(volume.superblock.geometry.segments), damaged: Vec::new() };
    for entry in entries {
        match reach(device, volume, entry) {
            Ok(reached) => found.reached.merge(&reached),
            Err(error) if error.is_damage() => found.damaged.push(entry.id),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The segments of one snapshot, each of them mapped.
pub fn reach<D: BlockDevice>(device: &mut D, volume: &Volume, entry: &CatalogEntry) -> Result<Bitmap> {
    let geometry = &volume.superblock.geometry;
    let mut reached = Bitmap::new(geometry.segments);
    let root = read_root(device, volume, entry)?;
    reached.set(entry.root.segment.0);
    root.parts.iter().for_each(|part| reached.set(part.data.segment.0));
    for run in &root.runs {
        let (raw, at) = volume.read_blob(device, &run.segments)?;
        let set = Bitmap::decode(&raw, geometry.segments).ok_or(StoreError::corrupt("set of segments", at))?;
        reached.merge(&set);
        reached.set(run.tree.top.segment.0);
        reached.set(run.segments.segment.0);
    }
    for id in reached.iter().filter(|_| !out(Safeguard::MappedReach)) {
        volume.table.address(SegmentId(id))?;
    }
    Ok(reached)
}

/// The root of one snapshot, checked.
pub fn read_root<D: BlockDevice>(device: &mut D, volume: &Volume, entry: &CatalogEntry) -> Result<Root> {
    let (raw, at) = volume.read_blob(device, &entry.root)?;
    Root::decode(&raw, &volume.superblock.geometry, entry).ok_or(StoreError::corrupt("snapshot root", at))
}
