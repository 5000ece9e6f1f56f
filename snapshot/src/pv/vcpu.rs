//! Registers of a PV vCPU that name machine frames, as a stream holds them: pfns (tools/libs/guest/xg_sr_save_x86_pv.c,
//! write_one_vcpu_basic).
//!
//! Each frame has to be the guest's, by p2m and M2P; a register that names another ends the take. What a restore then
//! expects of the pages is noted, so that a snapshot that it would refuse is never sealed.

use alloc::vec::Vec;

use xen_hypercall::types::{Mfn, Pfn};

use super::types::PageTypes;
use crate::ports::TargetError;

/// Bytes of a vCPU's registers (public/arch-x86/xen.h, struct vcpu_guest_context of 64 bits).
pub const VCPU_CONTEXT_BYTES: usize = 5168;

/// A vCPU's registers as Xen gives them. Words are at the offsets below.
pub type VcpuContext = [u8; VCPU_CONTEXT_BYTES];

const FLAGS: usize = 512;
const RDX: usize = 616;
const GDT_FRAMES: usize = 4832;
const GDT_ENTRIES: usize = 4960;
const USER_CR3: usize = 4992;
const CR3: usize = 5008;

/// Bit of the flags: the vCPU is online (VGCF_online).
const ONLINE: u64 = 1 << 5;

fn get(context: &VcpuContext, at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&context[at..at + 8]);
    u64::from_le_bytes(word)
}

fn put(context: &mut VcpuContext, at: usize, word: u64) {
    context[at..at + 8].copy_from_slice(&word.to_le_bytes());
}

/// Is the vCPU online? One that is not has no records.
pub fn is_online(context: &VcpuContext) -> bool {
    get(context, FLAGS) & ONLINE != 0
}

/// GDT entries from here on are Xen's (public/arch-x86/xen.h, FIRST_RESERVED_GDT_ENTRY).
const GDT_ENTRIES_MAX: u64 = 14 * 512;
/// GDT entries in a frame.
const GDT_FRAME_ENTRIES: u64 = 512;

/// Frames that a context names at most: 14 of the GDT, two page tables, start_info.
pub const FRAMES_MAX: usize = 17;

/// Pages that a restore expects to be of a certain kind (xg_sr_restore_x86_pv.c).
#[derive(Debug, Default)]
pub struct Needs {
    pages: Vec<(Pfn, Kind)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Ordinary,
    L4,
}

impl Needs {
    /// Room for the frames of `vcpus`; false if there is no memory for it.
    #[must_use]
    pub fn reserve(&mut self, vcpus: usize) -> bool {
        self.pages.clear();
        self.pages.try_reserve(vcpus * FRAMES_MAX).is_ok()
    }

    /// Are the pages what they have to be?
    pub fn check(&self, types: &PageTypes) -> Result<(), TargetError> {
        for (pfn, kind) in &self.pages {
            let level = super::tables::level(types.get(pfn.raw()));
            match kind {
                Kind::Ordinary if level.is_some() => {
                    return Err(TargetError::P2m { what: "start_info or a GDT is a page table" });
                }
                Kind::L4 if level != Some(4) => {
                    return Err(TargetError::P2m { what: "cr3 names a page that is no L4 table" });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Turns frames into pfns, register by register.
pub struct Convert<'a, F> {
    /// Which pfn a frame is, if it is the guest's.
    pub pfn_of: F,
    /// What the pages have to be.
    pub needs: &'a mut Needs,
}

impl<F: Fn(Mfn) -> Option<Pfn>> Convert<'_, F> {
    /// Converts the context of a vCPU in place.
    pub fn context(&mut self, vcpu: u32, context: &mut VcpuContext) -> Result<(), TargetError> {
        if vcpu == 0 {
            // A suspended guest's argument to the hypercall: where its start_info is.
            let start_info = Mfn::new(get(context, RDX));
            let pfn = self.pfn(start_info, Kind::Ordinary, "start_info is no page of the guest")?;
            put(context, RDX, pfn.raw());
        }
        self.gdt(context)?;
        let cr3 = Mfn::new(get(context, CR3) >> 12);
        put(context, CR3, self.pfn(cr3, Kind::L4, "cr3 is no page of the guest")?.raw() << 12);
        if get(context, USER_CR3) != 0 {
            let user = Mfn::new(get(context, USER_CR3) >> 12);
            let pfn = self.pfn(user, Kind::L4, "the user's cr3 is no page of the guest")?;
            put(context, USER_CR3, pfn.raw() << 12 | 1);
        }
        Ok(())
    }

    fn gdt(&mut self, context: &mut VcpuContext) -> Result<(), TargetError> {
        let entries = get(context, GDT_ENTRIES);
        if entries > GDT_ENTRIES_MAX {
            return Err(TargetError::P2m { what: "a GDT reaches into Xen's part" });
        }
        for at in (GDT_FRAMES..).step_by(8).take(entries.div_ceil(GDT_FRAME_ENTRIES) as usize) {
            let frame = Mfn::new(get(context, at));
            put(context, at, self.pfn(frame, Kind::Ordinary, "a GDT is no page of the guest")?.raw());
        }
        Ok(())
    }

    fn pfn(&mut self, mfn: Mfn, kind: Kind, what: &'static str) -> Result<Pfn, TargetError> {
        let pfn = (self.pfn_of)(mfn).ok_or(TargetError::P2m { what })?;
        if self.needs.pages.len() == self.needs.pages.capacity() {
            return Err(TargetError::NoMemory);
        }
        self.needs.pages.push((pfn, kind));
        Ok(pfn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::PageType;

    fn context() -> VcpuContext {
        let mut context = [7; VCPU_CONTEXT_BYTES];
        for (at, word) in [
            (RDX, 0x1010),
            (GDT_ENTRIES, 513),
            (GDT_FRAMES, 0x1020),
            (GDT_FRAMES + 8, 0x1021),
            (USER_CR3, 0x103_1000),
            (CR3, 0x103_0000),
        ] {
            put(&mut context, at, word);
        }
        context
    }

    fn convert(vcpu: u32, context: &mut VcpuContext) -> Result<Needs, TargetError> {
        let mut needs = Needs::default();
        assert!(needs.reserve(1));
        let pfn_of = |mfn: Mfn| (mfn.raw() & !0xff == 0x1000).then(|| Pfn::new(mfn.raw() & 0xff));
        Convert { pfn_of, needs: &mut needs }.context(vcpu, context)?;
        Ok(needs)
    }

    /// The bytes that differ from what Xen gave, by offset (public/arch-x86/xen-x86_64.h): golden.
    #[test]
    fn only_the_registers_that_name_frames_change() {
        let (before, mut after) = (context(), context());
        convert(0, &mut after).unwrap();
        let differing: Vec<(usize, u64)> = (0..VCPU_CONTEXT_BYTES)
            .step_by(8)
            .filter(|at| get(&before, *at) != get(&after, *at))
            .map(|at| (at, get(&after, at)))
            .collect();
        let golden = [(616, 0x10), (4832, 0x20), (4840, 0x21), (4992, 0x3_1001), (5008, 0x3_0000)];
        assert_eq!(differing, golden);
        let mut second = context();
        convert(1, &mut second).unwrap();
        assert_eq!(get(&second, RDX), 0x1010, "only vCPU 0 says where start_info is");
    }

    #[test]
    fn a_frame_of_somebody_else_ends_the_take() {
        let cases =
            [(RDX, 0x2000), (GDT_FRAMES + 8, 0), (GDT_ENTRIES, GDT_ENTRIES_MAX + 1), (CR3, 0), (USER_CR3, u64::MAX)];
        for (at, word) in cases {
            let mut context = context();
            put(&mut context, at, word);
            assert!(matches!(convert(0, &mut context), Err(TargetError::P2m { .. })), "{at}");
        }
    }

    #[test]
    fn an_online_vcpu_says_so() {
        let mut context = context();
        for (flags, online) in [(0, false), (1 << 5, true), (!(1 << 5), false)] {
            put(&mut context, FLAGS, flags);
            assert_eq!(is_online(&context), online);
        }
    }

    #[test]
    fn what_a_restore_would_refuse_is_found() {
        let needs = convert(0, &mut context()).unwrap();
        let mut types = PageTypes::default();
        assert!(types.reach(256));
        assert!(needs.check(&types).is_err(), "cr3 is no L4");
        [0x30, 0x31].iter().for_each(|pfn| types.set(*pfn, PageType(0xc)));
        assert_eq!(needs.check(&types), Ok(()));
        types.set(0x21, PageType(1));
        assert!(needs.check(&types).is_err(), "a GDT is no page table");
    }
}
