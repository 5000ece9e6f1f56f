//! Frames of another domain, mapped read-only into a process in dom0. Pages are copied out, never referenced: the guest
//! may write them at any time. A mapped frame holds a reference: a destroyed domain lingers until it is dropped.

use std::vec;
use std::vec::Vec;

use zerocopy::IntoBytes;

use super::device::Privcmd;
use super::ioctl::ioctl;
use super::pages::Pages;
use crate::abi::linux::{IOCTL_PRIVCMD_MMAPBATCH_V2, MmapBatchV2};
use crate::domctl::count;
use crate::types::PAGE_SIZE;
use crate::{DomId, Error, Gfn, Result, XenErrno};

/// A batch of mapped frames; unmapped on drop.
#[derive(Debug)]
pub struct ForeignPages {
    pages: Pages,
    /// For each page 0 or a negated errno.
    errors: Vec<i32>,
}

impl ForeignPages {
    /// Maps frames of a domain, in order; a PV domain's are named by MFN. A frame that cannot be mapped does not fail
    /// the batch: [`ForeignPages::read`] says why.
    ///
    /// # Errors
    /// [`Error::Host`] if Linux could not set the batch up; [`Error::Argument`] for an empty one.
    pub fn map(privcmd: &Privcmd, domain: DomId, frames: &[Gfn]) -> Result<Self> {
        const CALL: &str = "IOCTL_PRIVCMD_MMAPBATCH_V2";
        if frames.is_empty() {
            return Err(Error::Argument { call: CALL, rule: "there is a frame" });
        }
        let num = count(CALL, frames.len())?;
        let pages = Pages::map_window(&privcmd.privcmd, frames.len() * PAGE_SIZE)?;
        // An error that Linux does not fill in stays one.
        let mut errors = vec![-XenErrno::EIO.raw(); frames.len()];
        let op = MmapBatchV2 {
            num,
            dom: domain.raw(),
            pad: 0,
            addr: pages.address(),
            arr: frames.as_bytes().as_ptr().expose_provenance() as u64,
            err: errors.as_mut_ptr().expose_provenance() as u64,
        };
        // SAFETY: Linux reads `num` words at `arr`, writes `num` errors at `err`, and fills the window at `addr`, which
        // has `num` pages and is referenced by nobody.
        let value = unsafe { ioctl(&privcmd.privcmd, IOCTL_PRIVCMD_MMAPBATCH_V2, &raw const op as u64) };
        match XenErrno::from_return(value) {
            // The answer when some frames are paged out; their own errors say so.
            None | Some(XenErrno::ENOENT) => Ok(Self { pages, errors }),
            Some(errno) => Err(Error::Host { what: CALL, errno }),
        }
    }

    /// How many frames the batch has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.errors.len()
    }

    /// Whether the batch has no frame; it always has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// Copies the frame at `index` out.
    ///
    /// # Errors
    /// Why the frame could not be mapped; -ERANGE beyond the batch.
    pub fn read(&self, index: usize, target: &mut [u8; PAGE_SIZE]) -> core::result::Result<(), XenErrno> {
        match self.errors.get(index) {
            None => Err(XenErrno::ERANGE),
            Some(0) => {
                // SAFETY: there is an error word for each page of the mapping, and Linux has mapped a frame here (0).
                unsafe { self.pages.read_page(index, target) };
                Ok(())
            }
            Some(error) => Err(XenErrno::new(error.saturating_abs())),
        }
    }
}
