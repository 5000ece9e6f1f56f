//! The guest's frames: their types, and private copies of them.
//!
//! For a PVH guest a gfn goes into hypercalls and page table entries as it is: Xen translates. For a PV guest MFNs go
//! there (`pv.rs`). A page is copied out of the window before anybody looks at it, and never looked at twice.

use snapshot::ports::{
    BATCH_MAX, GuestMemory, Landing, OneByOne, Page, PageError, PageSink, PageType, Seen, TargetError,
};
use xen_hypercall::Gfn;
use xen_hypercall::abi::domctl::PFINFO_LTAB_SHIFT;

use super::target::{XenTarget, translate};
use crate::mm::window;

const _: () = assert!(window::MAX_BATCH >= BATCH_MAX);

impl XenTarget {
    /// Loads the frame numbers of a batch; the room was had at the beginning.
    pub(super) fn load(&mut self, frames: impl ExactSizeIterator<Item = u64>) -> Result<(), TargetError> {
        if frames.len() > BATCH_MAX {
            return Err(TargetError::Hypercall { op: "a batch of frames", errno: 0 });
        }
        self.frames.clear();
        self.frames.extend(frames);
        Ok(())
    }

    /// The types of the frames that are loaded.
    pub(super) fn types_of_batch(&mut self, out: &mut [PageType]) -> Result<(), TargetError> {
        self.domctl.page_types(self.domid, &mut self.frames).map_err(translate)?;
        for (into, word) in out.iter_mut().zip(&self.frames) {
            *into = PageType((word >> PFINFO_LTAB_SHIFT) as u8 & 0xf);
        }
        Ok(())
    }

    /// Maps the frames that are loaded, afresh, and gives the page for private copies with them. What is mapped stays
    /// what it is, so one look at the guest after it tells whose pages all of these are: `seen`, or the caller's.
    fn mapped(&mut self, seen: Seen) -> Result<(window::Batch<'_>, &mut Page), TargetError> {
        self.maps = true;
        self.errnos.clear();
        self.errnos.resize(self.frames.len(), 0);
        let batch = window::map(self.domid, &self.frames, &mut self.errnos).map_err(translate)?;
        if seen == Seen::Now {
            self.domctl.getdomaininfo(self.domid, Some(self.handle)).map_err(translate)?;
        }
        Ok((batch, &mut self.page))
    }

    /// Copies of the frames that are loaded, to where they shall stay.
    pub(super) fn land_batch(&mut self, at: &mut dyn Landing, seen: Seen) -> Result<(), TargetError> {
        let (batch, _) = self.mapped(seen)?;
        land(&batch, at);
        Ok(())
    }
}

fn land(batch: &window::Batch<'_>, at: &mut dyn Landing) {
    for index in 0..batch.count() {
        let mut fill = |place: &mut Page| batch.copy(index, place).map_err(|errno| PageError { errno });
        if at.land(index, &mut fill).is_err() {
            break;
        }
    }
}

impl GuestMemory for XenTarget {
    fn types(&mut self, gfns: &[Gfn], out: &mut [PageType]) -> Result<(), TargetError> {
        self.load(gfns.iter().map(|gfn| gfn.raw()))?;
        self.types_of_batch(out)
    }

    fn copy(&mut self, gfns: &[Gfn], out: &mut PageSink<'_>) -> Result<(), TargetError> {
        self.load(gfns.iter().map(|gfn| gfn.raw()))?;
        let (batch, page) = self.mapped(Seen::Now)?;
        land(&batch, &mut OneByOne { page, out });
        Ok(())
    }

    fn land(&mut self, gfns: &[Gfn], at: &mut dyn Landing) -> Result<(), TargetError> {
        self.load(gfns.iter().map(|gfn| gfn.raw()))?;
        self.land_batch(at, Seen::Later)
    }

    fn let_go(&mut self) -> Result<(), TargetError> {
        window::let_go().map_err(translate)
    }
}
