//! Page tables of a PV domain. Every call here can map any frame that Xen allows at any address of the caller, so all
//! of them are unsafe: the kernel that owns the address space says why a change is sound.

use zerocopy::IntoBytes;

use crate::abi::mmu::{MMUEXT_TLB_FLUSH_LOCAL, MmuUpdate, MmuextOp};
use crate::abi::xen::{
    DOMID_SELF, HYPERVISOR_MMU_UPDATE, HYPERVISOR_MMUEXT_OP, HYPERVISOR_UPDATE_VA_MAPPING,
    HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN,
};
use crate::domctl::count;
use crate::multicall::{answer, entry, multicall};
use crate::{DomId, Error, Loan, Result, Transport};

/// A list of requests that stopped: those before `done` took effect, the one at `done` failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopped {
    /// Requests that took effect; the index of the one that failed.
    pub done: usize,
    /// Why it failed.
    pub error: Error,
}

/// Writes page table entries, in order. `owner` owns the frames that the entries map; None: the caller.
/// The tables are the caller's own. For a PVH or HVM owner an entry holds a GFN, else an MFN.
///
/// # Errors
/// [`Stopped`] at the first request that Xen refuses.
///
/// # Safety
/// Every entry may change as asked: no reference depends on what was mapped there, and what is mapped is used only as
/// memory that its owner can change at any time.
pub unsafe fn update<T: Transport>(
    transport: &T,
    requests: &[MmuUpdate],
    owner: Option<DomId>,
) -> core::result::Result<(), Stopped> {
    let list = transport.lend(requests.as_bytes()).map_err(|error| Stopped { done: 0, error })?;
    // SAFETY: the list is on loan; the caller vouches for the entries.
    unsafe { batch(transport, HYPERVISOR_MMU_UPDATE, "mmu_update", &list, requests.len(), owner) }
}

/// As [`update`], and then, in the same trap, forgets what the processor remembers of the caller's page tables: of the
/// entries that were written as well if Xen stopped before the end.
///
/// # Errors
/// As [`update`]; what Xen answered to the flush, with `done` at the end.
///
/// # Safety
/// As for [`update`].
pub unsafe fn update_and_flush<T: Transport>(
    transport: &T,
    requests: &[MmuUpdate],
    owner: Option<DomId>,
) -> core::result::Result<(), Stopped> {
    let start = |error| Stopped { done: 0, error };
    let (len, mut done) = (count("mmu_update", requests.len()).map_err(start)?, 0u32);
    let flush = [MmuextOp { cmd: MMUEXT_TLB_FLUSH_LOCAL, pad: 0, arg1: 0, arg2: 0 }];
    let list = transport.lend(requests.as_bytes()).map_err(start)?;
    let flush_list = transport.lend(flush.as_bytes()).map_err(start)?;
    let done_loan = transport.lend_mut(done.as_mut_bytes()).map_err(start)?;
    let foreign = u64::from(owner.map_or(DOMID_SELF, DomId::raw));
    let mut calls = [
        entry(HYPERVISOR_MMU_UPDATE, &[list.address(), len.into(), done_loan.address(), foreign]),
        entry(HYPERVISOR_MMUEXT_OP, &[flush_list.address(), 1, 0, DOMID_SELF.into()]),
    ];
    // SAFETY: lists and counter are on loan; the caller vouches for the entries, and a flush changes no mapping.
    unsafe { multicall(transport, &mut calls) }.map_err(start)?;
    drop(done_loan);
    let done = usize::try_from(done.min(len)).unwrap_or(usize::MAX);
    let [updated, flushed] = &calls;
    answer("mmu_update", updated).map_err(|error| Stopped { done, error })?;
    answer("mmuext_op", flushed).map(drop).map_err(|error| Stopped { done: requests.len(), error })
}

/// Does extended operations, in order: pins, base pointers, TLB flushes. `owner` owns the frames; None: the caller.
///
/// # Errors
/// [`Stopped`] at the first operation that Xen refuses.
///
/// # Safety
/// As for [`update`]; a new base pointer maps the code, the stack and the data that are in use.
pub unsafe fn extended<T: Transport>(
    transport: &T,
    operations: &[MmuextOp],
    owner: Option<DomId>,
) -> core::result::Result<(), Stopped> {
    let list = transport.lend(operations.as_bytes()).map_err(|error| Stopped { done: 0, error })?;
    // SAFETY: the list is on loan; the caller vouches for the operations.
    unsafe { batch(transport, HYPERVISOR_MMUEXT_OP, "mmuext_op", &list, operations.len(), owner) }
}

/// Issues a call of the form (list, count, pdone, foreigndom).
///
/// # Safety
/// `list` holds `len` requests of the call's own kind, each of which the caller vouches for.
unsafe fn batch<T: Transport>(
    transport: &T,
    number: u32,
    call: &'static str,
    list: &impl Loan,
    len: usize,
    owner: Option<DomId>,
) -> core::result::Result<(), Stopped> {
    let start = |error| Stopped { done: 0, error };
    let len = count(call, len).map_err(start)?;
    let mut done = 0u32;
    let done_loan = transport.lend_mut(done.as_mut_bytes()).map_err(start)?;
    // The high half names the owner of the page tables (0: the caller), the low half the owner of the frames.
    let foreign = u64::from(owner.map_or(DOMID_SELF, DomId::raw));
    // SAFETY: the list and the counter are on loan; the caller vouches for the requests.
    let value = unsafe { transport.call4(number, list.address(), len.into(), done_loan.address(), foreign) };
    drop(done_loan);
    let done = usize::try_from(done.min(len)).unwrap_or(usize::MAX);
    match Error::check(call, value) {
        Ok(_) => Ok(()),
        Err(error) => Err(Stopped { done, error }),
    }
}

/// Writes the page table entry that maps `address`, and flushes as `flags` (`abi::mmu::UVMF_*`) say.
///
/// # Errors
/// What Xen answered.
///
/// # Safety
/// As for [`update`].
pub unsafe fn update_va_mapping<T: Transport>(transport: &T, address: u64, entry: u64, flags: u64) -> Result<()> {
    // SAFETY: there is no buffer; the caller vouches for the entry.
    let value = unsafe { transport.call3(HYPERVISOR_UPDATE_VA_MAPPING, address, entry, flags) };
    Error::check("update_va_mapping", value).map(|_| ())
}

/// As [`update_va_mapping`], for a frame of another domain; for a PVH or HVM `owner` the entry holds a GFN.
///
/// # Errors
/// What Xen answered.
///
/// # Safety
/// As for [`update`].
pub unsafe fn update_va_mapping_otherdomain<T: Transport>(
    transport: &T,
    address: u64,
    entry: u64,
    flags: u64,
    owner: DomId,
) -> Result<()> {
    const NUMBER: u32 = HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN;
    // SAFETY: there is no buffer; the caller vouches for the entry.
    let value = unsafe { transport.call4(NUMBER, address, entry, flags, u64::from(owner.raw())) };
    Error::check("update_va_mapping_otherdomain", value).map(|_| ())
}
