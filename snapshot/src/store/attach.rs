//! What is attached to a snapshot in the making, and other metadata that belongs to no run.
//!
//! Invariants: each kind once, cut into parts as the format wants; what the snapshot below has attached already, by the
//! digest of each part, is named again and not written.

use alloc::vec::Vec;

use crate::ports::BlockDevice;
use crate::store::appender::Sink;
use crate::store::bitmap::Bitmap;
use crate::store::builder::BlobSink;
use crate::store::error::{Result, StoreError};
use crate::store::layout::{BLOCK, Kind, PART_BYTES, PARTS_MAX, length32};
use crate::store::pointer::Ptr;
use crate::store::root::{AttachmentKind, PartRecord};
use crate::store::sabotage::{Safeguard, out};
use crate::store::taking::Taking;

impl<D: BlockDevice> Taking<'_, D> {
    /// Stores an attachment; each kind once. It is cut into parts as the format wants. An empty one is an absent one.
    pub fn attach(&mut self, kind: AttachmentKind, bytes: &[u8]) -> Result<()> {
        self.store.check()?;
        if self.parts.iter().any(|part| part.kind == kind) && !out(Safeguard::KindOnce) {
            return Err(StoreError::Misuse { what: "attach" });
        }
        let parts = bytes.len().div_ceil(PART_BYTES) + self.parts.len();
        if parts > PARTS_MAX && !out(Safeguard::PartsLimit) {
            return Err(StoreError::TooLong { what: "attachments", limit: (PARTS_MAX * PART_BYTES) as u64 });
        }
        for (part, data) in (0..).zip(bytes.chunks(PART_BYTES)) {
            let data = match self.part_of_base(kind, part, bytes.len() as u64, data) {
                Some(known) => known,
                None => self.blob(Kind::ATTACHMENT, data)?,
            };
            self.parts.push(PartRecord { kind, part, total_bytes: bytes.len() as u64, data });
        }
        if !bytes.is_empty() {
            let digest = self.store.volume.keys.attachment(bytes);
            self.attached.push((kind, bytes.len() as u64, digest));
        }
        Ok(())
    }

    /// What the snapshot below has attached already, by its digest.
    fn part_of_base(&self, kind: AttachmentKind, part: u32, total_bytes: u64, data: &[u8]) -> Option<Ptr> {
        let base = self.base.as_ref().filter(|_| self.since)?;
        let known = base.root.parts.iter().find(|known| known.kind == kind && known.part == part)?;
        let mut padded = Vec::from(data);
        padded.resize(data.len().next_multiple_of(BLOCK), 0);
        let digest = self.store.volume.keys.meta(Kind::ATTACHMENT, length32(data.len()), &padded);
        (known.total_bytes == total_bytes && known.data.digest == digest).then_some(known.data)
    }

    /// Stores metadata that belongs to no run.
    pub(super) fn blob(&mut self, kind: Kind, content: &[u8]) -> Result<Ptr> {
        let keep = self.store.volume.superblock.slop;
        let mut reached = Bitmap::new(0);
        Sink { store: self.store, appender: &mut self.appender, reached: &mut reached, keep }.blob(kind, content)
    }
}
