//! Before the guest is touched: checks, sizes, memory, and the beginning of the snapshot in the store.
//!
//! All memory of the take is had here, from the budget that the caller gives; everything that does not change is read
//! here, so that the pause has less to do.

use xen_hypercall::types::Gfn;

use super::armed::{Armed, Before, start};
use super::engine::{Options, Target};
use super::recorder::{Attachment, Ground, NewTake, Recorder};
use super::records::Records;
use crate::fault::Fault;
use crate::policy::{Outlook, Policy};
use crate::ports::{DomainInfo, PAGE_SIZE, Pace};
use crate::request::{Kind, Take};
use crate::session::Trouble;
use crate::staging::Staging;
use crate::store::Digest;
use crate::take::stage::Spill;
use crate::trace::Tape;
use crate::tracking::{Sets, Tracking};

/// Room for CPUID and MSR policy.
const STATIC_RECORDS_BYTES: usize = 64 << 10;

/// Room for the state of the machine, and of each vCPU (an XSAVE area is at most some 11 KiB).
const PLATFORM_RECORDS_BYTES: usize = 64 << 10;
const PLATFORM_VCPU_BYTES: usize = 32 << 10;

/// What staging leaves alone: merging the runs of a take when it is sealed.
const STAGING_SPARE_BYTES: usize = 1 << 20;

/// Most vCPUs of a guest (public/hvm/hvm_info_table.h, HVM_MAX_VCPUS).
const VCPUS_MAX: u32 = 128;

/// The memory of a take and what was learnt before it began.
#[derive(Debug)]
pub(crate) struct Work {
    pub tracking: Tracking,
    pub platform: Records,
    /// Where the last set waits for the disk; mode `staged`.
    pub staging: Option<Staging>,
    pub spill: Spill,
    pub outlook: Outlook,
    /// What the store's device had done before the first round.
    pub first_pace: Option<Pace>,
    /// Bytes of the store that a page took in the last round that says something of the pages that are written to; what
    /// lies beside it not counted.
    pub density: Option<u64>,
    /// Left to be sent at the end of the last round, and not dirty again.
    pub unsent: u64,
    /// The most that was dirty at the end of a round.
    pub dirty_max: u64,
    /// Pages with content that the space set aside has room for.
    pub room_pages: u64,
    /// tot_pages at the last full pass: another value means pages that nobody tracked.
    pub tot_pages: u64,
    /// How a PV guest had arranged its memory in the pause.
    pub arrangement: Option<Digest>,
    /// What the rounds did.
    pub tape: Tape,
    /// What the snapshot builds on.
    pub ground: Ground,
    /// It lies on an older one, since which the guest is tracked.
    pub on_top: bool,
}

/// Checks the guest and begins the snapshot.
pub(crate) fn prepare<T: Target, R: Recorder>(
    target: &mut T,
    recorder: &mut R,
    take: &Take,
    config: &[u8],
    options: &Options,
    before: &mut Before,
) -> Result<Work, Trouble> {
    let info = target.info()?;
    check_guest(&info, take)?;
    let policy = Policy::from(take);
    let max_gfn = target.max_gfn()?;
    if take.kind == Kind::Incremental && !info.hvm && !take.pv_tracking {
        let reason = "a PV guest is tracked between snapshots only with --pv-tracking; or take it with --diff";
        return Err(Trouble::new(Fault::Unsupported, reason));
    }
    let why_full = start(target, recorder, take, before, max_gfn)?;
    let below = before.armed.as_mut().filter(|_| why_full.is_none());
    let mut work = allocate(&info, max_gfn, take, options, below.is_some())?;
    let mut fixed = Records::try_new(STATIC_RECORDS_BYTES).ok_or_else(no_memory)?;
    target.static_records(&mut |kind, body| fixed.push(kind, body))?;
    let fixed = fixed.bytes()?;
    let memory_bytes = info.tot_pages.saturating_mul(PAGE_SIZE as u64);
    let all_bytes = memory_bytes.saturating_mul(policy.reserve_factor());
    let reserve_bytes = below.as_ref().map_or(all_bytes, |below| changed_bytes(below, memory_bytes).min(all_bytes));
    let on_top = below.as_ref().map(|below| below.snapshot);
    let why_full = why_full.unwrap_or_default();
    let why_full = why_full.as_str();
    work.ground = recorder.begin(&NewTake { take, info, max_gfn, reserve_bytes, on_top, why_full })?;
    recorder.attach(Attachment::ConfigJson, config)?;
    recorder.attach(Attachment::StaticRecords, fixed)?;
    work.tot_pages = info.tot_pages;
    work.room_pages = reserve_bytes / PAGE_SIZE as u64;
    if let Some(below) = below {
        core::mem::swap(&mut work.tracking, &mut below.tracking);
        let already = &mut work.tracking;
        already.since.union_with(&already.send);
        (work.on_top, work.tot_pages) = (true, below.tot_pages);
    }
    Ok(work)
}

/// What an incremental take may write: twice what is known to have changed, and a tenth of the guest.
fn changed_bytes(below: &Armed, memory_bytes: u64) -> u64 {
    below.changed().saturating_mul(2 * PAGE_SIZE as u64).saturating_add(memory_bytes / 10)
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
    Ok(())
}

/// All memory of a take; of one on top of another the sets are there already.
fn allocate(info: &DomainInfo, max_gfn: Gfn, take: &Take, options: &Options, on_top: bool) -> Result<Work, Trouble> {
    let policy = Policy::from(take);
    let stays = take.kind == Kind::Incremental;
    let sets = Sets { live: policy.is_live(), defers: !info.hvm, stays, puts_off: policy.puts_off(1) };
    let own_gfn = if on_top { Gfn::new(0) } else { max_gfn };
    let vcpus = info.max_vcpu_id.min(VCPUS_MAX - 1) as usize + 1;
    // X86_PV_P2M_FRAMES has 8 bytes for 512 pfns.
    let frames_bytes = if info.hvm { 0 } else { usize::try_from(max_gfn.raw() / 64).unwrap_or(usize::MAX) };
    let platform_bytes = (PLATFORM_RECORDS_BYTES + PLATFORM_VCPU_BYTES * vcpus).saturating_add(frames_bytes);
    let fixed_bytes = platform_bytes.saturating_add(Tape::bytes_for(policy.rounds()));
    let needed = Tracking::bytes_for(own_gfn, sets).and_then(|bytes| bytes.checked_add(fixed_bytes));
    let left = needed.and_then(|bytes| options.memory_bytes.checked_sub(bytes)).ok_or_else(|| {
        let reason = format_args!("the stub's memory does not suffice for a guest up to gfn {max_gfn}");
        Trouble::new(Fault::NoMemory, reason)
    })?;
    let tracking = Tracking::try_new(own_gfn, sets).ok_or_else(no_memory)?;
    let platform = Records::try_new(platform_bytes).ok_or_else(no_memory)?;
    let tape = Tape::try_new(policy.rounds()).ok_or_else(no_memory)?;
    let spill = Spill::try_new().ok_or_else(no_memory)?;
    let staging = if policy.is_staged() { Some(stage(take, info, left)?) } else { None };
    let staging_pages = staging.as_ref().map_or(0, Staging::capacity);
    let outlook = Outlook { staging_pages, ..Outlook::default() };
    Ok(Work {
        tracking,
        platform,
        staging,
        spill,
        outlook,
        first_pace: None,
        density: None,
        unsent: 0,
        dirty_max: 0,
        room_pages: 0,
        tot_pages: 0,
        arrangement: None,
        tape,
        ground: Ground::default(),
        on_top: false,
    })
}

/// Staging as large as asked for, else as large as the memory allows; never larger than the guest.
fn stage(take: &Take, info: &DomainInfo, left_bytes: usize) -> Result<Staging, Trouble> {
    let spare = left_bytes.saturating_sub(STAGING_SPARE_BYTES) / Staging::PAGE_BYTES;
    let wanted = take.staging_kib.map(|kib| u64::from(kib) * 1024 / PAGE_SIZE as u64);
    let short = |pages: u64| {
        let (asked_kib, most_kib) = (take.staging_kib.unwrap_or(0), pages * PAGE_SIZE as u64 / 1024);
        let reason = format_args!("{asked_kib} KiB of staging were asked for, the stub has room for {most_kib}");
        Trouble::new(Fault::NoMemory, reason)
    };
    if wanted.is_some_and(|pages| pages > spare as u64) {
        return Err(short(spare as u64));
    }
    let staging = Staging::try_new(wanted.unwrap_or(spare as u64).min(info.tot_pages), take.compression);
    match wanted {
        Some(pages) if staging.capacity() < pages.min(info.tot_pages) => Err(short(staging.capacity())),
        _ => Ok(staging),
    }
}

fn no_memory() -> Trouble {
    Trouble::new(Fault::NoMemory, "the stub's heap is too fragmented or too small")
}
