//! What a process in dom0 does to a guest that suspended: the fast resume of libxenguest (xg_resume.c), with the
//! extended FPU state put back, which libxenguest loses.
//!
//! In a fast resume the guest goes on in the same domain: its suspend hypercall returns 1 ("cancelled"), so it keeps
//! its event channels, grants and devices. It must have announced that it understands that (`control/feature-suspend`).

use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use zerocopy::FromZeros;

use crate::abi::hvm::PARAM_CALLBACK_IRQ;
use crate::abi::vcpu::VcpuGuestContext;
use crate::domctl::DomainInfo;
use crate::hvm::get_param;
use crate::vcpu::ExtStateFormat;
use crate::{DomHandle, DomId, Domctl, Error, Result, Transport};

/// What the suspend hypercall returns in a guest that goes on in the same domain (Linux: `HYPERVISOR_suspend`).
const CANCELLED: u64 = 1;
/// Bytes of an extended state that is believed: the XSAVE area is below 12 KiB on any CPU of today.
const EXT_STATE_MAX: usize = 64 * 1024;
/// The vCPU that issues the suspend hypercall.
const VCPU: u32 = 0;

/// How a fast resume ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resumed {
    /// The guest goes on.
    Done,
    /// The guest goes on, but vCPU 0 has lost its extended (AVX and later) state, for this reason.
    ExtendedStateLost(Error),
    /// Nothing was done: the guest does not stand still because it suspended.
    NotSuspended(DomainInfo),
}

/// Resumes a guest that stands suspended, whoever asked it to suspend: the caller knows that it may.
///
/// It can be repeated after an interruption anywhere (only one between the two writes, by a kill, costs vCPU 0 its
/// extended state). Once registers are written, the domain is resumed whatever else fails: a guest that lacks extended
/// state is better off than one that stands.
///
/// # Errors
/// [`Error::NotFound`] if the guest is gone or another; what Xen answered. The guest still stands then.
pub fn fast_resume<T: Transport>(domctl: &Domctl<T>, domain: DomId, handle: DomHandle) -> Result<Resumed> {
    let info = domctl.getdomaininfo(domain, Some(handle))?;
    if !info.is_suspended() {
        return Ok(Resumed::NotSuspended(info));
    }
    let lost = if returns_a_code(domctl, &info)? { set_return_code(domctl, domain)? } else { None };
    domctl.resumedomain(domain)?;
    Ok(lost.map_or(Resumed::Done, Resumed::ExtendedStateLost))
}

/// Whether the guest suspended by hypercall: PV, or PVH and HVM with PV drivers.
fn returns_a_code<T: Transport>(domctl: &Domctl<T>, info: &DomainInfo) -> Result<bool> {
    if !info.is_hvm() {
        return Ok(true);
    }
    Ok(get_param(domctl.transport(), info.domain, PARAM_CALLBACK_IRQ)? != 0)
}

/// Makes the suspend hypercall return [`CANCELLED`]; why extended state was lost, if it was.
fn set_return_code<T: Transport>(domctl: &Domctl<T>, domain: DomId) -> Result<Option<Error>> {
    let saved = extended_state(domctl, domain);
    let mut context = Box::new(VcpuGuestContext::new_zeroed());
    domctl.getvcpucontext(domain, VCPU, &mut context)?;
    context.user_regs.rax = CANCELLED;
    domctl.setvcpucontext(domain, VCPU, &context)?;
    let restored = saved.and_then(|saved| match saved {
        Some((format, state)) => domctl.setvcpuextstate(domain, VCPU, format, &state),
        None => Ok(()),
    });
    Ok(restored.err())
}

/// vCPU 0's extended state, or None if it has none.
fn extended_state<T: Transport>(domctl: &Domctl<T>, domain: DomId) -> Result<Option<(ExtStateFormat, Vec<u8>)>> {
    const CALL: &str = "XEN_DOMCTL_getvcpuextstate";
    let format = domctl.vcpuextstate_format(domain, VCPU)?;
    if format.size > EXT_STATE_MAX {
        return Err(Error::Argument { call: CALL, rule: "an extended state has at most 64 KiB" });
    }
    if format.size == 0 {
        return Ok(None);
    }
    let mut state = vec![0; format.size];
    let written = domctl.getvcpuextstate(domain, VCPU, format, &mut state)?;
    state.truncate(written);
    Ok((written > 0).then_some((format, state)))
}
