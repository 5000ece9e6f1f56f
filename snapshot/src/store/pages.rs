//! The pages of a snapshot in gfn order, read in device order.
//!
//! Invariants: a page is handed out only if its digest holds; each gfn at most once, ascending. Pages that follow each
//! other on the device are read in one request, whatever their gfns; a page that cannot be read costs only itself.
//! Memory: one batch.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use crate::ports::{BlockDevice, BlockIdx, Page};
use crate::store::cursor::MergeCursor;
use crate::store::entry::{Entry, What};
use crate::store::error::{Result, StoreError};
use crate::store::layout::{BLOCK, index};
use crate::store::squeeze::unpack;
use crate::store::volume::Volume;

/// Blocks with pages in a batch: 1 MiB.
const BATCH_BLOCKS: usize = 256;
/// Entries in a batch, zero ranges included.
const BATCH_ENTRIES: usize = 1024;
/// Every zero page.
static ZERO_PAGE: Page = [0; BLOCK];

/// A page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageRef<'a> {
    /// All zero.
    Zero,
    /// Its bytes.
    Data(&'a Page),
}

impl<'a> PageRef<'a> {
    /// Its bytes, zero or not.
    pub fn bytes(self) -> &'a Page {
        match self {
            Self::Zero => &ZERO_PAGE,
            Self::Data(page) => page,
        }
    }
}

/// An entry of the batch.
#[derive(Clone, Copy)]
struct Item {
    entry: Entry,
    /// For a page: its first block on the device, and where that lies in the buffer.
    data: Option<(u64, usize)>,
    /// For a page: not readable.
    unreadable: bool,
}

/// A stream of pages. Lending: a page lives until the next call.
pub struct Pages<'a, D> {
    device: &'a mut D,
    volume: &'a Volume,
    cursor: MergeCursor,
    items: Vec<Item>,
    position: usize,
    /// Gfns of the current item that were handed out.
    within: u64,
    buffer: Vec<u8>,
    /// The page that was unpacked last.
    page: Box<Page>,
    blocks_read: u64,
    /// The index ended, or is damaged.
    ended: bool,
}

impl<'a, D: BlockDevice> Pages<'a, D> {
    pub(super) fn new(device: &'a mut D, volume: &'a Volume, cursor: MergeCursor) -> Self {
        let (buffer, page) = (vec![0; BATCH_BLOCKS * BLOCK], Box::new(ZERO_PAGE));
        let items = Vec::with_capacity(BATCH_ENTRIES);
        Self { device, volume, cursor, items, position: 0, within: 0, buffer, page, blocks_read: 0, ended: false }
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.blocks_read.saturating_add(self.cursor.blocks_read()) * BLOCK as u64
    }

    /// The next page. After [`StoreError::DamagedPage`] the stream goes on behind that page; any other error ends it.
    pub fn next_page(&mut self) -> Result<Option<(Gfn, PageRef<'_>)>> {
        if self.position >= self.items.len() {
            self.fill()?;
        }
        let Some(item) = self.items.get(self.position).copied() else { return Ok(None) };
        let gfn = Gfn::new(item.entry.gfn.saturating_add(self.within));
        self.within += 1;
        if self.within >= item.entry.count() {
            (self.position, self.within) = (self.position + 1, 0);
        }
        let (Some((block, offset)), What::Data { place, digest }) = (item.data, item.entry.what) else {
            return Ok(Some((gfn, PageRef::Zero)));
        };
        let damaged = StoreError::DamagedPage { gfn, at: BlockIdx(block) };
        if item.unreadable {
            return Err(damaged);
        }
        let from = offset + place.within();
        let stored = self.buffer.get(from..from + usize::from(place.stored)).unwrap_or_default();
        if place.packed() {
            unpack(stored, &mut self.page).ok_or(damaged)?;
        } else {
            *self.page = *stored.first_chunk().ok_or(damaged)?;
        }
        if self.volume.keys.page(&self.page) == digest {
            Ok(Some((gfn, PageRef::Data(&self.page))))
        } else {
            Err(damaged)
        }
    }

    /// The next batch. An error ends the stream: nothing of a half-read batch is handed out.
    fn fill(&mut self) -> Result<()> {
        self.items.clear();
        (self.position, self.within) = (0, 0);
        let mut blocks = 0;
        // A page touches at most 2 blocks.
        while !self.ended && blocks + 2 <= BATCH_BLOCKS && self.items.len() < BATCH_ENTRIES {
            match self.cursor.next(self.device, self.volume) {
                Ok(Some(entry)) => blocks += self.add(entry),
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    self.items.clear();
                    return Err(error);
                }
            }
        }
        self.read_batch();
        Ok(())
    }

    /// Adds an entry to the batch; returns the blocks that must be read for it.
    fn add(&mut self, entry: Entry) -> usize {
        let What::Data { place, .. } = entry.what else {
            self.items.push(Item { entry, data: None, unreadable: false });
            return 0;
        };
        // A segment whose address is lost costs its pages, not the rest.
        let block = self.volume.block(place.segment, place.slot());
        let unreadable = block.is_err();
        self.items.push(Item { entry, data: Some((block.unwrap_or_default(), 0)), unreadable });
        if unreadable { 0 } else { index(place.blocks()) }
    }

    /// Reads all pages of the batch in the order in which they lie, neighbours together.
    fn read_batch(&mut self) {
        let mut order: Vec<Span> = Vec::with_capacity(BATCH_BLOCKS);
        for (item, number) in self.items.iter().zip(0..) {
            if let (Some((first, _)), What::Data { place, .. }, false) = (item.data, item.entry.what, item.unreadable) {
                order.push(Span { first, end: first.saturating_add(place.blocks()), item: number });
            }
        }
        order.sort_unstable_by_key(|span| (span.first, span.end));
        let (mut offset, mut rest) = (0, order.as_slice());
        while let Some(first) = rest.first() {
            let mut end = first.end;
            let joins = |span: &&Span| {
                let touches = span.first <= end;
                end = if touches { end.max(span.end) } else { end };
                touches
            };
            let (group, others) = rest.split_at(rest.iter().take_while(joins).count());
            self.read_group(group, end, offset);
            offset += index(end.saturating_sub(first.first)) * BLOCK;
            rest = others;
        }
    }

    /// Reads neighbours into the buffer at an offset; block by block if that fails.
    fn read_group(&mut self, group: &[Span], end: u64, offset: usize) {
        let Some(first) = group.first().map(|span| span.first) else { return };
        let blocks = end.saturating_sub(first);
        let target = self.buffer.get_mut(offset..offset + index(blocks) * BLOCK).unwrap_or_default();
        self.blocks_read += blocks;
        let mut lost: Vec<u64> = Vec::new();
        if self.device.read(BlockIdx(first), target).is_err() {
            for (block, target) in (first..).zip(target.chunks_mut(BLOCK)) {
                lost.extend(self.device.read(BlockIdx(block), target).is_err().then_some(block));
            }
        }
        for span in group {
            let Some(item) = self.items.get_mut(span.item) else { continue };
            item.unreadable = lost.iter().any(|block| (span.first..span.end).contains(block));
            item.data = Some((span.first, offset + index(span.first.saturating_sub(first)) * BLOCK));
        }
    }
}

/// The blocks of one item.
#[derive(Clone, Copy)]
struct Span {
    first: u64,
    end: u64,
    item: usize,
}
