//! A disk with a write cache. It notes everything that was done to it, so that power can be cut afterwards at each
//! moment; it fails, lies, loses and misdirects as planned. It gives no promise that a real one does not give.

use std::cell::RefCell;
use std::rc::Rc;

use snapshot::ports::{BlockDevice, BlockIdx, IO_MAX, IoError, PAGE_SIZE};

use crate::image::{Block, Image};

/// What was done to a disk, block by block.
#[derive(Clone)]
pub enum Op {
    /// A block was accepted.
    Write(u64, Rc<Block>),
    /// Everything before is durable.
    Flush,
    /// A flush failed: what was pending is lost, though reads still see it (a page cache does that).
    Lost,
    /// Not an operation: the promises change here.
    Mark(usize),
}

/// What the workload is doing, so that a flush has a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Between two steps.
    Idle,
    /// Making a store.
    Format,
    /// Opening one.
    Open,
    /// Taking a snapshot.
    Take,
    /// Removing one.
    Remove,
    /// Cleaning.
    Clean,
}

/// What was written since the last flush, besides data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// Segments only.
    Data,
    /// Catalog, directory or leaves.
    Meta,
    /// Slots that say nothing yet.
    Void,
    /// Slot A.
    SlotA,
    /// Slot B.
    SlotB,
    /// Both slots.
    Slots,
}

/// What goes wrong. Numbers count from 0 since the plan was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Faults {
    /// This operation (reads, writes, flushes together) fails.
    pub fail_at: Option<u64>,
    /// This one and all that follow fail.
    pub fail_from: Option<u64>,
    /// This write call and all that follow fail: a thin device without room.
    pub full_from: Option<u64>,
    /// All flushes of this name do nothing, and say that all is well.
    pub swallow: Option<(Phase, Window)>,
    /// This flush fails, and what was pending never arrives; reads go on seeing it.
    pub lose_flush: Option<u64>,
    /// This write is accepted and never arrives.
    pub lose_write: Option<u64>,
    /// This write arrives at another block.
    pub misdirect: Option<(u64, u64)>,
    /// This block cannot be read.
    pub unreadable: Option<u64>,
}

/// The disk behind its handles.
pub struct State {
    blocks: u64,
    view: Image,
    /// All operations since the start.
    pub log: Vec<Op>,
    faults: Faults,
    phase: Phase,
    window: Window,
    /// Operations since the plan.
    pub operations: u64,
    /// Calls of write since the plan.
    pub writes: u64,
    /// Flushes since the plan.
    pub flushes: u64,
    /// Flushes that were swallowed.
    pub swallowed: u64,
}

/// A handle to a disk; clones see the same disk.
#[derive(Clone)]
pub struct Disk(pub Rc<RefCell<State>>);

impl Disk {
    /// A disk that holds this.
    pub fn with(blocks: u64, view: Image) -> Self {
        Self(Rc::new(RefCell::new(State {
            blocks,
            view,
            log: Vec::new(),
            faults: Faults::default(),
            phase: Phase::Idle,
            window: Window::Data,
            operations: 0,
            writes: 0,
            flushes: 0,
            swallowed: 0,
        })))
    }

    /// The promises change.
    pub fn mark(&self, point: usize) {
        self.0.borrow_mut().log.push(Op::Mark(point));
    }

    /// The workload does this now.
    pub fn phase(&self, phase: Phase) {
        self.0.borrow_mut().phase = phase;
    }

    /// What a read sees.
    pub fn image(&self) -> Image {
        self.0.borrow().view.clone()
    }

    /// Begins to count, and to fail, anew.
    pub fn plan(&self, faults: Faults) {
        let mut state = self.0.borrow_mut();
        state.faults = faults;
        (state.operations, state.writes, state.flushes, state.swallowed) = (0, 0, 0, 0);
    }
}

impl State {
    /// Bytes written, as far as the log goes.
    pub fn written(&self) -> u64 {
        self.log.iter().filter(|op| matches!(op, Op::Write(..))).count() as u64 * PAGE_SIZE as u64
    }

    fn step(&mut self, at: BlockIdx, length: usize) -> Result<(), IoError> {
        let number = self.operations;
        self.operations += 1;
        let end = at.0 + (length / PAGE_SIZE) as u64;
        assert!(length.is_multiple_of(PAGE_SIZE) && length <= IO_MAX && length > 0, "length {length}");
        assert!(end <= self.blocks, "blocks {}..{end} of {}", at.0, self.blocks);
        let failing = self.faults.fail_at == Some(number) || self.faults.fail_from.is_some_and(|from| number >= from);
        if failing { Err(IoError::Failed { at }) } else { Ok(()) }
    }

    fn note_window(&mut self, at: u64, block: &Block) {
        let void = block.bytes[8..].iter().all(|byte| *byte == 0);
        self.window = match (at, self.window) {
            (0, _) | (_, Window::Void) if void => Window::Void,
            (0, Window::SlotB) => Window::Slots,
            (0, _) => Window::SlotA,
            (at, Window::SlotA) if at + 1 == self.blocks => Window::Slots,
            (at, _) if at + 1 == self.blocks && !void => Window::SlotB,
            (at, Window::Data) if (72..256).contains(&at) => Window::Meta,
            (_, window) => window,
        };
    }

    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        self.step(at, data.len())?;
        let number = self.writes;
        self.writes += 1;
        if self.faults.full_from.is_some_and(|from| number >= from) {
            return Err(IoError::Failed { at });
        }
        for (block, content) in (at.0..).zip(data.as_chunks().0) {
            let content = Block::new(*content);
            self.note_window(block, &content);
            let target = match self.faults {
                Faults { lose_write: Some(lost), .. } if lost == number => continue,
                Faults { misdirect: Some((lost, to)), .. } if lost == number => to % self.blocks,
                _ => block,
            };
            self.view.put(target, content.clone());
            self.log.push(Op::Write(target, content));
        }
        Ok(())
    }

    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        self.step(at, into.len())?;
        for (block, content) in (at.0..).zip(into.as_chunks_mut::<PAGE_SIZE>().0) {
            if self.faults.unreadable == Some(block) {
                return Err(IoError::Failed { at });
            }
            match self.view.get(block) {
                Some(found) => *content = found.bytes,
                None => content.fill(0),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.step(BlockIdx(0), PAGE_SIZE)?;
        let number = self.flushes;
        self.flushes += 1;
        let window = std::mem::replace(&mut self.window, Window::Data);
        if self.faults.lose_flush == Some(number) {
            self.log.push(Op::Lost);
            return Err(IoError::Failed { at: BlockIdx(0) });
        }
        if self.faults.swallow == Some((self.phase, window)) {
            self.swallowed += 1;
            return Ok(());
        }
        self.log.push(Op::Flush);
        Ok(())
    }
}

impl BlockDevice for Disk {
    fn blocks(&self) -> u64 {
        self.0.borrow().blocks
    }

    fn read_only(&self) -> bool {
        false
    }

    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        self.0.borrow_mut().write(at, data)
    }

    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        self.0.borrow_mut().read(at, into)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.0.borrow_mut().flush()
    }
}
