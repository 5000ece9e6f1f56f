//! Questions about memory: how much a domain has, how far its frames reach, and what they are used for.

use core::fmt;

use zerocopy::{FromZeros, IntoBytes};

use crate::abi::domctl as raw;
use crate::abi::memory::{self as abi, MachphysMapping, MemoryDomain, PodTarget};
use crate::abi::xen::HYPERVISOR_MEMORY_OP;
use crate::{DomId, Domctl, Error, Gfn, Loan, Mfn, Result, Transport};

/// Frames of one getpageframeinfo3 (arch/x86/domctl.c: more is -E2BIG).
pub const PAGE_TYPES_MAX: usize = 1024;

/// The use of a frame, as getpageframeinfo3 answers it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct PageType(u64);

impl PageType {
    /// An ordinary frame.
    pub const NOTAB: Self = Self(raw::PFINFO_NOTAB);
    /// Nothing that can be saved: not populated, not the domain's, or special.
    pub const XTAB: Self = Self(raw::PFINFO_XTAB);
    /// Broken memory.
    pub const BROKEN: Self = Self(raw::PFINFO_BROKEN);

    /// The type in one word of the answer.
    #[must_use]
    pub const fn from_raw(word: u64) -> Self {
        Self(word & (0xf << raw::PFINFO_LTAB_SHIFT))
    }

    /// Bits 28-31 as they stand in the ABI (and, shifted, in a migration stream).
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The level (1 to 4) of a page table frame of a PV domain; None if it is none.
    #[must_use]
    pub const fn table_level(self) -> Option<u8> {
        match (self.0 & raw::PFINFO_LTABTYPE_MASK) >> raw::PFINFO_LTAB_SHIFT {
            1 => Some(1),
            2 => Some(2),
            3 => Some(3),
            4 => Some(4),
            _ => None,
        }
    }

    /// Whether the frame is a pinned page table.
    #[must_use]
    pub const fn is_pinned(self) -> bool {
        self.table_level().is_some() && self.0 & raw::PFINFO_LPINTAB != 0
    }

    /// Whether there are contents to be saved: an ordinary frame or a page table.
    #[must_use]
    pub const fn has_data(self) -> bool {
        self.0 == raw::PFINFO_NOTAB || self.table_level().is_some()
    }
}

impl fmt::Debug for PageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self, self.table_level()) {
            (Self::NOTAB, _) => f.write_str("NOTAB"),
            (Self::XTAB, _) => f.write_str("XTAB"),
            (Self::BROKEN, _) => f.write_str("BROKEN"),
            (_, Some(level)) => write!(f, "L{level}TAB{}", if self.is_pinned() { "+PIN" } else { "" }),
            _ => write!(f, "TYPE{:#x}", self.0 >> raw::PFINFO_LTAB_SHIFT),
        }
    }
}

impl<T: Transport> Domctl<T> {
    /// Replaces each frame number by its use: see [`PageType::from_raw`]. PV wants MFNs, PVH and HVM GFNs.
    ///
    /// # Errors
    /// [`Error::Argument`] for more than [`PAGE_TYPES_MAX`] frames; what Xen answered. The words are spoilt then.
    pub fn page_types(&self, domain: DomId, frames: &mut [u64]) -> Result<()> {
        const CALL: &str = "XEN_DOMCTL_getpageframeinfo3";
        if frames.len() > PAGE_TYPES_MAX {
            return Err(Error::Argument { call: CALL, rule: "at most 1024 frames" });
        }
        let num = frames.len() as u64;
        let loan = self.transport().lend_mut(frames.as_mut_bytes())?;
        let mut op = raw::GetPageFrameInfo3 { num, array: loan.address() };
        // SAFETY: Xen reads and writes `num` words at `array`, which are on loan.
        unsafe { self.issue(CALL, raw::GETPAGEFRAMEINFO3, domain, &mut op) }
    }
}

/// Issues a memory_op with an argument structure.
///
/// # Safety
/// The operation reads and writes no more than `argument`, and changes no memory of the caller's domain.
unsafe fn memory_op<T: Transport>(transport: &T, call: &'static str, op: u64, argument: &mut [u8]) -> Result<u64> {
    let loan = transport.lend_mut(argument)?;
    // SAFETY: the argument is on loan; the rest is the caller's promise.
    let value = unsafe { transport.call2(HYPERVISOR_MEMORY_OP, op, loan.address()) };
    Error::check(call, value)
}

fn about<T: Transport>(transport: &T, call: &'static str, op: u64, domain: DomId) -> Result<u64> {
    let mut argument = MemoryDomain { domid: domain.raw() };
    // SAFETY: the operations that ask about a domain read its number and nothing else.
    unsafe { memory_op(transport, call, op, argument.as_mut_bytes()) }
}

/// The highest gfn of a PVH or HVM domain; for a PV domain a number that the guest chose.
///
/// # Errors
/// What Xen answered.
pub fn maximum_gpfn<T: Transport>(transport: &T, domain: DomId) -> Result<Gfn> {
    about(transport, "XENMEM_maximum_gpfn", abi::XENMEM_MAXIMUM_GPFN, domain).map(Gfn::new)
}

/// Pages that the domain has.
///
/// # Errors
/// What Xen answered.
pub fn current_reservation<T: Transport>(transport: &T, domain: DomId) -> Result<u64> {
    about(transport, "XENMEM_current_reservation", abi::XENMEM_CURRENT_RESERVATION, domain)
}

/// Pages that the domain may have.
///
/// # Errors
/// What Xen answered.
pub fn maximum_reservation<T: Transport>(transport: &T, domain: DomId) -> Result<u64> {
    about(transport, "XENMEM_maximum_reservation", abi::XENMEM_MAXIMUM_RESERVATION, domain)
}

/// The highest MFN that is RAM: the bound of any read of the machine-to-physical table.
///
/// # Errors
/// What Xen answered.
pub fn maximum_ram_page<T: Transport>(transport: &T) -> Result<Mfn> {
    // SAFETY: the operation has no argument.
    let value = unsafe { transport.call2(HYPERVISOR_MEMORY_OP, abi::XENMEM_MAXIMUM_RAM_PAGE, 0) };
    Error::check("XENMEM_maximum_ram_page", value).map(Mfn::new)
}

/// Where the caller, a PV domain, sees the machine-to-physical table.
///
/// # Errors
/// What Xen answered.
pub fn machphys_mapping<T: Transport>(transport: &T) -> Result<MachphysMapping> {
    let mut answer = MachphysMapping::new_zeroed();
    // SAFETY: Xen writes the structure and nothing else.
    unsafe { memory_op(transport, "XENMEM_machphys_mapping", abi::XENMEM_MACHPHYS_MAPPING, answer.as_mut_bytes()) }?;
    Ok(answer)
}

/// The domain's populate-on-demand pool: `pod_entries` is not 0 while memory is still to be populated. HVM and PVH.
///
/// # Errors
/// What Xen answered.
pub fn pod_target<T: Transport>(transport: &T, domain: DomId) -> Result<PodTarget> {
    let mut answer = PodTarget { domid: domain.raw(), ..PodTarget::new_zeroed() };
    // SAFETY: Xen reads the domain's number, writes the structure and nothing else.
    unsafe { memory_op(transport, "XENMEM_get_pod_target", abi::XENMEM_GET_POD_TARGET, answer.as_mut_bytes()) }?;
    Ok(answer)
}
