//! A disk of which single bits are flipped under those who use it. It knows which blocks they read, and takes back what
//! they wrote.
//!
//! Invariant: whoever reads none of the blocks that changed since, and is the same program, does the same again: it has
//! no other input.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use snapshot::ports::{BlockDevice, BlockIdx, IO_MAX, IoError, PAGE_SIZE, Page};

use crate::image::Image;

/// Blocks and what they hold.
pub type Blocks = BTreeMap<u64, Page>;

struct State {
    blocks: Vec<Page>,
    /// Blocks read, while somebody watches.
    read: Option<BTreeSet<u64>>,
    /// What stood where something was written.
    before: Blocks,
}

/// A handle; clones see the same disk.
#[derive(Clone)]
pub struct Flippable(Rc<RefCell<State>>);

impl Flippable {
    /// A disk of this size that holds an image.
    pub fn with(blocks: u64, image: &Image) -> Self {
        let blocks = (0..blocks).map(|at| image.bytes(at)).collect();
        Self(Rc::new(RefCell::new(State { blocks, read: None, before: Blocks::new() })))
    }

    /// Turns one bit, or turns it back.
    pub fn flip(&self, at: u64, bit: usize) {
        if let Some(block) = self.0.borrow_mut().blocks.get_mut(at as usize) {
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// Does something, and says which blocks it read.
    pub fn watch<T>(&self, action: impl FnOnce() -> T) -> (T, BTreeSet<u64>) {
        self.0.borrow_mut().read = Some(BTreeSet::new());
        let result = action();
        (result, self.0.borrow_mut().read.take().unwrap_or_default())
    }

    /// Takes back everything that was written; returns what it was.
    pub fn undo(&self) -> Blocks {
        let mut state = self.0.borrow_mut();
        let before = std::mem::take(&mut state.before);
        let mut written = Blocks::new();
        for (at, old) in before {
            if let Some(block) = state.blocks.get_mut(at as usize) {
                written.insert(at, std::mem::replace(block, old));
            }
        }
        written
    }
}

impl State {
    fn range(&self, at: BlockIdx, length: usize) -> std::ops::Range<usize> {
        let (first, count) = (at.0 as usize, length / PAGE_SIZE);
        assert!(length.is_multiple_of(PAGE_SIZE) && length <= IO_MAX && length > 0, "length {length}");
        assert!(first.saturating_add(count) <= self.blocks.len(), "blocks {first}.. of {}", self.blocks.len());
        first..first + count
    }
}

impl BlockDevice for Flippable {
    fn blocks(&self) -> u64 {
        self.0.borrow().blocks.len() as u64
    }

    fn read_only(&self) -> bool {
        false
    }

    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        let state = &mut *self.0.borrow_mut();
        let range = state.range(at, data.len());
        for (number, content) in range.zip(data.as_chunks().0) {
            let old = std::mem::replace(&mut state.blocks[number], *content);
            state.before.entry(number as u64).or_insert(old);
        }
        Ok(())
    }

    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        let state = &mut *self.0.borrow_mut();
        let range = state.range(at, into.len());
        if let Some(read) = &mut state.read {
            read.extend(range.clone().map(|number| number as u64));
        }
        into.copy_from_slice(state.blocks[range].as_flattened());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}
