//! Giving up the CPU, waiting, and the end of the domain.

use zerocopy::{FromZeros, IntoBytes};

use crate::abi::sched::{self as abi, SchedPoll, SchedRemoteShutdown, SchedShutdown};
use crate::abi::xen::{HYPERVISOR_SCHED_OP, HYPERVISOR_SET_TIMER_OP};
use crate::domctl::count;
use crate::types::ShutdownReason;
use crate::{DomId, Error, EvtchnPort, Loan, Result, Transport};

/// Ports of one [`poll`] (common/sched/core.c: more is -EINVAL).
pub const POLL_PORTS_MAX: usize = 128;

/// Lets other vCPUs run.
///
/// # Errors
/// What Xen answered.
pub fn yield_now<T: Transport>(transport: &T) -> Result<()> {
    // SAFETY: the operation has no argument.
    let value = unsafe { transport.call2(HYPERVISOR_SCHED_OP, abi::SCHEDOP_YIELD, 0) };
    Error::check("SCHEDOP_yield", value).map(|_| ())
}

/// Waits until one of `ports` is pending, or system time reaches `deadline_ns` (0: for ever). It works with events
/// masked, and does not clear what is pending. It may return early.
///
/// # Errors
/// [`Error::Argument`] for too many ports; what Xen answered.
pub fn poll<T: Transport>(transport: &T, ports: &[EvtchnPort], deadline_ns: u64) -> Result<()> {
    const CALL: &str = "SCHEDOP_poll";
    if ports.len() > POLL_PORTS_MAX {
        return Err(Error::Argument { call: CALL, rule: "at most 128 ports" });
    }
    let list = transport.lend(ports.as_bytes())?;
    let mut op = SchedPoll {
        ports: list.address(),
        nr_ports: count(CALL, ports.len())?,
        timeout: deadline_ns,
        ..SchedPoll::new_zeroed()
    };
    let loan = transport.lend_mut(op.as_mut_bytes())?;
    // SAFETY: the argument and the ports that it names are on loan.
    let value = unsafe { transport.call2(HYPERVISOR_SCHED_OP, abi::SCHEDOP_POLL, loan.address()) };
    Error::check(CALL, value).map(|_| ())
}

/// Ends the caller's domain. It returns only if Xen refused, or, for [`ShutdownReason::SUSPEND`], when the domain goes
/// on.
///
/// # Errors
/// What Xen answered.
pub fn shutdown<T: Transport>(transport: &T, reason: ShutdownReason) -> Result<u64> {
    let mut op = SchedShutdown { reason: reason.raw().into() };
    let loan = transport.lend_mut(op.as_mut_bytes())?;
    // SAFETY: the argument is on loan; that the domain ends is what is asked for.
    let value = unsafe { transport.call2(HYPERVISOR_SCHED_OP, abi::SCHEDOP_SHUTDOWN, loan.address()) };
    Error::check("SCHEDOP_shutdown", value)
}

/// Shuts another domain down, as if it had asked for it.
///
/// # Errors
/// What Xen answered.
pub fn remote_shutdown<T: Transport>(transport: &T, domain: DomId, reason: ShutdownReason) -> Result<()> {
    let mut op = SchedRemoteShutdown { domain_id: domain.raw(), pad: 0, reason: reason.raw().into() };
    let loan = transport.lend_mut(op.as_mut_bytes())?;
    // SAFETY: the argument is on loan.
    let value = unsafe { transport.call2(HYPERVISOR_SCHED_OP, abi::SCHEDOP_REMOTE_SHUTDOWN, loan.address()) };
    Error::check("SCHEDOP_remote_shutdown", value).map(|_| ())
}

/// Raises VIRQ_TIMER when system time reaches `deadline_ns`; 0 cancels.
///
/// # Errors
/// What Xen answered.
pub fn set_timer<T: Transport>(transport: &T, deadline_ns: u64) -> Result<()> {
    // SAFETY: the argument is a time.
    let value = unsafe { transport.call1(HYPERVISOR_SET_TIMER_OP, deadline_ns) };
    Error::check("set_timer_op", value).map(|_| ())
}
