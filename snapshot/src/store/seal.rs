//! The end of a take: its runs become one, the root is written, the commit makes it exist.
//!
//! Invariants: pages are never moved or rewritten here, only indexes; what the snapshot reaches is noted exactly as a
//! mark at the next open finds it; segments that it does not reach are given back only after the commit.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::ports::BlockDevice;
use crate::store::appender::Sink;
use crate::store::base::Base;
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
use crate::store::root::{Lineage, Metadata, Root, RunRecord};
use crate::store::superblock::Generation;
use crate::store::taking::{ClosedRun, SealInfo, SnapshotSummary, Taking};

/// What the root says of all runs together.
pub(super) struct Counted {
    pub(super) data_pages: u64,
    pub(super) zero_pages: u64,
    pub(super) page_bytes: u64,
}

/// The runs of a snapshot, written.
pub(super) struct SealedRuns {
    /// Newest first.
    pub(super) runs: Vec<RunRecord>,
    pub(super) counted: Counted,
    /// The segments of those that were written now.
    pub(super) reached: Bitmap,
    pub(super) content: Digest,
}

impl<D: BlockDevice> Taking<'_, D> {
    /// Merges the runs, writes the root, commits. The snapshot exists, durably, exactly if this returns `Ok`; after an
    /// error of the device that is known only when the store is opened again.
    pub fn seal(mut self, info: &SealInfo) -> Result<SnapshotSummary> {
        self.store.check()?;
        if self.open.is_some() {
            return Err(StoreError::Misuse { what: "seal" });
        }
        // What is left of looking into the base needs memory that the merge has a use for.
        self.base.iter_mut().for_each(Base::rewind);
        let sealed = if self.since { self.stack_runs()? } else { self.one_run()? };
        let root = self.root(sealed.runs, &sealed.counted, info, sealed.content);
        let pointer = self.blob(Kind::ROOT, &root.encode()?)?;
        self.appender.push_out(self.store)?;
        let reached = self.reached(&sealed.reached, &root, pointer.segment);
        self.commit(pointer, &reached)?;
        Ok(SnapshotSummary {
            id: root.snapshot_id,
            generation: root.generation,
            data_pages: root.data_pages,
            zero_pages: root.zero_pages,
            stored_bytes: root.stored_bytes,
            bytes_written: self.bytes_written(),
            root_digest: root.content,
            shared_pages: root.lineage.shared_pages,
        })
    }

    /// A snapshot that stands alone: one run.
    fn one_run(&mut self) -> Result<SealedRuns> {
        let mut run = self.merge_runs()?;
        let content = self.content(run.as_mut().map(|run| &mut run.content));
        let runs = match &run {
            Some(run) => alloc::vec![self.record(run, 0)?],
            None => Vec::new(),
        };
        let tree = run.as_ref().map(|run| run.tree);
        let counted = Counted {
            data_pages: tree.map_or(0, |tree| tree.data_pages),
            zero_pages: tree.map_or(0, |tree| tree.zero_pages),
            page_bytes: self.page_bytes(),
        };
        let reached = run.map_or_else(|| Bitmap::new(0), |run| run.reached);
        Ok(SealedRuns { runs, counted, reached, content })
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
    pub(super) fn merge(&mut self, runs: &[ClosedRun]) -> Result<Option<ClosedRun>> {
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

    pub(super) fn record(&mut self, run: &ClosedRun, number: u64) -> Result<RunRecord> {
        let segments = self.blob(Kind::SEGMENT_SET, &run.reached.encode())?;
        Ok(RunRecord { tree: run.tree, segments, run_id: (self.id << 16) + number })
    }

    /// Digest of pages and attachments.
    pub(super) fn content(&self, pages: Option<&mut ContentHasher>) -> Digest {
        let mut none = ContentHasher::new(&self.store.volume.keys);
        let hasher = pages.unwrap_or(&mut none);
        hasher.pages_end();
        self.attached.iter().for_each(|(kind, bytes, digest)| hasher.attachment(kind.0, *bytes, digest));
        hasher.finish()
    }

    fn root(&self, runs: Vec<RunRecord>, counted: &Counted, info: &SealInfo, content: Digest) -> Root {
        let Counted { data_pages, zero_pages, page_bytes } = *counted;
        let sum = |part: fn(&Tree) -> u64| runs.iter().map(|run| part(&run.tree)).sum::<u64>();
        let attached: u64 = self.parts.iter().map(|part| part.data.blocks()).sum();
        let index = sum(|tree| tree.entries) * entry_field::SIZE as u64;
        Root {
            snapshot_id: self.id,
            generation: Generation(self.store.volume.superblock.generation.0.saturating_add(1)),
            created_unix: self.created_unix,
            gfn_end: self.gfn_end,
            data_pages,
            zero_pages,
            stored_bytes: page_bytes.saturating_add(attached * BLOCK as u64 + index),
            content,
            runs,
            parts: self.parts.clone(),
            metadata: self.sealed_metadata(info),
            lineage: self.lineage(counted),
        }
    }

    fn lineage(&self, counted: &Counted) -> Lineage {
        let kind = match &self.base {
            _ if !self.why_full.is_empty() => "full",
            Some(_) if self.since => "incremental",
            Some(_) => "diff",
            None => "",
        };
        let shared_pages = match &self.base {
            Some(_) if self.since => counted.data_pages.saturating_sub(self.own_pages()),
            Some(base) => base.pages,
            None => 0,
        };
        let base = self.base.as_ref().map_or_else(String::new, |base| base.name.clone());
        Lineage { kind: kind.to_string(), base, why_full: self.why_full.clone(), shared_pages }
    }

    /// Bytes of the pages that are left. What equal pages of several runs share is told from the take's average.
    fn page_bytes(&self) -> u64 {
        let Some(live) = self.live else { return self.stored };
        let all = self.stored.saturating_add(self.shared).max(1);
        u64::try_from(u128::from(live) * u128::from(self.stored) / u128::from(all)).unwrap_or(u64::MAX)
    }

    /// What the sealed snapshot reaches, exactly as a mark at the next open would find it.
    fn reached(&self, runs: &Bitmap, root: &Root, root_segment: SegmentId) -> Bitmap {
        let mut reached = Bitmap::new(self.store.volume.superblock.geometry.segments);
        reached.merge(runs);
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
