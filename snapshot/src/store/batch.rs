//! A batch of entries whose pages are read together, in the order in which they lie on the device.
//!
//! Invariants: pages that follow each other are read in one request, whatever their gfns; what is read without being
//! wanted, because it lies between two pages, is at most a share of what is wanted; a page that cannot be read costs
//! only itself; a page is handed out only if its digest holds. Memory: what the size says, and the entries.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use crate::ports::{BlockDevice, BlockIdx, Extent, IO_MAX, Page};
use crate::store::digest::Digest;
use crate::store::entry::{Entry, What};
use crate::store::error::{Result, StoreError};
use crate::store::gaps::Gaps;
use crate::store::layout::{BLOCK, index};
use crate::store::sabotage::{Safeguard, out};
use crate::store::squeeze::unpack;
use crate::store::volume::Volume;

/// Entries for each block of a batch, zero ranges included.
const ENTRIES_PER_BLOCK: usize = 4;
/// Most blocks in a request.
const REQUEST_BLOCKS: u64 = (IO_MAX / BLOCK) as u64;

/// How much is read together: the larger, the longer the stretch that is read in the order of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchSize {
    /// Blocks with pages.
    blocks: usize,
    /// Blocks between pages that may be read with them: one for so many that are wanted. None: not any.
    wanted_per_gap_block: Option<usize>,
}

impl BatchSize {
    /// 1 MiB of pages and nothing else: where memory is scarce.
    pub const SMALL: Self = Self { blocks: 256, wanted_per_gap_block: None };
    /// 32 MiB of pages and at most a fifth of that besides: where it is not.
    pub const LARGE: Self = Self { blocks: 8192, wanted_per_gap_block: Some(5) };

    fn entries(self) -> usize {
        self.blocks * ENTRIES_PER_BLOCK
    }

    /// Blocks that may be read beside so many that are wanted.
    fn gap_blocks(self, wanted: usize) -> usize {
        self.wanted_per_gap_block.map_or(0, |each| wanted / each)
    }

    /// Bytes of the buffer.
    fn bytes(self) -> usize {
        (self.blocks + self.gap_blocks(self.blocks)) * BLOCK
    }
}

/// Where the blocks of a page are read to.
#[derive(Clone, Copy)]
struct Spot {
    /// Its first block on the device.
    first: u64,
    /// Where that lies in the buffer, and with which group it is read; known when the batch is planned.
    offset: usize,
    group: usize,
}

/// An entry of the batch.
#[derive(Clone, Copy)]
struct Item {
    entry: Entry,
    /// For a page that was wanted. None: its segment's address is lost.
    spot: Option<Spot>,
    wanted: bool,
}

/// The blocks of one item.
#[derive(Clone, Copy)]
struct Span {
    first: u64,
    end: u64,
    item: usize,
}

/// What is read with one request.
#[derive(Clone, Copy)]
struct Group {
    first: u64,
    blocks: u64,
    offset: usize,
}

impl Group {
    fn end(&self) -> u64 {
        self.first.saturating_add(self.blocks)
    }
}

/// A batch.
pub struct Batch {
    size: BatchSize,
    items: Vec<Item>,
    blocks: usize,
    /// What is to be read, in the order of the device, and how many of them are.
    groups: Vec<Group>,
    groups_read: usize,
    /// Blocks that could not be read, ascending.
    lost: Vec<u64>,
    buffer: Vec<u8>,
    /// The page that was looked at last.
    page: Box<Page>,
    blocks_read: u64,
}

impl Batch {
    /// Without entries.
    pub fn new(size: BatchSize) -> Self {
        Self { items: Vec::with_capacity(size.entries()), buffer: vec![0; size.bytes()], ..Self::unread(size) }
    }

    /// One that is only planned: it has no room for what it would read.
    pub fn unread(size: BatchSize) -> Self {
        let (items, groups, lost, buffer) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let page = Box::new([0; BLOCK]);
        Self { size, items, blocks: 0, groups, groups_read: 0, lost, buffer, page, blocks_read: 0 }
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.items.clear();
        self.groups.clear();
        self.lost.clear();
        (self.blocks, self.groups_read) = (0, 0);
    }

    /// Goes on with what another one planned, which has no entries then.
    pub fn go_on(&mut self, planned: &mut Self) {
        self.clear();
        core::mem::swap(&mut self.items, &mut planned.items);
        core::mem::swap(&mut self.groups, &mut planned.groups);
        self.blocks = core::mem::take(&mut planned.blocks);
    }

    /// Room for another entry? A page touches at most 2 blocks.
    pub fn has_room(&self) -> bool {
        self.blocks + 2 <= self.size.blocks && self.items.len() < self.size.entries()
    }

    /// Without entries?
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The entry at this position.
    pub fn entry(&self, position: usize) -> Option<Entry> {
        self.items.get(position).map(|item| item.entry)
    }

    /// Blocks of pages read so far.
    pub fn blocks_read(&self) -> u64 {
        self.blocks_read
    }

    /// Adds an entry; its page is read if it is wanted.
    pub fn add(&mut self, volume: &Volume, entry: Entry, wanted: bool) {
        let What::Data { place, .. } = entry.what else {
            return self.items.push(Item { entry, spot: None, wanted: false });
        };
        if !wanted {
            return self.items.push(Item { entry, spot: None, wanted });
        }
        // A segment whose address is lost costs its pages, not the rest.
        let first = volume.block(place.segment, place.slot()).ok();
        let spot = first.map(|first| Spot { first, offset: 0, group: usize::MAX });
        self.items.push(Item { entry, spot, wanted });
        self.blocks += index(place.blocks());
    }

    /// Says how the pages that are wanted will be read.
    pub fn plan(&mut self) -> Vec<Extent> {
        let order = self.in_device_order();
        let mut gaps = Gaps::of(order.iter().map(|span| (span.first, span.end)), self.size.gap_blocks(self.blocks));
        order.into_iter().for_each(|span| self.place(span, &mut gaps));
        self.groups.iter().map(|group| Extent { at: BlockIdx(group.first), blocks: group.blocks }).collect()
    }

    /// The page is read with the one before it on the device, or begins a group.
    fn place(&mut self, span: Span, gaps: &mut Gaps) {
        let last = self.groups.last().copied().unwrap_or(Group { first: 0, blocks: 0, offset: 0 });
        let is_short = span.end.saturating_sub(last.first) <= REQUEST_BLOCKS;
        let joins = !self.groups.is_empty() && is_short && gaps.through(span.first.saturating_sub(last.end()));
        if !joins {
            let offset = last.offset + index(last.blocks) * BLOCK;
            self.groups.push(Group { first: span.first, blocks: 0, offset });
        }
        let number = self.groups.len().saturating_sub(1);
        let Some(group) = self.groups.last_mut() else { return };
        group.blocks = group.blocks.max(span.end.saturating_sub(group.first));
        let offset = group.offset + index(span.first.saturating_sub(group.first)) * BLOCK;
        if let Some(spot) = self.items.get_mut(span.item).and_then(|item| item.spot.as_mut()) {
            (spot.offset, spot.group) = (offset, number);
        }
    }

    fn in_device_order(&self) -> Vec<Span> {
        let spans = self.items.iter().zip(0..).filter_map(|(item, number)| match (item.spot, item.entry.what) {
            (Some(Spot { first, .. }), What::Data { place, .. }) => {
                Some(Span { first, end: first.saturating_add(place.blocks()), item: number })
            }
            _ => None,
        });
        let mut order: Vec<Span> = spans.collect();
        order.sort_unstable_by_key(|span| (span.first, span.end));
        order
    }

    /// Reads all pages that are wanted.
    pub fn read<D: BlockDevice>(&mut self, device: &mut D) {
        self.plan();
        while self.groups_read < self.groups.len() {
            self.read_group(device);
        }
    }

    /// Reads what was planned, as far as the page at this position.
    pub fn read_until<D: BlockDevice>(&mut self, position: usize, device: &mut D) {
        let Some(spot) = self.items.get(position).and_then(|item| item.spot) else { return };
        while self.groups_read <= spot.group && self.groups_read < self.groups.len() {
            self.read_group(device);
        }
    }

    /// Reads the next group into the buffer; block by block if that fails.
    fn read_group<D: BlockDevice>(&mut self, device: &mut D) {
        let Some(Group { first, blocks, offset }) = self.groups.get(self.groups_read).copied() else { return };
        self.groups_read += 1;
        self.blocks_read += blocks;
        let target = self.buffer.get_mut(offset..offset + index(blocks) * BLOCK).unwrap_or_default();
        if device.read(BlockIdx(first), target).is_err() {
            for (block, target) in (first..).zip(target.chunks_mut(BLOCK)) {
                self.lost.extend(device.read(BlockIdx(block), target).is_err().then_some(block));
            }
        }
    }

    /// Could one of these blocks not be read?
    fn is_lost(&self, first: u64, blocks: u64) -> bool {
        let from = self.lost.partition_point(|block| *block < first);
        self.lost.get(from).is_some_and(|block| *block < first.saturating_add(blocks))
    }

    /// The page at this position, with its bytes as they are stored and its digest. It was wanted, and read.
    pub fn page(&mut self, position: usize, volume: &Volume) -> Result<(&Page, &[u8], Digest)> {
        let misuse = StoreError::Misuse { what: "page of a batch" };
        let item = self.items.get(position).copied().ok_or(misuse)?;
        let (true, What::Data { place, digest }) = (item.wanted, item.entry.what) else {
            return Err(misuse);
        };
        let at = BlockIdx(item.spot.map_or(0, |spot| spot.first));
        let damaged = StoreError::DamagedPage { gfn: Gfn::new(item.entry.gfn), at };
        let spot = item.spot.ok_or(damaged)?;
        if spot.group >= self.groups_read {
            return Err(misuse);
        }
        if self.is_lost(spot.first, place.blocks()) {
            return Err(damaged);
        }
        let from = spot.offset + place.within();
        let stored = self.buffer.get(from..from + usize::from(place.stored)).unwrap_or_default();
        if place.packed() {
            unpack(stored, &mut self.page).ok_or(damaged)?;
        } else {
            *self.page = *stored.first_chunk().ok_or(damaged)?;
        }
        if volume.keys.page(&self.page) == digest || out(Safeguard::PageDigest) {
            Ok((&self.page, stored, digest))
        } else {
            Err(damaged)
        }
    }
}
