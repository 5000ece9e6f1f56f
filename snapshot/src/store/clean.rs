//! The cleaner: moves what lives in sparse segments together, so that the segments become free.
//!
//! It rewrites one snapshot at a time: pages of sparse segments are copied as they are stored, the index is written
//! anew, and one commit puts the new root in place of the old one. Its root digest stays the same, and is compared.
//! Invariants: the work of a step is bounded (one batch, one commit); nothing is visible before the commit; a request
//! that comes meanwhile throws the work away. A page that is damaged is never copied: its snapshot is left as it is.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::ports::BlockDevice;
use crate::store::appender::{Appender, Sink};
use crate::store::batch::Batch;
use crate::store::bitmap::Bitmap;
use crate::store::builder::{BlobSink, TreeBuilder};
use crate::store::catalog::CatalogEntry;
use crate::store::cursor::{MergeCursor, RunCursor};
use crate::store::digest::{ContentHasher, Digest};
use crate::store::entry::{Entry, What};
use crate::store::error::{Result, StoreError};
use crate::store::geometry::SegmentId;
use crate::store::layout::{Kind, SEGMENT_BYTES, entry as entry_field, index};
use crate::store::mark::{Marked, mark, reach, read_root};
use crate::store::root::{PartRecord, Root, RunRecord};
use crate::store::sabotage::{Safeguard, out};
use crate::store::squeeze::Recent;
use crate::store::store::Store;

/// Entries that one step of counting looks at.
const COUNT_ENTRIES: usize = 4096;
/// Segments with less than so many eighths of live bytes are sparse; first the widest of these that fits.
const SPARSE_EIGHTHS: [u64; 3] = [6, 4, 2];
/// Cleaning a snapshot must free at least one in so many of its segments.
const GAIN_SHARE: u32 = 8;

/// What a step did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cleaned {
    /// There is nothing to gain.
    Nothing,
    /// Something was done, and more is to do.
    Working,
    /// A snapshot was rewritten; so many segments of it are let go.
    Freed {
        /// Which.
        snapshot: u64,
        /// Segments.
        segments: u32,
    },
}

/// A snapshot under the broom.
pub(super) struct Cleaning {
    entry: CatalogEntry,
    root: Root,
    /// Segments that this snapshot alone reaches.
    own: Bitmap,
    cursor: MergeCursor,
    phase: Phase,
}

enum Phase {
    /// Live bytes of pages by segment, as far as the index was read.
    Counting(Vec<u32>),
    /// The sparse segments are known.
    Moving(Box<Moving>),
}

/// A rewrite that is under way.
struct Moving {
    sparse: Bitmap,
    appender: Appender,
    builder: TreeBuilder,
    reached: Bitmap,
    recent: Recent,
    batch: Batch,
}

fn cursor_of(root: &Root) -> MergeCursor {
    let runs = root.runs.iter().map(|run| RunCursor::new(run.tree.top, run.tree.level, root.gfn_end));
    MergeCursor::new(runs.collect())
}

impl<D: BlockDevice> Store<D> {
    /// Does a bounded piece of cleaning. To be called between requests, again and again until there is nothing to gain.
    pub fn clean_step(&mut self) -> Result<Cleaned> {
        self.check()?;
        if !self.damaged.is_empty() || self.readers_allow().is_err() {
            return Ok(Cleaned::Nothing);
        }
        let Some(mut cleaning) = self.cleaning.take() else { return self.next_to_clean() };
        let id = cleaning.entry.id;
        let stepped = match &mut cleaning.phase {
            Phase::Counting(_) => self.count(&mut cleaning),
            Phase::Moving(_) => self.move_some(&mut cleaning),
        };
        match stepped {
            Ok(Step::On) => {
                self.cleaning = Some(cleaning);
                Ok(Cleaned::Working)
            }
            Ok(Step::Leave) => {
                self.cleaned.push(id);
                self.drop_moving(*cleaning);
                Ok(Cleaned::Working)
            }
            Ok(Step::Finish) => {
                self.cleaned.push(id);
                self.finish_cleaning(*cleaning)
            }
            Err(error) => {
                self.cleaned.push(id);
                self.drop_moving(*cleaning);
                // A full store or a damaged snapshot is left alone; a device that failed has poisoned the store.
                if self.poisoned() { Err(error) } else { Ok(Cleaned::Working) }
            }
        }
    }

    /// Throws away what is under way: a request needs the store.
    pub fn stop_cleaning(&mut self) {
        if let Some(cleaning) = self.cleaning.take() {
            self.drop_moving(*cleaning);
        }
    }

    fn drop_moving(&mut self, cleaning: Cleaning) {
        if let Phase::Moving(moving) = cleaning.phase {
            self.forget_taken(&moving.appender);
        }
    }

    /// Gives back what was never visible.
    pub(super) fn forget_taken(&mut self, appender: &Appender) {
        for id in appender.taken().iter().map(SegmentId).filter(|_| !out(Safeguard::ForgetTaken)) {
            if let Ok(address) = self.volume.table.address(id) {
                self.volume.table.unmap(id);
                self.allocator.release(id, address);
            }
        }
    }

    fn next_to_clean(&mut self) -> Result<Cleaned> {
        let known = |id: u64| self.cleaned.contains(&id);
        let Some(entry) = self.volume.entries.iter().find(|entry| !known(entry.id)).cloned() else {
            return Ok(Cleaned::Nothing);
        };
        let others: Vec<_> = self.volume.entries.iter().filter(|other| other.id != entry.id).cloned().collect();
        let Marked { reached: others, damaged } = mark(&mut self.device, &self.volume, &others)?;
        if !damaged.is_empty() {
            return Ok(Cleaned::Nothing);
        }
        let mut own = reach(&mut self.device, &self.volume, &entry)?;
        own.subtract(&others);
        let root = read_root(&mut self.device, &self.volume, &entry)?;
        let live = vec![0; index(u64::from(own.len()))];
        let cursor = cursor_of(&root);
        self.cleaning = Some(Box::new(Cleaning { entry, root, own, cursor, phase: Phase::Counting(live) }));
        Ok(Cleaned::Working)
    }

    fn count(&mut self, cleaning: &mut Cleaning) -> Result<Step> {
        let Phase::Counting(live) = &mut cleaning.phase else { return Ok(Step::Leave) };
        for _ in 0..COUNT_ENTRIES {
            let Some(found) = cleaning.cursor.next(&mut self.device, &self.volume)? else {
                return Ok(self.plan(cleaning));
            };
            if let What::Data { place, .. } = found.what
                && let Some(bytes) = live.get_mut(index(u64::from(place.segment.0)))
            {
                *bytes = bytes.saturating_add(u32::from(place.stored));
            }
        }
        Ok(Step::On)
    }

    /// Everything is counted: is there enough to gain, and room to do it?
    fn plan(&mut self, cleaning: &mut Cleaning) -> Step {
        let Phase::Counting(live) = &cleaning.phase else { return Step::Leave };
        let bytes_of = |id: u32| live.get(index(u64::from(id))).copied().map_or(0, u64::from);
        let entries = cleaning.root.runs.iter().map(|run| run.tree.entries).sum::<u64>();
        let attached = cleaning.root.parts.iter().map(|part| part.data.blocks() * 4096).sum::<u64>();
        let fixed = entries * entry_field::SIZE as u64 + attached;
        for eighths in SPARSE_EIGHTHS {
            let mut sparse = Bitmap::new(cleaning.own.len());
            let own = cleaning.own.iter().filter(|id| bytes_of(*id) * 8 < SEGMENT_BYTES * eighths);
            own.for_each(|id| sparse.set(id));
            let moved = sparse.iter().map(bytes_of).sum::<u64>() + fixed;
            let needed = u32::try_from((moved + moved / 32).div_ceil(SEGMENT_BYTES) + 1).unwrap_or(u32::MAX);
            let gain = sparse.count().saturating_sub(needed);
            if gain == 0 || gain.saturating_mul(GAIN_SHARE) < cleaning.own.count() {
                return Step::Leave;
            }
            if needed < self.allocator.free() {
                let geometry = &self.volume.superblock.geometry;
                cleaning.cursor = cursor_of(&cleaning.root);
                cleaning.phase = Phase::Moving(Box::new(Moving {
                    sparse,
                    appender: Appender::new(geometry),
                    builder: TreeBuilder::new(&self.volume.keys),
                    reached: Bitmap::new(geometry.segments),
                    recent: Recent::new(),
                    batch: Batch::new(),
                }));
                return Step::On;
            }
        }
        Step::Leave
    }

    fn move_some(&mut self, cleaning: &mut Cleaning) -> Result<Step> {
        let Phase::Moving(moving) = &mut cleaning.phase else { return Ok(Step::Leave) };
        moving.batch.clear();
        let mut ended = false;
        while !ended && moving.batch.has_room() {
            match cleaning.cursor.next(&mut self.device, &self.volume)? {
                Some(entry) => {
                    let wanted = matches!(entry.what, What::Data { place, .. } if moving.sparse.get(place.segment.0));
                    moving.batch.add(&self.volume, entry, wanted);
                }
                None => ended = true,
            }
        }
        moving.batch.read(&mut self.device);
        let mut position = 0;
        while let Some(entry) = moving.batch.entry(position) {
            self.move_entry(moving, entry, position)?;
            position += 1;
        }
        // Reads come before writes in every step: a bad sector must not look like a write that was lost.
        moving.appender.push_out(self)?;
        self.device.flush()?;
        Ok(if ended { Step::Finish } else { Step::On })
    }

    fn move_entry(&mut self, moving: &mut Moving, mut entry: Entry, position: usize) -> Result<()> {
        if let What::Data { place, digest } = &mut entry.what {
            if moving.sparse.get(place.segment.0) {
                let known = moving.recent.find(digest);
                *place = match known {
                    Some(known) => known,
                    None => {
                        let (page, stored, _) = moving.batch.page(position, &self.volume)?;
                        match place.packed() {
                            true => moving.appender.packed(self, stored, 0)?,
                            false => moving.appender.page(self, page, 0)?,
                        }
                    }
                };
                moving.recent.add(*digest, *place);
            }
            moving.reached.set(place.segment.0);
        }
        let Moving { appender, builder, reached, .. } = moving;
        builder.push(entry, &mut Sink { store: self, appender, reached, keep: 0 })
    }

    /// Writes the rest of the index, the attachments, the root, and commits.
    fn finish_cleaning(&mut self, cleaning: Cleaning) -> Result<Cleaned> {
        let Cleaning { entry, root, own, phase, .. } = cleaning;
        let Phase::Moving(moving) = phase else { return Ok(Cleaned::Working) };
        let Moving { mut appender, builder, mut reached, .. } = *moving;
        let next = self.new_root(&mut appender, builder, &mut reached, &root).and_then(|root| {
            let pointer = self.cleaner_blob(&mut appender, &mut reached, Kind::ROOT, &root.encode()?)?;
            appender.push_out(self)?;
            Ok(pointer)
        });
        let pointer = match next {
            Ok(pointer) => pointer,
            Err(error) => {
                self.forget_taken(&appender);
                return if self.poisoned() { Err(error) } else { Ok(Cleaned::Working) };
            }
        };
        let mut freed = Vec::new();
        for id in own.iter().filter(|id| !reached.get(*id)).map(SegmentId) {
            freed.push((id, self.volume.table.address(id)?));
            self.volume.table.unmap(id);
        }
        let mut entries = self.volume.entries.clone();
        entries.iter_mut().filter(|one| one.id == entry.id).for_each(|one| one.root = pointer);
        self.commit(entries, self.volume.superblock.next_snapshot)?;
        let segments = crate::store::layout::length32(freed.len());
        self.let_go(freed);
        Ok(Cleaned::Freed { snapshot: entry.id, segments })
    }

    fn new_root(
        &mut self,
        appender: &mut Appender,
        builder: TreeBuilder,
        reached: &mut Bitmap,
        old: &Root,
    ) -> Result<Root> {
        let built = builder.finish(&mut Sink { store: self, appender, reached, keep: 0 })?;
        let mut content = ContentHasher::new(&self.volume.keys);
        let mut runs = Vec::new();
        if let Some((tree, hasher)) = built {
            content = hasher;
            let set = reached.clone();
            let segments = self.cleaner_blob(appender, reached, Kind::SEGMENT_SET, &set.encode())?;
            let run_id = old.runs.iter().map(|run| run.run_id).max().unwrap_or(0).saturating_add(1);
            runs.push(RunRecord { tree, segments, run_id });
        }
        content.pages_end();
        let parts = self.copy_parts(appender, reached, old, &mut content)?;
        if old.content != Digest::default() && content.finish() != old.content {
            return Err(StoreError::corrupt("content of a snapshot", 0));
        }
        Ok(Root { runs, parts, content: content.finish(), ..old.clone() })
    }

    fn copy_parts(
        &mut self,
        appender: &mut Appender,
        reached: &mut Bitmap,
        old: &Root,
        content: &mut ContentHasher,
    ) -> Result<Vec<PartRecord>> {
        let mut parts: Vec<PartRecord> = Vec::with_capacity(old.parts.len());
        let mut whole = Vec::new();
        for (number, part) in old.parts.iter().enumerate() {
            self.device.flush()?;
            let (bytes, _) = self.volume.read_blob(&mut self.device, &part.data)?;
            let data = self.cleaner_blob(appender, reached, Kind::ATTACHMENT, &bytes)?;
            appender.push_out(self)?;
            parts.push(PartRecord { data, ..*part });
            whole.extend_from_slice(&bytes);
            if old.parts.get(number + 1).is_none_or(|next| next.kind != part.kind) {
                content.attachment(part.kind.0, whole.len() as u64, &self.volume.keys.attachment(&whole));
                whole.clear();
            }
        }
        Ok(parts)
    }

    fn cleaner_blob(
        &mut self,
        appender: &mut Appender,
        reached: &mut Bitmap,
        kind: Kind,
        content: &[u8],
    ) -> Result<crate::store::pointer::Ptr> {
        Sink { store: self, appender, reached, keep: 0 }.blob(kind, content)
    }
}

/// How the work goes on.
enum Step {
    On,
    Finish,
    Leave,
}
