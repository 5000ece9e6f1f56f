//! Builds the index of a run bottom-up, in one pass, with one buffer per level (docs/format/store-v1.md, section 10).
//!
//! Invariants: entries come in ascending order and do not overlap (checked here, also against our own merging);
//! neighbouring ranges of a kind become one entry. Memory: one leaf and at most five nodes, whatever the run's size.

use alloc::vec;
use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use crate::store::digest::{ContentHasher, Keys};
use crate::store::entry::{Entry, What};
use crate::store::error::{Result, StoreError};
use crate::store::layout::{Kind, LEAF_ENTRIES, LEVEL_MAX, NODE_CHILDREN, child, entry, length32, run_block as field};
use crate::store::pointer::Ptr;

/// Where the builder puts its leaves and nodes.
pub trait BlobSink {
    /// Stores metadata, and returns the pointer to it.
    fn blob(&mut self, kind: Kind, content: &[u8]) -> Result<Ptr>;
}

/// An index that was finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tree {
    /// Its top.
    pub top: Ptr,
    /// Level of the top.
    pub level: u16,
    /// Entries in it.
    pub entries: u64,
    /// Pages with data.
    pub data_pages: u64,
    /// Pages in zero ranges.
    pub zero_pages: u64,
}

/// One block of the index that is being filled.
struct Open {
    content: Vec<u8>,
    count: usize,
    first: u64,
    end: u64,
}

impl Open {
    fn new() -> Self {
        Self { content: vec![0; field::SIZE], count: 0, first: 0, end: 0 }
    }

    fn push(&mut self, raw: &[u8], first: u64, end: u64) {
        if self.count == 0 {
            self.first = first;
        }
        self.content.extend_from_slice(raw);
        self.count += 1;
        self.end = end;
    }

    /// Writes it out, and returns it as a child of the next level.
    fn close(&mut self, level: usize, sink: &mut dyn BlobSink) -> Result<(Ptr, u64, u64)> {
        let (kind, size) = if level == 0 { (Kind::RUN_LEAF, entry::SIZE) } else { (Kind::RUN_NODE, child::SIZE) };
        field::MAGIC.put(&mut self.content, &kind.0);
        field::COUNT.put(&mut self.content, &length32(self.count).to_le_bytes());
        field::LEVEL.put(&mut self.content, &length32(level).to_le_bytes());
        field::ENTRY_BYTES.put(&mut self.content, &length32(size).to_le_bytes());
        field::FIRST_GFN.put(&mut self.content, &self.first.to_le_bytes());
        field::END_GFN.put(&mut self.content, &self.end.to_le_bytes());
        let pointer = sink.blob(kind, &self.content)?;
        self.content.truncate(field::SIZE);
        self.count = 0;
        Ok((pointer, self.first, self.end))
    }
}

/// An index in the making.
pub struct TreeBuilder {
    levels: Vec<Open>,
    pending: Option<Entry>,
    next_gfn: u64,
    entries: u64,
    data_pages: u64,
    zero_pages: u64,
    content: ContentHasher,
}

impl TreeBuilder {
    /// Without entries.
    pub fn new(keys: &Keys) -> Self {
        Self {
            levels: vec![Open::new()],
            pending: None,
            next_gfn: 0,
            entries: 0,
            data_pages: 0,
            zero_pages: 0,
            content: ContentHasher::new(keys),
        }
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Refuses a gfn that is not above all earlier ones.
    pub fn admits(&self, gfn: Gfn) -> Result<()> {
        if gfn.raw() < self.next_gfn { Err(StoreError::OutOfOrder { gfn }) } else { Ok(()) }
    }

    /// Adds an entry above all earlier ones.
    pub fn push(&mut self, entry: Entry, sink: &mut dyn BlobSink) -> Result<()> {
        self.admits(Gfn::new(entry.gfn))?;
        self.next_gfn = entry.end;
        match entry.what {
            What::Data { digest, .. } => {
                self.data_pages += 1;
                self.content.page(entry.gfn, &digest);
            }
            What::Zero => {
                self.zero_pages += entry.count();
                self.content.zero(entry.gfn, entry.end);
            }
            What::Hole => {}
        }
        if let Some(pending) = self.pending.as_mut().filter(|pending| joins(pending, &entry)) {
            pending.end = entry.end;
            return Ok(());
        }
        match self.pending.replace(entry) {
            Some(done) => self.store(done, sink),
            None => Ok(()),
        }
    }

    fn store(&mut self, entry: Entry, sink: &mut dyn BlobSink) -> Result<()> {
        self.entries += 1;
        let raw = entry.encode();
        self.put(0, &raw, entry.gfn, entry.end, sink)
    }

    /// Adds to a level; a full block goes out first, and up as a child.
    fn put(&mut self, level: usize, raw: &[u8], first: u64, end: u64, sink: &mut dyn BlobSink) -> Result<()> {
        let limit = if level == 0 { LEAF_ENTRIES } else { NODE_CHILDREN };
        if self.levels.len() <= level {
            self.levels.push(Open::new());
        }
        if self.levels.get(level).is_some_and(|open| open.count >= limit) {
            self.close(level, sink)?;
        }
        if let Some(open) = self.levels.get_mut(level) {
            open.push(raw, first, end);
        }
        Ok(())
    }

    fn close(&mut self, level: usize, sink: &mut dyn BlobSink) -> Result<()> {
        let Some(open) = self.levels.get_mut(level) else { return Ok(()) };
        let (pointer, first, end) = open.close(level, sink)?;
        if level >= usize::from(LEVEL_MAX) {
            return Err(StoreError::TooLong { what: "run", limit: u64::from(LEVEL_MAX) });
        }
        self.put(level + 1, &as_child(&pointer, first, end), first, end, sink)
    }

    /// Writes out what is open. None if there was no entry at all.
    pub fn finish(mut self, sink: &mut dyn BlobSink) -> Result<Option<(Tree, ContentHasher)>> {
        let Some(last) = self.pending.take() else { return Ok(None) };
        self.store(last, sink)?;
        let mut level = 0;
        while level + 1 < self.levels.len() {
            self.close(level, sink)?;
            level += 1;
        }
        let Some(open) = self.levels.get_mut(level) else { return Ok(None) };
        let (top, ..) = open.close(level, sink)?;
        let Self { entries, data_pages, zero_pages, content, .. } = self;
        let level = u16::try_from(level).unwrap_or(u16::MAX);
        Ok(Some((Tree { top, level, entries, data_pages, zero_pages }, content)))
    }
}

/// Two ranges of a kind that touch.
fn joins(before: &Entry, after: &Entry) -> bool {
    let range = matches!(after.what, What::Hole | What::Zero);
    range && before.what == after.what && before.end == after.gfn
}

fn as_child(pointer: &Ptr, first: u64, end: u64) -> [u8; child::SIZE] {
    let mut raw = [0; child::SIZE];
    child::FIRST_GFN.put(&mut raw, &first.to_le_bytes());
    child::END_GFN.put(&mut raw, &end.to_le_bytes());
    child::BLOCK.put(&mut raw, &pointer.encode());
    raw
}
