//! What the engine needs from the outside, as traits it owns: one target domain, one block device, a clock, and the
//! line to dom0. The kernel implements them over hypercalls and rings, tests over a fake world.
//!
//! Invariants: every value that comes through a port may be hostile and is checked by who uses it; an error says what
//! failed and who must act. Ports never retry on their own: how often is the engine's decision.

mod landing;

use alloc::vec::Vec;
use core::fmt;

use xen_hypercall::types::{DomHandle, DomId, Gfn};

pub use xen_hypercall::types::ShutdownReason as ShutdownCode;

pub use self::landing::{Fill, Landing, OneByOne, PageSink, Seen};
pub use crate::policy::Pace;
use crate::status::Status;
use crate::store::Digest;
use crate::verdict::Verdict;

/// Bytes in a page and in a block of the store.
pub const PAGE_SIZE: usize = 4096;

/// Most gfns in one call of [`GuestMemory`] (Xen: XEN_DOMCTL_getpageframeinfo3 answers -E2BIG above 1024).
pub const BATCH_MAX: usize = 1024;

/// Most bytes in one [`BlockDevice`] call.
pub const IO_MAX: usize = 1 << 20;

/// One page of guest memory, or one block.
pub type Page = [u8; PAGE_SIZE];

/// What XEN_DOMCTL_getdomaininfo says of the target, domid and handle already compared by the port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DomainInfo {
    /// Its domid.
    pub domid: DomId,
    /// Its handle (the uuid), which tells a re-used domid.
    pub handle: DomHandle,
    /// Being destroyed.
    pub dying: bool,
    /// Shut down, and why; `None` while it runs.
    pub shutdown: Option<ShutdownCode>,
    /// Held by `xl pause` or another tool (controller pause count above zero).
    pub paused: bool,
    /// HVM or PVH, else PV.
    pub hvm: bool,
    /// Pages it owns now.
    pub tot_pages: u64,
    /// Pages it may own.
    pub max_pages: u64,
    /// Processor time that its vCPUs have used, nanoseconds.
    pub cpu_time_ns: u64,
    /// Highest vCPU id.
    pub max_vcpu_id: u32,
}

impl DomainInfo {
    /// Shut down for a suspend, and not dying.
    pub fn suspended(&self) -> bool {
        !self.dying && self.shutdown == Some(ShutdownCode::SUSPEND)
    }
}

/// The type of a frame, the top nibble of XEN_DOMCTL_getpageframeinfo3's answer shifted down (bits 28-31).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageType(pub u8);

impl PageType {
    /// Ordinary memory.
    pub const NOTAB: Self = Self(0);
    /// Broken memory: populated, unreadable.
    pub const BROKEN: Self = Self(0xd);
    /// Populated, without content (never produced by Xen, legal in a stream).
    pub const XALLOC: Self = Self(0xe);
    /// Not populated, or not part of the guest's memory (special pages).
    pub const XTAB: Self = Self(0xf);

    /// Has 4096 bytes of content (libxc stream: types 0-4 and 9-12).
    pub fn has_data(self) -> bool {
        matches!(self.0, 0..=4 | 9..=12)
    }
}

/// Type of a libxc stream record (docs/specs/libxc-migration-stream.pandoc). A newtype: streams may carry others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordKind(pub u32);

impl RecordKind {
    /// X86_PV_INFO.
    pub const X86_PV_INFO: Self = Self(0x2);
    /// X86_PV_P2M_FRAMES.
    pub const X86_PV_P2M_FRAMES: Self = Self(0x3);
    /// X86_PV_VCPU_BASIC.
    pub const X86_PV_VCPU_BASIC: Self = Self(0x4);
    /// X86_PV_VCPU_EXTENDED.
    pub const X86_PV_VCPU_EXTENDED: Self = Self(0x5);
    /// X86_PV_VCPU_XSAVE.
    pub const X86_PV_VCPU_XSAVE: Self = Self(0x6);
    /// SHARED_INFO.
    pub const SHARED_INFO: Self = Self(0x7);
    /// X86_TSC_INFO.
    pub const X86_TSC_INFO: Self = Self(0x8);
    /// HVM_CONTEXT.
    pub const HVM_CONTEXT: Self = Self(0x9);
    /// HVM_PARAMS.
    pub const HVM_PARAMS: Self = Self(0xa);
    /// X86_PV_VCPU_MSRS.
    pub const X86_PV_VCPU_MSRS: Self = Self(0xc);
    /// X86_CPUID_POLICY.
    pub const X86_CPUID_POLICY: Self = Self(0x11);
    /// X86_MSR_POLICY.
    pub const X86_MSR_POLICY: Self = Self(0x12);
}

/// Why a call on the target failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetError {
    /// Destroyed, dying, or the domid belongs to another domain now. Nobody can act; the take ends.
    Gone,
    /// Log-dirty is on already, or the guest has a passed-through device. The operator ends the other user (a
    /// migration, `xl save`, a leftover: `livesave recover`).
    AlreadyOn,
    /// Xen or FLASK refused `op`. The operator loads the policy or labels the guest (`livesave doctor`).
    Denied {
        /// The call that was refused.
        op: &'static str,
    },
    /// Xen or the stub lacks memory (paging pool, host heap, our heap). The operator gives more.
    NoMemory,
    /// This hypervisor or guest type cannot do it (PV log-dirty without SHADOW_PAGING). The operator picks another way.
    Unsupported,
    /// A guest of a kind that cannot be taken. Nobody can act.
    Kind {
        /// What it is.
        what: &'static str,
    },
    /// A PV guest's p2m, or what it has to agree with, makes no sense. The guest is at fault; it may be in the middle
    /// of a change, so the operator may try again.
    P2m {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Any other errno: a bug of ours or a state we do not know; the log tells the operator.
    Hypercall {
        /// The call that failed.
        op: &'static str,
        /// Xen's errno, positive.
        errno: u16,
    },
}

impl fmt::Display for TargetError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => out.write_str("the guest is gone"),
            Self::AlreadyOn => out.write_str("log-dirty is in use: a migration, xl save, a passed-through device"),
            Self::Denied { op } => write!(out, "Xen refused {op}: check the FLASK policy and the guest's label"),
            Self::NoMemory => out.write_str("out of memory for dirty tracking: paging pool, host or stub"),
            Self::Unsupported => out.write_str("this hypervisor cannot do it for this kind of guest"),
            Self::Kind { what } => write!(out, "the guest is {what}, which cannot be taken"),
            Self::P2m { what } => write!(out, "the guest's p2m: {what}"),
            Self::Hypercall { op, errno } => write!(out, "{op} failed with errno {errno}"),
        }
    }
}

/// Why one page could not be copied. Not fatal before the last pass; there it voids the snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageError {
    /// Xen's errno of the mapping, positive; 0: it is none of Xen's.
    pub errno: u16,
}

impl PageError {
    /// A page of a PV guest that is there but cannot be told now: a page table that names a frame of somebody else, or
    /// a page that the guest is moving. To be tried again later.
    pub const UNSETTLED: Self = Self { errno: 0 };
}

/// Why the block device failed. The operator looks at the disk; nothing sealed is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoError {
    /// The backend reported an error, or violated the protocol, for the blocks from here on.
    Failed {
        /// First block of the request.
        at: BlockIdx,
    },
    /// Beyond the end, misaligned or too long: a bug of the caller.
    OutOfRange {
        /// First block of the request.
        at: BlockIdx,
    },
    /// The device is read-only.
    ReadOnly,
    /// The backend is closing or has gone away.
    Disconnected,
    /// No answer within the driver's deadline.
    TimedOut,
}

impl fmt::Display for IoError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { at } => write!(out, "input/output error at block {}", at.0),
            Self::OutOfRange { at } => write!(out, "block {} is outside the device", at.0),
            Self::ReadOnly => out.write_str("the device is read-only"),
            Self::Disconnected => out.write_str("the block backend is gone"),
            Self::TimedOut => out.write_str("the block backend does not answer"),
        }
    }
}

/// Says "no more" from inside a callback; the port returns as soon as it has tidied up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stop;

/// Index of a 4096-byte block on a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BlockIdx(pub u64);

/// So many blocks from one on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The first one.
    pub at: BlockIdx,
    /// How many, at most [`IO_MAX`] bytes.
    pub blocks: u64,
}

/// One target, found once by domid and handle; every call compares both again and answers `Gone` if they moved.
pub trait DomainControl {
    /// What Xen says of it now.
    fn info(&mut self) -> Result<DomainInfo, TargetError>;
    /// Hypercalls that this domain has issued so far, for whatever purpose: the difference over the pause is its price.
    fn hypercalls(&self) -> u64;
    /// Highest gfn of its p2m (XENMEM_maximum_gpfn). For PV the guest writes it: hostile.
    fn max_gfn(&mut self) -> Result<Gfn, TargetError>;
    /// CPUID and MSR policy, as bodies of libxc records. Called while the guest runs, and before `platform_records`,
    /// for which it fetches what cannot change any more.
    fn static_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError>;
    /// TSC info, HVM context, HVM parameters, in this order, as bodies of libxc records; for PV the records of its p2m,
    /// TSC, shared_info and vCPUs. Called in the pause.
    fn platform_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError>;
    /// Does while the guest runs what `platform_records` will do in the pause, so that its price is known. What it
    /// gives is worth nothing, and what the guest's registers say then is no error.
    fn rehearse_platform(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        self.platform_records(out)
    }
    /// Of a guest that arranges its memory itself (PV): a digest of that arrangement as it is now, and to `page` each
    /// gfn that the guest keeps it in. None where the arrangement is Xen's.
    fn arrangement(&mut self, _page: &mut dyn FnMut(Gfn)) -> Result<Option<Digest>, TargetError> {
        Ok(None)
    }
    /// Which of the pages that were copied are page tables, as the store keeps it (docs/format/store-v1.md); empty for
    /// all but PV. Called when all is captured; an error says that the snapshot could not be restored.
    fn page_types(&mut self) -> Result<Vec<u8>, TargetError> {
        Ok(Vec::new())
    }
}

/// Xen's dirty bitmap of the target. Bit n of word w is gfn 64 w + n. Bitmaps are whole leaves: a multiple of 32768
/// bits (xen/arch/x86/mm/paging.c clears whole leaves whatever `pages` says).
pub trait DirtyLog {
    /// Starts tracking; the bitmap is empty then, not full. `AlreadyOn` if somebody else tracks.
    fn enable(&mut self) -> Result<(), TargetError>;
    /// Fetches and clears. Any failure has lost bits and is fatal to the take. Returns Xen's dirty count.
    fn clean(&mut self, into: &mut [u64]) -> Result<u64, TargetError>;
    /// Fetches without clearing.
    fn peek(&mut self, into: &mut [u64]) -> Result<u64, TargetError>;
    /// As `peek`, with XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL: frames that Xen keeps write-mapped are marked first.
    fn peek_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError>;
    /// As `clean`, with the marking of `peek_final`: in the pause of a take after which tracking stays on.
    fn clean_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError>;
    /// The dirty count alone (PEEK without a bitmap).
    fn dirty_count(&mut self) -> Result<u64, TargetError>;
    /// Is tracking still on? Asks by ENABLE, which answers -EINVAL then; if not, it is on again afterwards, so call
    /// [`DirtyLog::off`] in either case.
    fn still_on(&mut self) -> Result<bool, TargetError>;
    /// As `still_on`, right after [`DomainControl::info`], which has compared domid and handle a moment ago.
    fn still_on_as_seen(&mut self) -> Result<bool, TargetError> {
        self.still_on()
    }
    /// Ends tracking. Harmless when it is off.
    fn off(&mut self) -> Result<(), TargetError>;
}

/// Read access to the target's frames.
pub trait GuestMemory {
    /// Types of at most [`BATCH_MAX`] gfns; `out` has the same length.
    fn types(&mut self, gfns: &[Gfn], out: &mut [PageType]) -> Result<(), TargetError>;
    /// Maps at most [`BATCH_MAX`] gfns afresh, copies each page ONCE to private memory and hands the copy out with its
    /// index, in order. An unmappable page is a per-page error. `Stop` ends the call early with `Ok`. Domid and handle
    /// are compared after the mapping and before the first page is handed out: no page of another domain ever is.
    fn copy(&mut self, gfns: &[Gfn], out: &mut PageSink<'_>) -> Result<(), TargetError>;
    /// As `copy`, straight to where the pages shall stay. Each index is asked for once, in order. Nothing is compared:
    /// whose pages these are tells the caller's next [`DomainControl::info`], before which no use is made of them.
    fn land(&mut self, gfns: &[Gfn], at: &mut dyn Landing) -> Result<(), TargetError>;
    /// Of a PV guest: gives `odd` each of at most [`BATCH_MAX`] gfns of which the dirty bits do not tell all. It is a
    /// page table, or was one when it was last copied; it is no memory; its p2m and the M2P do not agree on it.
    fn untold(&mut self, _gfns: &[Gfn], _odd: &mut dyn FnMut(Gfn)) -> Result<(), TargetError> {
        Ok(())
    }
    /// Lets go of the batch that is still mapped. Nobody has to; called before the pause, which then need not.
    fn let_go(&mut self) -> Result<(), TargetError> {
        Ok(())
    }
}

/// A device of 4096-byte blocks.
pub trait BlockDevice {
    /// Its size in blocks.
    fn blocks(&self) -> u64;
    /// True if writes are refused.
    fn read_only(&self) -> bool;
    /// Accepted on return: a private copy was taken. An error of an earlier write may surface in any later call.
    /// `data` is a multiple of 4096 bytes, at most [`IO_MAX`].
    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError>;
    /// Reads; sees every write accepted earlier. `into` is a multiple of 4096 bytes, at most [`IO_MAX`].
    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError>;
    /// Says what will be read, in this order and each by a `read` of its own, others between them; nothing at all takes
    /// back what was said. A device may read it before it is asked; what failed is the error of that `read`.
    fn read_ahead(&mut self, _wanted: &[Extent]) {}
    /// Returns after everything accepted was answered. Nothing is durable for it; `flush` tells its errors as well.
    fn settle(&mut self) -> Result<(), IoError> {
        Ok(())
    }
    /// Returns after everything accepted is durable.
    fn flush(&mut self) -> Result<(), IoError>;
    /// What it has done by now. Asked often, so that the time is right at which it ran out of work; tells no errors.
    fn pace(&mut self) -> Pace {
        Pace::default()
    }
}

/// Time that only goes forward.
pub trait Clock {
    /// Nanoseconds since some fixed instant.
    fn now_ns(&mut self) -> u64;
    /// Nanoseconds, since some fixed instant, for which we would have run and others did on our processor.
    fn stolen_ns(&mut self) -> u64;
    /// Nanoseconds, since some fixed instant, for which we waited for something, as for a disk.
    fn blocked_ns(&mut self) -> u64 {
        0
    }
}

/// What dom0 said to the running session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// `cancel` with our token.
    Cancel,
    /// `verdict` with our token.
    Verdict(Verdict),
    /// Nothing can be written to the store any more: its device is closing or gone.
    StoreLost,
    /// `acked` with our token: the guest took the suspend request and freezes itself now.
    Acked,
}

/// The line to dom0 is down. The session ends as void; the keeper sees the silence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlLost;

/// The line to the keeper. The implementation serves xenstore inside `poll` and `wait`: it refuses a second request as
/// busy, drops messages with a foreign token, answers a shutdown request with a cancel.
pub trait Control {
    /// Writes the status node. The engine calls it at every change of state and a few times a second in between.
    fn publish(&mut self, status: &Status) -> Result<(), ControlLost>;
    /// The next message, without waiting. Called for every batch: it must be cheap when nothing has come.
    fn poll(&mut self) -> Result<Option<Message>, ControlLost>;
    /// Sleeps until a message may have come, or `until_ns` of the [`Clock`], whichever is first.
    fn wait(&mut self, until_ns: u64) -> Result<(), ControlLost>;
    /// One event on the release port: "the stub needs the guest no more". The engine calls it once in a session.
    fn release(&mut self) -> Result<(), ControlLost>;
}
