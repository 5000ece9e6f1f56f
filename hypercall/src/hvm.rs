//! The parameters and the saved context of PVH and HVM domains.

use zerocopy::{FromZeros, IntoBytes};

use crate::abi::domctl as raw;
use crate::abi::hvm::{self as abi, HvmParam};
use crate::abi::xen::HYPERVISOR_HVM_OP;
use crate::domctl::{bounded, count};
use crate::multicall::{answer, entry, multicall};
use crate::{DomId, Domctl, Error, Loan, Result, Transport};

/// The parameters that a migration stream carries if they are not 0 (xg_sr_save_x86_hvm.c: write_hvm_params).
pub const SAVED_PARAMS: [u32; 16] = [
    abi::PARAM_STORE_PFN,
    abi::PARAM_IOREQ_PFN,
    abi::PARAM_BUFIOREQ_PFN,
    abi::PARAM_PAGING_RING_PFN,
    abi::PARAM_MONITOR_RING_PFN,
    abi::PARAM_SHARING_RING_PFN,
    abi::PARAM_VM86_TSS_SIZED,
    abi::PARAM_CONSOLE_PFN,
    abi::PARAM_ACPI_IOPORTS_LOCATION,
    abi::PARAM_VIRIDIAN,
    abi::PARAM_IDENT_PT,
    abi::PARAM_VM_GENERATION_ID_ADDR,
    abi::PARAM_IOREQ_SERVER_PFN,
    abi::PARAM_NR_IOREQ_SERVER_PAGES,
    abi::PARAM_X87_FIP_WIDTH,
    abi::PARAM_MCA_CAP,
];

/// Those of [`SAVED_PARAMS`] that a running guest can change (xen/arch/x86/hvm/hvm.c: hvm_allow_set_param, 4.17 to
/// 4.22); all others are set by the toolstack when it builds the domain.
pub const GUEST_PARAMS: [u32; 4] = [
    abi::PARAM_VM86_TSS_SIZED,
    abi::PARAM_ACPI_IOPORTS_LOCATION,
    abi::PARAM_VM_GENERATION_ID_ADDR,
    abi::PARAM_X87_FIP_WIDTH,
];

/// Reads a parameter (`abi::hvm::PARAM_*`) of a PVH or HVM domain.
///
/// # Errors
/// What Xen answered: -EINVAL for PV, and for an index that it does not have.
pub fn get_param<T: Transport>(transport: &T, domain: DomId, index: u32) -> Result<u64> {
    let mut op = HvmParam { domid: domain.raw(), pad: 0, index, value: 0 };
    let loan = transport.lend_mut(op.as_mut_bytes())?;
    // SAFETY: Xen reads and writes the argument, which is on loan.
    let value = unsafe { transport.call2(HYPERVISOR_HVM_OP, abi::HVMOP_GET_PARAM, loan.address()) };
    drop(loan);
    Error::check("HVMOP_get_param", value)?;
    Ok(op.value)
}

/// Reads several parameters in one trap.
///
/// # Errors
/// What Xen answered to the first that it refused; see [`get_param`].
pub fn get_params<T: Transport, const N: usize>(transport: &T, domain: DomId, indexes: [u32; N]) -> Result<[u64; N]> {
    let mut ops = indexes.map(|index| HvmParam { domid: domain.raw(), pad: 0, index, value: 0 });
    let loan = transport.lend_mut(ops.as_mut_bytes())?;
    let mut at = loan.address();
    let mut calls = indexes.map(|_| {
        let call = entry(HYPERVISOR_HVM_OP, &[abi::HVMOP_GET_PARAM, at]);
        at += size_of::<HvmParam>() as u64;
        call
    });
    // SAFETY: each call reads and writes its own argument, which is on loan, and nothing else.
    unsafe { multicall(transport, &mut calls) }?;
    drop(loan);
    calls.iter().try_for_each(|done| answer("HVMOP_get_param", done).map(drop))?;
    Ok(ops.map(|op| op.value))
}

/// Xen's system time: nanoseconds since the host booted, the clock of which pvclock gives every PV domain its copy.
///
/// # Errors
/// What Xen answered.
pub fn system_time<T: Transport>(transport: &T) -> Result<u64> {
    let mut now = [0; abi::GET_TIME_LEN];
    let loan = transport.lend_mut(&mut now)?;
    // SAFETY: Xen writes the answer, which is on loan.
    let value = unsafe { transport.call2(HYPERVISOR_HVM_OP, abi::HVMOP_GET_TIME, loan.address()) };
    drop(loan);
    Error::check("HVMOP_get_time", value)?;
    Ok(u64::from_le_bytes(now))
}

impl<T: Transport> Domctl<T> {
    /// Bytes that the domain's context takes now.
    ///
    /// # Errors
    /// What Xen answered: -EINVAL for PV.
    pub fn hvm_context_size(&self, domain: DomId) -> Result<usize> {
        const CALL: &str = "XEN_DOMCTL_gethvmcontext";
        let mut op = raw::HvmContext::new_zeroed();
        // SAFETY: the address is null, which asks for the size.
        unsafe { self.issue(CALL, raw::GETHVMCONTEXT, domain, &mut op) }?;
        bounded(CALL, op.size.into(), u32::MAX.into())
    }

    /// Reads the domain's context; bytes written. Xen pauses the domain for it, and logs a line for each record.
    ///
    /// # Errors
    /// What Xen answered: -ENOSPC if the buffer is too small.
    pub fn gethvmcontext(&self, domain: DomId, out: &mut [u8]) -> Result<usize> {
        const CALL: &str = "XEN_DOMCTL_gethvmcontext";
        let room = count(CALL, out.len())?;
        let loan = self.transport().lend_mut(out)?;
        let mut op = raw::HvmContext { size: room, pad: 0, buffer: loan.address() };
        // SAFETY: Xen writes at most `size` bytes at `buffer`, which are on loan.
        unsafe { self.issue(CALL, raw::GETHVMCONTEXT, domain, &mut op) }?;
        bounded(CALL, op.size.into(), room.into())
    }

    /// Reads one record (`abi::hvm::SAVE_*`) of the context, without its descriptor; bytes written.
    ///
    /// # Errors
    /// What Xen answered: -ENOENT if there is no such record, -ENOSPC if the buffer is too small.
    pub fn gethvmcontext_partial(&self, domain: DomId, kind: u16, instance: u16, out: &mut [u8]) -> Result<usize> {
        const CALL: &str = "XEN_DOMCTL_gethvmcontext_partial";
        let room = out.len() as u64;
        let loan = self.transport().lend_mut(out)?;
        let mut op = raw::HvmContextPartial {
            typecode: kind.into(),
            instance: instance.into(),
            bufsz: room,
            buffer: loan.address(),
        };
        // SAFETY: Xen writes at most `bufsz` bytes at `buffer`, which are on loan.
        unsafe { self.issue(CALL, raw::GETHVMCONTEXT_PARTIAL, domain, &mut op) }?;
        bounded(CALL, op.bufsz, room)
    }
}
