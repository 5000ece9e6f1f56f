//! What a new snapshot has in common with an older one of its guest (docs/format/store-v1.md, section 10.1).
//!
//! Invariants: a page is taken for one that the store has only if the whole keyed digest is equal, which no guest can
//! bring about, and if it lies in a segment that the older snapshot reaches; nothing here reads a page. An older
//! snapshot whose index is damaged shares nothing more. Memory: that of reading it, whatever its size.

use alloc::string::String;

use xen_hypercall::types::Gfn;

use crate::ports::BlockDevice;
use crate::store::bitmap::Bitmap;
use crate::store::catalog::CatalogEntry;
use crate::store::cursor::MergeCursor;
use crate::store::digest::Digest;
use crate::store::entry::{Entry, Place, What};
use crate::store::error::{Result, StoreError};
use crate::store::layout::entry as entry_field;
use crate::store::mark::{reach, read_root};
use crate::store::root::Root;
use crate::store::sabotage::{Safeguard, out};
use crate::store::store::Store;
use crate::store::taking::Taking;
use crate::store::volume::Volume;

/// What a new snapshot takes from an older one, which is named by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sharing {
    /// Nothing.
    #[default]
    Nothing,
    /// Pages that are equal to those of the same gfn. Every page is handed in.
    Equal(u64),
    /// All that is not handed in: what is, lies on top of it.
    Since(u64),
}

impl Sharing {
    /// The older snapshot.
    pub fn base(self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Equal(id) | Self::Since(id) => Some(id),
        }
    }
}

/// An older snapshot, beside which a new one is made.
pub(super) struct Base {
    pub(super) root: Root,
    pub(super) name: String,
    reach: Bitmap,
    cursor: MergeCursor,
    current: Option<Entry>,
    damaged: bool,
    /// Pages that were taken from it.
    pub(super) pages: u64,
}

impl Base {
    pub(super) fn open<D: BlockDevice>(device: &mut D, volume: &Volume, entry: &CatalogEntry) -> Result<Self> {
        let root = read_root(device, volume, entry)?;
        let reach = reach(device, volume, entry)?;
        let cursor = root.cursor();
        Ok(Self { cursor, root, name: entry.name.clone(), reach, current: None, damaged: false, pages: 0 })
    }

    /// Bytes of its indexes in one.
    pub(super) fn index_bytes(&self) -> u64 {
        self.root.runs.iter().map(|run| run.tree.entries).sum::<u64>() * entry_field::SIZE as u64
    }

    /// The gfns begin anew.
    pub(super) fn rewind(&mut self) {
        self.cursor = self.root.cursor();
        self.current = None;
    }

    /// Where a page of this content lies, if the older snapshot has it at this gfn. Gfns ascend.
    pub(super) fn find<D: BlockDevice>(
        &mut self,
        device: &mut D,
        volume: &Volume,
        gfn: u64,
        digest: &Digest,
    ) -> Result<Option<Place>> {
        match self.entry_at(device, volume, gfn) {
            Ok(Some(What::Data { place, digest: known })) => {
                let equal = known == *digest || out(Safeguard::BaseDigest);
                Ok(Some(place).filter(|place| equal && self.reach.get(place.segment.0)))
            }
            Ok(_) => Ok(None),
            Err(error) if error.is_damage() => {
                self.damaged = true;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn entry_at<D: BlockDevice>(&mut self, device: &mut D, volume: &Volume, gfn: u64) -> Result<Option<What>> {
        if self.damaged {
            return Ok(None);
        }
        if self.current.is_none_or(|current| current.end <= gfn) {
            self.current = self.cursor.next_from(device, volume, gfn)?;
        }
        Ok(self.current.filter(|current| (current.gfn..current.end).contains(&gfn)).map(|current| current.what))
    }
}

impl<D: BlockDevice> Store<D> {
    /// The newest snapshot of the guest with this uuid: its number and name. Damaged ones are passed over.
    pub fn newest_of(&mut self, guest_uuid: &[u8; 16]) -> Result<Option<(u64, String)>> {
        for entry in self.volume.entries.iter().rev() {
            match read_root(&mut self.device, &self.volume, entry) {
                Ok(root) if root.metadata.guest_uuid == *guest_uuid => {
                    return Ok(Some((entry.id, entry.name.clone())));
                }
                Ok(_) => {}
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The name of the snapshot of this number, and the digest of its content; `NotFound` once it was removed.
    pub fn named(&mut self, id: u64) -> Result<(String, Digest)> {
        let entry = self.volume.entry(id)?;
        let root = read_root(&mut self.device, &self.volume, entry)?;
        Ok((entry.name.clone(), root.content))
    }
}

impl<D: BlockDevice> Taking<'_, D> {
    /// Where the older snapshot has this page. One on top of it is handed what changed: to look would be for nothing.
    pub(super) fn in_base(&mut self, gfn: Gfn, digest: &Digest) -> Result<Option<Place>> {
        let Some(base) = self.base.as_mut().filter(|_| !self.since) else { return Ok(None) };
        let place = base.find(&mut self.store.device, &self.store.volume, gfn.raw(), digest)?;
        base.pages += u64::from(place.is_some());
        Ok(place)
    }

    /// Pages of the older snapshot that were found again so far.
    pub fn shared_pages(&self) -> u64 {
        self.base.as_ref().map_or(0, |base| base.pages)
    }
}

impl Volume {
    /// The catalog's entry of this number.
    pub(super) fn entry(&self, id: u64) -> Result<&CatalogEntry> {
        self.entries.iter().find(|entry| entry.id == id).ok_or(StoreError::NotFound)
    }
}
