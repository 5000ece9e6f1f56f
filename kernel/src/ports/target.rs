//! One guest: found by domid and handle, asked for what it is and for its platform state.
//!
//! A domid can be given to another domain at any moment, so whatever changes the guest's state, hands out its memory
//! or leads to a decision compares domid and handle. A handle that is lost does not come back to the domid, so a
//! comparison after an act vouches for all before it. Questions about types and dirty bits are not compared: a wrong
//! answer is found out by the next comparison, which the engine needs before it seals, and costs but the take.

use alloc::vec::Vec;

use snapshot::ports::{DomainControl, DomainInfo, Page, RecordKind, TargetError};
use xen_hypercall::abi::domctl::{CpuidLeaf, MsrEntry};
use xen_hypercall::domctl::{self, DomainFlags};
use xen_hypercall::transport::pv::HypercallPage;
use xen_hypercall::{DomHandle, DomId, Domctl, Error, Gfn, Mfn, XenErrno, hvm, memory};
use zerocopy::{FromZeros, IntoBytes};

use super::pv::VcpuRoom;
use crate::hv;
use crate::mm::window;

/// Most bytes of HVM context that are taken: 128 vCPUs have about 1 MiB.
const CONTEXT_MAX: usize = 2 << 20;
/// Most entries of a CPU policy that are taken (Xen 4.17: 200 leaves, 4 MSRs).
const POLICY_MAX: u32 = 4096;

/// The guest. Dropping the one that maps frames lets go of all that are still mapped; there is one window, so only one
/// may at a time, the take's. Others may be made beside it, to ask Xen something.
pub struct XenTarget {
    pub(super) domctl: Domctl<HypercallPage>,
    pub(super) domid: DomId,
    pub(super) handle: DomHandle,
    /// Frame numbers of a batch: what goes into a hypercall.
    pub(super) frames: Vec<u64>,
    /// The answers for a batch, one errno each.
    pub(super) errnos: Vec<u16>,
    /// The private copy that is handed out.
    pub(super) page: Page,
    /// Room for the HVM context, had before the pause.
    context: Vec<u8>,
    /// The HVM parameters; those that the guest can change are fetched again in the pause.
    params: [u64; hvm::SAVED_PARAMS.len()],
    /// Where a PV guest's shared_info is: as long as it lives (xen/arch/x86/domain.c, arch_domain_create).
    pub(super) shared_info_frame: Option<Mfn>,
    /// Room for a PV guest's vCPU, likewise.
    pub(super) vcpu: Option<VcpuRoom>,
    /// Frames of it may be in the window.
    pub(super) maps: bool,
    /// What Xen's dirty count had in it when tracking was switched on.
    pub(super) stale_dirty: u64,
}

/// Whose fault an error is.
pub(super) fn translate(error: Error) -> TargetError {
    match error {
        Error::NotFound { .. } => TargetError::Gone,
        Error::Xen { call, errno } => match errno {
            XenErrno::ESRCH => TargetError::Gone,
            XenErrno::EPERM | XenErrno::EACCES => TargetError::Denied { op: call },
            XenErrno::ENOMEM => TargetError::NoMemory,
            XenErrno::EOPNOTSUPP => TargetError::Unsupported,
            other => TargetError::Hypercall { op: call, errno: u16::try_from(other.raw()).unwrap_or(u16::MAX) },
        },
        Error::Short { call, .. } | Error::Argument { call, .. } | Error::Grant { call, .. } => {
            TargetError::Hypercall { op: call, errno: 0 }
        }
        _ => TargetError::Unsupported,
    }
}

pub(super) fn reserve<T>(into: &mut Vec<T>, count: usize) -> Result<(), TargetError> {
    into.try_reserve_exact(count).map_err(|_| TargetError::NoMemory)
}

impl XenTarget {
    /// A guest that is named by both; nothing is asked of Xen but its version.
    pub fn new(domid: DomId, handle: DomHandle) -> Result<Self, TargetError> {
        let domctl = Domctl::probe(hv::xen()).map_err(translate)?;
        let (mut frames, mut errnos) = (Vec::new(), Vec::new());
        reserve(&mut frames, window::MAX_BATCH)?;
        reserve(&mut errnos, window::MAX_BATCH)?;
        Ok(Self {
            domctl,
            domid,
            handle,
            frames,
            errnos,
            page: [0; 4096],
            context: Vec::new(),
            params: Default::default(),
            shared_info_frame: None,
            vcpu: None,
            maps: false,
            stale_dirty: 0,
        })
    }

    /// Is it still the one? To be called before anything that changes it.
    pub(super) fn confirm(&self) -> Result<(), TargetError> {
        self.named().map(|_| ())
    }

    /// What Xen says of the domain that has both names.
    pub(super) fn named(&self) -> Result<domctl::DomainInfo, TargetError> {
        self.domctl.getdomaininfo(self.domid, Some(self.handle)).map_err(|error| match translate(error) {
            // Where there is no domain of this number Xen answers for the next one (common/domctl.c), which may be one
            // that is no business of ours, or ourselves. Another call is about this number alone.
            denied @ TargetError::Denied { .. } => {
                let exact = self.domctl.logdirty_stats(self.domid).map_err(translate).err();
                if exact == Some(TargetError::Gone) { TargetError::Gone } else { denied }
            }
            other => other,
        })
    }

    fn policy(&self) -> Result<(Vec<CpuidLeaf>, Vec<MsrEntry>), TargetError> {
        let (nr_leaves, nr_msrs) = self.domctl.cpu_policy_size(self.domid).map_err(translate)?;
        let (mut leaves, mut msrs) = (Vec::new(), Vec::new());
        reserve(&mut leaves, nr_leaves.min(POLICY_MAX) as usize)?;
        reserve(&mut msrs, nr_msrs.min(POLICY_MAX) as usize)?;
        leaves.resize(leaves.capacity(), CpuidLeaf::new_zeroed());
        msrs.resize(msrs.capacity(), MsrEntry::new_zeroed());
        let (leaf_count, msr_count) =
            self.domctl.get_cpu_policy(self.domid, &mut leaves, &mut msrs).map_err(translate)?;
        leaves.truncate(leaf_count);
        msrs.truncate(msr_count);
        Ok((leaves, msrs))
    }

    /// Room for the context as it is now and half as much again, so that the pause need not ask for the size.
    fn prepare_context(&mut self) -> Result<(), TargetError> {
        let size = self.domctl.hvm_context_size(self.domid).map_err(translate)?;
        let room = size + size / 2;
        if room > CONTEXT_MAX {
            return Err(TargetError::NoMemory);
        }
        self.context = Vec::new();
        reserve(&mut self.context, room)?;
        self.context.resize(room, 0);
        Ok(())
    }

    /// X86_TSC_INFO (libxc-migration-stream.pandoc): mode u32, kHz u32, ns u64, incarnation u32, zero u32.
    fn tsc_info(&self) -> Result<[u8; 24], TargetError> {
        let info = self.domctl.gettscinfo(self.domid).map_err(translate)?;
        let mut body = [0; 24];
        body[..4].copy_from_slice(&info.tsc_mode.to_le_bytes());
        body[4..8].copy_from_slice(&info.gtsc_khz.to_le_bytes());
        body[8..16].copy_from_slice(&info.elapsed_nsec.to_le_bytes());
        body[16..20].copy_from_slice(&info.incarnation.to_le_bytes());
        Ok(body)
    }

    /// Fetches those HVM parameters again that the guest can change.
    fn fetch_guest_params(&mut self) -> Result<(), TargetError> {
        let values = hvm::get_params(&hv::xen(), self.domid, hvm::GUEST_PARAMS).map_err(translate)?;
        for (index, value) in hvm::GUEST_PARAMS.into_iter().zip(values) {
            let kept = hvm::SAVED_PARAMS.into_iter().zip(&mut self.params).find(|(saved, _)| *saved == index);
            kept.into_iter().for_each(|(_, kept)| *kept = value);
        }
        Ok(())
    }

    /// HVM_PARAMS: count u32, zero u32, then index u64 and value u64 of each parameter that is not zero.
    fn params(&self) -> Result<heapless::Vec<u8, PARAMS_BYTES>, TargetError> {
        let mut body = heapless::Vec::new();
        let full = |_| TargetError::NoMemory;
        body.extend_from_slice(&[0; 8]).map_err(full)?;
        let mut count = 0u32;
        for (index, value) in hvm::SAVED_PARAMS.into_iter().zip(self.params) {
            if value != 0 {
                body.extend_from_slice(&u64::from(index).to_le_bytes()).map_err(full)?;
                body.extend_from_slice(&value.to_le_bytes()).map_err(full)?;
                count += 1;
            }
        }
        body[..4].copy_from_slice(&count.to_le_bytes());
        Ok(body)
    }
}

/// Bytes of an HVM_PARAMS record with every parameter in it.
const PARAMS_BYTES: usize = 8 + 16 * hvm::SAVED_PARAMS.len();

impl Drop for XenTarget {
    fn drop(&mut self) {
        if !self.maps {
            return;
        }
        if let Err(error) = window::clear() {
            crate::error!("letting go of the guest's frames: {error}");
        }
    }
}

impl DomainControl for XenTarget {
    fn info(&mut self) -> Result<DomainInfo, TargetError> {
        let info = self.named()?;
        Ok(DomainInfo {
            domid: info.domain,
            handle: info.handle,
            dying: info.flags.contains(DomainFlags::DYING),
            shutdown: info.shutdown,
            paused: info.flags.contains(DomainFlags::PAUSED),
            hvm: info.is_hvm(),
            tot_pages: info.tot_pages,
            max_pages: info.max_pages,
            cpu_time_ns: info.cpu_time_ns,
            max_vcpu_id: info.max_vcpu_id.unwrap_or(0),
        })
    }

    fn hypercalls(&self) -> u64 {
        HypercallPage::issued()
    }

    fn max_gfn(&mut self) -> Result<Gfn, TargetError> {
        memory::maximum_gpfn(&hv::xen(), self.domid).map_err(translate)
    }

    fn static_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        let hvm = self.named()?.is_hvm();
        let (leaves, msrs) = self.policy()?;
        out(RecordKind::X86_CPUID_POLICY, leaves.as_bytes());
        out(RecordKind::X86_MSR_POLICY, msrs.as_bytes());
        if !hvm {
            return self.prepare_vcpus();
        }
        self.params = hvm::get_params(&hv::xen(), self.domid, hvm::SAVED_PARAMS).map_err(translate)?;
        self.prepare_context()
    }

    fn platform_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        out(RecordKind::X86_TSC_INFO, &self.tsc_info()?);
        if self.vcpu.is_some() {
            return Ok(());
        }
        let length = self.domctl.gethvmcontext(self.domid, &mut self.context).map_err(translate)?;
        out(RecordKind::HVM_CONTEXT, &self.context[..length]);
        self.fetch_guest_params()?;
        out(RecordKind::HVM_PARAMS, &self.params()?);
        Ok(())
    }
}
