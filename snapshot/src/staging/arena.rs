//! The memory of staging: packed pages from its beginning on, pages as they are from its end back.
//!
//! Invariants: all memory is taken in `try_new`; a page that is asked for while `free` is not 0 has its place, packed
//! or not, for neither makes `free` smaller by more than one. Nothing that was placed is ever moved.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::copy::is_zero;
use crate::ports::{BATCH_MAX, PAGE_SIZE, Page};
use crate::store::{Compression, Packer, unpack};

/// Places begin at multiples of it.
pub(super) const UNIT: usize = 64;

/// Where a page lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spot {
    /// In units.
    unit: u32,
    /// Fewer than those of a page: it is packed.
    bytes: u16,
}

impl Spot {
    /// Stands for a gfn that is no memory.
    pub const HOLE: Self = Self { unit: u32::MAX, bytes: 0 };
    /// Stands for a page that has not come yet.
    pub const PENDING: Self = Self { unit: u32::MAX, bytes: 1 };
}

/// The memory.
pub(super) struct Arena {
    /// [`BATCH_MAX`] pages in each chunk but the last: one large block may not be had from a heap that was used.
    chunks: Vec<Vec<Page>>,
    pages: u32,
    /// Everything before it is taken. Bytes.
    low: usize,
    /// Every page from it on is taken.
    high: u32,
    packer: Option<Packer>,
    /// A page on its way in or out, if it is packed.
    scratch: Box<Page>,
}

impl Arena {
    /// Bytes of a chunk.
    const CHUNK: usize = BATCH_MAX * PAGE_SIZE;

    /// Room for `pages`, or for as many of them as there is memory for.
    pub fn try_new(pages: usize, compression: Compression) -> Self {
        let packer = Packer::new(compression);
        let mut arena =
            Self { chunks: Vec::new(), pages: 0, low: 0, high: 0, packer, scratch: Box::new([0; PAGE_SIZE]) };
        let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX) / (PAGE_SIZE / UNIT);
        let mut left = pages.min(most);
        if arena.chunks.try_reserve_exact(left.div_ceil(BATCH_MAX)).is_err() {
            return arena;
        }
        while left > 0 {
            let count = left.min(BATCH_MAX);
            let mut chunk = Vec::new();
            if chunk.try_reserve_exact(count).is_err() {
                break;
            }
            chunk.resize(count, [0; PAGE_SIZE]);
            arena.chunks.push(chunk);
            arena.pages += u32::try_from(count).unwrap_or(0);
            left -= count;
        }
        arena.high = arena.pages;
        arena
    }

    /// Pages that fit as they are.
    pub fn capacity(&self) -> u64 {
        u64::from(self.pages)
    }

    /// Pages that still fit as they are.
    pub fn free(&self) -> u64 {
        u64::from(self.high).saturating_sub(self.low.div_ceil(PAGE_SIZE) as u64)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        (self.low, self.high) = (0, self.pages);
    }

    /// A place for a page as it is.
    pub fn take(&mut self) -> Option<Spot> {
        if self.free() == 0 {
            return None;
        }
        self.high -= 1;
        Some(Spot { unit: self.high * (PAGE_SIZE / UNIT) as u32, bytes: PAGE_SIZE as u16 })
    }

    /// The page of a place of [`Self::take`].
    pub fn page_mut(&mut self, spot: Spot) -> Option<&mut Page> {
        locate(&mut self.chunks, spot)
    }

    /// Where a page is put that is to be packed.
    pub fn scratch(&mut self) -> &mut Page {
        &mut self.scratch
    }

    /// Packs what is in `scratch` and gives it a place; as it is, if that does not pay.
    pub fn pack(&mut self) -> Option<Spot> {
        let packed = self.packer.as_mut().and_then(|packer| packer.pack(&self.scratch));
        let Some(packed) = packed else {
            let spot = self.take()?;
            let Self { chunks, scratch, .. } = self;
            locate(chunks, spot)?.copy_from_slice(scratch.as_slice());
            return Some(spot);
        };
        // Packed bytes lie in one chunk; the rest of one that they do not fit is less than a page.
        let fits = self.low % Self::CHUNK + packed.len() <= Self::CHUNK;
        let at = if fits { self.low } else { self.low.next_multiple_of(Self::CHUNK) };
        let chunk = self.chunks.get_mut(at / Self::CHUNK)?.as_flattened_mut();
        chunk.get_mut(at % Self::CHUNK..)?.get_mut(..packed.len())?.copy_from_slice(packed);
        let bytes = u16::try_from(packed.len()).ok()?;
        self.low = at + packed.len().next_multiple_of(UNIT);
        Some(Spot { unit: u32::try_from(at / UNIT).ok()?, bytes })
    }

    /// Packs a page that lies as it is, to see how small it gets. Bytes.
    pub fn try_pack(&mut self, spot: Spot) -> Option<usize> {
        let Self { chunks, packer, .. } = self;
        let page = locate(chunks, spot)?;
        let packed = packer.as_mut().and_then(|packer| packer.pack(page));
        Some(packed.map_or(PAGE_SIZE, <[u8]>::len))
    }

    /// Is the page all zeros, that lies there as it is?
    pub fn is_zero(&self, spot: Spot) -> Option<bool> {
        let page = spot.unit as usize / (PAGE_SIZE / UNIT);
        self.chunks.get(page / BATCH_MAX)?.get(page % BATCH_MAX).map(is_zero)
    }

    /// Are pages packed at all?
    pub fn packs(&self) -> bool {
        self.packer.is_some()
    }

    /// The page at a place.
    pub fn page(&mut self, spot: Spot) -> Option<&Page> {
        let (at, bytes) = (spot.unit as usize * UNIT, usize::from(spot.bytes));
        let chunk = self.chunks.get(at / Self::CHUNK)?;
        if bytes == PAGE_SIZE {
            return chunk.get(at % Self::CHUNK / PAGE_SIZE);
        }
        let packed = chunk.as_flattened().get(at % Self::CHUNK..)?.get(..bytes)?;
        unpack(packed, &mut self.scratch)?;
        Some(&self.scratch)
    }
}

fn locate(chunks: &mut [Vec<Page>], spot: Spot) -> Option<&mut Page> {
    let page = spot.unit as usize / (PAGE_SIZE / UNIT);
    chunks.get_mut(page / BATCH_MAX)?.get_mut(page % BATCH_MAX)
}
