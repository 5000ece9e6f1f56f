//! The state of vCPUs: those of another domain, to be saved; and the caller's own timer.

use zerocopy::{FromZeros, IntoBytes};

use crate::abi::domctl as raw;
use crate::abi::vcpu::{
    RUNSTATE_BLOCKED, RUNSTATE_RUNNABLE, RunstateInfo, VCPUOP_GET_RUNSTATE_INFO, VCPUOP_STOP_PERIODIC_TIMER,
    VcpuGuestContext,
};
use crate::abi::xen::HYPERVISOR_VCPU_OP;
use crate::domctl::{bounded, count};
use crate::{DomId, Domctl, Error, Loan, Result, Transport};

/// The format and size of a vCPU's extended state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtStateFormat {
    /// The features of the format; to be passed back unchanged.
    pub xfeature_mask: u64,
    /// Bytes that the state takes at most; 0: there is none.
    pub size: usize,
}

impl<T: Transport> Domctl<T> {
    /// Whether a vCPU is online and what it does.
    ///
    /// # Errors
    /// What Xen answered.
    pub fn getvcpuinfo(&self, domain: DomId, vcpu: u32) -> Result<raw::GetVcpuInfo> {
        let mut op = raw::GetVcpuInfo { vcpu, ..raw::GetVcpuInfo::new_zeroed() };
        // SAFETY: there is no address.
        unsafe { self.issue("XEN_DOMCTL_getvcpuinfo", raw::GETVCPUINFO, domain, &mut op) }?;
        Ok(op)
    }

    /// Reads a vCPU's registers.
    ///
    /// # Errors
    /// What Xen answered: -EINVAL if there is no such vCPU, -ENODATA if it was never brought up.
    pub fn getvcpucontext(&self, domain: DomId, vcpu: u32, context: &mut VcpuGuestContext) -> Result<()> {
        let loan = self.transport().lend_mut(context.as_mut_bytes())?;
        let mut op = raw::VcpuContext { vcpu, pad: 0, ctxt: loan.address() };
        // SAFETY: Xen writes one context at `ctxt`, which is on loan.
        unsafe { self.issue("XEN_DOMCTL_getvcpucontext", raw::GETVCPUCONTEXT, domain, &mut op) }
    }

    /// Writes a vCPU's registers. It drops the extended (AVX and later) state: put that back afterwards.
    ///
    /// # Errors
    /// What Xen answered: -EOPNOTSUPP if it would change cr3, GDT or LDT of a running PV vCPU.
    pub fn setvcpucontext(&self, domain: DomId, vcpu: u32, context: &VcpuGuestContext) -> Result<()> {
        let loan = self.transport().lend(context.as_bytes())?;
        let mut op = raw::VcpuContext { vcpu, pad: 0, ctxt: loan.address() };
        // SAFETY: Xen reads one context at `ctxt`, which is on loan; the registers are those of another domain.
        unsafe { self.issue("XEN_DOMCTL_setvcpucontext", raw::SETVCPUCONTEXT, domain, &mut op) }
    }

    /// A vCPU's 32-bit entry points and machine-check state.
    ///
    /// # Errors
    /// What Xen answered: -ESRCH if there is no such vCPU.
    pub fn get_ext_vcpucontext(&self, domain: DomId, vcpu: u32) -> Result<raw::ExtVcpuContext> {
        let mut op = raw::ExtVcpuContext { vcpu, ..raw::ExtVcpuContext::new_zeroed() };
        // SAFETY: there is no address.
        unsafe { self.issue("XEN_DOMCTL_get_ext_vcpucontext", raw::GET_EXT_VCPUCONTEXT, domain, &mut op) }?;
        Ok(op)
    }

    /// The format and the largest size of a vCPU's extended state.
    ///
    /// # Errors
    /// What Xen answered: -ESRCH if there is no such vCPU.
    pub fn vcpuextstate_format(&self, domain: DomId, vcpu: u32) -> Result<ExtStateFormat> {
        const CALL: &str = "XEN_DOMCTL_getvcpuextstate";
        let mut op = raw::VcpuExtState { vcpu, ..raw::VcpuExtState::new_zeroed() };
        // SAFETY: the address is null, which asks for mask and size.
        unsafe { self.issue(CALL, raw::GETVCPUEXTSTATE, domain, &mut op) }?;
        Ok(ExtStateFormat { xfeature_mask: op.xfeature_mask, size: bounded(CALL, op.size, u32::MAX.into())? })
    }

    /// Reads a vCPU's extended state in a format that [`Domctl::vcpuextstate_format`] gave; bytes written.
    ///
    /// # Errors
    /// What Xen answered: -EINVAL if the buffer is too small.
    pub fn getvcpuextstate(&self, domain: DomId, vcpu: u32, format: ExtStateFormat, out: &mut [u8]) -> Result<usize> {
        const CALL: &str = "XEN_DOMCTL_getvcpuextstate";
        let room = out.len() as u64;
        let loan = self.transport().lend_mut(out)?;
        let mut op =
            raw::VcpuExtState { vcpu, pad: 0, xfeature_mask: format.xfeature_mask, size: room, buffer: loan.address() };
        // SAFETY: Xen writes at most `size` bytes at `buffer`, which are on loan.
        unsafe { self.issue(CALL, raw::GETVCPUEXTSTATE, domain, &mut op) }?;
        bounded(CALL, op.size, room)
    }

    /// Writes a vCPU's extended state, as [`Domctl::getvcpuextstate`] read it.
    ///
    /// # Errors
    /// What Xen answered.
    pub fn setvcpuextstate(&self, domain: DomId, vcpu: u32, format: ExtStateFormat, state: &[u8]) -> Result<()> {
        let loan = self.transport().lend(state)?;
        let mut op = raw::VcpuExtState {
            vcpu,
            pad: 0,
            xfeature_mask: format.xfeature_mask,
            size: state.len() as u64,
            buffer: loan.address(),
        };
        // SAFETY: Xen reads `size` bytes at `buffer`, which are on loan; the state is that of another domain.
        unsafe { self.issue("XEN_DOMCTL_setvcpuextstate", raw::SETVCPUEXTSTATE, domain, &mut op) }
    }

    /// How many model-specific registers a PV vCPU has at most.
    ///
    /// # Errors
    /// What Xen answered: -EINVAL for PVH and HVM.
    pub fn vcpu_msr_count(&self, domain: DomId, vcpu: u32) -> Result<u32> {
        let mut op = raw::VcpuMsrs { vcpu, msr_count: 0, msrs: 0 };
        // SAFETY: the address is null, which asks for the count.
        unsafe { self.issue("XEN_DOMCTL_get_vcpu_msrs", raw::GET_VCPU_MSRS, domain, &mut op) }?;
        Ok(op.msr_count)
    }

    /// Reads a PV vCPU's model-specific registers that are not zero; entries written.
    ///
    /// # Errors
    /// What Xen answered: -ENOBUFS if there is too little room.
    pub fn get_vcpu_msrs(&self, domain: DomId, vcpu: u32, out: &mut [raw::VcpuMsr]) -> Result<usize> {
        const CALL: &str = "XEN_DOMCTL_get_vcpu_msrs";
        let room = count(CALL, out.len())?;
        let loan = self.transport().lend_mut(out.as_mut_bytes())?;
        let mut op = raw::VcpuMsrs { vcpu, msr_count: room, msrs: loan.address() };
        // SAFETY: Xen writes at most `msr_count` entries at `msrs`, which are on loan.
        unsafe { self.issue(CALL, raw::GET_VCPU_MSRS, domain, &mut op) }?;
        bounded(CALL, op.msr_count.into(), room.into())
    }
}

/// Stops the periodic timer with which each PV vCPU starts.
///
/// # Errors
/// What Xen answered.
pub fn stop_periodic_timer<T: Transport>(transport: &T, vcpu: u32) -> Result<()> {
    // SAFETY: the operation has no argument.
    let value = unsafe { transport.call3(HYPERVISOR_VCPU_OP, VCPUOP_STOP_PERIODIC_TIMER, vcpu.into(), 0) };
    Error::check("VCPUOP_stop_periodic_timer", value).map(|_| ())
}

/// Nanoseconds for which one's own vCPU would have run and somebody else did, since it was made.
///
/// # Errors
/// What Xen answered.
pub fn stolen_ns<T: Transport>(transport: &T, vcpu: u32) -> Result<u64> {
    spent_ns(transport, vcpu, RUNSTATE_RUNNABLE)
}

/// Nanoseconds for which the vCPU waited of its own will, since it was made.
///
/// # Errors
/// What Xen answered.
pub fn blocked_ns<T: Transport>(transport: &T, vcpu: u32) -> Result<u64> {
    spent_ns(transport, vcpu, RUNSTATE_BLOCKED)
}

fn spent_ns<T: Transport>(transport: &T, vcpu: u32, state: u64) -> Result<u64> {
    let mut info = RunstateInfo::new_zeroed();
    let loan = transport.lend_mut(info.as_mut_bytes())?;
    // SAFETY: Xen writes one structure at the address, which is on loan.
    let value = unsafe { transport.call3(HYPERVISOR_VCPU_OP, VCPUOP_GET_RUNSTATE_INFO, vcpu.into(), loan.address()) };
    drop(loan);
    Error::check("VCPUOP_get_runstate_info", value)?;
    Ok(info.time[state as usize])
}
