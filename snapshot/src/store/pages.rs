//! The pages of a snapshot in gfn order, read in device order.
//!
//! Invariants: a page is handed out only if its digest holds; each gfn at most once, ascending; a page that cannot be
//! read costs only itself. Memory: one batch.

use xen_hypercall::types::Gfn;

use crate::ports::{BlockDevice, Page};
use crate::store::batch::Batch;
use crate::store::cursor::MergeCursor;
use crate::store::digest::Digest;
use crate::store::entry::What;
use crate::store::error::Result;
use crate::store::layout::BLOCK;
use crate::store::volume::Volume;

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

/// A stream of pages. Lending: a page lives until the next call.
pub struct Pages<'a, D> {
    device: &'a mut D,
    volume: &'a Volume,
    cursor: MergeCursor,
    batch: Batch,
    position: usize,
    /// Gfns of the current item that were handed out.
    within: u64,
    /// Of the page that was handed out last.
    digest: Digest,
    /// The index ended, or is damaged.
    ended: bool,
}

impl<'a, D: BlockDevice> Pages<'a, D> {
    pub(super) fn new(device: &'a mut D, volume: &'a Volume, cursor: MergeCursor) -> Self {
        let (batch, digest) = (Batch::new(), Digest::default());
        Self { device, volume, cursor, batch, position: 0, within: 0, digest, ended: false }
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.batch.blocks_read().saturating_add(self.cursor.blocks_read()) * BLOCK as u64
    }

    /// Digest of the page with data that was handed out last.
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// The next page. After [`crate::store::StoreError::DamagedPage`] the stream goes on behind that page; any other
    /// error ends it.
    pub fn next_page(&mut self) -> Result<Option<(Gfn, PageRef<'_>)>> {
        if self.batch.entry(self.position).is_none() {
            self.fill()?;
        }
        let Some(entry) = self.batch.entry(self.position) else { return Ok(None) };
        let (gfn, position) = (Gfn::new(entry.gfn.saturating_add(self.within)), self.position);
        self.within += 1;
        if self.within >= entry.count() {
            (self.position, self.within) = (self.position + 1, 0);
        }
        if !matches!(entry.what, What::Data { .. }) {
            return Ok(Some((gfn, PageRef::Zero)));
        }
        let (page, _, digest) = self.batch.page(position, self.volume)?;
        self.digest = digest;
        Ok(Some((gfn, PageRef::Data(page))))
    }

    /// The next batch. An error ends the stream: nothing of a half-read batch is handed out.
    fn fill(&mut self) -> Result<()> {
        self.batch.clear();
        (self.position, self.within) = (0, 0);
        while !self.ended && self.batch.has_room() {
            match self.cursor.next(self.device, self.volume) {
                Ok(Some(entry)) => self.batch.add(self.volume, entry, true),
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    self.batch.clear();
                    return Err(error);
                }
            }
        }
        self.batch.read(self.device);
        Ok(())
    }
}
