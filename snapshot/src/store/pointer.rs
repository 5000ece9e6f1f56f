//! A pointer into a segment: where, how long, and the digest (docs/format/store-v1.md, section 8).
//!
//! Invariant: a [`Ptr`] that was parsed stays inside one existing segment; whether its digest holds is known only
//! after a read through [`super::volume::Volume::read_blob`].

use crate::store::digest::Digest;
use crate::store::geometry::{Geometry, SegmentId};
use crate::store::layout::{Kind, SEGMENT_BLOCKS, blocks_of, pointer as field};

/// Points at metadata in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ptr {
    /// In which segment.
    pub segment: SegmentId,
    /// First block in it.
    pub slot: u16,
    /// Bytes of content.
    pub bytes: u32,
    /// What it points at.
    pub kind: Kind,
    /// Over kind, length and the whole blocks.
    pub digest: Digest,
}

impl Ptr {
    /// Whole blocks that it covers.
    pub fn blocks(&self) -> u64 {
        blocks_of(u64::from(self.bytes))
    }

    /// As it is written.
    pub fn encode(&self) -> [u8; field::SIZE] {
        let mut raw = [0; field::SIZE];
        field::SEGMENT.put(&mut raw, &self.segment.0.to_le_bytes());
        field::SLOT.put(&mut raw, &self.slot.to_le_bytes());
        field::BYTES.put(&mut raw, &self.bytes.to_le_bytes());
        field::KIND.put(&mut raw, &self.kind.0);
        field::DIGEST.put(&mut raw, &self.digest.0);
        raw
    }

    /// Checked: of an expected kind, not null, inside a segment that exists.
    pub fn parse(raw: &[u8], kinds: &[Kind], geometry: &Geometry) -> Option<Self> {
        let found = Self {
            segment: geometry.id(field::SEGMENT.u32(raw))?,
            slot: field::SLOT.u16(raw),
            bytes: field::BYTES.u32(raw),
            kind: Kind(field::KIND.array(raw)),
            digest: Digest(field::DIGEST.array(raw)),
        };
        let inside = found.bytes != 0 && u64::from(found.slot) + found.blocks() <= SEGMENT_BLOCKS;
        (inside && kinds.contains(&found.kind)).then_some(found)
    }
}
