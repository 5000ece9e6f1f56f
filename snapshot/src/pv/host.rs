//! What a PV guest needs of the hypervisor beyond the ports of every guest.
//!
//! Frames are MFNs here; Xen checks at each mapping that they are the guest's. Nothing in this port judges: a frame
//! that cannot be mapped, a hole of the M2P, a vCPU that is not there are answers.

use xen_hypercall::types::{Mfn, Pfn};

use super::vcpu::VcpuContext;
use crate::ports::{DirtyLog, DomainControl, Landing, Page, PageError, PageType, RecordKind, Seen, TargetError};

/// Tables that are read word by word while pages are copied. A handle, independent of the host's borrow.
pub trait Maps {
    /// The M2P's entry: which pfn the owner of a machine frame says it is. None beyond RAM, in a hole of the table, and
    /// where it names no pfn (xen/include/public/arch-x86/xen.h, INVALID_M2P_ENTRY).
    fn pfn_of(&self, mfn: Mfn) -> Option<Pfn>;
    /// Word `index` of the frames that [`PvHost::hold`] mapped, read once: the guest writes there. Only below 512 times
    /// the frames held.
    fn word(&self, index: u64) -> u64;
    /// How many words that are: what was held may have been let go of by a fault of ours, and what is not there must
    /// not be taken for a guest without memory.
    fn held(&self) -> u64;
}

/// A PV guest, found by domid and handle. `static_records` gives the CPU policies, `platform_records` X86_TSC_INFO; the
/// rest of a PV guest's records is made of what is below.
pub trait PvHost: DomainControl + DirtyLog {
    /// The tables.
    type Maps: Maps;

    /// A handle to the tables.
    fn maps(&self) -> Self::Maps;
    /// Bits of its addresses (XEN_DOMCTL_get_address_size).
    fn address_bits(&mut self) -> Result<u32, TargetError>;
    /// Copies its shared_info page. Nothing is compared, as by [`crate::ports::GuestMemory::land`].
    fn shared_info(&mut self, into: &mut Page) -> Result<(), TargetError>;
    /// Lets others run for a moment: the guest may be in the middle of a change.
    fn yield_now(&mut self) {}
    /// Types of at most [`crate::ports::BATCH_MAX`] frames; XTAB for what is not the guest's.
    fn frame_types(&mut self, mfns: &[Mfn], out: &mut [PageType]) -> Result<(), TargetError>;
    /// As [`crate::ports::GuestMemory::land`], of machine frames.
    fn land_frames(&mut self, mfns: &[Mfn], at: &mut dyn Landing, seen: Seen) -> Result<(), TargetError>;
    /// Lets go of the batch that landed last, if it is still mapped; what is held stays.
    fn let_go_batch(&mut self) -> Result<(), TargetError> {
        Ok(())
    }
    /// Keeps `mfns` mapped read-only, in order, in the place of what was held before; the first that cannot be mapped
    /// is a page error, and nothing is held then.
    fn hold(&mut self, mfns: &[Mfn]) -> Result<Result<(), PageError>, TargetError>;
    /// Most frames that [`PvHost::hold`] takes.
    fn hold_max(&self) -> usize;
    /// Reads a vCPU's registers; false if it is not there or was never brought up.
    fn vcpu_context(&mut self, vcpu: u32, into: &mut VcpuContext) -> Result<bool, TargetError>;
    /// X86_PV_VCPU_EXTENDED, X86_PV_VCPU_XSAVE, X86_PV_VCPU_MSRS of a vCPU that is there: what comes behind the vCPU's
    /// number in the record. What is empty is left out.
    fn vcpu_extras(&mut self, vcpu: u32, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError>;
}
