//! The writer: opens a store, commits, removes (docs/format/store-v1.md, section 11).
//!
//! Invariants: a superblock slot is written only in [`Store::commit`] and [`settle`], each time after a flush of all
//! that it reaches. After the first failure that leaves the disk's content unknown every call answers `Poisoned`.
//! Nothing is allocated while the segments of some snapshot are unknown.

use alloc::string::String;
use alloc::vec::Vec;

use crate::ports::{BlockDevice, BlockIdx};
use crate::store::allocator::Allocator;
use crate::store::catalog::{self, CatalogEntry};
use crate::store::clean::Cleaning;
use crate::store::device::Guarded;
use crate::store::error::{OpenFailed, Result, StoreError};
use crate::store::geometry::{Address, MetaObject, SegmentId, Slot};
use crate::store::heartbeat::Heartbeat;
use crate::store::held::Waiting;
use crate::store::layout::Kind;
use crate::store::mark::{Marked, mark};
use crate::store::meta;
use crate::store::reader::{Listed, SnapshotReader, list};
use crate::store::sabotage::{Safeguard, out};
use crate::store::superblock::{Generation, Slots, StoreId, Superblock};
use crate::store::sweep::Sweep;
use crate::store::taking::{NewSnapshot, Taking};
use crate::store::volume::Volume;

/// What a store says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreInfo {
    /// Identity.
    pub id: StoreId,
    /// Commits so far. It never goes back: dom0 remembers it.
    pub generation: Generation,
    /// The operator's name for it.
    pub label: String,
    /// When it was formatted, in seconds.
    pub created_unix: u64,
    /// Blocks of the device that it uses.
    pub blocks: u64,
    /// Segments of 1 MiB for snapshots.
    pub segments: u32,
    /// Segments that no take may use.
    pub slop_segments: u32,
    /// Free segments, those included. Readers do not know it.
    pub free_segments: Option<u32>,
    /// Snapshots in the catalog.
    pub snapshots: u32,
    /// Most snapshots.
    pub snapshots_max: u64,
}

impl StoreInfo {
    /// Of an opened store.
    pub(crate) fn of(volume: &Volume, free_segments: Option<u32>) -> Self {
        let superblock = &volume.superblock;
        Self {
            id: superblock.id,
            generation: superblock.generation,
            label: superblock.label.clone(),
            created_unix: superblock.created_unix,
            blocks: superblock.geometry.blocks,
            segments: superblock.geometry.segments,
            slop_segments: superblock.slop,
            free_segments,
            snapshots: crate::store::layout::length32(volume.entries.len()),
            snapshots_max: superblock.geometry.snapshots,
        }
    }
}

/// A store that is open for writing.
pub struct Store<D> {
    pub(super) device: Guarded<D>,
    pub(super) volume: Volume,
    pub(super) allocator: Allocator,
    pub(super) damaged: Vec<u64>,
    beats: u64,
    pub(super) cleaning: Option<Cleaning>,
    /// Segments that are being emptied.
    pub(super) sweep: Option<Sweep>,
    /// Snapshots with nothing to gain from cleaning.
    pub(super) cleaned: Vec<u64>,
    /// Those with a damaged page: they stay as they are.
    pub(super) spoiled: Vec<u64>,
    pub(super) waiting: Waiting,
    pub(super) now_ns: u64,
    /// Flags of incompat that the next commit needs.
    pub(super) features: u64,
}

impl<D: BlockDevice> Store<D> {
    /// Opens, and settles what the last writer left. The device comes back if that fails.
    pub fn open(device: D) -> core::result::Result<Self, OpenFailed<D>> {
        let mut device = Guarded::new(device);
        match open_parts(&mut device) {
            Ok((volume, allocator, damaged)) => Self::assemble(device, volume, allocator, damaged),
            Err(error) => Err(OpenFailed { error, device: device.into_inner() }),
        }
    }

    fn assemble(
        device: Guarded<D>,
        volume: Volume,
        allocator: Allocator,
        damaged: Vec<u64>,
    ) -> core::result::Result<Self, OpenFailed<D>> {
        let mut store = Self {
            device,
            volume,
            allocator,
            damaged,
            beats: 0,
            cleaning: None,
            sweep: None,
            cleaned: Vec::new(),
            spoiled: Vec::new(),
            waiting: Waiting::default(),
            now_ns: 0,
            features: 0,
        };
        match store.first_look() {
            Ok(()) => Ok(store),
            Err(error) => Err(OpenFailed { error, device: store.into_device() }),
        }
    }

    /// What it says of itself.
    pub fn info(&self) -> StoreInfo {
        StoreInfo::of(&self.volume, Some(self.allocator.free()))
    }

    /// All snapshots, oldest first; a damaged one is listed with its error.
    pub fn list(&mut self) -> Result<Vec<Listed>> {
        list(&mut self.device, &self.volume)
    }

    /// Opens a snapshot for reading.
    pub fn snapshot(&mut self, name: &str) -> Result<SnapshotReader<'_, Guarded<D>>> {
        SnapshotReader::open(&mut self.device, &self.volume, name)
    }

    /// Begins a snapshot. Nothing of it is visible before [`Taking::seal`] has returned.
    pub fn begin(&mut self, new: &NewSnapshot<'_>) -> Result<Taking<'_, D>> {
        self.check()?;
        if !out(Safeguard::TakeStopsCleaner) {
            self.stop_cleaning();
        }
        self.readers_allow()?;
        match self.damaged.first().filter(|_| !out(Safeguard::DamagedWaits)) {
            Some(id) => Err(StoreError::DamagedSnapshot { id: *id }),
            None => Taking::begin(self, new),
        }
    }

    /// Removes a snapshot; durable on return. Works in a full store, and for a damaged snapshot.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        self.check()?;
        if !out(Safeguard::RemovalStopsCleaner) {
            self.stop_cleaning();
        }
        let id = self.volume.find(name)?.id;
        let entries: Vec<_> = self.volume.entries.iter().filter(|entry| entry.id != id).cloned().collect();
        let Marked { reached, damaged } = mark(&mut self.device, &self.volume, &entries)?;
        if !damaged.is_empty() && !out(Safeguard::DamagedFreesNothing) {
            self.damaged = damaged;
            return self.commit(entries, self.volume.superblock.next_snapshot);
        }
        let allocator = Allocator::sweep(&reached, &self.volume.table, &self.volume.superblock.geometry)?;
        let freed = forget(&mut self.volume, &allocator);
        self.commit(entries, self.volume.superblock.next_snapshot)?;
        (self.allocator, self.damaged) = (allocator, damaged);
        if !out(Safeguard::FreedWaits) {
            freed.iter().for_each(|(id, address)| self.allocator.occupy(*id, *address));
        }
        self.keep_waiting();
        self.let_go(freed);
        // What had no room to be cleaned may have it now.
        self.cleaned.clear();
        Ok(())
    }

    /// Says that this writer lives. Not flushed.
    pub fn beat(&mut self, writer: [u8; 16], now_unix: u64) -> Result<()> {
        self.check()?;
        self.beats = Heartbeat::following(self.beats);
        let beat = Heartbeat { writer, sequence: self.beats, unix: now_unix, in_use: true };
        beat.write(&mut self.device, self.volume.superblock.id)
    }

    /// The last beat of any writer.
    pub fn heartbeat(&mut self) -> Result<Option<Heartbeat>> {
        Heartbeat::read(&mut self.device, self.volume.superblock.id)
    }

    /// True once the device has failed.
    pub fn poisoned(&self) -> bool {
        self.device.poisoned()
    }

    /// The device, for what is not storage.
    pub fn device_mut(&mut self) -> &mut D {
        self.device.inner()
    }

    /// Gives the device back.
    pub fn into_device(self) -> D {
        self.device.into_inner()
    }

    /// `Poisoned` once the device has failed.
    pub(super) fn check(&self) -> Result<()> {
        if self.poisoned() { Err(StoreError::Poisoned) } else { Ok(()) }
    }

    /// Segments that a take may still use.
    pub(super) fn usable(&self) -> u32 {
        self.allocator.free().saturating_sub(self.volume.superblock.slop)
    }

    /// Makes these the snapshots of the next generation. Everything that they reach was written before.
    pub(super) fn commit(&mut self, entries: Vec<CatalogEntry>, next_snapshot: u64) -> Result<()> {
        let Volume { superblock, keys, table, .. } = &mut self.volume;
        let geometry = superblock.geometry;
        let generation = Generation(superblock.generation.0.saturating_add(1));
        let directory = table.write(&mut self.device, keys, &superblock.directory)?;
        let home = geometry.homes(MetaObject::Catalog).other(superblock.catalog.block);
        let content = catalog::encode(&entries, generation);
        let catalog = meta::write(&mut self.device, &geometry, keys, Kind::CATALOG, home, content)?;
        self.device.flush()?;
        let incompat = superblock.incompat | self.features;
        let next = Superblock { generation, next_snapshot, catalog, directory, incompat, ..superblock.clone() };
        let block = next.encode();
        for slot in [Slot::A, Slot::B].into_iter().filter(|slot| *slot == Slot::A || !out(Safeguard::SlotB)) {
            self.device.write(BlockIdx(geometry.slot(slot)), &block)?;
            self.device.flush()?;
        }
        (self.volume.superblock, self.volume.entries) = (next, entries);
        // What a snapshot costs in memory does not depend on how it came or went.
        self.volume.entries.shrink_to_fit();
        Ok(())
    }
}

fn open_parts<D: BlockDevice>(device: &mut Guarded<D>) -> Result<(Volume, Allocator, Vec<u64>)> {
    if device.read_only() && !out(Safeguard::ReadOnlyDevice) {
        return Err(StoreError::ReadOnly);
    }
    let slots = Slots::read(device)?;
    let foreign = slots.foreign();
    let (slot, superblock) = slots.newest()?;
    if foreign && !out(Safeguard::ForeignSlot) {
        return Err(StoreError::Foreign);
    }
    if superblock.ro_compat != 0 && !out(Safeguard::WriterFeatures) {
        return Err(StoreError::UnknownFeatures { bits: superblock.ro_compat });
    }
    let mut volume = Volume::load(device, superblock)?;
    if !out(Safeguard::Settle) {
        settle(device, slot, &volume.superblock)?;
    }
    let Marked { reached, damaged } = mark(device, &volume, &volume.entries)?;
    let allocator = Allocator::sweep(&reached, &volume.table, &volume.superblock.geometry)?;
    if damaged.is_empty() || out(Safeguard::DamagedStaysMapped) {
        forget(&mut volume, &allocator);
    }
    Ok((volume, allocator, damaged))
}

/// Unmaps what nothing reaches; the next commit writes it down. Returns where it lies.
fn forget(volume: &mut Volume, allocator: &Allocator) -> Vec<(SegmentId, Address)> {
    let unreached: Vec<_> = volume.table.mapped().filter(|id| !allocator.used(*id)).collect();
    let mut freed = Vec::with_capacity(unreached.len());
    for id in unreached {
        freed.extend(volume.table.address(id).ok().map(|address| (id, address)));
        volume.table.unmap(id);
    }
    freed
}

/// Makes both slots hold the generation that was believed, whatever the last writer's flushes achieved: the other slot
/// first, then the one that was believed, never both in one window.
fn settle<D: BlockDevice>(device: &mut D, believed: Slot, superblock: &Superblock) -> Result<()> {
    let block = superblock.encode();
    for slot in [believed.other(), believed] {
        device.write(BlockIdx(superblock.geometry.slot(slot)), &block)?;
        device.flush()?;
    }
    Ok(())
}
