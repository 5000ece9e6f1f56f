//! A disk that keeps no promise which a real one does not give: writes that were not flushed survive a power cut in
//! any subset, in any order, torn at 512 bytes; any operation can fail.
//!
//! Deterministic: what happens is decided by a plan or a seed, never by time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use snapshot::ports::{BlockDevice, BlockIdx, Extent, IO_MAX, IoError, Page};

/// Bytes that are written whole or not at all.
pub const SECTOR: usize = 512;

/// A small deterministic generator (splitmix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Blocks that are not zero.
pub type Image = BTreeMap<u64, Rc<Page>>;

/// What was done to a disk, block by block.
#[derive(Clone)]
pub enum Op {
    Write(u64, Rc<Page>),
    Flush,
    /// A flush that failed: what was pending is lost, though reads still see it.
    Lost,
    /// Not an operation: the workload reached a point where the promises change.
    Mark(usize),
}

/// What goes wrong.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// The n-th operation (reads, writes, flushes counted together) fails.
    pub fail_at: Option<u64>,
    /// As above, and all that follow.
    pub fail_from: Option<u64>,
    /// The n-th flush does nothing, and says that all is well.
    pub swallow_flush: Option<u64>,
    /// The n-th flush fails, and what was pending never arrives; reads go on seeing it (a page cache does that).
    pub lose_flush: Option<u64>,
    /// Nothing is answered any more.
    pub gone: bool,
}

pub struct State {
    pub blocks: u64,
    /// What a read sees.
    pub view: Image,
    /// All operations since the start.
    pub log: Vec<Op>,
    pub faults: Faults,
    pub operations: u64,
    pub flushes: u64,
    pub reads: u64,
    pub largest_write: usize,
    pub read_only: bool,
    /// Blocks that were read.
    pub read_blocks: Vec<u64>,
    /// Blocks that cannot be read.
    pub bad: BTreeSet<u64>,
    /// What was announced and is not read yet, and how many reads were announced.
    pub announced: VecDeque<Extent>,
    pub announced_reads: u64,
}

/// A handle to a disk; clones see the same disk, so a test can look while a store owns one.
#[derive(Clone)]
pub struct Disk(pub Rc<RefCell<State>>);

impl Disk {
    pub fn new(blocks: u64) -> Self {
        Self::with(blocks, Image::new())
    }

    pub fn with(blocks: u64, view: Image) -> Self {
        let state = State {
            blocks,
            view,
            log: Vec::new(),
            faults: Faults::default(),
            operations: 0,
            flushes: 0,
            reads: 0,
            largest_write: 0,
            read_only: false,
            read_blocks: Vec::new(),
            bad: BTreeSet::new(),
            announced: VecDeque::new(),
            announced_reads: 0,
        };
        Self(Rc::new(RefCell::new(state)))
    }

    pub fn mark(&self, point: usize) {
        self.0.borrow_mut().log.push(Op::Mark(point));
    }

    pub fn image(&self) -> Image {
        self.0.borrow().view.clone()
    }

    pub fn plan(&self, faults: Faults) {
        let mut state = self.0.borrow_mut();
        state.faults = faults;
        (state.operations, state.flushes) = (0, 0);
    }

    fn step(&self, at: BlockIdx, length: usize) -> Result<(), IoError> {
        let mut state = self.0.borrow_mut();
        let number = state.operations;
        state.operations += 1;
        let end = at.0 + (length / 4096) as u64;
        assert!(length.is_multiple_of(4096) && length <= IO_MAX && length > 0, "length {length}");
        assert!(end <= state.blocks, "blocks {}..{end} of {}", at.0, state.blocks);
        if state.faults.gone {
            return Err(IoError::Disconnected);
        }
        let failing = state.faults.fail_at == Some(number) || state.faults.fail_from.is_some_and(|from| number >= from);
        if failing { Err(IoError::Failed { at }) } else { Ok(()) }
    }
}

impl BlockDevice for Disk {
    fn blocks(&self) -> u64 {
        self.0.borrow().blocks
    }

    fn read_only(&self) -> bool {
        self.0.borrow().read_only
    }

    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        assert!(!self.read_only(), "a write to a read-only disk");
        self.step(at, data.len())?;
        let mut state = self.0.borrow_mut();
        state.largest_write = state.largest_write.max(data.len());
        for (block, content) in (at.0..).zip(data.chunks(4096)) {
            let content: Rc<Page> = Rc::new(content.try_into().unwrap());
            state.view.insert(block, content.clone());
            state.log.push(Op::Write(block, content));
        }
        Ok(())
    }

    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        self.step(at, into.len())?;
        let mut state = self.0.borrow_mut();
        state.reads += 1;
        let extent = Extent { at, blocks: (into.len() / 4096) as u64 };
        if state.announced.front() == Some(&extent) {
            state.announced.pop_front();
            state.announced_reads += 1;
        }
        if state.bad.range(at.0..at.0 + extent.blocks).next().is_some() {
            return Err(IoError::Failed { at });
        }
        state.read_blocks.extend(at.0..at.0 + (into.len() / 4096) as u64);
        for (block, content) in (at.0..).zip(into.chunks_mut(4096)) {
            match state.view.get(&block) {
                Some(page) => content.copy_from_slice(&page[..]),
                None => content.fill(0),
            }
        }
        Ok(())
    }

    fn read_ahead(&mut self, wanted: &[Extent]) {
        let mut state = self.0.borrow_mut();
        let blocks = state.blocks;
        let fits =
            |one: &Extent| one.blocks > 0 && one.blocks * 4096 <= IO_MAX as u64 && one.at.0 + one.blocks <= blocks;
        assert!(wanted.iter().all(fits), "announced beyond a request or the device: {wanted:?}");
        if wanted.is_empty() {
            state.announced.clear();
        }
        state.announced.extend(wanted);
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.step(BlockIdx(0), 4096)?;
        let mut state = self.0.borrow_mut();
        let number = state.flushes;
        state.flushes += 1;
        if state.faults.lose_flush == Some(number) {
            state.log.push(Op::Lost);
            return Err(IoError::Failed { at: BlockIdx(0) });
        }
        if state.faults.swallow_flush != Some(number) {
            state.log.push(Op::Flush);
        }
        Ok(())
    }
}

/// A power cut after the first operations of a log: what is durable, and what may be.
pub struct Cut {
    pub durable: Image,
    pub pending: Vec<(u64, Rc<Page>)>,
    /// The last mark before the cut.
    pub mark: usize,
}

/// Every cut of a log, one operation after the other.
pub fn cuts(start: &Image, log: &[Op], mut each: impl FnMut(&Cut)) {
    let mut cut = Cut { durable: start.clone(), pending: Vec::new(), mark: 0 };
    each(&cut);
    for op in log {
        match op {
            Op::Write(block, page) => cut.pending.push((*block, page.clone())),
            Op::Flush => cut.durable.extend(cut.pending.drain(..)),
            Op::Lost => cut.pending.clear(),
            Op::Mark(point) => cut.mark = *point,
        }
        each(&cut);
    }
}

impl Cut {
    /// What is on the disk when these pending writes survive.
    pub fn survivors(&self, survives: impl Fn(usize) -> bool) -> Image {
        let mut image = self.durable.clone();
        let kept = self.pending.iter().enumerate().filter(|(number, _)| survives(*number));
        image.extend(kept.map(|(_, write)| write.clone()));
        image
    }

    /// A random subset in a random order; every third write is torn.
    pub fn random(&self, rng: &mut Rng) -> Image {
        let mut image = self.durable.clone();
        let mut order: Vec<usize> = (0..self.pending.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, rng.below(last as u64 + 1) as usize);
        }
        for number in order {
            let (block, page) = &self.pending[number];
            match rng.below(3) {
                0 => {}
                1 => drop(image.insert(*block, page.clone())),
                _ => tear(&mut image, *block, page, rng.next() as u8),
            }
        }
        image
    }
}

/// Only the sectors in the mask arrive.
pub fn tear(image: &mut Image, block: u64, page: &Page, mask: u8) {
    let mut mixed = image.get(&block).map_or([0; 4096], |old| **old);
    for sector in (0..8).filter(|sector| mask >> sector & 1 == 1) {
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        mixed[range.clone()].copy_from_slice(&page[range]);
    }
    image.insert(block, Rc::new(mixed));
}
