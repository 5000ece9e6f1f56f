//! The end of a take whose runs lie on top of an older snapshot's (docs/format/store-v1.md, section 10.1).
//!
//! Invariants: no page is read or moved; the runs below are named as they are, or merged with newer ones into one; a
//! merge that leaves runs below keeps what it says of holes. Each run's set names every segment of its pages and its
//! index, so the snapshot needs nothing but its own root.

use alloc::vec::Vec;

use crate::ports::BlockDevice;
use crate::store::appender::Sink;
use crate::store::bitmap::Bitmap;
use crate::store::builder::{Tree, TreeBuilder};
use crate::store::cursor::{MergeCursor, RunCursor};
use crate::store::digest::ContentHasher;
use crate::store::entry::What;
use crate::store::error::{Result, StoreError};
use crate::store::layout::{GFN_LIMIT, RUNS_MAX};
use crate::store::root::RunRecord;
use crate::store::sabotage::{Safeguard, out};
use crate::store::seal::{Counted, SealedRuns};
use crate::store::taking::{ClosedRun, Taking};

/// Runs that are left after a merge became necessary: room for some takes without one.
const RUNS_LEFT: usize = RUNS_MAX / 2;

/// A merge goes on to an older run as long as that has at most so many times the entries merged so far: what was merged
/// into a large run is not rewritten for a small one.
const GROWTH: u64 = 2;

impl<D: BlockDevice> Taking<'_, D> {
    /// Pages with data that this take wrote, as its runs say.
    pub(super) fn own_pages(&self) -> u64 {
        self.own_pages
    }

    /// The runs of the take on top of those of the base.
    pub(super) fn stack_runs(&mut self) -> Result<SealedRuns> {
        self.appender.push_out(self.store)?;
        let below = self.base.as_ref().map_or_else(Vec::new, |base| base.root.runs.clone());
        self.gfn_end = self.gfn_end.max(self.base.as_ref().map_or(0, |base| base.root.gfn_end));
        let mut own: Vec<ClosedRun> = core::mem::take(&mut self.runs);
        self.own_pages = own.iter().map(|run| run.tree.data_pages).sum();
        own.reverse();
        let mut reached = Bitmap::new(self.store.volume.superblock.geometry.segments);
        let runs = if own.len() + below.len() <= RUNS_MAX {
            self.on_top(&own, &below, &mut reached)?
        } else {
            self.merged(&own, &below, &mut reached)?
        };
        let (counted, mut content) = self.walk(&runs)?;
        let content = self.content(Some(&mut content));
        Ok(SealedRuns { runs, counted, reached, content })
    }

    fn on_top(&mut self, own: &[ClosedRun], below: &[RunRecord], reached: &mut Bitmap) -> Result<Vec<RunRecord>> {
        let mut runs = Vec::with_capacity(RUNS_MAX);
        for (run, number) in own.iter().zip((0..own.len() as u64).rev()) {
            reached.merge(&run.reached);
            runs.push(self.record(run, number)?);
        }
        runs.extend_from_slice(below);
        Ok(runs)
    }

    /// As many of the newest as have to become one; of the take itself all.
    fn merged(&mut self, own: &[ClosedRun], below: &[RunRecord], reached: &mut Bitmap) -> Result<Vec<RunRecord>> {
        let mut entries = own.iter().map(|run| run.tree.entries).sum::<u64>();
        let mut count = 0;
        for run in below {
            let few = below.len() - count < RUNS_LEFT;
            if few && run.tree.entries > entries.saturating_mul(GROWTH) {
                break;
            }
            entries = entries.saturating_add(run.tree.entries);
            count += 1;
        }
        let (above, rest) = below.split_at(count);
        let trees: Vec<Tree> = own.iter().map(|run| run.tree).chain(above.iter().map(|run| run.tree)).collect();
        let mut runs = Vec::with_capacity(rest.len() + 1);
        // More runs than can be read at once: the older ones first.
        let mut trees = trees;
        while !trees.is_empty() {
            let tail = trees.split_off(trees.len().saturating_sub(RUNS_MAX));
            let merged = self.merge_above(&tail, rest.is_empty())?;
            match merged {
                Some(run) if trees.is_empty() => {
                    reached.merge(&run.reached);
                    runs.push(self.record(&run, 0)?);
                }
                Some(run) => trees.push(run.tree),
                None => {}
            }
        }
        runs.extend_from_slice(rest);
        Ok(runs)
    }

    /// Merges indexes, newest first; holes are left out only with nothing below.
    fn merge_above(&mut self, trees: &[Tree], lowest: bool) -> Result<Option<ClosedRun>> {
        self.appender.push_out(self.store)?;
        let mut cursor =
            MergeCursor::new(trees.iter().map(|tree| RunCursor::new(tree.top, tree.level, GFN_LIMIT)).collect());
        let mut builder = TreeBuilder::new(&self.store.volume.keys);
        let mut reached = Bitmap::new(self.store.volume.superblock.geometry.segments);
        let keep = self.store.volume.superblock.slop;
        while let Some(entry) = cursor.step(&mut self.store.device, &self.store.volume)? {
            if entry.what == What::Hole && (lowest || out(Safeguard::MergedHoles)) {
                continue;
            }
            if let What::Data { place, .. } = entry.what {
                reached.set(place.segment.0);
            }
            let mut sink = Sink { store: self.store, appender: &mut self.appender, reached: &mut reached, keep };
            builder.push(entry, &mut sink)?;
        }
        let tree = self.close(builder, &mut reached)?;
        self.appender.push_out(self.store)?;
        Ok(tree.map(|(tree, content)| ClosedRun { tree, reached, content }))
    }

    /// Reads all indexes once, as one: counts, and the digest of the content.
    fn walk(&mut self, runs: &[RunRecord]) -> Result<(Counted, ContentHasher)> {
        self.appender.push_out(self.store)?;
        if runs.len() > RUNS_MAX {
            return Err(StoreError::TooLong { what: "runs of a snapshot", limit: RUNS_MAX as u64 });
        }
        let cursors = runs.iter().map(|run| RunCursor::new(run.tree.top, run.tree.level, self.gfn_end)).collect();
        let mut cursor = MergeCursor::new(cursors);
        let mut content = ContentHasher::new(&self.store.volume.keys);
        let mut counted = Counted { data_pages: 0, zero_pages: 0, page_bytes: 0 };
        while let Some(entry) = cursor.next(&mut self.store.device, &self.store.volume)? {
            match entry.what {
                What::Data { place, digest } => {
                    counted.data_pages += 1;
                    counted.page_bytes += u64::from(place.stored);
                    content.page(entry.gfn, &digest);
                }
                What::Zero => {
                    counted.zero_pages += entry.count();
                    content.zero(entry.gfn, entry.end);
                }
                What::Hole => {}
            }
        }
        Ok((counted, content))
    }
}
