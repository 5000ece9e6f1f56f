//! Makes a store on a device, and says what a device holds (docs/format/store-v1.md, sections 4 and 11).
//!
//! Invariants: until the new store is complete and durable no slot names it; formatting never asks, [`probe`] does.

use alloc::string::String;
use alloc::vec;

use crate::ports::{BlockDevice, BlockIdx};
use crate::store::catalog;
use crate::store::digest::{Digest, Keys};
use crate::store::error::{Result, StoreError};
use crate::store::geometry::{Geometry, MetaObject, Slot};
use crate::store::layout::{BLOCK, HEARTBEAT_BLOCK, Kind};
use crate::store::meta::{self, MetaPtr};
use crate::store::superblock::{Generation, LABEL_MAX, Slots, StoreId, Superblock, void_slot};
use crate::store::table::SegmentTable;

/// Blocks at the start that [`probe`] looks at: 128 KiB, where file systems, partition tables, RAID say who they are.
const PROBE_HEAD: u64 = 32;
/// Blocks at the end: 64 KiB.
const PROBE_TAIL: u64 = 16;

/// What a new store is like.
pub struct FormatOptions<'a> {
    /// The operator's name for it, at most 63 bytes.
    pub label: &'a str,
    /// Random identity.
    pub store_id: [u8; 16],
    /// Random key of the digests.
    pub key: [u8; 32],
    /// The time in seconds.
    pub now_unix: u64,
}

/// Makes an empty store. Whatever is on the device is lost: see [`probe`].
pub fn format<D: BlockDevice>(device: &mut D, options: &FormatOptions<'_>) -> Result<()> {
    let geometry = Geometry::of(device.blocks())?;
    if device.read_only() {
        return Err(StoreError::ReadOnly);
    }
    if options.label.len() > LABEL_MAX || options.label.contains('\0') {
        return Err(StoreError::TooLong { what: "label", limit: LABEL_MAX as u64 });
    }
    for at in [geometry.slot(Slot::A), geometry.slot(Slot::B)] {
        device.write(BlockIdx(at), &void_slot())?;
    }
    device.flush()?;
    device.write(BlockIdx(HEARTBEAT_BLOCK), &[0; BLOCK])?;
    let block = write_meta(device, &geometry, options)?.encode();
    device.flush()?;
    for slot in [Slot::A, Slot::B] {
        device.write(BlockIdx(geometry.slot(slot)), &block)?;
    }
    Ok(device.flush()?)
}

fn write_meta<D: BlockDevice>(device: &mut D, geometry: &Geometry, options: &FormatOptions<'_>) -> Result<Superblock> {
    let keys = Keys::of(&options.key);
    let generation = Generation(1);
    let home = geometry.homes(MetaObject::Catalog).home[0];
    let empty = catalog::encode(&[], generation);
    let catalog = meta::write(device, geometry, &keys, Kind::CATALOG, home, empty)?;
    let before = MetaPtr { block: geometry.homes(MetaObject::Directory).home[1], bytes: 0, digest: Digest::default() };
    let directory = SegmentTable::empty(geometry).write(device, &keys, &before)?;
    Ok(Superblock {
        id: StoreId(options.store_id),
        generation,
        geometry: *geometry,
        slop: geometry.slop(),
        next_snapshot: 1,
        created_unix: options.now_unix,
        key: options.key,
        ro_compat: 0,
        incompat: 0,
        compat: 0,
        catalog,
        directory,
        label: String::from(options.label),
    })
}

/// What a device holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// Zeros wherever anybody writes a signature.
    Blank,
    /// A store.
    LiveSave {
        /// Its identity.
        id: StoreId,
        /// Its generation.
        generation: Generation,
    },
    /// What is left of a store: damaged, or the device shrank.
    DamagedLiveSave,
    /// A store of a newer version.
    NewerLiveSave,
    /// Something else.
    Foreign,
}

/// Looks at the places where stores, file systems, partition tables and volume managers say who they are.
pub fn probe<D: BlockDevice>(device: &mut D) -> Result<Probe> {
    match Slots::read(device).and_then(Slots::newest) {
        Ok((_, found)) => Ok(Probe::LiveSave { id: found.id, generation: found.generation }),
        Err(StoreError::NewerVersion { .. } | StoreError::UnknownFeatures { .. }) => Ok(Probe::NewerLiveSave),
        Err(StoreError::Corrupt { .. } | StoreError::Shrunk { .. }) => Ok(Probe::DamagedLiveSave),
        Err(StoreError::Foreign) => Ok(Probe::Foreign),
        Err(StoreError::NotFormatted) => Ok(if blank(device)? { Probe::Blank } else { Probe::Foreign }),
        Err(error) => Err(error),
    }
}

fn blank<D: BlockDevice>(device: &mut D) -> Result<bool> {
    let blocks = device.blocks();
    let mut block = vec![0; BLOCK];
    for at in (0..PROBE_HEAD.min(blocks)).chain(blocks.saturating_sub(PROBE_TAIL)..blocks) {
        device.read(BlockIdx(at), &mut block)?;
        if block.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}
