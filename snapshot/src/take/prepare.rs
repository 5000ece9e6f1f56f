//! Before the guest is touched: checks, sizes, memory, and the beginning of the snapshot in the store.
//!
//! All memory of the take is had here, from the budget that the caller gives; everything that does not change is read
//! here, so that the pause has less to do.

use xen_hypercall::types::Gfn;

use super::engine::{Options, Target};
use super::recorder::{Attachment, NewTake, Recorder};
use super::records::Records;
use crate::fault::Fault;
use crate::policy::Policy;
use crate::ports::{DomainInfo, PAGE_SIZE};
use crate::request::Take;
use crate::session::Trouble;
use crate::trace::Tape;
use crate::tracking::Tracking;

/// Room for CPUID and MSR policy.
const STATIC_RECORDS_BYTES: usize = 64 << 10;

/// Room for the state of the machine, and of each vCPU (an XSAVE area is at most some 11 KiB).
const PLATFORM_RECORDS_BYTES: usize = 64 << 10;
const PLATFORM_VCPU_BYTES: usize = 32 << 10;

/// Most vCPUs of a guest (public/hvm/hvm_info_table.h, HVM_MAX_VCPUS).
const VCPUS_MAX: u32 = 128;

/// The memory of a take and what was learnt before it began.
#[derive(Debug)]
pub(crate) struct Work {
    pub tracking: Tracking,
    pub platform: Records,
    /// tot_pages at the last full pass: another value means pages that nobody tracked.
    pub tot_pages: u64,
    /// What the rounds did.
    pub tape: Tape,
}

/// Checks the guest and begins the snapshot.
pub(crate) fn prepare<T: Target, R: Recorder>(
    target: &mut T,
    recorder: &mut R,
    take: &Take,
    config: &[u8],
    options: &Options,
) -> Result<Work, Trouble> {
    let info = target.info()?;
    check_guest(&info, take)?;
    let policy = Policy::from(take.mode);
    let max_gfn = target.max_gfn()?;
    let mut work = allocate(&info, max_gfn, policy, options)?;
    let mut fixed = Records::try_new(STATIC_RECORDS_BYTES).ok_or_else(no_memory)?;
    target.static_records(&mut |kind, body| fixed.push(kind, body))?;
    let fixed = fixed.bytes()?;
    let memory_bytes = info.tot_pages.saturating_mul(PAGE_SIZE as u64);
    let reserve_bytes = memory_bytes.saturating_mul(policy.reserve_factor());
    recorder.begin(&NewTake { take, info, max_gfn, reserve_bytes })?;
    recorder.attach(Attachment::ConfigJson, config)?;
    recorder.attach(Attachment::StaticRecords, fixed)?;
    work.tot_pages = info.tot_pages;
    Ok(work)
}

fn check_guest(info: &DomainInfo, take: &Take) -> Result<(), Trouble> {
    if info.domid != take.domid || info.handle != take.handle || info.dying {
        return Err(Trouble::new(Fault::Gone, "no such guest, or it is being destroyed"));
    }
    if let Some(code) = info.shutdown {
        return Err(Trouble::new(Fault::ShutDown, format_args!("the guest is shut down ({code})")));
    }
    if info.paused {
        return Err(Trouble::new(Fault::Paused, "the guest is paused: xl unpause"));
    }
    if !info.hvm {
        return Err(Trouble::new(Fault::NotHvm, "the guest is PV; only PVH guests can be taken"));
    }
    Ok(())
}

fn allocate(info: &DomainInfo, max_gfn: Gfn, policy: Policy, options: &Options) -> Result<Work, Trouble> {
    let vcpus = info.max_vcpu_id.min(VCPUS_MAX - 1) as usize + 1;
    let platform_bytes = PLATFORM_RECORDS_BYTES + PLATFORM_VCPU_BYTES * vcpus;
    let fixed_bytes = platform_bytes + Tape::bytes_for(policy.rounds());
    let needed = Tracking::bytes_for(max_gfn, policy.is_live()).and_then(|bytes| bytes.checked_add(fixed_bytes));
    if needed.is_none_or(|bytes| bytes > options.memory_bytes) {
        let reason = format_args!("the stub's memory does not suffice for a guest up to gfn {max_gfn}");
        return Err(Trouble::new(Fault::NoMemory, reason));
    }
    let tracking = Tracking::try_new(max_gfn, policy.is_live()).ok_or_else(no_memory)?;
    let platform = Records::try_new(platform_bytes).ok_or_else(no_memory)?;
    let tape = Tape::try_new(policy.rounds()).ok_or_else(no_memory)?;
    Ok(Work { tracking, platform, tot_pages: 0, tape })
}

fn no_memory() -> Trouble {
    Trouble::new(Fault::NoMemory, "the stub's heap is too fragmented or too small")
}
