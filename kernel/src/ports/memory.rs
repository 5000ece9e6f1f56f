//! The guest's frames: their types, and private copies of them.
//!
//! For a PVH guest a gfn goes into hypercalls and page table entries as it is: Xen translates. A page is copied out of
//! the window before anybody looks at it, and never looked at twice.

use snapshot::ports::{BATCH_MAX, GuestMemory, Landing, PageError, PageSink, PageType, TargetError};
use xen_hypercall::Gfn;
use xen_hypercall::abi::domctl::PFINFO_LTAB_SHIFT;

use super::target::{XenTarget, translate};
use crate::mm::window;

const _: () = assert!(window::MAX_BATCH >= BATCH_MAX);

impl XenTarget {
    /// Loads the frame numbers of a batch; the room was had at the beginning.
    fn load(&mut self, gfns: &[Gfn]) -> Result<(), TargetError> {
        if gfns.len() > BATCH_MAX {
            return Err(TargetError::Hypercall { op: "a batch of frames", errno: 0 });
        }
        self.frames.clear();
        self.frames.extend(gfns.iter().map(|gfn| gfn.raw()));
        Ok(())
    }
}

impl GuestMemory for XenTarget {
    fn types(&mut self, gfns: &[Gfn], out: &mut [PageType]) -> Result<(), TargetError> {
        self.load(gfns)?;
        self.domctl.page_types(self.domid, &mut self.frames).map_err(translate)?;
        for (into, word) in out.iter_mut().zip(&self.frames) {
            *into = PageType((word >> PFINFO_LTAB_SHIFT) as u8 & 0xf);
        }
        Ok(())
    }

    fn copy(&mut self, gfns: &[Gfn], out: &mut PageSink<'_>) -> Result<(), TargetError> {
        self.load(gfns)?;
        self.errnos.clear();
        self.errnos.resize(gfns.len(), 0);
        let batch = window::map(self.domid, &self.frames, &mut self.errnos).map_err(translate)?;
        // What is mapped stays what it is, so one look now tells whose pages all of these are.
        self.domctl.getdomaininfo(self.domid, Some(self.handle)).map_err(translate)?;
        for index in 0..gfns.len() {
            let copied = batch.copy(index, &mut self.page);
            let page = copied.map(|()| &self.page).map_err(|errno| PageError { errno });
            if out(index, page).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn land(&mut self, gfns: &[Gfn], at: &mut dyn Landing) -> Result<(), TargetError> {
        self.load(gfns)?;
        self.errnos.clear();
        self.errnos.resize(gfns.len(), 0);
        let batch = window::map(self.domid, &self.frames, &mut self.errnos).map_err(translate)?;
        self.domctl.getdomaininfo(self.domid, Some(self.handle)).map_err(translate)?;
        for index in 0..gfns.len() {
            let Some(place) = at.place(index) else { break };
            if let Err(errno) = batch.copy(index, place) {
                at.failed(index, PageError { errno });
            }
        }
        Ok(())
    }
}
