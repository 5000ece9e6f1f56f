//! The cap on a domain's processor time, under the credit schedulers (XEN_DOMCTL_scheduler_op).
//!
//! The scheduler has to be named and must be the domain's own, or Xen answers -EINVAL (xen/common/sched/core.c,
//! sched_adjust); so both are tried, and what was found is kept with the number.

use zerocopy::FromZeros;

use crate::abi::domctl as raw;
use crate::{DomId, Domctl, Error, Result, Transport, XenErrno};

/// A cap, and whose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuCap {
    /// The scheduler's number in domctl.h.
    pub scheduler: u32,
    /// Percent of one processor; 0: no cap.
    pub percent: u16,
}

impl<T: Transport> Domctl<T> {
    /// The domain's cap.
    ///
    /// # Errors
    /// What Xen answered; -EINVAL if the domain's scheduler has no caps.
    pub fn cpu_cap(&self, domain: DomId) -> Result<CpuCap> {
        let of = |scheduler| {
            let mut op = self.scheduler_op(scheduler, raw::SCHEDOP_GETINFO, 0);
            self.issue_scheduler(domain, &mut op).map(|()| CpuCap { scheduler, percent: op.cap })
        };
        match of(raw::SCHEDULER_CREDIT2) {
            Err(Error::Xen { errno: XenErrno::EINVAL, .. }) => of(raw::SCHEDULER_CREDIT),
            other => other,
        }
    }

    /// Sets the domain's cap; its weight stays.
    ///
    /// # Errors
    /// What Xen answered.
    pub fn set_cpu_cap(&self, domain: DomId, cap: CpuCap) -> Result<()> {
        let mut op = self.scheduler_op(cap.scheduler, raw::SCHEDOP_PUTINFO, cap.percent);
        self.issue_scheduler(domain, &mut op)
    }

    fn scheduler_op(&self, sched_id: u32, cmd: u32, cap: u16) -> raw::SchedulerOp {
        raw::SchedulerOp { sched_id, cmd, cap, ..raw::SchedulerOp::new_zeroed() }
    }

    fn issue_scheduler(&self, domain: DomId, op: &mut raw::SchedulerOp) -> Result<()> {
        // SAFETY: these two operations carry no address.
        unsafe { self.issue("XEN_DOMCTL_scheduler_op", raw::SCHEDULER_OP, domain, op) }
    }
}
