//! What a disk holds: blocks that are not zero, and one number that stands for all of them.
//!
//! Invariant: two images with the same content have the same print, however they came about; so crash points that
//! leave the same disk are counted once.

use std::collections::BTreeMap;
use std::rc::Rc;

use snapshot::ports::{PAGE_SIZE, Page};

use crate::rng::mix;

/// Bytes that are written whole or not at all.
const SECTOR: usize = 512;

/// The content of one block.
#[derive(PartialEq)]
pub struct Block {
    /// Its bytes.
    pub bytes: Page,
    print: u64,
}

impl Block {
    /// Of these bytes.
    pub fn new(bytes: Page) -> Rc<Self> {
        let word = |word: &[u8; 8]| u64::from_le_bytes(*word);
        let fold = |sum: u64, bytes| (sum.rotate_left(23) ^ word(bytes)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let print = bytes.as_chunks().0.iter().fold(1, fold);
        Rc::new(Self { bytes, print })
    }

    fn is_zero(&self) -> bool {
        self.bytes == [0; PAGE_SIZE]
    }
}

/// The blocks of a disk.
#[derive(Clone, Default)]
pub struct Image {
    blocks: BTreeMap<u64, Rc<Block>>,
    print: u64,
}

impl Image {
    /// The block, unless it is zero.
    pub fn get(&self, at: u64) -> Option<&Rc<Block>> {
        self.blocks.get(&at)
    }

    /// The bytes of a block.
    pub fn bytes(&self, at: u64) -> Page {
        self.get(at).map_or([0; PAGE_SIZE], |block| block.bytes)
    }

    /// Writes a block.
    pub fn put(&mut self, at: u64, block: Rc<Block>) {
        let weigh = |block: &Block| mix(block.print ^ mix(at));
        let added = (!block.is_zero()).then(|| weigh(&block));
        let before = if added.is_some() { self.blocks.insert(at, block) } else { self.blocks.remove(&at) };
        self.print ^= added.unwrap_or(0) ^ before.map_or(0, |before| weigh(&before));
    }

    /// Only the sectors in the mask of this block arrive.
    pub fn tear(&mut self, at: u64, block: &Block, mask: u8) {
        let mut mixed = self.bytes(at);
        for sector in (0..8).filter(|sector| mask >> sector & 1 == 1) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            mixed[range.clone()].copy_from_slice(&block.bytes[range]);
        }
        self.put(at, Block::new(mixed));
    }

    /// Turns one bit.
    pub fn flip(&mut self, at: u64, bit: usize) {
        let mut bytes = self.bytes(at);
        bytes[bit / 8 % PAGE_SIZE] ^= 1 << (bit % 8);
        self.put(at, Block::new(bytes));
    }

    /// Blocks that are not zero.
    pub fn used(&self) -> impl Iterator<Item = u64> + '_ {
        self.blocks.keys().copied()
    }

    /// Stands for the whole content.
    pub fn print(&self) -> u64 {
        self.print
    }
}
