//! The ports over the [`Guest`], each checking its contract.

use snapshot::ports::*;
use snapshot::pv::{Maps, PvHost, VcpuContext};
use xen_hypercall::types::{DomHandle, DomId, Gfn, Mfn, Pfn};

use super::guest::{self, Guest, MFNS, SHARED_INFO, Shared};

pub const HANDLE: DomHandle = DomHandle::new([3; 16]);
/// More calls than any take of this guest may make.
const CALLS_MAX: u64 = 20_000;

pub struct Host(pub Shared);
pub struct Tables(Shared);

impl Maps for Tables {
    fn pfn_of(&self, mfn: Mfn) -> Option<Pfn> {
        self.0.borrow().m2p.get(mfn.raw() as usize).copied().flatten().map(Pfn::new)
    }

    fn word(&self, index: u64) -> u64 {
        let guest = self.0.borrow();
        if guest.dropped {
            return u64::MAX;
        }
        let frame = *guest.held.get(index as usize / 512).expect("only what is held is read");
        guest.owner_pfn(frame).map_or(0xdead, |pfn| guest.word(pfn, index as usize % 512))
    }

    fn held(&self) -> u64 {
        let guest = self.0.borrow();
        if guest.dropped { 0 } else { guest.held.len() as u64 * 512 }
    }
}

impl Host {
    fn call(&self) -> std::cell::RefMut<'_, Guest> {
        let mut guest = self.0.borrow_mut();
        guest.calls += 1;
        assert!(guest.calls < CALLS_MAX, "a take is bounded, whatever the guest does");
        guest.runs();
        guest
    }

    fn fill(&self, into: &mut [u64]) -> u64 {
        let guest = self.0.borrow();
        assert!(into.len().is_multiple_of(512) && into.len() as u64 * 64 >= guest.max_pfn.min(guest::PFNS));
        into.fill(0);
        guest.dirty.iter().for_each(|pfn| into[*pfn as usize / 64] |= 1 << (pfn % 64));
        guest.dirty.len() as u64
    }
}

impl DomainControl for Host {
    fn info(&mut self) -> Result<DomainInfo, TargetError> {
        let guest = self.call();
        Ok(DomainInfo {
            domid: DomId::new(9),
            handle: HANDLE,
            dying: false,
            shutdown: guest.suspended.then_some(ShutdownCode::SUSPEND),
            paused: false,
            hvm: false,
            tot_pages: guest.p2m.iter().flatten().count() as u64,
            max_pages: 5000,
            cpu_time_ns: 0,
            max_vcpu_id: guest.vcpus.len() as u32 - 1,
        })
    }

    fn hypercalls(&self) -> u64 {
        self.0.borrow().calls
    }

    fn max_gfn(&mut self) -> Result<Gfn, TargetError> {
        panic!("XENMEM_maximum_gpfn of a PV guest is the guest's word: nobody asks");
    }

    fn static_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        assert!(!self.call().suspended);
        out(RecordKind::X86_CPUID_POLICY, &[1; 24]);
        out(RecordKind::X86_MSR_POLICY, &[2; 16]);
        Ok(())
    }

    fn platform_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        drop(self.call());
        out(RecordKind::X86_TSC_INFO, &[7; 24]);
        Ok(())
    }
}

impl DirtyLog for Host {
    fn enable(&mut self) -> Result<(), TargetError> {
        let mut guest = self.call();
        if !guest.can_track {
            return Err(TargetError::Unsupported);
        }
        if !guest.log_dirty {
            guest.dirty.clear();
        }
        if std::mem::replace(&mut guest.log_dirty, true) { Err(TargetError::AlreadyOn) } else { Ok(()) }
    }

    fn clean(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        assert!(self.call().can_track);
        let count = self.fill(into);
        self.0.borrow_mut().dirty.clear();
        Ok(count)
    }

    fn peek(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        assert!(self.call().can_track);
        Ok(self.fill(into))
    }

    fn peek_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        assert!(self.call().suspended);
        Ok(self.fill(into))
    }

    fn clean_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        assert!(self.call().suspended);
        self.clean(into)
    }

    fn dirty_count(&mut self) -> Result<u64, TargetError> {
        Ok(self.call().dirty.len() as u64)
    }

    fn still_on(&mut self) -> Result<bool, TargetError> {
        let mut guest = self.call();
        assert!(guest.can_track, "nobody asks a hypervisor that cannot track");
        Ok(std::mem::replace(&mut guest.log_dirty, true))
    }

    fn off(&mut self) -> Result<(), TargetError> {
        self.call().log_dirty = false;
        Ok(())
    }
}

fn check_batch(mfns: &[Mfn]) {
    assert!(!mfns.is_empty() && mfns.len() <= BATCH_MAX);
}

impl PvHost for Host {
    type Maps = Tables;

    fn maps(&self) -> Tables {
        Tables(self.0.clone())
    }

    fn address_bits(&mut self) -> Result<u32, TargetError> {
        Ok(self.call().bits)
    }

    fn shared_info(&mut self, into: &mut Page) -> Result<(), TargetError> {
        *into = self.call().shared_info();
        Ok(())
    }

    fn frame_types(&mut self, mfns: &[Mfn], out: &mut [PageType]) -> Result<(), TargetError> {
        check_batch(mfns);
        assert_eq!(mfns.len(), out.len());
        let guest = self.call();
        for (mfn, kind) in mfns.iter().zip(out) {
            *kind = guest.holder(mfn.raw()).map_or(PageType::XTAB, |pfn| PageType(guest.kind(pfn)));
        }
        Ok(())
    }

    fn land_frames(&mut self, mfns: &[Mfn], at: &mut dyn Landing, _: Seen) -> Result<(), TargetError> {
        check_batch(mfns);
        drop(self.call());
        for (index, mfn) in mfns.iter().enumerate() {
            let page = {
                let mut guest = self.0.borrow_mut();
                if index % 8 == 0 {
                    guest.runs();
                }
                let errno = if mfn.raw() >= MFNS { 22 } else { 16 };
                let pfn = guest.holder(mfn.raw()).filter(|pfn| guest.can_be_read(*pfn));
                pfn.map(|pfn| guest.bytes(pfn, false)).ok_or(PageError { errno })
            };
            assert!(mfn.raw() != SHARED_INFO);
            let mut fill = |place: &mut Page| page.map(|page| *place = page);
            if at.land(index, &mut fill).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn hold(&mut self, mfns: &[Mfn]) -> Result<Result<(), PageError>, TargetError> {
        let mut guest = self.call();
        assert!(mfns.len() <= 64);
        guest.held.clear();
        if mfns.iter().any(|mfn| guest.owner_pfn(mfn.raw()).is_none()) {
            return Ok(Err(PageError { errno: 16 }));
        }
        guest.held = mfns.iter().map(|mfn| mfn.raw()).collect();
        guest.dropped = false;
        Ok(Ok(()))
    }

    fn hold_max(&self) -> usize {
        64
    }

    fn vcpu_context(&mut self, vcpu: u32, into: &mut VcpuContext) -> Result<bool, TargetError> {
        let guest = self.call();
        let Some(online) = guest.vcpus[vcpu as usize] else { return Ok(false) };
        let frame = |pfn: u64| guest.p2m[pfn as usize].unwrap();
        // The registers of a guest that runs are worth nothing.
        let rdx = if vcpu == 0 && guest.suspended { frame(guest::START_INFO) } else { 0xdead };
        let cr3 = frame(guest::MAPPING[0]) << 12;
        // Flags, rdx, the GDT and its size, cr3 (public/arch-x86/xen-x86_64.h).
        let words = [(512, u64::from(online) << 5), (616, rdx), (4832, frame(guest::GDT)), (4960, 16), (5008, cr3)];
        into.fill(0);
        words.iter().for_each(|(at, word)| into[*at..at + 8].copy_from_slice(&word.to_le_bytes()));
        Ok(true)
    }

    fn vcpu_extras(&mut self, vcpu: u32, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        assert!(self.call().vcpus[vcpu as usize] == Some(true), "only an online vCPU is asked");
        out(RecordKind::X86_PV_VCPU_EXTENDED, &[5; 64]);
        out(RecordKind::X86_PV_VCPU_XSAVE, &[6; 576]);
        Ok(())
    }
}
