//! What a PV kernel tells Xen about itself once, at boot: where exceptions go, the stack, segment bases.

use zerocopy::IntoBytes;

use crate::abi::xen::{
    HYPERVISOR_SET_SEGMENT_BASE, HYPERVISOR_SET_TRAP_TABLE, HYPERVISOR_STACK_SWITCH, HYPERVISOR_VM_ASSIST, TrapInfo,
};
use crate::{Error, Loan, Result, Transport};

/// Sets the virtual interrupt table. The last entry has address 0, as Xen's end mark.
///
/// # Errors
/// [`Error::Argument`] without an end mark; what Xen answered.
///
/// # Safety
/// Every handler exists for as long as the domain runs, and saves what it uses.
pub unsafe fn set_trap_table<T: Transport>(transport: &T, table: &[TrapInfo]) -> Result<()> {
    const CALL: &str = "set_trap_table";
    if table.last().is_none_or(|entry| entry.address != 0) {
        return Err(Error::Argument { call: CALL, rule: "the table ends with an entry whose address is 0" });
    }
    let loan = transport.lend(table.as_bytes())?;
    // SAFETY: Xen reads up to the end mark, which is on loan; the caller vouches for the handlers.
    let value = unsafe { transport.call1(HYPERVISOR_SET_TRAP_TABLE, loan.address()) };
    Error::check(CALL, value).map(|_| ())
}

/// Sets the stack on which the kernel is entered from user mode.
///
/// # Errors
/// What Xen answered.
///
/// # Safety
/// `stack` is the end of memory that is used for nothing else.
pub unsafe fn stack_switch<T: Transport>(transport: &T, selector: u64, stack: u64) -> Result<()> {
    // SAFETY: there is no buffer; the caller vouches for the stack.
    let value = unsafe { transport.call2(HYPERVISOR_STACK_SWITCH, selector, stack) };
    Error::check("stack_switch", value).map(|_| ())
}

/// Sets the base of a segment (`abi::vcpu::SEGBASE_*`).
///
/// # Errors
/// What Xen answered.
///
/// # Safety
/// Nothing depends on the old base.
pub unsafe fn set_segment_base<T: Transport>(transport: &T, which: u64, base: u64) -> Result<()> {
    // SAFETY: there is no buffer; the caller vouches for the base.
    let value = unsafe { transport.call2(HYPERVISOR_SET_SEGMENT_BASE, which, base) };
    Error::check("set_segment_base", value).map(|_| ())
}

/// Enables (command 0) or disables (1) an assist.
///
/// # Errors
/// What Xen answered.
///
/// # Safety
/// The caller is written for the behaviour that it asks for.
pub unsafe fn vm_assist<T: Transport>(transport: &T, command: u64, kind: u64) -> Result<()> {
    // SAFETY: there is no buffer; the caller vouches for the assist.
    let value = unsafe { transport.call2(HYPERVISOR_VM_ASSIST, command, kind) };
    Error::check("vm_assist", value).map(|_| ())
}
