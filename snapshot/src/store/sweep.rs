//! Which segments are worth cleaning: families of snapshots that share, what of them still lives, and the plan.
//!
//! A *family* is what was taken one beside the other: each newer one says that it was made beside an older one of its
//! guest. What they share has to move for all of them, or it frees nothing. Invariants: nothing here writes; counts,
//! and who is kin, decide only whether it pays, never what is right. Memory: 4 bytes per MiB of the device and two
//! snapshots' cursors, however large the family is.

use alloc::vec;
use alloc::vec::Vec;

use crate::ports::BlockDevice;
use crate::store::base::Base;
use crate::store::bitmap::Bitmap;
use crate::store::catalog::CatalogEntry;
use crate::store::cursor::MergeCursor;
use crate::store::entry::What;
use crate::store::error::{Result, StoreError};
use crate::store::layout::{SEGMENT_BYTES, entry as entry_field, index, length32};
use crate::store::mark::{mark, reach, read_root};
use crate::store::root::Root;
use crate::store::store::Store;

/// Entries that one step of counting looks at.
const COUNT_ENTRIES: usize = 4096;
/// Segments with less than so many eighths of live bytes are sparse; first the widest of these that fits.
const SPARSE_EIGHTHS: [u64; 4] = [7, 6, 4, 2];
/// Cleaning a family must free at least one in so many of its segments.
const GAIN_SHARE: u32 = 12;
/// Of what is free, cleaning a family of several may use one in so many: it keeps that from one commit to the next.
const FREE_SHARE: u32 = 2;

/// Segments that are to be emptied. It outlives requests: what was done for it stays done.
pub(super) struct Sweep {
    /// Which. A segment that is let go of is taken out before anything can lie in it anew.
    pub(super) sparse: Bitmap,
    /// The family for which that was planned.
    pub(super) members: Vec<u64>,
}

/// A family that is being counted, newest first.
pub(super) struct Counting {
    members: Vec<u64>,
    /// Live bytes of pages by segment, as far as the indexes were read.
    live: Vec<u32>,
    /// Bytes of indexes and attachments.
    fixed: u64,
    reach: Bitmap,
    member: Member,
}

impl Counting {
    /// The snapshots of the family so far.
    pub(super) fn into_members(self) -> Vec<u64> {
        self.members
    }
}

/// The snapshot that is being read, beside the next newer one.
struct Member {
    root: Root,
    cursor: MergeCursor,
    newer: Option<Base>,
}

impl<D: BlockDevice> Store<D> {
    /// The next newer snapshot that was made beside this one.
    pub(super) fn newer_kin(&mut self, id: u64) -> Result<Option<CatalogEntry>> {
        let uuid = self.root_of(id)?.metadata.guest_uuid;
        for entry in self.volume.entries.iter().filter(|entry| entry.id > id && !self.spoiled.contains(&entry.id)) {
            let root = read_root(&mut self.device, &self.volume, entry)?;
            if root.metadata.guest_uuid == uuid {
                return Ok((!root.lineage.base.is_empty()).then(|| entry.clone()));
            }
        }
        Ok(None)
    }

    /// The next older one, beside which this one was made. (Its own base may be gone.)
    fn older_kin(&mut self, root: &Root) -> Result<Option<CatalogEntry>> {
        if root.lineage.base.is_empty() {
            return Ok(None);
        }
        let (id, uuid) = (root.snapshot_id, root.metadata.guest_uuid);
        let older = self.volume.entries.iter().rev().filter(|entry| entry.id < id);
        for entry in older.filter(|entry| !self.spoiled.contains(&entry.id)) {
            if read_root(&mut self.device, &self.volume, entry)?.metadata.guest_uuid == uuid {
                return Ok(Some(entry.clone()));
            }
        }
        Ok(None)
    }

    fn root_of(&mut self, id: u64) -> Result<Root> {
        read_root(&mut self.device, &self.volume, self.volume.entry(id)?)
    }

    /// The next family that was not looked at yet. None if there is none.
    pub(super) fn next_family(&mut self) -> Result<Option<Counting>> {
        let looked_at = |id: &u64| self.cleaned.contains(id) || self.spoiled.contains(id);
        let ids: Vec<u64> =
            self.volume.entries.iter().rev().map(|entry| entry.id).filter(|id| !looked_at(id)).collect();
        for id in ids {
            if self.newer_kin(id)?.is_none() {
                let segments = self.volume.superblock.geometry.segments;
                return Ok(Some(Counting {
                    members: vec![id],
                    live: vec![0; index(u64::from(segments))],
                    fixed: 0,
                    reach: Bitmap::new(segments),
                    member: self.member(id, None)?,
                }));
            }
        }
        Ok(None)
    }

    fn member(&mut self, id: u64, newer: Option<u64>) -> Result<Member> {
        let newer = match newer {
            Some(newer) => Some(Base::open(&mut self.device, &self.volume, self.volume.entry(newer)?)?),
            None => None,
        };
        let root = self.root_of(id)?;
        Ok(Member { cursor: root.cursor(), root, newer })
    }

    /// A bounded piece of counting; true when the whole family is counted. A page that the next newer one has at the
    /// same gfn is counted there.
    pub(super) fn count(&mut self, counting: &mut Counting) -> Result<bool> {
        let (device, volume) = (&mut self.device, &self.volume);
        for _ in 0..COUNT_ENTRIES {
            let Member { cursor, newer, .. } = &mut counting.member;
            let Some(found) = cursor.next(device, volume)? else { return self.next_member(counting) };
            let What::Data { place, digest } = found.what else { continue };
            let counted = match newer {
                Some(newer) => newer.find(device, volume, found.gfn, &digest)?.is_some(),
                None => false,
            };
            if let Some(bytes) = counting.live.get_mut(index(u64::from(place.segment.0))).filter(|_| !counted) {
                *bytes = bytes.saturating_add(u32::from(place.stored));
            }
        }
        Ok(false)
    }

    fn next_member(&mut self, counting: &mut Counting) -> Result<bool> {
        let root = &counting.member.root;
        let entries = root.runs.iter().map(|run| run.tree.entries).sum::<u64>();
        let attached = root.parts.iter().map(|part| part.data.blocks() * 4096).sum::<u64>();
        counting.fixed += entries * entry_field::SIZE as u64 + attached;
        let id = root.snapshot_id;
        counting.reach.merge(&reach(&mut self.device, &self.volume, self.volume.entry(id)?)?);
        let Some(older) = self.older_kin(root)? else { return Ok(true) };
        counting.members.push(older.id);
        counting.member = self.member(older.id, Some(id))?;
        Ok(false)
    }

    /// Everything is counted: is there enough to gain, and room to do it? What is not worth it is not looked at again.
    pub(super) fn plan(&mut self, counting: Counting) -> Result<()> {
        let Counting { members, live, fixed, reach: mut own, .. } = counting;
        let others: Vec<_> = self.volume.entries.iter().filter(|one| !members.contains(&one.id)).cloned().collect();
        let others = mark(&mut self.device, &self.volume, &others)?;
        if let Some(id) = others.damaged.first() {
            return Err(StoreError::DamagedSnapshot { id: *id });
        }
        own.subtract(&others.reached);
        let free = self.allocator.free();
        let room = if members.len() > 1 { free / FREE_SHARE } else { free.saturating_sub(1) };
        let bytes_of = |id: u32| live.get(index(u64::from(id))).copied().map_or(0, u64::from);
        for eighths in SPARSE_EIGHTHS {
            let mut sparse = Bitmap::new(own.len());
            own.iter().filter(|id| bytes_of(*id) * 8 < SEGMENT_BYTES * eighths).for_each(|id| sparse.set(id));
            let moved = sparse.iter().map(bytes_of).sum::<u64>() + fixed;
            let whole = u32::try_from((moved + moved / 32).div_ceil(SEGMENT_BYTES)).unwrap_or(u32::MAX);
            // The last segment of each is filled in part: as a rule half, at worst hardly.
            let (usual, most) = (length32(members.len().div_ceil(2)), length32(members.len()));
            let gain = sparse.count().saturating_sub(whole.saturating_add(usual));
            if gain == 0 || gain.saturating_mul(GAIN_SHARE) < own.count() {
                break;
            }
            if whole.saturating_add(most) <= room {
                self.sweep = Some(Sweep { sparse, members });
                return Ok(());
            }
        }
        self.cleaned.extend(members);
        Ok(())
    }
}
