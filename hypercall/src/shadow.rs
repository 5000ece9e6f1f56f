//! Log-dirty: which frames of a domain were written (domctl.h: `XEN_DOMCTL_shadow_op`).
//!
//! What Xen does and no answer shows: the first bitmap after enable is empty; CLEAN and PEEK with log-dirty off answer
//! with zeros; CLEAN always clears whole leaves of 32768 frames, also beyond the bitmap; a failed CLEAN has lost bits.
//! The bitmap is indexed by pfn (PV) or gfn (PVH, HVM), bit 0 of word 0 first.

use zerocopy::{FromZeros, IntoBytes};

use crate::abi::domctl as raw;
use crate::{DomId, Domctl, Error, Loan, Result, Transport};

/// Whether the guest still runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// The guest runs.
    Live,
    /// The guest stands still: frames that Xen itself keeps mapped for writing count as dirty.
    Final,
}

/// Xen's counters since the last CLEAN, over the whole domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirtyStats {
    /// Faults; of meaning for PV only.
    pub fault_count: u32,
    /// Frames that became dirty.
    pub dirty_count: u32,
}

impl<T: Transport> Domctl<T> {
    /// Switches log-dirty on. No frame is dirty then.
    ///
    /// # Errors
    /// What Xen answered: -EINVAL if it is on already (or a device is passed through), -EOPNOTSUPP for PV without
    /// shadow paging, -ENOMEM without memory for it, -EBUSY.
    pub fn logdirty_enable(&self, domain: DomId) -> Result<()> {
        let mut op = raw::ShadowOp { op: raw::SHADOW_OP_ENABLE_LOGDIRTY, ..raw::ShadowOp::new_zeroed() };
        self.shadow("XEN_DOMCTL_shadow_op/ENABLE_LOGDIRTY", domain, &mut op)
    }

    /// Switches log-dirty off, for every user of it; it is no error if it was off.
    ///
    /// # Errors
    /// What Xen answered.
    pub fn logdirty_off(&self, domain: DomId) -> Result<()> {
        let mut op = raw::ShadowOp { op: raw::SHADOW_OP_OFF, ..raw::ShadowOp::new_zeroed() };
        self.shadow("XEN_DOMCTL_shadow_op/OFF", domain, &mut op)
    }

    /// Fetches the bits of the first `frames` frames into `bitmap`, and clears all bits of the domain.
    /// Bits of `bitmap` beyond `frames` (rounded up to eight) keep their value.
    ///
    /// # Errors
    /// [`Error::Argument`] if the bitmap is too small; [`Error::Short`] if Xen covered fewer frames; what Xen answered.
    /// After any error but the first, bits may be lost: the caller has to start over.
    pub fn logdirty_clean(&self, domain: DomId, bitmap: &mut [u64], frames: u64, pass: Pass) -> Result<DirtyStats> {
        self.fetch("XEN_DOMCTL_shadow_op/CLEAN", raw::SHADOW_OP_CLEAN, domain, bitmap, frames, pass)
    }

    /// Fetches the bits of the first `frames` frames into `bitmap`, and changes nothing.
    ///
    /// # Errors
    /// As for [`Domctl::logdirty_clean`], but no bit is ever lost.
    pub fn logdirty_peek(&self, domain: DomId, bitmap: &mut [u64], frames: u64, pass: Pass) -> Result<DirtyStats> {
        self.fetch("XEN_DOMCTL_shadow_op/PEEK", raw::SHADOW_OP_PEEK, domain, bitmap, frames, pass)
    }

    /// The counters alone; cheap, but the domain is paused for it all the same.
    ///
    /// # Errors
    /// What Xen answered.
    pub fn logdirty_stats(&self, domain: DomId) -> Result<DirtyStats> {
        let mut op = raw::ShadowOp { op: raw::SHADOW_OP_PEEK, ..raw::ShadowOp::new_zeroed() };
        self.shadow("XEN_DOMCTL_shadow_op/PEEK", domain, &mut op)?;
        Ok(DirtyStats { fault_count: op.fault_count, dirty_count: op.dirty_count })
    }

    /// Bytes of the domain's paging pool, what is in use included. Xen takes from it the p2m of a PVH or HVM domain and
    /// its dirty bitmap. Needs `domain getpagingmempool`, which dom0 has and the stub has not.
    ///
    /// # Errors
    /// What Xen answered: -EOPNOTSUPP for PV.
    pub fn paging_pool_bytes(&self, domain: DomId) -> Result<u64> {
        let mut op = raw::PagingMempool::new_zeroed();
        // SAFETY: there is no address.
        unsafe { self.issue("XEN_DOMCTL_get_paging_mempool_size", raw::GET_PAGING_MEMPOOL_SIZE, domain, &mut op) }?;
        Ok(op.size)
    }

    fn fetch(
        &self,
        call: &'static str,
        op: u32,
        domain: DomId,
        bitmap: &mut [u64],
        frames: u64,
        pass: Pass,
    ) -> Result<DirtyStats> {
        if frames == 0 || frames.div_ceil(64) > bitmap.len() as u64 {
            return Err(Error::Argument { call, rule: "the bitmap holds a bit for every frame, and there is a frame" });
        }
        let mode = if pass == Pass::Final { raw::SHADOW_LOGDIRTY_FINAL } else { 0 };
        let loan = self.transport().lend_mut(bitmap.as_mut_bytes())?;
        let mut shadow =
            raw::ShadowOp { op, mode, dirty_bitmap: loan.address(), pages: frames, ..raw::ShadowOp::new_zeroed() };
        // SAFETY: Xen writes ceil(frames / 8) bytes at dirty_bitmap, which is on loan for at least as many.
        unsafe { self.issue(call, raw::SHADOW_OP, domain, &mut shadow) }?;
        drop(loan);
        if shadow.pages != frames {
            return Err(Error::Short { call, asked: frames, got: shadow.pages });
        }
        Ok(DirtyStats { fault_count: shadow.fault_count, dirty_count: shadow.dirty_count })
    }

    /// Issues a shadow operation without a bitmap.
    fn shadow(&self, call: &'static str, domain: DomId, op: &mut raw::ShadowOp) -> Result<()> {
        // SAFETY: the bitmap's address is null.
        unsafe { self.issue(call, raw::SHADOW_OP, domain, op) }
    }
}
