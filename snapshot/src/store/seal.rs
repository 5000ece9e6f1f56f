//! The end of a take: its runs become one, the root is written, the commit makes it exist.
//!
//! Invariants: pages are never moved or rewritten here, only indexes; what the snapshot reaches is noted exactly as a
//! mark at the next open finds it; segments that it does not reach are given back only after the commit.

use alloc::vec::Vec;

use crate::ports::BlockDevice;
use crate::store::appender::Sink;
use crate::store::bitmap::Bitmap;
use crate::store::builder::{Tree, TreeBuilder};
use crate::store::catalog::CatalogEntry;
use crate::store::cursor::{MergeCursor, RunCursor};
use crate::store::digest::{ContentHasher, Digest};
use crate::store::entry::What;
use crate::store::error::{Result, StoreError};
use crate::store::geometry::SegmentId;
use crate::store::layout::{BLOCK, GFN_LIMIT, Kind, RUNS_MAX, entry as entry_field};
use crate::store::pointer::Ptr;
use crate::store::root::{Metadata, Root, RunRecord};
use crate::store::superblock::Generation;
use crate::store::taking::{ClosedRun, SealInfo, SnapshotSummary, Taking};

impl<D: BlockDevice> Taking<'_, D> {
    /// Merges the runs, writes the root, commits. The snapshot exists, durably, exactly if this returns `Ok`; after an
    /// error of the device that is known only when the store is opened again.
    pub fn seal(mut self, info: &SealInfo) -> Result<SnapshotSummary> {
        self.store.check()?;
        if self.open.is_some() {
            return Err(StoreError::Misuse { what: "seal" });
        }
        let (metadata, mut run) = (self.sealed_metadata(info), self.merge_runs()?);
        let content = self.content(run.as_mut());
        let runs = match &run {
            Some(run) => alloc::vec![self.record(run)?],
            None => Vec::new(),
        };
        let root = self.root(runs, metadata, content);
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
            root_digest: root.content,
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
        let mut builder = TreeBuilder::new(&self.store.volume.keys);
        let mut reached = Bitmap::new(self.store.volume.superblock.geometry.segments);
        let keep = self.store.volume.superblock.slop;
        let mut live = 0;
        while let Some(entry) = cursor.next(&mut self.store.device, &self.store.volume)? {
            if let What::Data { place, .. } = entry.what {
                reached.set(place.segment.0);
                live += u64::from(place.stored);
            }
            let mut sink = Sink { store: self.store, appender: &mut self.appender, reached: &mut reached, keep };
            builder.push(entry, &mut sink)?;
        }
        let tree = self.close(builder, &mut reached)?;
        self.appender.push_out(self.store)?;
        self.live = Some(live);
        Ok(tree.map(|(tree, content)| ClosedRun { tree, reached, content }))
    }

    fn record(&mut self, run: &ClosedRun) -> Result<RunRecord> {
        let segments = self.blob(Kind::SEGMENT_SET, &run.reached.encode())?;
        Ok(RunRecord { tree: run.tree, segments, run_id: self.id << 16 })
    }

    /// Digest of pages and attachments.
    fn content(&self, run: Option<&mut ClosedRun>) -> Digest {
        let mut none = ContentHasher::new(&self.store.volume.keys);
        let hasher = run.map_or(&mut none, |run| &mut run.content);
        hasher.pages_end();
        self.attached.iter().for_each(|(kind, bytes, digest)| hasher.attachment(kind.0, *bytes, digest));
        hasher.finish()
    }

    fn root(&self, runs: Vec<RunRecord>, metadata: Metadata, content: Digest) -> Root {
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
            stored_bytes: self.page_bytes().saturating_add(attached * BLOCK as u64 + index),
            content,
            runs,
            parts: self.parts.clone(),
            metadata,
        }
    }

    /// Bytes of the pages that are left. What equal pages of several runs share is told from the take's average.
    fn page_bytes(&self) -> u64 {
        let Some(live) = self.live else { return self.stored };
        let all = self.stored.saturating_add(self.shared).max(1);
        u64::try_from(u128::from(live) * u128::from(self.stored) / u128::from(all)).unwrap_or(u64::MAX)
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
    fn commit(&mut self, root: Ptr, reached: &Bitmap) -> Result<()> {
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
