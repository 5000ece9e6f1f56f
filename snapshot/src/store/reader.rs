//! Reading snapshots: from dom0 beside a running writer, or inside the writer (docs/format/store-v1.md, section 12).
//!
//! Invariants: nothing here writes. Every byte handed out matched a digest. A damaged snapshot is an entry with an
//! error in a listing; the others stay usable.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use crate::ports::BlockDevice;
use crate::store::batch::BatchSize;
use crate::store::catalog::CatalogEntry;
use crate::store::cursor::{MergeCursor, RunCursor};
use crate::store::digest::Digest;
use crate::store::error::{OpenFailed, Result, StoreError};
use crate::store::heartbeat::Heartbeat;
use crate::store::layout::{SEGMENT_BYTES, index};
use crate::store::mark::{reach, read_root};
use crate::store::pages::Pages;
use crate::store::root::{AttachmentKind, Lineage, Root};
use crate::store::store::StoreInfo;
use crate::store::superblock::{Generation, Slots};
use crate::store::volume::Volume;

/// How often an open starts over because a writer committed meanwhile.
const OPEN_TRIES: u32 = 8;

/// What a snapshot says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotInfo {
    /// Its number, never used twice in the store.
    pub id: u64,
    /// `GUEST@NAME`.
    pub name: String,
    /// The guest's name when it was taken.
    pub guest_name: String,
    /// The guest's uuid.
    pub guest_uuid: [u8; 16],
    /// Policy of the take.
    pub mode: String,
    /// When the take began, in seconds.
    pub created_unix: u64,
    /// When it was sealed, in seconds.
    pub sealed_unix: u64,
    /// The commit that sealed it.
    pub generation: Generation,
    /// The highest gfn.
    pub max_gfn: Gfn,
    /// Pages with data.
    pub data_pages: u64,
    /// Zero pages.
    pub zero_pages: u64,
    /// Bytes that it keeps.
    pub stored_bytes: u64,
    /// Runs that it consists of.
    pub runs: u32,
    /// Rounds of the take.
    pub rounds: u32,
    /// Pages sent in all rounds.
    pub pages_sent: u64,
    /// Our share of the pause, in microseconds.
    pub pause_us: u64,
    /// The whole take, in microseconds.
    pub elapsed_us: u64,
    /// Stands for every page and attachment of the snapshot, wherever they lie. (For one that was sealed without a
    /// digest of its content: for its root as it is stored.)
    pub root_digest: Digest,
    /// Attachments, and their sizes in bytes.
    pub attachments: Vec<(AttachmentKind, u64)>,
    /// What it was made beside.
    pub lineage: Lineage,
}

impl SnapshotInfo {
    fn of(entry: &CatalogEntry, root: &Root) -> Self {
        let about = &root.metadata;
        let first_parts = root.parts.iter().filter(|part| part.part == 0);
        Self {
            id: entry.id,
            name: entry.name.clone(),
            guest_name: about.guest_name.clone(),
            guest_uuid: about.guest_uuid,
            mode: about.mode.clone(),
            created_unix: root.created_unix,
            sealed_unix: about.sealed_unix,
            generation: root.generation,
            max_gfn: Gfn::new(root.gfn_end.saturating_sub(1)),
            data_pages: root.data_pages,
            zero_pages: root.zero_pages,
            stored_bytes: root.stored_bytes,
            runs: crate::store::layout::length32(root.runs.len()),
            rounds: about.rounds,
            pages_sent: about.pages_sent,
            pause_us: about.pause_us,
            elapsed_us: about.elapsed_us,
            root_digest: if root.content == Digest::default() { entry.root.digest } else { root.content },
            attachments: first_parts.map(|part| (part.kind, part.total_bytes)).collect(),
            lineage: root.lineage.clone(),
        }
    }
}

/// A snapshot in a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its number.
    pub id: u64,
    /// `GUEST@NAME`.
    pub name: String,
    /// When the take began, in seconds.
    pub created_unix: u64,
    /// The rest, or why it cannot be read.
    pub snapshot: Result<SnapshotInfo>,
    /// Bytes of the segments that this snapshot alone reaches, which removing it frees. None if some snapshot is
    /// damaged.
    pub exclusive_bytes: Option<u64>,
}

/// All snapshots, oldest first.
pub(super) fn list<D: BlockDevice>(device: &mut D, volume: &Volume) -> Result<Vec<Listed>> {
    let exclusive = exclusive(device, volume)?;
    let one = |(number, entry): (usize, &CatalogEntry)| Listed {
        exclusive_bytes: exclusive.as_ref().and_then(|bytes| bytes.get(number)).copied(),
        id: entry.id,
        name: entry.name.clone(),
        created_unix: entry.created_unix,
        snapshot: read_root(device, volume, entry).map(|root| SnapshotInfo::of(entry, &root)),
    };
    Ok(volume.entries.iter().enumerate().map(one).collect())
}

/// Bytes of the segments that each snapshot alone reaches. None if that is not known of all.
fn exclusive<D: BlockDevice>(device: &mut D, volume: &Volume) -> Result<Option<Vec<u64>>> {
    // By segment: nobody, one snapshot, or several.
    let mut owners: Vec<Option<Option<usize>>> = vec![None; index(u64::from(volume.superblock.geometry.segments))];
    for (number, entry) in volume.entries.iter().enumerate() {
        let reached = match reach(device, volume, entry) {
            Ok(reached) => reached,
            Err(error) if error.is_damage() => return Ok(None),
            Err(error) => return Err(error),
        };
        for id in reached.iter() {
            let Some(owner) = owners.get_mut(index(u64::from(id))) else { continue };
            *owner = if owner.is_none() { Some(Some(number)) } else { Some(None) };
        }
    }
    let mut bytes = vec![0; volume.entries.len()];
    for owner in owners.into_iter().flatten().flatten() {
        bytes.iter_mut().skip(owner).take(1).for_each(|bytes| *bytes += SEGMENT_BYTES);
    }
    Ok(Some(bytes))
}

/// A store that is open for reading only.
pub struct Catalog<D> {
    pub(super) device: D,
    pub(super) volume: Volume,
    batch_size: BatchSize,
}

impl<D: BlockDevice> Catalog<D> {
    /// Opens the newest generation. The device comes back if that fails.
    pub fn open(mut device: D) -> core::result::Result<Self, OpenFailed<D>> {
        match load(&mut device) {
            Ok(volume) => Ok(Self { device, volume, batch_size: BatchSize::SMALL }),
            Err(error) => Err(OpenFailed { error, device }),
        }
    }

    /// From now on pages are read so many together; [`BatchSize::SMALL`] unless told.
    pub fn read_together(&mut self, size: BatchSize) {
        self.batch_size = size;
    }

    /// Looks for a newer generation; true if there was one.
    pub fn refresh(&mut self) -> Result<bool> {
        let volume = load(&mut self.device)?;
        let before = (self.volume.superblock.id, self.volume.superblock.generation);
        let moved = (volume.superblock.id, volume.superblock.generation) != before;
        self.volume = volume;
        Ok(moved)
    }

    /// What the store says of itself.
    pub fn info(&self) -> StoreInfo {
        StoreInfo::of(&self.volume, None)
    }

    /// All snapshots, oldest first; a damaged one is listed with its error.
    pub fn list(&mut self) -> Result<Vec<Listed>> {
        list(&mut self.device, &self.volume)
    }

    /// Opens a snapshot.
    pub fn snapshot(&mut self, name: &str) -> Result<SnapshotReader<'_, D>> {
        let mut reader = SnapshotReader::open(&mut self.device, &self.volume, name)?;
        reader.batch_size = self.batch_size;
        Ok(reader)
    }

    /// The writer's last beat.
    pub fn heartbeat(&mut self) -> Result<Option<Heartbeat>> {
        Heartbeat::read(&mut self.device, self.volume.superblock.id)
    }

    /// True if both believe the same of the store: superblock, keys, segment table, catalog. What they answer then
    /// differs only by what they read from now on.
    #[cfg(feature = "sabotage")]
    pub fn believes_the_same(&self, other: &Self) -> bool {
        self.volume == other.volume
    }

    /// Gives the device back.
    pub fn into_device(self) -> D {
        self.device
    }
}

/// Loads the newest generation; starts over when a writer committed meanwhile.
fn load<D: BlockDevice>(device: &mut D) -> Result<Volume> {
    let (_, mut superblock) = Slots::read(device)?.newest()?;
    let mut tries = 1;
    loop {
        let tried = superblock.generation;
        let error = match Volume::load(device, superblock) {
            Ok(volume) => return Ok(volume),
            Err(error) => error,
        };
        (_, superblock) = Slots::read(device)?.newest()?;
        if superblock.generation == tried || tries >= OPEN_TRIES {
            return Err(error);
        }
        tries += 1;
    }
}

/// A snapshot that is open for reading.
pub struct SnapshotReader<'a, D> {
    pub(super) device: &'a mut D,
    pub(super) volume: &'a Volume,
    pub(super) root: Root,
    pub(super) info: SnapshotInfo,
    batch_size: BatchSize,
}

impl<'a, D: BlockDevice> SnapshotReader<'a, D> {
    pub(super) fn open(device: &'a mut D, volume: &'a Volume, name: &str) -> Result<Self> {
        let entry = volume.find(name)?;
        let root = read_root(device, volume, entry)?;
        let info = SnapshotInfo::of(entry, &root);
        Ok(Self { device, volume, root, info, batch_size: BatchSize::SMALL })
    }

    /// What it says of itself.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// An attachment, checked. None if there is none of this kind.
    pub fn attachment(&mut self, kind: AttachmentKind) -> Result<Option<Vec<u8>>> {
        let parts: Vec<_> = self.root.parts.iter().filter(|part| part.kind == kind).copied().collect();
        let Some(first) = parts.first() else { return Ok(None) };
        let mut content = Vec::new();
        for (number, part) in (0..).zip(&parts) {
            let (bytes, at) = self.volume.read_blob(self.device, &part.data)?;
            if part.part != number || part.total_bytes != first.total_bytes {
                return Err(StoreError::corrupt("attachment", at));
            }
            content.extend_from_slice(&bytes);
        }
        let at = self.volume.block(first.data.segment, u64::from(first.data.slot))?;
        let whole = content.len() == index(first.total_bytes);
        if whole { Ok(Some(content)) } else { Err(StoreError::corrupt("attachment", at)) }
    }

    /// All pages in gfn order, each populated gfn once, checked.
    pub fn pages(&mut self) -> Result<Pages<'_, D>> {
        let gfn_end = self.root.gfn_end;
        let runs = self.root.runs.iter().map(|run| RunCursor::new(run.tree.top, run.tree.level, gfn_end)).collect();
        Ok(Pages::new(self.device, self.volume, MergeCursor::new(runs), self.batch_size))
    }
}
