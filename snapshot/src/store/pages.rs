//! The pages of a snapshot in gfn order, read in device order.
//!
//! Invariants: a page is handed out only if its digest holds; each gfn at most once, ascending. Pages that follow each
//! other on the device are read in one request, whatever their gfns; a page that cannot be read costs only itself.
//! Memory: one batch.

use alloc::vec;
use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use crate::ports::{BlockDevice, BlockIdx, Page};
use crate::store::cursor::MergeCursor;
use crate::store::digest::Digest;
use crate::store::entry::{Entry, What};
use crate::store::error::{Result, StoreError};
use crate::store::layout::BLOCK;
use crate::store::volume::Volume;

/// Pages with data in a batch: 1 MiB.
const BATCH_PAGES: usize = 256;
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
    /// For a page: where it lies on the device and in the buffer.
    data: Option<(u64, usize)>,
    /// For a page: not readable, or not what it was.
    damaged: bool,
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
    blocks_read: u64,
    /// The index ended, or is damaged.
    ended: bool,
}

impl<'a, D: BlockDevice> Pages<'a, D> {
    pub(super) fn new(device: &'a mut D, volume: &'a Volume, cursor: MergeCursor) -> Self {
        let buffer = vec![0; BATCH_PAGES * BLOCK];
        let items = Vec::with_capacity(BATCH_ENTRIES);
        Self { device, volume, cursor, items, position: 0, within: 0, buffer, blocks_read: 0, ended: false }
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
        let Some((block, offset)) = item.data else { return Ok(Some((gfn, PageRef::Zero))) };
        let page = self.buffer.get(offset..).and_then(|rest| rest.first_chunk::<BLOCK>());
        match page.filter(|_| !item.damaged) {
            Some(page) => Ok(Some((gfn, PageRef::Data(page)))),
            None => Err(StoreError::DamagedPage { gfn, at: BlockIdx(block) }),
        }
    }

    /// The next batch. An error ends the stream: nothing of a half-read batch is handed out.
    fn fill(&mut self) -> Result<()> {
        self.items.clear();
        (self.position, self.within) = (0, 0);
        let mut pages = 0;
        while !self.ended && pages < BATCH_PAGES && self.items.len() < BATCH_ENTRIES {
            match self.cursor.next(self.device, self.volume) {
                Ok(Some(entry)) => pages += usize::from(self.add(entry)),
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

    /// Adds an entry to the batch; true if it is a page that must be read.
    fn add(&mut self, entry: Entry) -> bool {
        let place = match entry.what {
            What::Data { place, .. } => Some(self.volume.block(place.segment, u64::from(place.slot))),
            What::Zero | What::Hole => None,
        };
        // A segment whose address is lost costs its pages, not the rest.
        let damaged = matches!(place, Some(Err(_)));
        let data = place.map(|block| (block.unwrap_or_default(), 0));
        self.items.push(Item { entry, data, damaged });
        data.is_some() && !damaged
    }

    /// Reads all pages of the batch in the order in which they lie, neighbours together.
    fn read_batch(&mut self) {
        let mut order: Vec<(u64, usize)> = Vec::with_capacity(BATCH_PAGES);
        for (number, item) in self.items.iter().enumerate() {
            order.extend(item.data.filter(|_| !item.damaged).map(|(block, _)| (block, number)));
        }
        order.sort_unstable();
        let mut offset = 0;
        for group in order.chunk_by(|before, after| before.0 + 1 == after.0) {
            self.read_group(group, offset);
            offset += group.len() * BLOCK;
        }
    }

    /// Reads neighbours into the buffer at an offset; one by one if that fails.
    fn read_group(&mut self, group: &[(u64, usize)], offset: usize) {
        let Some(&(first, _)) = group.first() else { return };
        let target = self.buffer.get_mut(offset..offset + group.len() * BLOCK).unwrap_or_default();
        self.blocks_read += group.len() as u64;
        let together = self.device.read(BlockIdx(first), target).is_ok();
        for ((block, number), target) in group.iter().zip(target.chunks_mut(BLOCK)) {
            let readable = together || self.device.read(BlockIdx(*block), target).is_ok();
            let Some(item) = self.items.get_mut(*number) else { continue };
            let digest = target.first_chunk::<BLOCK>().map(|page| self.volume.keys.page(page));
            item.damaged = !readable || digest != digest_of(&item.entry);
            let here = offset + usize::try_from(block - first).unwrap_or(usize::MAX) * BLOCK;
            item.data = Some((*block, here));
        }
    }
}

fn digest_of(entry: &Entry) -> Option<Digest> {
    match entry.what {
        What::Data { digest, .. } => Some(digest),
        What::Zero | What::Hole => None,
    }
}
