//! Fills segments with pages and metadata, and writes them in large pieces.
//!
//! Invariants: only segments that were free are written, each block once; what a blob occupies never crosses the end
//! of a segment. Memory: one piece, or the largest blob.

use alloc::vec::Vec;

use crate::ports::{BlockDevice, BlockIdx, Page};
use crate::store::bitmap::Bitmap;
use crate::store::builder::BlobSink;
use crate::store::entry::Place;
use crate::store::error::{Result, StoreError};
use crate::store::geometry::{Geometry, SegmentId};
use crate::store::layout::{BLOCK, Kind, SEGMENT_BLOCKS, blocks_of, length32};
use crate::store::pointer::Ptr;
use crate::store::store::Store;

/// Blocks that are written at once: 512 KiB, so that the disk works while the next piece is filled, and a MiB costs two
/// requests.
const PIECE_BLOCKS: usize = 128;

/// The segment that is being filled.
struct Open {
    id: SegmentId,
    block: u64,
    next: u64,
}

/// Where the next block of a take goes.
pub struct Appender {
    open: Option<Open>,
    buffer: Vec<u8>,
    taken: Bitmap,
}

impl Appender {
    /// Without a segment so far.
    pub fn new(geometry: &Geometry) -> Self {
        let buffer = Vec::with_capacity(PIECE_BLOCKS * BLOCK);
        Self { open: None, buffer, taken: Bitmap::new(geometry.segments) }
    }

    /// The segments taken so far.
    pub fn taken(&self) -> &Bitmap {
        &self.taken
    }

    /// Writes what is buffered.
    pub fn push_out<D: BlockDevice>(&mut self, store: &mut Store<D>) -> Result<()> {
        if let Some(open) = self.open.as_ref().filter(|_| !self.buffer.is_empty()) {
            let buffered = blocks_of(self.buffer.len() as u64);
            let at = open.block.saturating_add(open.next).saturating_sub(buffered);
            store.device.write(BlockIdx(at), &self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }

    /// Adds whole blocks; the last one is padded. Leaves `keep` segments free.
    fn put<D: BlockDevice>(&mut self, store: &mut Store<D>, content: &[u8], keep: u32) -> Result<(SegmentId, u64)> {
        let blocks = blocks_of(content.len() as u64);
        if blocks > SEGMENT_BLOCKS {
            return Err(StoreError::TooLong { what: "metadata", limit: SEGMENT_BLOCKS * BLOCK as u64 });
        }
        if self.open.as_ref().is_none_or(|open| open.next + blocks > SEGMENT_BLOCKS) {
            self.next_segment(store, keep)?;
        }
        let Some(open) = self.open.as_mut() else { return Err(StoreError::Misuse { what: "append" }) };
        let place = (open.id, open.next);
        open.next += blocks;
        let full = open.next == SEGMENT_BLOCKS;
        self.buffer.extend_from_slice(content);
        self.buffer.resize(self.buffer.len().next_multiple_of(BLOCK), 0);
        if full || self.buffer.len() >= PIECE_BLOCKS * BLOCK {
            self.push_out(store)?;
        }
        Ok(place)
    }

    fn next_segment<D: BlockDevice>(&mut self, store: &mut Store<D>, keep: u32) -> Result<()> {
        self.push_out(store)?;
        let (id, address) = store.allocator.take(keep)?;
        store.volume.table.map(id, address);
        self.taken.set(id.0);
        self.open = Some(Open { id, block: address.block(), next: 0 });
        Ok(())
    }
}

/// A way to add to a take while its index is built: notes which segments are used.
pub struct Sink<'a, D> {
    /// The store.
    pub store: &'a mut Store<D>,
    /// Its end of the log.
    pub appender: &'a mut Appender,
    /// Segments that the run reaches.
    pub reached: &'a mut Bitmap,
    /// Segments to leave free.
    pub keep: u32,
}

impl<D: BlockDevice> Sink<'_, D> {
    /// Stores a page.
    pub fn page(&mut self, page: &Page) -> Result<Place> {
        let (segment, slot) = self.appender.put(self.store, page, self.keep)?;
        self.reached.set(segment.0);
        let slot = u8::try_from(slot).map_err(|_| StoreError::Misuse { what: "append" })?;
        Ok(Place { segment, slot })
    }
}

impl<D: BlockDevice> BlobSink for Sink<'_, D> {
    fn blob(&mut self, kind: Kind, content: &[u8]) -> Result<Ptr> {
        let mut padded = Vec::from(content);
        padded.resize(content.len().next_multiple_of(BLOCK), 0);
        let bytes = length32(content.len());
        let digest = self.store.volume.keys.meta(kind, bytes, &padded);
        let (segment, slot) = self.appender.put(self.store, &padded, self.keep)?;
        self.reached.set(segment.0);
        let slot = u16::try_from(slot).map_err(|_| StoreError::Misuse { what: "append" })?;
        Ok(Ptr { segment, slot, bytes, kind, digest })
    }
}
