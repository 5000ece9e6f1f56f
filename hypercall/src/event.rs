//! Event channels of the caller's own domain. In dom0 the device `/dev/xen/evtchn` owns the ports instead: see
//! `transport::privcmd`.

use zerocopy::{FromZeros, IntoBytes};

use crate::abi::event::{self as abi, AllocUnbound, BindInterdomain, BindVirq, Port, Status};
use crate::abi::xen::{DOMID_SELF, HYPERVISOR_EVENT_CHANNEL_OP};
use crate::{DomId, Error, EvtchnPort, Loan, Result, Transport};

fn event_op<T: Transport>(transport: &T, call: &'static str, op: u64, argument: &mut [u8]) -> Result<()> {
    let loan = transport.lend_mut(argument)?;
    // SAFETY: the operations used here read and write their argument, which is on loan, and nothing else.
    let value = unsafe { transport.call2(HYPERVISOR_EVENT_CHANNEL_OP, op, loan.address()) };
    Error::check(call, value).map(|_| ())
}

fn port_op<T: Transport>(transport: &T, call: &'static str, op: u64, port: EvtchnPort) -> Result<()> {
    event_op(transport, call, op, Port { port: port.raw() }.as_mut_bytes())
}

/// A new port of the caller to which `remote` may bind.
///
/// # Errors
/// What Xen answered.
pub fn alloc_unbound<T: Transport>(transport: &T, remote: DomId) -> Result<EvtchnPort> {
    alloc_unbound_in(transport, DomId::new(DOMID_SELF), remote)
}

/// A new port of `domain` to which `remote` may bind; for another domain than the caller's it takes privilege.
///
/// # Errors
/// What Xen answered.
pub fn alloc_unbound_in<T: Transport>(transport: &T, domain: DomId, remote: DomId) -> Result<EvtchnPort> {
    let mut op = AllocUnbound { dom: domain.raw(), remote_dom: remote.raw(), port: 0 };
    event_op(transport, "EVTCHNOP_alloc_unbound", abi::EVTCHNOP_ALLOC_UNBOUND, op.as_mut_bytes())?;
    Ok(EvtchnPort::new(op.port))
}

/// A new port of the caller, connected to the unbound `port` of `remote`.
///
/// # Errors
/// What Xen answered.
pub fn bind_interdomain<T: Transport>(transport: &T, remote: DomId, port: EvtchnPort) -> Result<EvtchnPort> {
    let mut op = BindInterdomain { remote_dom: remote.raw(), remote_port: port.raw(), ..BindInterdomain::new_zeroed() };
    event_op(transport, "EVTCHNOP_bind_interdomain", abi::EVTCHNOP_BIND_INTERDOMAIN, op.as_mut_bytes())?;
    Ok(EvtchnPort::new(op.local_port))
}

/// A new port of the caller that receives a virtual interrupt (`abi::xen::VIRQ_*`) of its vCPU.
///
/// # Errors
/// What Xen answered; -EEXIST if it is bound already.
pub fn bind_virq<T: Transport>(transport: &T, virq: u32, vcpu: u32) -> Result<EvtchnPort> {
    let mut op = BindVirq { virq, vcpu, port: 0 };
    event_op(transport, "EVTCHNOP_bind_virq", abi::EVTCHNOP_BIND_VIRQ, op.as_mut_bytes())?;
    Ok(EvtchnPort::new(op.port))
}

/// Notifies the other end.
///
/// # Errors
/// What Xen answered.
pub fn send<T: Transport>(transport: &T, port: EvtchnPort) -> Result<()> {
    port_op(transport, "EVTCHNOP_send", abi::EVTCHNOP_SEND, port)
}

/// Closes a port of the caller.
///
/// # Errors
/// What Xen answered.
pub fn close<T: Transport>(transport: &T, port: EvtchnPort) -> Result<()> {
    port_op(transport, "EVTCHNOP_close", abi::EVTCHNOP_CLOSE, port)
}

/// Unmasks a port, and raises its event again if it is pending.
///
/// # Errors
/// What Xen answered.
pub fn unmask<T: Transport>(transport: &T, port: EvtchnPort) -> Result<()> {
    port_op(transport, "EVTCHNOP_unmask", abi::EVTCHNOP_UNMASK, port)
}

/// What a port is bound to; a port of another domain takes privilege.
///
/// # Errors
/// What Xen answered.
pub fn status<T: Transport>(transport: &T, domain: DomId, port: EvtchnPort) -> Result<Status> {
    let mut op = Status { dom: domain.raw(), port: port.raw(), ..Status::new_zeroed() };
    event_op(transport, "EVTCHNOP_status", abi::EVTCHNOP_STATUS, op.as_mut_bytes())?;
    Ok(op)
}
