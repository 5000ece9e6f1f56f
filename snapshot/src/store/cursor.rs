//! Reads a run in gfn order, and several runs as one (docs/format/store-v1.md, section 10).
//!
//! Invariants: every block is checked against the digest in its pointer, its level, its bounds and the order of its
//! entries, so a hostile index can neither loop nor go back. Memory: one leaf and at most five nodes per run.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::ports::BlockDevice;
use crate::store::entry::{Entry, What};
use crate::store::error::{Result, StoreError};
use crate::store::layout::{Kind, child, entry, index, run_block as field};
use crate::store::pointer::Ptr;
use crate::store::volume::Volume;

/// A block of the index that is still to be read.
#[derive(Clone, Copy)]
struct Todo {
    pointer: Ptr,
    level: u16,
    bounds: Option<(u64, u64)>,
}

/// A position in a run.
pub struct RunCursor {
    todo: Vec<Todo>,
    leaf: VecDeque<Entry>,
    gfn_end: u64,
    next_gfn: u64,
    buffer: Vec<u8>,
    blocks_read: u64,
    /// Index blocks read since the last `take_visited`, for whoever asked for them.
    visited: Option<Vec<Ptr>>,
}

impl RunCursor {
    /// Before the first entry of the run with this top. No entry may reach `gfn_end`.
    pub fn new(top: Ptr, level: u16, gfn_end: u64) -> Self {
        let todo = Todo { pointer: top, level, bounds: None };
        let (leaf, buffer) = (VecDeque::new(), Vec::new());
        Self { todo: alloc::vec![todo], leaf, gfn_end, next_gfn: 0, buffer, blocks_read: 0, visited: None }
    }

    /// Keeps the pointers to the blocks that it reads, for [`Self::take_visited`].
    pub fn watched(mut self) -> Self {
        self.visited = Some(Vec::new());
        self
    }

    /// The index blocks read since the last call.
    pub fn take_visited(&mut self) -> Vec<Ptr> {
        self.visited.as_mut().map(core::mem::take).unwrap_or_default()
    }

    /// Blocks of the index read so far.
    pub fn blocks_read(&self) -> u64 {
        self.blocks_read
    }

    /// The entry at the cursor; reads on if need be.
    pub fn peek<D: BlockDevice>(&mut self, device: &mut D, volume: &Volume) -> Result<Option<Entry>> {
        self.peek_from(device, volume, 0)
    }

    /// As [`Self::peek`], but blocks of the index that end at or below `from` are not read.
    fn peek_from<D: BlockDevice>(&mut self, device: &mut D, volume: &Volume, from: u64) -> Result<Option<Entry>> {
        while self.leaf.is_empty() {
            let Some(todo) = self.todo.pop() else { return Ok(None) };
            if todo.bounds.is_none_or(|(_, end)| end > from) {
                self.load(device, volume, &todo)?;
            }
        }
        Ok(self.leaf.front().copied())
    }

    /// Steps over the entry at the cursor.
    pub fn advance(&mut self) {
        self.leaf.pop_front();
    }

    fn load<D: BlockDevice>(&mut self, device: &mut D, volume: &Volume, todo: &Todo) -> Result<()> {
        let at = volume.read_into(device, &todo.pointer, &mut self.buffer)?;
        self.blocks_read += todo.pointer.blocks();
        self.visited.iter_mut().for_each(|visited| visited.push(todo.pointer));
        let raw = core::mem::take(&mut self.buffer);
        let parsed = self.parse(&raw, todo, volume);
        self.buffer = raw;
        parsed.ok_or(StoreError::corrupt(todo.pointer.kind.name(), at))
    }

    fn parse(&mut self, raw: &[u8], todo: &Todo, volume: &Volume) -> Option<()> {
        let (kind, size) = if todo.level == 0 { (Kind::RUN_LEAF, entry::SIZE) } else { (Kind::RUN_NODE, child::SIZE) };
        let content = raw.get(field::SIZE..)?;
        let count = index(u64::from(field::COUNT.u32(raw)));
        let bounds = (field::FIRST_GFN.u64(raw), field::END_GFN.u64(raw));
        let right = todo.pointer.kind == kind
            && field::MAGIC.of(raw) == kind.0
            && field::LEVEL.u16(raw) == todo.level
            && usize::from(field::ENTRY_BYTES.u16(raw)) == size
            && count != 0
            && content.len() == count.checked_mul(size)?
            && todo.bounds.is_none_or(|expected| expected == bounds)
            && bounds.1 <= self.gfn_end;
        if !right {
            return None;
        }
        match todo.level.checked_sub(1) {
            None => self.parse_leaf(content, bounds, volume),
            Some(below) => self.parse_node(content, bounds, below, volume),
        }
    }

    fn parse_leaf(&mut self, content: &[u8], bounds: (u64, u64), volume: &Volume) -> Option<()> {
        let mut next = self.next_gfn.max(bounds.0);
        for raw in content.chunks(entry::SIZE) {
            let one = Entry::parse(raw, &volume.superblock.geometry)?;
            if one.gfn < next || one.end > bounds.1 {
                return None;
            }
            next = one.end;
            self.leaf.push_back(one);
        }
        self.next_gfn = next;
        Some(())
    }

    /// Pushes the children so that the first one is read next.
    fn parse_node(&mut self, content: &[u8], bounds: (u64, u64), level: u16, volume: &Volume) -> Option<()> {
        let kinds = [if level == 0 { Kind::RUN_LEAF } else { Kind::RUN_NODE }];
        let mut last = bounds.1;
        for raw in content.chunks(child::SIZE).rev() {
            let (first, end) = (child::FIRST_GFN.u64(raw), child::END_GFN.u64(raw));
            if first >= end || end > last || first < bounds.0 {
                return None;
            }
            let pointer = Ptr::parse(child::BLOCK.of(raw), &kinds, &volume.superblock.geometry)?;
            self.todo.push(Todo { pointer, level, bounds: Some((first, end)) });
            last = first;
        }
        Some(())
    }
}

/// Several runs as one: for each gfn the newest run that mentions it.
pub struct MergeCursor {
    runs: Vec<RunCursor>,
    next_gfn: u64,
}

impl MergeCursor {
    /// Newest first.
    pub fn new(runs: Vec<RunCursor>) -> Self {
        Self { runs, next_gfn: 0 }
    }

    /// Blocks of the indexes read so far.
    pub fn blocks_read(&self) -> u64 {
        self.runs.iter().map(RunCursor::blocks_read).sum()
    }

    /// The next page or range, holes left out: a gfn that is not mentioned is a hole.
    pub fn next<D: BlockDevice>(&mut self, device: &mut D, volume: &Volume) -> Result<Option<Entry>> {
        while let Some(found) = self.step(device, volume)? {
            if found.what != What::Hole {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The next that ends above `gfn`; what ends below is passed over, and where possible not read.
    pub fn next_from<D: BlockDevice>(&mut self, device: &mut D, volume: &Volume, gfn: u64) -> Result<Option<Entry>> {
        self.next_gfn = self.next_gfn.max(gfn);
        self.next(device, volume)
    }

    /// The next piece that one run decides, holes included. A newer run that starts later ends the piece of an older
    /// one.
    pub fn step<D: BlockDevice>(&mut self, device: &mut D, volume: &Volume) -> Result<Option<Entry>> {
        let mut best: Option<Entry> = None;
        for run in &mut self.runs {
            let Some(found) = settle(run, self.next_gfn, device, volume)? else { continue };
            let found = found.part(found.gfn.max(self.next_gfn), found.end);
            best = Some(match best {
                // Newer runs come first: an older one wins only before the newer one starts, and ends there.
                Some(newer) if newer.gfn <= found.gfn => newer,
                Some(newer) => found.part(found.gfn, found.end.min(newer.gfn)),
                None => found,
            });
        }
        if let Some(found) = best {
            self.next_gfn = found.end;
        }
        Ok(best)
    }
}

/// The run's first entry that ends behind `from`.
fn settle<D: BlockDevice>(run: &mut RunCursor, from: u64, device: &mut D, volume: &Volume) -> Result<Option<Entry>> {
    while let Some(found) = run.peek_from(device, volume, from)? {
        if found.end > from {
            return Ok(Some(found));
        }
        run.advance();
    }
    Ok(None)
}
