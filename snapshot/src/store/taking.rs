//! A snapshot in the making: runs of pages, attachments, then seal or nothing.
//!
//! Invariants: everything goes to segments that were free; until [`Taking::seal`] commits, no superblock reaches any of
//! it, and dropping a `Taking` frees it all. Memory is constant besides one bit per MiB of the device.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use crate::names::SnapshotName;
use crate::ports::{BlockDevice, Page};
use crate::store::appender::{Appender, Sink};
use crate::store::bitmap::Bitmap;
use crate::store::builder::{BlobSink, Tree, TreeBuilder};
use crate::store::catalog::CatalogEntry;
use crate::store::cursor::{MergeCursor, RunCursor};
use crate::store::digest::Digest;
use crate::store::entry::{Entry, What};
use crate::store::error::{Result, StoreError};
use crate::store::geometry::SegmentId;
use crate::store::layout::{
    BLOCK, GFN_LIMIT, Kind, PART_BYTES, PARTS_MAX, RUNS_MAX, SEGMENT_BYTES, entry as entry_field, length32,
};
use crate::store::root::{AttachmentKind, Metadata, PartRecord, Root, RunRecord};
use crate::store::store::Store;
use crate::store::superblock::Generation;

/// Most runs of a take; they are merged when it is sealed.
pub const TAKE_RUNS_MAX: usize = 64;
/// Most bytes in the guest's name.
const GUEST_NAME_MAX: usize = 256;
/// Most bytes in the name of a mode.
const MODE_MAX: usize = 16;
/// Every page, all zero bytes.
const ZERO_PAGE: Page = [0; BLOCK];
/// Index bytes for a page while it is in a run and in the merged one.
const INDEX_BYTES: u64 = 2 * entry_field::SIZE as u64;
/// Segments that sealing may need besides indexes: the rest of a run, attachments, root.
const SEAL_SEGMENTS: u64 = 2;

/// What a new snapshot is to be.
pub struct NewSnapshot<'a> {
    /// `GUEST@NAME`.
    pub name: &'a str,
    /// The guest's name.
    pub guest_name: &'a str,
    /// Its uuid.
    pub guest_uuid: [u8; 16],
    /// Policy of the take, at most 16 bytes.
    pub mode: &'a str,
    /// The time in seconds.
    pub created_unix: u64,
    /// The highest gfn.
    pub max_gfn: Gfn,
    /// Upper bound of the pages' bytes; refused at once if there is no room for them.
    pub reserve_bytes: u64,
}

/// What is known only at the end of a take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SealInfo {
    /// The time in seconds.
    pub sealed_unix: u64,
    /// Rounds of the take.
    pub rounds: u32,
    /// Pages sent in all rounds.
    pub pages_sent: u64,
    /// Our share of the pause, in microseconds.
    pub pause_us: u64,
    /// The whole take, in microseconds.
    pub elapsed_us: u64,
}

/// A snapshot that was sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotSummary {
    /// Its number.
    pub id: u64,
    /// The commit that sealed it.
    pub generation: Generation,
    /// Pages with data.
    pub data_pages: u64,
    /// Zero pages.
    pub zero_pages: u64,
    /// Bytes that it keeps.
    pub stored_bytes: u64,
    /// Bytes that the take wrote, superseded pages and metadata included.
    pub bytes_written: u64,
    /// Digest of its root.
    pub root_digest: Digest,
}

/// A run that is being filled.
struct OpenRun {
    builder: TreeBuilder,
    reached: Bitmap,
}

/// A run that is complete.
struct ClosedRun {
    tree: Tree,
    reached: Bitmap,
}

/// A snapshot in the making. Dropping it is aborting it.
pub struct Taking<'s, D: BlockDevice> {
    store: &'s mut Store<D>,
    appender: Appender,
    id: u64,
    name: String,
    metadata: Metadata,
    created_unix: u64,
    gfn_end: u64,
    open: Option<OpenRun>,
    runs: Vec<ClosedRun>,
    parts: Vec<PartRecord>,
    written_before: u64,
    sealed: bool,
}

impl<'s, D: BlockDevice> Taking<'s, D> {
    pub(super) fn begin(store: &'s mut Store<D>, new: &NewSnapshot<'_>) -> Result<Self> {
        let name = new.name.parse::<SnapshotName>().map_err(StoreError::BadName)?.to_string();
        let superblock = &store.volume.superblock;
        if store.volume.find(&name).is_ok() {
            return Err(StoreError::NameTaken);
        }
        if store.volume.entries.len() as u64 >= superblock.geometry.snapshots {
            return Err(StoreError::TooManySnapshots { limit: superblock.geometry.snapshots });
        }
        limit("guest name", new.guest_name, GUEST_NAME_MAX)?;
        limit("mode", new.mode, MODE_MAX)?;
        let gfn_end = new.max_gfn.raw().saturating_add(1);
        if gfn_end > GFN_LIMIT {
            return Err(StoreError::OutOfOrder { gfn: new.max_gfn });
        }
        room(store, new.reserve_bytes)?;
        Ok(Self {
            appender: Appender::new(&superblock.geometry),
            id: superblock.next_snapshot,
            name,
            metadata: describe(new),
            created_unix: new.created_unix,
            gfn_end,
            open: None,
            runs: Vec::new(),
            parts: Vec::new(),
            written_before: store.device.bytes_written(),
            sealed: false,
            store,
        })
    }

    /// Begins a run: one round of the take. What it says replaces what earlier runs said.
    pub fn run_begin(&mut self) -> Result<()> {
        self.store.check()?;
        if self.open.is_some() {
            return Err(StoreError::Misuse { what: "run_begin" });
        }
        if self.runs.len() >= TAKE_RUNS_MAX {
            return Err(StoreError::TooLong { what: "runs of a take", limit: TAKE_RUNS_MAX as u64 });
        }
        let reached = Bitmap::new(self.store.volume.superblock.geometry.segments);
        self.open = Some(OpenRun { builder: TreeBuilder::new(), reached });
        Ok(())
    }

    /// Stores a page. A page of zeros is found here and costs nothing.
    pub fn page(&mut self, gfn: Gfn, page: &Page) -> Result<()> {
        if *page == ZERO_PAGE {
            return self.range(gfn, What::Zero);
        }
        let (keep, digest) = (self.keep(), self.store.volume.keys.page(page));
        let (run, mut sink) = self.in_run(gfn, keep)?;
        let place = sink.page(page)?;
        let entry = Entry { gfn: gfn.raw(), end: gfn.raw() + 1, what: What::Data { place, digest } };
        run.push(entry, &mut sink)
    }

    /// Notes a page of zeros.
    pub fn zero(&mut self, gfn: Gfn) -> Result<()> {
        self.range(gfn, What::Zero)
    }

    /// Notes that the gfn is not populated (any more).
    pub fn hole(&mut self, gfn: Gfn) -> Result<()> {
        self.range(gfn, What::Hole)
    }

    fn range(&mut self, gfn: Gfn, what: What) -> Result<()> {
        let keep = self.keep();
        let (run, mut sink) = self.in_run(gfn, keep)?;
        run.push(Entry { gfn: gfn.raw(), end: gfn.raw() + 1, what }, &mut sink)
    }

    /// The open run and the way to add to it; the gfn is legal.
    fn in_run(&mut self, gfn: Gfn, keep: u32) -> Result<(&mut TreeBuilder, Sink<'_, D>)> {
        self.store.check()?;
        if gfn.raw() >= GFN_LIMIT {
            return Err(StoreError::OutOfOrder { gfn });
        }
        self.gfn_end = self.gfn_end.max(gfn.raw() + 1);
        let Some(OpenRun { builder, reached }) = self.open.as_mut() else {
            return Err(StoreError::Misuse { what: "page" });
        };
        builder.admits(gfn)?;
        Ok((builder, Sink { store: self.store, appender: &mut self.appender, reached, keep }))
    }

    /// Ends the run.
    pub fn run_end(&mut self) -> Result<()> {
        self.store.check()?;
        let Some(OpenRun { builder, mut reached }) = self.open.take() else {
            return Err(StoreError::Misuse { what: "run_end" });
        };
        let closed = self.close(builder, &mut reached)?;
        if let Some(tree) = closed {
            // Only a single run is sealed as it is; the others' sets come from the merge.
            let reached = if self.runs.is_empty() { reached } else { Bitmap::new(0) };
            self.runs.push(ClosedRun { tree, reached });
        }
        Ok(())
    }

    fn close(&mut self, builder: TreeBuilder, reached: &mut Bitmap) -> Result<Option<Tree>> {
        let keep = self.store.volume.superblock.slop;
        let mut sink = Sink { store: self.store, appender: &mut self.appender, reached, keep };
        builder.finish(&mut sink)
    }

    /// Stores an attachment; each kind once. It is cut into parts as the format wants.
    pub fn attach(&mut self, kind: AttachmentKind, bytes: &[u8]) -> Result<()> {
        self.store.check()?;
        if self.parts.iter().any(|part| part.kind == kind) {
            return Err(StoreError::Misuse { what: "attach" });
        }
        if bytes.len().div_ceil(PART_BYTES) + self.parts.len() > PARTS_MAX || bytes.is_empty() {
            return Err(StoreError::TooLong { what: "attachments", limit: (PARTS_MAX * PART_BYTES) as u64 });
        }
        for (part, data) in (0..).zip(bytes.chunks(PART_BYTES)) {
            let data = self.blob(Kind::ATTACHMENT, data)?;
            self.parts.push(PartRecord { kind, part, total_bytes: bytes.len() as u64, data });
        }
        Ok(())
    }

    /// Stores metadata that belongs to no run.
    fn blob(&mut self, kind: Kind, content: &[u8]) -> Result<crate::store::pointer::Ptr> {
        let keep = self.store.volume.superblock.slop;
        let mut reached = Bitmap::new(0);
        Sink { store: self.store, appender: &mut self.appender, reached: &mut reached, keep }.blob(kind, content)
    }

    /// Everything accepted so far is durable on return (and still invisible).
    pub fn sync(&mut self) -> Result<()> {
        use crate::ports::BlockDevice as _;
        self.store.check()?;
        self.appender.push_out(self.store)?;
        Ok(self.store.device.flush()?)
    }

    /// Bytes written since the take began.
    pub fn bytes_written(&self) -> u64 {
        self.store.device.bytes_written().saturating_sub(self.written_before)
    }

    /// Bytes that pages may still take.
    pub fn space_left(&self) -> u64 {
        u64::from(self.store.allocator.free().saturating_sub(self.keep())) * SEGMENT_BYTES
    }

    /// The device, for what is not storage.
    pub fn device_mut(&mut self) -> &mut D {
        self.store.device.inner()
    }

    /// Segments that pages leave free: the slop, and what sealing needs.
    fn keep(&self) -> u32 {
        let entries = self.runs.iter().map(|run| run.tree.entries).sum::<u64>();
        let entries = entries + self.open.as_ref().map_or(0, |open| open.builder.entries());
        let seal = if self.runs.is_empty() { 1 } else { SEAL_SEGMENTS };
        let seal = seal + (entries * INDEX_BYTES) / SEGMENT_BYTES;
        self.store.volume.superblock.slop.saturating_add(u32::try_from(seal).unwrap_or(u32::MAX))
    }

    /// Gives everything back. (Dropping does the same.)
    pub fn abort(self) {}

    /// Merges the runs, writes the root, commits. The snapshot exists, durably, exactly if this returns `Ok`; after an
    /// error of the device that is known only when the store is opened again.
    pub fn seal(mut self, info: &SealInfo) -> Result<SnapshotSummary> {
        self.store.check()?;
        if self.open.is_some() {
            return Err(StoreError::Misuse { what: "seal" });
        }
        let (metadata, run) = (self.sealed_metadata(info), self.merge_runs()?);
        let runs = match &run {
            Some(run) => alloc::vec![self.record(run)?],
            None => Vec::new(),
        };
        let root = self.root(runs, metadata);
        let pointer = self.blob(Kind::ROOT, &root.encode()?)?;
        self.appender.push_out(self.store)?;
        let reached = self.reached(run.as_ref().map(|run| &run.reached), &root, pointer.segment);
        self.commit(pointer, &reached)?;
        Ok(SnapshotSummary {
            id: root.snapshot_id,
            generation: root.generation,
            data_pages: root.data_pages,
            zero_pages: root.zero_pages,
            stored_bytes: root.stored_bytes,
            bytes_written: self.bytes_written(),
            root_digest: pointer.digest,
        })
    }

    fn sealed_metadata(&self, info: &SealInfo) -> Metadata {
        let SealInfo { sealed_unix, rounds, pages_sent, pause_us, elapsed_us } = *info;
        Metadata { sealed_unix, rounds, pages_sent, pause_us, elapsed_us, ..self.metadata.clone() }
    }

    /// All runs as one. None without any page.
    fn merge_runs(&mut self) -> Result<Option<ClosedRun>> {
        let mut runs = core::mem::take(&mut self.runs);
        while runs.len() > 1 {
            // The oldest ones first: what they leave out stays left out.
            let newer = runs.split_off(runs.len().min(RUNS_MAX));
            runs = self.merge(&runs)?.into_iter().chain(newer).collect();
        }
        Ok(runs.pop())
    }

    /// Merges indexes; pages stay where they are. Oldest first.
    fn merge(&mut self, runs: &[ClosedRun]) -> Result<Option<ClosedRun>> {
        self.appender.push_out(self.store)?;
        let cursors = runs.iter().rev().map(|run| RunCursor::new(run.tree.top, run.tree.level, GFN_LIMIT)).collect();
        let mut cursor = MergeCursor::new(cursors);
        let mut builder = TreeBuilder::new();
        let mut reached = Bitmap::new(self.store.volume.superblock.geometry.segments);
        let keep = self.store.volume.superblock.slop;
        while let Some(entry) = cursor.next(&mut self.store.device, &self.store.volume)? {
            if let What::Data { place, .. } = entry.what {
                reached.set(place.segment.0);
            }
            let mut sink = Sink { store: self.store, appender: &mut self.appender, reached: &mut reached, keep };
            builder.push(entry, &mut sink)?;
        }
        let tree = self.close(builder, &mut reached)?;
        self.appender.push_out(self.store)?;
        Ok(tree.map(|tree| ClosedRun { tree, reached }))
    }

    fn record(&mut self, run: &ClosedRun) -> Result<RunRecord> {
        let segments = self.blob(Kind::SEGMENT_SET, &run.reached.encode())?;
        Ok(RunRecord { tree: run.tree, segments, run_id: self.id << 16 })
    }

    fn root(&self, runs: Vec<RunRecord>, metadata: Metadata) -> Root {
        let sum = |part: fn(&Tree) -> u64| runs.iter().map(|run| part(&run.tree)).sum::<u64>();
        let (data_pages, zero_pages) = (sum(|tree| tree.data_pages), sum(|tree| tree.zero_pages));
        let attached: u64 = self.parts.iter().map(|part| part.data.blocks()).sum();
        let index = sum(|tree| tree.entries) * entry_field::SIZE as u64;
        Root {
            snapshot_id: self.id,
            generation: Generation(self.store.volume.superblock.generation.0.saturating_add(1)),
            created_unix: self.created_unix,
            gfn_end: self.gfn_end,
            data_pages,
            zero_pages,
            stored_bytes: (data_pages + attached) * BLOCK as u64 + index,
            runs,
            parts: self.parts.clone(),
            metadata,
        }
    }

    /// What the sealed snapshot reaches, exactly as a mark at the next open would find it.
    fn reached(&self, run: Option<&Bitmap>, root: &Root, root_segment: SegmentId) -> Bitmap {
        let mut reached = Bitmap::new(self.store.volume.superblock.geometry.segments);
        run.into_iter().for_each(|run| reached.merge(run));
        let pointers = root.runs.iter().flat_map(|run| [run.tree.top.segment, run.segments.segment]);
        let pointers = pointers.chain(root.parts.iter().map(|part| part.data.segment)).chain([root_segment]);
        pointers.for_each(|segment| reached.set(segment.0));
        reached
    }

    /// Commits; what the take used and the snapshot does not reach is free again afterwards.
    fn commit(&mut self, root: crate::store::pointer::Ptr, reached: &Bitmap) -> Result<()> {
        let unreached: Vec<_> = self.appender.taken().iter().filter(|id| !reached.get(*id)).map(SegmentId).collect();
        let mut freed = Vec::with_capacity(unreached.len());
        for id in unreached {
            freed.push((id, self.store.volume.table.address(id)?));
            self.store.volume.table.unmap(id);
        }
        let mut entries = self.store.volume.entries.clone();
        let (name, created_unix) = (self.name.clone(), self.created_unix);
        entries.push(CatalogEntry { id: self.id, root, created_unix, name });
        self.sealed = true;
        self.store.commit(entries, self.id.saturating_add(1))?;
        freed.into_iter().for_each(|(id, address)| self.store.allocator.release(id, address));
        Ok(())
    }
}

impl<D: BlockDevice> Drop for Taking<'_, D> {
    /// Nothing on the disk names what was written: forgetting it is enough.
    fn drop(&mut self) {
        if self.sealed {
            return;
        }
        for id in self.appender.taken().iter().map(SegmentId) {
            if let Ok(address) = self.store.volume.table.address(id) {
                self.store.volume.table.unmap(id);
                self.store.allocator.release(id, address);
            }
        }
    }
}

fn describe(new: &NewSnapshot<'_>) -> Metadata {
    Metadata {
        guest_name: new.guest_name.to_string(),
        guest_uuid: new.guest_uuid,
        mode: new.mode.to_string(),
        sealed_unix: 0,
        rounds: 0,
        pages_sent: 0,
        pause_us: 0,
        elapsed_us: 0,
    }
}

fn limit(what: &'static str, text: &str, limit: usize) -> Result<()> {
    if text.len() > limit { Err(StoreError::TooLong { what, limit: u64::from(length32(limit)) }) } else { Ok(()) }
}

/// Refuses a take that cannot fit: pages, their indexes, and what sealing needs.
fn room<D: BlockDevice>(store: &Store<D>, reserve: u64) -> Result<()> {
    let index = (reserve / BLOCK as u64).saturating_mul(INDEX_BYTES);
    let wanted = reserve.saturating_add(index).saturating_add(SEAL_SEGMENTS * SEGMENT_BYTES);
    let available = u64::from(store.usable()) * SEGMENT_BYTES;
    if wanted > available { Err(StoreError::Full { wanted, available }) } else { Ok(()) }
}
