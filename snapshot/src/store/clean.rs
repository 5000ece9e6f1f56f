//! The cleaner: moves what lives in sparse segments together, so that the segments become free.
//!
//! Which segments, `sweep` has planned. It rewrites one snapshot at a time, the newest first: pages of those segments
//! are copied as they are stored, unless the next newer one of the family has them elsewhere by now, so what was shared
//! stays shared; the index is written anew, and one commit puts the new root in place of the old one. Its root digest
//! stays the same, and is compared.
//! Invariants: the work of a step is bounded (one batch, one commit); nothing is visible before the commit; a request
//! that comes meanwhile throws away the snapshot that is being rewritten, no other. A page that is damaged is never
//! copied: its snapshot is left as it is. What any other snapshot reaches is not let go of.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::ports::BlockDevice;
use crate::store::appender::{Appender, Sink};
use crate::store::base::Base;
use crate::store::batch::{Batch, BatchSize};
use crate::store::bitmap::Bitmap;
use crate::store::builder::{BlobSink, TreeBuilder};
use crate::store::catalog::CatalogEntry;
use crate::store::cursor::MergeCursor;
use crate::store::digest::{ContentHasher, Digest};
use crate::store::entry::{Entry, What};
use crate::store::error::{Result, StoreError};
use crate::store::geometry::SegmentId;
use crate::store::layout::Kind;
use crate::store::mark::{Marked, mark, reach, read_root};
use crate::store::root::{PartRecord, Root, RunRecord};
use crate::store::sabotage::{Safeguard, out};
use crate::store::squeeze::Recent;
use crate::store::store::Store;
use crate::store::sweep::{Counting, Sweep};

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

/// What is under way.
pub(super) enum Cleaning {
    /// A family is counted.
    Counting(Box<Counting>),
    /// A snapshot is rewritten.
    Moving(Box<Moving>),
}

/// A snapshot under the broom.
pub(super) struct Moving {
    entry: CatalogEntry,
    root: Root,
    /// Segments that this snapshot alone reaches.
    own: Bitmap,
    cursor: MergeCursor,
    newer: Option<Base>,
    appender: Appender,
    builder: TreeBuilder,
    reached: Bitmap,
    recent: Recent,
    batch: Batch,
}

impl<D: BlockDevice> Store<D> {
    /// Does a bounded piece of cleaning. To be called between requests, again and again until there is nothing to gain.
    pub fn clean_step(&mut self) -> Result<Cleaned> {
        self.check()?;
        let readers = self.readers_allow().is_err() && !out(Safeguard::CleanerReaders);
        if readers || !self.damaged.is_empty() {
            return Ok(Cleaned::Nothing);
        }
        match self.cleaning.take() {
            None => self.next_to_clean(),
            Some(Cleaning::Counting(counting)) => self.count_some(counting),
            Some(Cleaning::Moving(moving)) => self.move_some(moving),
        }
    }

    /// Throws away what is under way: a request needs the store.
    pub fn stop_cleaning(&mut self) {
        if let Some(Cleaning::Moving(moving)) = self.cleaning.take() {
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

    /// The next snapshot that reaches what is to be emptied; when none does, the next family.
    fn next_to_clean(&mut self) -> Result<Cleaned> {
        let (sweeping, found) = match self.sweep.take() {
            Some(sweep) => (true, self.next_to_move(sweep)),
            None => (false, self.next_family().map(|family| family.map(|family| Cleaning::Counting(Box::new(family))))),
        };
        match found {
            Ok(Some(cleaning)) => self.cleaning = Some(cleaning),
            Ok(None) if sweeping => {}
            Ok(None) => return Ok(Cleaned::Nothing),
            Err(error) if error.is_damage() => return Ok(Cleaned::Nothing),
            Err(error) => return Err(error),
        }
        Ok(Cleaned::Working)
    }

    fn count_some(&mut self, mut counting: Box<Counting>) -> Result<Cleaned> {
        let counted = self.count(&mut counting);
        let done = match counted {
            Ok(true) => self.plan(*counting),
            Ok(false) => {
                self.cleaning = Some(Cleaning::Counting(counting));
                Ok(())
            }
            Err(error) => {
                self.cleaned.extend(counting.into_members());
                Err(error)
            }
        };
        self.gone_wrong(done)
    }

    /// A full store or a damaged snapshot is left alone; a device that failed has poisoned the store.
    fn gone_wrong(&self, result: Result<()>) -> Result<Cleaned> {
        match result {
            Err(error) if self.poisoned() => Err(error),
            _ => Ok(Cleaned::Working),
        }
    }

    /// Newest first, so that those that share with it find where its pages went.
    fn next_to_move(&mut self, sweep: Sweep) -> Result<Option<Cleaning>> {
        let entries = self.volume.entries.clone();
        for entry in entries.into_iter().rev().filter(|entry| !self.spoiled.contains(&entry.id)) {
            let mut own = reach(&mut self.device, &self.volume, &entry)?;
            if !own.meets(&sweep.sparse) {
                continue;
            }
            let others: Vec<_> = self.volume.entries.iter().filter(|other| other.id != entry.id).cloned().collect();
            let Marked { reached: others, damaged } = mark(&mut self.device, &self.volume, &others)?;
            if !damaged.is_empty() && !out(Safeguard::CleanerDamaged) {
                return Ok(None);
            }
            if !out(Safeguard::CleanedOthers) {
                own.subtract(&others);
            }
            let moving = self.begin_moving(entry, own)?;
            self.sweep = Some(sweep);
            return Ok(Some(Cleaning::Moving(Box::new(moving))));
        }
        self.cleaned.extend(sweep.members);
        Ok(None)
    }

    fn begin_moving(&mut self, entry: CatalogEntry, own: Bitmap) -> Result<Moving> {
        let newer = match self.newer_kin(entry.id)? {
            Some(newer) => Some(Base::open(&mut self.device, &self.volume, &newer)?),
            None => None,
        };
        let root = read_root(&mut self.device, &self.volume, &entry)?;
        let geometry = &self.volume.superblock.geometry;
        Ok(Moving {
            cursor: root.cursor(),
            entry,
            root,
            own,
            newer,
            appender: Appender::new(geometry),
            builder: TreeBuilder::new(&self.volume.keys),
            reached: Bitmap::new(geometry.segments),
            recent: Recent::new(),
            batch: Batch::new(BatchSize::SMALL),
        })
    }

    fn move_some(&mut self, mut moving: Box<Moving>) -> Result<Cleaned> {
        match self.move_batch(&mut moving) {
            Ok(false) => {
                self.cleaning = Some(Cleaning::Moving(moving));
                Ok(Cleaned::Working)
            }
            Ok(true) => self.finish_cleaning(*moving),
            Err(error) => self.give_up(error, moving.entry.id, &moving.appender),
        }
    }

    /// A damaged snapshot is left alone from now on, and the others are looked at without it. A full store is left
    /// as it is.
    fn give_up(&mut self, error: StoreError, id: u64, appender: &Appender) -> Result<Cleaned> {
        self.forget_taken(appender);
        let members = self.sweep.take().map(|sweep| sweep.members).unwrap_or_default();
        if error.is_damage() {
            self.spoiled.push(id);
        } else {
            self.cleaned.extend(members);
            self.cleaned.push(id);
        }
        self.gone_wrong(Err(error))
    }

    /// True at the end of the snapshot.
    fn move_batch(&mut self, moving: &mut Moving) -> Result<bool> {
        let nothing = Bitmap::new(0);
        let sweep = self.sweep.take();
        let sparse = sweep.as_ref().map_or(&nothing, |sweep| &sweep.sparse);
        let moved = self.fill_batch(moving, sparse).and_then(|ended| self.write_batch(moving, sparse, ended));
        self.sweep = sweep;
        moved
    }

    /// Collects entries; those whose page the next newer snapshot has elsewhere name that place.
    fn fill_batch(&mut self, moving: &mut Moving, sparse: &Bitmap) -> Result<bool> {
        let (device, volume) = (&mut self.device, &self.volume);
        moving.batch.clear();
        while moving.batch.has_room() {
            let Some(mut entry) = moving.cursor.next(device, volume)? else { return Ok(true) };
            let gfn = entry.gfn;
            let mut wanted = false;
            if let What::Data { place, digest } = &mut entry.what
                && sparse.get(place.segment.0)
            {
                let newer = match &mut moving.newer {
                    Some(newer) => newer.find(device, volume, gfn, digest)?,
                    None => None,
                };
                match newer.filter(|newer| !sparse.get(newer.segment.0)) {
                    Some(newer) => *place = newer,
                    None => wanted = true,
                }
            }
            moving.batch.add(volume, entry, wanted);
        }
        Ok(false)
    }

    fn write_batch(&mut self, moving: &mut Moving, sparse: &Bitmap, ended: bool) -> Result<bool> {
        moving.batch.read(&mut self.device);
        let mut position = 0;
        while let Some(entry) = moving.batch.entry(position) {
            self.move_entry(moving, entry, position, sparse)?;
            position += 1;
        }
        // Reads come before writes in every step: a bad sector must not look like a write that was lost, which ends the
        // writer. No snapshot depends on this flush: nothing names what it makes durable before the commit's own.
        moving.appender.push_out(self)?;
        if !out(Safeguard::BatchFlush) {
            self.device.flush()?;
        }
        Ok(ended)
    }

    fn move_entry(&mut self, moving: &mut Moving, mut entry: Entry, position: usize, sparse: &Bitmap) -> Result<()> {
        if let What::Data { place, digest } = &mut entry.what {
            if sparse.get(place.segment.0) {
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
            }
            moving.recent.add(*digest, *place);
            if !out(Safeguard::CleanedSegments) {
                moving.reached.set(place.segment.0);
            }
        }
        let Moving { appender, builder, reached, .. } = moving;
        builder.push(entry, &mut Sink { store: self, appender, reached, keep: 0 })
    }

    /// Writes the rest of the index, the attachments, the root, and commits.
    fn finish_cleaning(&mut self, moving: Moving) -> Result<Cleaned> {
        let Moving { entry, root, own, mut appender, builder, mut reached, .. } = moving;
        let next = self.new_root(&mut appender, builder, &mut reached, &root).and_then(|root| {
            let pointer = self.cleaner_blob(&mut appender, &mut reached, Kind::ROOT, &root.encode()?)?;
            appender.push_out(self)?;
            Ok(pointer)
        });
        let pointer = match next {
            Ok(pointer) => pointer,
            Err(error) => return self.give_up(error, entry.id, &appender),
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
            // What lies below it has the numbers of other snapshots.
            let numbers = old.runs.iter().map(|run| run.run_id).filter(|run_id| run_id >> 16 == old.snapshot_id);
            let run_id = numbers.max().unwrap_or(old.snapshot_id << 16).saturating_add(1);
            runs.push(RunRecord { tree, segments, run_id });
        }
        content.pages_end();
        let parts = self.copy_parts(appender, reached, old, &mut content)?;
        let differs = old.content != Digest::default() && content.finish() != old.content;
        if differs && !out(Safeguard::CleanedContent) {
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
            if !out(Safeguard::PartFlush) {
                self.device.flush()?;
            }
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
