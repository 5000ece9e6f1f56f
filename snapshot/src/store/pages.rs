//! The pages of a snapshot in gfn order, read in device order batch by batch. While the pages of one batch are handed
//! out, the next one is planned and announced to the device, which may read it meanwhile.
//!
//! Invariants: a page is handed out only if its digest holds; each gfn at most once, ascending; a page that cannot be
//! read costs only itself. Memory: one batch, and the entries of the next.

use xen_hypercall::types::Gfn;

use crate::ports::{BlockDevice, Page};
use crate::store::batch::{Batch, BatchSize};
use crate::store::cursor::MergeCursor;
use crate::store::digest::Digest;
use crate::store::entry::What;
use crate::store::error::{Result, StoreError};
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
    next: Batch,
    position: usize,
    /// Gfns of the current item that were handed out.
    within: u64,
    /// Of the page that was handed out last.
    digest: Digest,
    /// The index ended, or is damaged.
    ended: bool,
    /// How it is damaged, until that is told.
    failed: Option<StoreError>,
}

impl<'a, D: BlockDevice> Pages<'a, D> {
    pub(super) fn new(device: &'a mut D, volume: &'a Volume, cursor: MergeCursor, size: BatchSize) -> Self {
        // Of another stream that was not read to its end.
        device.read_ahead(&[]);
        let (batch, next, digest) = (Batch::new(size), Batch::unread(size), Digest::default());
        Self { device, volume, cursor, batch, next, position: 0, within: 0, digest, ended: false, failed: None }
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
            self.turn()?;
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
        self.batch.read_until(position, self.device);
        let (page, _, digest) = self.batch.page(position, self.volume)?;
        self.digest = digest;
        Ok(Some((gfn, PageRef::Data(page))))
    }

    /// Goes on with the next batch. An error ends the stream: nothing of a batch whose index is damaged is handed out.
    fn turn(&mut self) -> Result<()> {
        if self.next.is_empty() {
            self.plan();
        }
        self.batch.go_on(&mut self.next);
        (self.position, self.within) = (0, 0);
        if self.batch.is_empty() {
            return self.failed.take().map_or(Ok(()), Err);
        }
        self.plan();
        Ok(())
    }

    /// Plans the next batch.
    fn plan(&mut self) {
        while !self.ended && self.next.has_room() {
            match self.cursor.next(self.device, self.volume) {
                Ok(Some(entry)) => self.next.add(self.volume, entry, true),
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.next.clear();
                    (self.ended, self.failed) = (true, Some(error));
                }
            }
        }
        let wanted = self.next.plan();
        if !wanted.is_empty() {
            self.device.read_ahead(&wanted);
        }
    }
}
