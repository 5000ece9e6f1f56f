//! The guest's dirty bitmap (XEN_DOMCTL_shadow_op).
//!
//! Xen keeps the guest paused while a preempted CLEAN or PEEK waits for its continuation, and a stub that is destroyed
//! just then leaves it so; giving up the processor first makes a preemption inside the call unlikely. Not so in the
//! pause: whoever else wants the processor would have a whole time slice of it, ten times what the rest of a short
//! pause takes, and the stub has slept a moment ago, waiting for the suspend.
//!
//! Xen's dirty count goes back to 0 at a CLEAN only (xen/arch/x86/mm/paging.c, paging_log_dirty_op): what was dirty
//! when tracking was last switched off is in it when it is switched on again. That part is left out here.

use snapshot::ports::{DirtyLog, TargetError};
use xen_hypercall::shadow::Pass;
use xen_hypercall::{XenErrno, sched};

use super::target::{XenTarget, translate};
use crate::hv;

/// Frames that a bitmap covers.
fn frames(bitmap: &[u64]) -> u64 {
    bitmap.len() as u64 * 64
}

impl XenTarget {
    fn peek_in(&self, into: &mut [u64], pass: Pass) -> Result<u64, TargetError> {
        let stats = self.domctl.logdirty_peek(self.domid, into, frames(into), pass).map_err(translate)?;
        Ok(u64::from(stats.dirty_count).saturating_sub(self.stale_dirty))
    }

    /// Whatever comes of it, Xen counts from 0 again, or the take fails.
    fn clean_in(&mut self, into: &mut [u64], pass: Pass) -> Result<u64, TargetError> {
        self.confirm()?;
        _ = sched::yield_now(&hv::xen());
        let stale = core::mem::take(&mut self.stale_dirty);
        let stats = self.domctl.logdirty_clean(self.domid, into, frames(into), pass).map_err(translate)?;
        Ok(u64::from(stats.dirty_count).saturating_sub(stale))
    }

    fn switch_on(&mut self) -> Result<(), TargetError> {
        self.domctl.logdirty_enable(self.domid).map_err(|error| match error.xen() {
            Some(XenErrno::EINVAL) => TargetError::AlreadyOn,
            _ => translate(error),
        })
    }
}

impl DirtyLog for XenTarget {
    fn enable(&mut self) -> Result<(), TargetError> {
        self.confirm()?;
        self.switch_on()?;
        self.stale_dirty = 0;
        self.stale_dirty = self.dirty_count()?;
        Ok(())
    }

    fn clean(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.clean_in(into, Pass::Live)
    }

    fn peek(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        _ = sched::yield_now(&hv::xen());
        self.peek_in(into, Pass::Live)
    }

    fn peek_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.peek_in(into, Pass::Final)
    }

    fn clean_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.clean_in(into, Pass::Final)
    }

    fn dirty_count(&mut self) -> Result<u64, TargetError> {
        let stats = self.domctl.logdirty_stats(self.domid).map_err(translate)?;
        Ok(u64::from(stats.dirty_count).saturating_sub(self.stale_dirty))
    }

    fn still_on(&mut self) -> Result<bool, TargetError> {
        self.confirm()?;
        self.still_on_as_seen()
    }

    fn still_on_as_seen(&mut self) -> Result<bool, TargetError> {
        match self.switch_on() {
            Ok(()) => Ok(false),
            Err(TargetError::AlreadyOn) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn off(&mut self) -> Result<(), TargetError> {
        self.confirm()?;
        self.domctl.logdirty_off(self.domid).map_err(translate)
    }
}
