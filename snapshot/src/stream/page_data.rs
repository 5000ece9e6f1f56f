//! PAGE_DATA records: pages collected to a batch, then written at once, since a record says its length first.
//!
//! A batch is a window of 1024 gfns that begins at a multiple of 1024: newer restorers rebuild superpages from such
//! (tools/libs/guest/xg_sr_restore.c). Memory is 4 MiB, taken once.

use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use super::Sink;
use super::libxc::record_header;
use crate::ports::{BATCH_MAX, PAGE_SIZE, Page, PageType, RecordKind};

/// Bits 0 to 51 of an entry are the pfn.
const PFN_LIMIT: u64 = 1 << 52;
/// Bits 60 to 63 are its type.
const KIND_SHIFT: u32 = 60;

/// A batch in the making.
#[derive(Debug)]
pub struct PageData {
    /// The entries of the record, 8 bytes each.
    pfns: Vec<u8>,
    pages: Vec<u8>,
    window: u64,
}

impl PageData {
    /// An empty batch; `None` if there is no memory for it.
    pub fn try_new() -> Option<Self> {
        let (mut pfns, mut pages) = (Vec::new(), Vec::new());
        pfns.try_reserve_exact(8 * BATCH_MAX).ok()?;
        pages.try_reserve_exact(PAGE_SIZE * BATCH_MAX).ok()?;
        Some(Self { pfns, pages, window: 0 })
    }

    /// Adds the page of `gfn`, which is above all before it and below 2^52, as `kind`, which has content. Writes the
    /// batch before it if `gfn` belongs to another window.
    pub fn push<S: Sink>(&mut self, gfn: Gfn, kind: PageType, page: &Page, sink: &mut S) -> Result<(), S::Error> {
        debug_assert!(gfn.raw() < PFN_LIMIT && kind.has_data());
        let window = gfn.raw() / BATCH_MAX as u64;
        if window != self.window {
            self.flush(sink)?;
            self.window = window;
        }
        let entry = gfn.raw() | u64::from(kind.0) << KIND_SHIFT;
        self.pfns.extend_from_slice(&entry.to_le_bytes());
        self.pages.extend_from_slice(page);
        Ok(())
    }

    /// Writes what is left; nothing if there is nothing.
    pub fn flush<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        if self.pfns.is_empty() {
            return Ok(());
        }
        // At most 1024 pages: far below 2^32.
        let count = (self.pfns.len() / 8) as u32;
        let length = 8 + count * (8 + PAGE_SIZE as u32);
        sink.write_all(&record_header(RecordKind::PAGE_DATA, length))?;
        sink.write_all(&u64::from(count).to_le_bytes())?;
        sink.write_all(&self.pfns)?;
        sink.write_all(&self.pages)?;
        self.pfns.clear();
        self.pages.clear();
        Ok(())
    }
}
