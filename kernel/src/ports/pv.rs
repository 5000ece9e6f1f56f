//! What a PV guest needs beside the ports of every guest: its frames by MFN, its p2m held in the window, the M2P, and
//! the registers of its vCPUs.

use alloc::vec::Vec;

use snapshot::ports::{Landing, OneByOne, Page, PageError, PageType, RecordKind, Seen, TargetError};
use snapshot::pv::{Maps, PvHost, VcpuContext};
use xen_hypercall::abi::domctl::VcpuMsr;
use xen_hypercall::abi::vcpu::VcpuGuestContext;
use xen_hypercall::vcpu::ExtStateFormat;
use xen_hypercall::{Mfn, Pfn, XenErrno, sched};
use zerocopy::{FromZeros, IntoBytes};

use super::target::{XenTarget, reserve, translate};
use crate::hv;
use crate::mm::{m2p, window};

/// Most bytes of a vCPU's extended state that are taken (with all of AVX-512 and AMX about 11 KiB).
const EXT_STATE_MAX: usize = 64 << 10;
/// Most model-specific registers of a vCPU that are taken (Xen 4.17: 11).
const MSRS_MAX: u32 = 256;

/// A bug of ours: the size of things is asked before the pause.
const UNPREPARED: TargetError = TargetError::Hypercall { op: "vCPU state before its size was asked", errno: 0 };
const _: () = assert!(snapshot::pv::VCPU_CONTEXT_BYTES == size_of::<VcpuGuestContext>());

/// The M2P and the held frames: both have fixed addresses.
pub struct Tables;

impl Maps for Tables {
    fn pfn_of(&self, mfn: Mfn) -> Option<Pfn> {
        m2p::pfn(mfn)
    }

    fn word(&self, index: u64) -> u64 {
        window::held_word(index)
    }

    fn held(&self) -> u64 {
        window::held_words()
    }
}

/// Room for what Xen says of a vCPU, had before the pause.
pub(super) struct VcpuRoom {
    format: ExtStateFormat,
    state: Vec<u8>,
    msrs: Vec<VcpuMsr>,
    /// One context.
    context: Vec<VcpuGuestContext>,
}

impl XenTarget {
    /// All vCPUs have one format: vCPU 0's, which every guest has.
    pub(super) fn prepare_vcpus(&mut self) -> Result<(), TargetError> {
        let format = self.domctl.vcpuextstate_format(self.domid, 0).map_err(translate)?;
        let count = self.domctl.vcpu_msr_count(self.domid, 0).map_err(translate)?;
        if format.size > EXT_STATE_MAX || count > MSRS_MAX {
            return Err(TargetError::NoMemory);
        }
        let mut room = VcpuRoom { format, state: Vec::new(), msrs: Vec::new(), context: Vec::new() };
        reserve(&mut room.state, format.size)?;
        reserve(&mut room.msrs, count as usize)?;
        reserve(&mut room.context, 1)?;
        room.context.push(VcpuGuestContext::new_zeroed());
        room.state.resize(format.size, 0);
        room.msrs.resize(count as usize, VcpuMsr::new_zeroed());
        self.vcpu = Some(room);
        Ok(())
    }
}

impl PvHost for XenTarget {
    type Maps = Tables;

    fn maps(&self) -> Tables {
        Tables
    }

    fn address_bits(&mut self) -> Result<u32, TargetError> {
        self.confirm()?;
        self.domctl.get_address_size(self.domid).map_err(translate)
    }

    fn shared_info(&mut self, into: &mut Page) -> Result<(), TargetError> {
        let frame = match self.shared_info_frame {
            Some(frame) => frame,
            None => *self.shared_info_frame.insert(self.named()?.shared_info_frame),
        };
        let mut errno = None;
        self.load([frame.raw()].into_iter())?;
        let mut out = |_, page: Result<&Page, PageError>| {
            errno = page.err().map(|error| error.errno);
            Ok(())
        };
        self.land_batch(&mut OneByOne { page: into, out: &mut out }, Seen::Later)?;
        errno.map_or(Ok(()), |errno| Err(TargetError::Hypercall { op: "mapping shared_info", errno }))
    }

    fn yield_now(&mut self) {
        _ = sched::yield_now(&hv::xen());
    }

    fn frame_types(&mut self, mfns: &[Mfn], out: &mut [PageType]) -> Result<(), TargetError> {
        self.load(mfns.iter().map(|mfn| mfn.raw()))?;
        self.types_of_batch(out)
    }

    fn land_frames(&mut self, mfns: &[Mfn], at: &mut dyn Landing, seen: Seen) -> Result<(), TargetError> {
        self.load(mfns.iter().map(|mfn| mfn.raw()))?;
        self.land_batch(at, seen)
    }

    fn let_go_batch(&mut self) -> Result<(), TargetError> {
        window::let_go().map_err(translate)
    }

    fn hold(&mut self, mfns: &[Mfn]) -> Result<Result<(), PageError>, TargetError> {
        self.maps = true;
        let held = window::hold(self.domid, mfns).map_err(translate)?;
        Ok(held.map_err(|errno| PageError { errno }))
    }

    fn hold_max(&self) -> usize {
        window::MAX_HELD
    }

    fn vcpu_context(&mut self, vcpu: u32, into: &mut VcpuContext) -> Result<bool, TargetError> {
        let context = self.vcpu.as_mut().and_then(|room| room.context.first_mut()).ok_or(UNPREPARED)?;
        match self.domctl.getvcpucontext(self.domid, vcpu, context) {
            Ok(()) => {
                into.copy_from_slice(context.as_bytes());
                Ok(true)
            }
            // Not there, or never brought up (common/domctl.c).
            Err(error) if matches!(error.xen(), Some(XenErrno::EINVAL | XenErrno::ENODATA)) => Ok(false),
            Err(error) => Err(translate(error)),
        }
    }

    fn vcpu_extras(&mut self, vcpu: u32, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        let VcpuRoom { format, state, msrs, .. } = self.vcpu.as_mut().ok_or(UNPREPARED)?;
        let extended = self.domctl.get_ext_vcpucontext(self.domid, vcpu).map_err(translate)?;
        let length = (extended.size as usize).min(extended.as_bytes().len());
        let mut some = |kind, body: &[u8]| {
            if !body.is_empty() {
                out(kind, body);
            }
        };
        some(RecordKind::X86_PV_VCPU_EXTENDED, &extended.as_bytes()[..length]);
        if format.size > 0 {
            let length = self.domctl.getvcpuextstate(self.domid, vcpu, *format, state).map_err(translate)?;
            some(RecordKind::X86_PV_VCPU_XSAVE, &state[..length]);
        }
        let count = self.domctl.get_vcpu_msrs(self.domid, vcpu, msrs).map_err(translate)?;
        some(RecordKind::X86_PV_VCPU_MSRS, msrs[..count].as_bytes());
        Ok(())
    }
}
