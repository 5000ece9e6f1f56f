//! Fills segments with pages and metadata, and writes them in large pieces.
//!
//! Invariants: only segments that were free are written, each block once; what a blob or a page occupies never crosses
//! the end of a segment. Memory: one piece, or the largest blob.

use alloc::vec::Vec;

use crate::ports::{BlockDevice, BlockIdx, Page};
use crate::store::bitmap::Bitmap;
use crate::store::builder::BlobSink;
use crate::store::entry::Place;
use crate::store::error::{Result, StoreError};
use crate::store::geometry::{Geometry, SegmentId};
use crate::store::layout::{BLOCK, Kind, PLACE_UNIT, SEGMENT_BYTES, length32};
use crate::store::pointer::Ptr;
use crate::store::store::Store;

/// Bytes that are written at once: 512 KiB. Two of them are a request of the largest size; the device is given no
/// smaller ones as long as the next piece goes on where the last one ended.
pub const PIECE: usize = 128 * BLOCK;

/// The segment that is being filled. Offsets are bytes in it.
struct Open {
    id: SegmentId,
    block: u64,
    /// Where the buffer begins; a multiple of a block. What lies before it is written.
    written: usize,
    /// What a page or blob in whole blocks left behind in the block before it: room for packed pages.
    hole: core::ops::Range<usize>,
}

/// Where the next bytes of a take go.
pub struct Appender {
    open: Option<Open>,
    buffer: Vec<u8>,
    taken: Bitmap,
}

impl Appender {
    /// Without a segment so far.
    pub fn new(geometry: &Geometry) -> Self {
        Self { open: None, buffer: Vec::with_capacity(PIECE), taken: Bitmap::new(geometry.segments) }
    }

    /// Bytes that wait for more before they are written.
    pub fn gathered(&self) -> usize {
        self.buffer.len()
    }

    /// The segments taken so far.
    pub fn taken(&self) -> &Bitmap {
        &self.taken
    }

    /// Writes all that is buffered. What comes next begins a block.
    pub fn push_out<D: BlockDevice>(&mut self, store: &mut Store<D>) -> Result<()> {
        self.buffer.resize(self.buffer.len().next_multiple_of(BLOCK), 0);
        self.write_out(store)
    }

    /// Writes the whole blocks of the buffer.
    fn write_out<D: BlockDevice>(&mut self, store: &mut Store<D>) -> Result<()> {
        let whole = self.buffer.len() - self.buffer.len() % BLOCK;
        let Some(open) = self.open.as_mut().filter(|_| whole != 0) else { return Ok(()) };
        let at = open.block.saturating_add((open.written / BLOCK) as u64);
        store.device.write(BlockIdx(at), self.buffer.get(..whole).unwrap_or_default())?;
        self.buffer.drain(..whole);
        open.written += whole;
        open.hole = 0..0;
        Ok(())
    }

    /// Makes sure that so many more bytes fit behind the buffer's end, in this segment or in a new one.
    fn fit<D: BlockDevice>(&mut self, store: &mut Store<D>, bytes: usize, keep: u32) -> Result<()> {
        let end = |open: &Open| open.written + self.buffer.len() + bytes;
        if self.open.as_ref().is_some_and(|open| end(open) as u64 <= SEGMENT_BYTES) {
            return Ok(());
        }
        self.push_out(store)?;
        let (id, address) = store.allocator.take(keep)?;
        store.volume.table.map(id, address);
        self.taken.set(id.0);
        self.open = Some(Open { id, block: address.block(), written: 0, hole: 0..0 });
        Ok(())
    }

    /// Adds whole blocks. Returns segment and offset.
    fn put<D: BlockDevice>(&mut self, store: &mut Store<D>, content: &[u8], keep: u32) -> Result<(SegmentId, usize)> {
        let bytes = content.len().next_multiple_of(BLOCK);
        if bytes as u64 > SEGMENT_BYTES {
            return Err(StoreError::TooLong { what: "metadata", limit: SEGMENT_BYTES });
        }
        let padding = self.buffer.len().next_multiple_of(BLOCK) - self.buffer.len();
        self.fit(store, padding + bytes, keep)?;
        let Some(open) = self.open.as_mut() else { return Err(StoreError::Misuse { what: "append" }) };
        let (end, start) = (self.buffer.len(), self.buffer.len().next_multiple_of(BLOCK));
        if start - end > open.hole.len() {
            open.hole = open.written + end..open.written + start;
        }
        self.buffer.resize(start, 0);
        let place = (open.id, open.written + start);
        self.buffer.extend_from_slice(content);
        self.buffer.resize(start + bytes, 0);
        self.full(store)?;
        Ok(place)
    }

    fn full<D: BlockDevice>(&mut self, store: &mut Store<D>) -> Result<()> {
        if self.buffer.len() >= PIECE { self.write_out(store) } else { Ok(()) }
    }

    /// Adds a page in a block of its own. Leaves `keep` segments free.
    pub fn page<D: BlockDevice>(&mut self, store: &mut Store<D>, page: &Page, keep: u32) -> Result<Place> {
        let (segment, offset) = self.put(store, page, keep)?;
        let slot = u8::try_from(offset / BLOCK).map_err(|_| StoreError::Misuse { what: "append" })?;
        Ok(Place::raw(segment, slot))
    }

    /// Adds the bytes of a packed page, in the room that others left if they fit there.
    pub fn packed<D: BlockDevice>(&mut self, store: &mut Store<D>, packed: &[u8], keep: u32) -> Result<Place> {
        const UNIT: usize = PLACE_UNIT as usize;
        let bytes = packed.len().next_multiple_of(UNIT);
        let in_hole = self.open.as_ref().is_some_and(|open| open.hole.len() >= bytes);
        if !in_hole {
            self.fit(store, bytes, keep)?;
        }
        let Some(open) = self.open.as_mut() else { return Err(StoreError::Misuse { what: "append" }) };
        let offset = if in_hole { open.hole.start } else { open.written + self.buffer.len() };
        let start = offset.saturating_sub(open.written);
        if in_hole {
            open.hole.start += bytes;
        } else {
            self.buffer.resize(start + bytes, 0);
        }
        let target = self.buffer.get_mut(start..start + packed.len()).unwrap_or_default();
        target.copy_from_slice(packed.get(..target.len()).unwrap_or_default());
        let wrong = |_| StoreError::Misuse { what: "append" };
        let unit = u16::try_from(offset / UNIT).map_err(wrong)?;
        let place = Place { segment: open.id, unit, stored: u16::try_from(packed.len()).map_err(wrong)? };
        self.full(store)?;
        Ok(place)
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

impl<D: BlockDevice> BlobSink for Sink<'_, D> {
    fn blob(&mut self, kind: Kind, content: &[u8]) -> Result<Ptr> {
        let mut padded = Vec::from(content);
        padded.resize(content.len().next_multiple_of(BLOCK), 0);
        let bytes = length32(content.len());
        let digest = self.store.volume.keys.meta(kind, bytes, &padded);
        let (segment, offset) = self.appender.put(self.store, &padded, self.keep)?;
        self.reached.set(segment.0);
        let slot = u16::try_from(offset / BLOCK).map_err(|_| StoreError::Misuse { what: "append" })?;
        Ok(Ptr { segment, slot, bytes, kind, digest })
    }
}
