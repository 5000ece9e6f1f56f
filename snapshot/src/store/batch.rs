//! A batch of entries whose pages are read together, in the order in which they lie on the device.
//!
//! Invariants: pages that follow each other are read in one request, whatever their gfns; a page that cannot be read
//! costs only itself; a page is handed out only if its digest holds. Memory: one MiB and the entries.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use crate::ports::{BlockDevice, BlockIdx, Page};
use crate::store::digest::Digest;
use crate::store::entry::{Entry, What};
use crate::store::error::{Result, StoreError};
use crate::store::layout::{BLOCK, index};
use crate::store::sabotage::{Safeguard, out};
use crate::store::squeeze::unpack;
use crate::store::volume::Volume;

/// Blocks with pages in a batch: 1 MiB.
const BATCH_BLOCKS: usize = 256;
/// Entries in a batch, zero ranges included.
const BATCH_ENTRIES: usize = 1024;

/// An entry of the batch.
#[derive(Clone, Copy)]
struct Item {
    entry: Entry,
    /// For a page that was wanted: its first block on the device, and where that lies in the buffer.
    data: Option<(u64, usize)>,
    /// For a page: not readable.
    unreadable: bool,
}

/// The blocks of one item.
#[derive(Clone, Copy)]
struct Span {
    first: u64,
    end: u64,
    item: usize,
}

/// A batch.
pub struct Batch {
    items: Vec<Item>,
    blocks: usize,
    buffer: Vec<u8>,
    /// The page that was looked at last.
    page: Box<Page>,
    blocks_read: u64,
}

impl Batch {
    /// Without entries.
    pub fn new() -> Self {
        let (items, buffer) = (Vec::with_capacity(BATCH_ENTRIES), vec![0; BATCH_BLOCKS * BLOCK]);
        Self { items, blocks: 0, buffer, page: Box::new([0; BLOCK]), blocks_read: 0 }
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.items.clear();
        self.blocks = 0;
    }

    /// Room for another entry? A page touches at most 2 blocks.
    pub fn has_room(&self) -> bool {
        self.blocks + 2 <= BATCH_BLOCKS && self.items.len() < BATCH_ENTRIES
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
            return self.items.push(Item { entry, data: None, unreadable: false });
        };
        if !wanted {
            return self.items.push(Item { entry, data: None, unreadable: false });
        }
        // A segment whose address is lost costs its pages, not the rest.
        let block = volume.block(place.segment, place.slot());
        self.items.push(Item { entry, data: Some((block.unwrap_or_default(), 0)), unreadable: block.is_err() });
        self.blocks += index(place.blocks());
    }

    /// Reads all pages that are wanted.
    pub fn read<D: BlockDevice>(&mut self, device: &mut D) {
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
            self.read_group(device, group, end, offset);
            offset += index(end.saturating_sub(first.first)) * BLOCK;
            rest = others;
        }
    }

    /// Reads neighbours into the buffer at an offset; block by block if that fails.
    fn read_group<D: BlockDevice>(&mut self, device: &mut D, group: &[Span], end: u64, offset: usize) {
        let Some(first) = group.first().map(|span| span.first) else { return };
        let blocks = end.saturating_sub(first);
        let target = self.buffer.get_mut(offset..offset + index(blocks) * BLOCK).unwrap_or_default();
        self.blocks_read += blocks;
        let mut lost: Vec<u64> = Vec::new();
        if device.read(BlockIdx(first), target).is_err() {
            for (block, target) in (first..).zip(target.chunks_mut(BLOCK)) {
                lost.extend(device.read(BlockIdx(block), target).is_err().then_some(block));
            }
        }
        for span in group {
            let Some(item) = self.items.get_mut(span.item) else { continue };
            item.unreadable = lost.iter().any(|block| (span.first..span.end).contains(block));
            item.data = Some((span.first, offset + index(span.first.saturating_sub(first)) * BLOCK));
        }
    }

    /// The page at this position, with its bytes as they are stored and its digest. It was wanted, and read.
    pub fn page(&mut self, position: usize, volume: &Volume) -> Result<(&Page, &[u8], Digest)> {
        let misuse = StoreError::Misuse { what: "page of a batch" };
        let item = self.items.get(position).ok_or(misuse)?;
        let (Some((block, offset)), What::Data { place, digest }) = (item.data, item.entry.what) else {
            return Err(misuse);
        };
        let damaged = StoreError::DamagedPage { gfn: Gfn::new(item.entry.gfn), at: BlockIdx(block) };
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
        if volume.keys.page(&self.page) == digest || out(Safeguard::PageDigest) {
            Ok((&self.page, stored, digest))
        } else {
            Err(damaged)
        }
    }
}
