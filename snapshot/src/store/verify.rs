//! Proves a snapshot: reads every byte that it consists of and compares every digest.
//!
//! Invariant: a report without damage means that an export yields every page, and every attachment, as they were taken.

use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use crate::ports::BlockDevice;
use crate::store::digest::{ContentHasher, Digest};
use crate::store::error::{Result, StoreError};
use crate::store::mark::reach;
use crate::store::pages::PageRef;
use crate::store::reader::SnapshotReader;
use crate::store::root::AttachmentKind;

/// Damaged pages that a report names.
const NAMED_MAX: usize = 16;
/// Pages between two calls of the progress function.
const PROGRESS_PAGES: u64 = 1024;

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Pages with data that are right.
    pub data_pages: u64,
    /// Zero pages.
    pub zero_pages: u64,
    /// Bytes read for pages and indexes.
    pub bytes_read: u64,
    /// Damaged pages.
    pub damaged: u64,
    /// The first of them.
    pub first_damaged: Vec<(Gfn, StoreError)>,
    /// Digest of the content, computed afresh; None if some of it is damaged.
    pub root_digest: Option<Digest>,
}

impl VerifyReport {
    /// Nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.damaged == 0
    }
}

impl<D: BlockDevice> SnapshotReader<'_, D> {
    /// Verifies everything. Damage of single pages is in the report, worse damage is an error. `progress` gets the
    /// pages done and the pages in all.
    pub fn verify(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport> {
        let attached = self.verify_metadata()?;
        let mut content = ContentHasher::new(&self.volume.keys);
        let total = self.info().data_pages.saturating_add(self.info().zero_pages);
        let mut report = VerifyReport::default();
        let mut pages = self.pages()?;
        loop {
            match pages.next_page() {
                Ok(Some((gfn, PageRef::Zero))) => {
                    report.zero_pages += 1;
                    content.zero(gfn.raw(), gfn.raw() + 1);
                }
                Ok(Some((gfn, PageRef::Data(_)))) => {
                    report.data_pages += 1;
                    content.page(gfn.raw(), &pages.digest());
                }
                Ok(None) => break,
                Err(error @ StoreError::DamagedPage { gfn, .. }) => note(&mut report, gfn, error),
                Err(error) => return Err(error),
            }
            let done = report.data_pages + report.zero_pages + report.damaged;
            if done.is_multiple_of(PROGRESS_PAGES) {
                progress(done, total);
            }
        }
        report.bytes_read = pages.bytes_read();
        progress(total, total);
        content.pages_end();
        attached.iter().for_each(|(kind, bytes, digest)| content.attachment(kind.0, *bytes, digest));
        report.root_digest = report.is_clean().then(|| content.finish());
        self.compare(&report)?;
        Ok(report)
    }

    /// Sets of segments and attachments. Returns kind, bytes and digest of each attachment.
    fn verify_metadata(&mut self) -> Result<Vec<(AttachmentKind, u64, Digest)>> {
        let (device, volume, name) = (&mut *self.device, self.volume, self.info.name.as_str());
        reach(device, volume, volume.find(name)?)?;
        let kinds: Vec<_> = self.info.attachments.iter().map(|(kind, _)| *kind).collect();
        let mut attached = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let bytes = self.attachment(kind)?.unwrap_or_default();
            attached.push((kind, bytes.len() as u64, self.volume.keys.attachment(&bytes)));
        }
        Ok(attached)
    }

    /// The root's own counts, and its digest of the content.
    fn compare(&self, report: &VerifyReport) -> Result<()> {
        let info = self.info();
        let data = report.data_pages.saturating_add(report.damaged);
        if (data, report.zero_pages) != (info.data_pages, info.zero_pages) {
            return Err(StoreError::corrupt("counts of a snapshot", 0));
        }
        let sealed = self.root.content;
        if sealed != Digest::default() && report.root_digest.is_some_and(|found| found != sealed) {
            return Err(StoreError::corrupt("content of a snapshot", 0));
        }
        Ok(())
    }
}

fn note(report: &mut VerifyReport, gfn: Gfn, error: StoreError) {
    report.damaged += 1;
    if report.first_damaged.len() < NAMED_MAX {
        report.first_damaged.push((gfn, error));
    }
}
