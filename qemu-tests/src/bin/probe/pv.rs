//! Every frame and every vCPU of a suspended PV guest, as a save image has to have them, found without a line of what
//! is under test: by the guest's own p2m alone, turned round, instead of the M2P.

use std::collections::HashMap;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use qemu_tests::digest::digest;
use xen_hypercall::abi::domctl::VcpuMsr;
use xen_hypercall::abi::vcpu::{VGCF_ONLINE, VcpuGuestContext};
use xen_hypercall::memory::{PAGE_TYPES_MAX, PageType};
use xen_hypercall::transport::privcmd::ForeignPages;
use xen_hypercall::{Gfn, PAGE_SIZE};
use zerocopy::{FromZeros, IntoBytes};

use crate::Probe;

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// More pfns than any guest of the lab has.
const PFNS_MAX: u64 = 1 << 24;
/// Xen's own slots of an L4 table.
const XEN_SLOTS: std::ops::Range<usize> = 256..272;

/// The guest's p2m, and the same the other way round.
struct P2m {
    /// Machine frame by pfn; all ones for what is no memory.
    mfns: Vec<u64>,
    pfns: HashMap<u64, u64>,
}

fn words(page: &[u8; PAGE_SIZE]) -> impl Iterator<Item = u64> + '_ {
    page.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word))
}

fn read(probe: &Probe, mfns: &[u64], mut each: impl FnMut(usize, &mut [u8; PAGE_SIZE]) -> Result<()>) -> Result<()> {
    let mut page = [0; PAGE_SIZE];
    for (start, batch) in (0..).step_by(PAGE_TYPES_MAX).zip(mfns.chunks(PAGE_TYPES_MAX)) {
        let frames: Vec<Gfn> = batch.iter().map(|mfn| Gfn::new(*mfn)).collect();
        let pages = ForeignPages::map(probe.xen.transport(), probe.domain, &frames)?;
        for (index, mfn) in batch.iter().enumerate() {
            let done = pages.read(index, &mut page);
            ensure!(done.is_ok(), "frame {mfn:x} cannot be mapped: {done:?}");
            each(start + index, &mut page)?;
        }
    }
    Ok(())
}

fn content(probe: &Probe, mfns: &[u64]) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    read(probe, mfns, |_, page| {
        all.extend(words(page));
        Ok(())
    })?;
    Ok(all)
}

/// The frames of the linear list, which Linux keeps, by the page table of the first vCPU: p2m_cr3 names a frame of the
/// former life until a restored guest has run.
fn list(probe: &Probe, address: u64, count: u64) -> Result<Vec<u64>> {
    let mut context = VcpuGuestContext::new_zeroed();
    probe.xen.getvcpucontext(probe.domain, 0, &mut context)?;
    let mut tables = vec![context.ctrlreg[3] >> 12];
    let last = address + count * 8 - 1;
    for shift in [39, 30, 21, 12] {
        let cut = |address: u64| (address & 0xffff_ffff_ffff) >> shift;
        let (skip, wanted) = ((cut(address) % 512) as usize, (cut(last) - cut(address) + 1) as usize);
        let entries = content(probe, &tables)?;
        tables = entries.into_iter().skip(skip).take(wanted).map(|entry| (entry & ADDRESS) >> 12).collect();
    }
    Ok(tables)
}

/// The same of the three-level tree, which the test kernel keeps: a list of lists of frames.
fn tree_leaves(probe: &Probe, root: u64, count: u64) -> Result<Vec<u64>> {
    let leaves = count.div_ceil(512) as usize;
    let mut lists = content(probe, &[root])?;
    lists.truncate(leaves.div_ceil(512));
    let mut frames = content(probe, &lists)?;
    frames.truncate(leaves);
    Ok(frames)
}

impl P2m {
    /// As the guest's shared_info has it (struct arch_shared_info: max_pfn, the tree, p2m_vaddr).
    fn read(probe: &Probe) -> Result<Self> {
        let info = probe.xen.getdomaininfo(probe.domain, None)?;
        ensure!(!info.is_hvm(), "domain {} is not PV", probe.domain);
        let mut arch = Vec::new();
        read(probe, &[info.shared_info_frame.raw()], |_, page| {
            arch.extend(words(page).skip(3088 / 8).take(6));
            Ok(())
        })?;
        let (count, tree, address) = (arch[0], arch[1], arch[4]);
        ensure!(count > 0 && count < PFNS_MAX, "no p2m: {arch:x?}");
        let leaves = if address == 0 { tree_leaves(probe, tree, count)? } else { list(probe, address, count)? };
        let mut mfns = content(probe, &leaves)?;
        mfns.truncate(count as usize);
        let pfns = (0..).zip(&mfns).filter(|(_, mfn)| **mfn < PFNS_MAX).map(|(pfn, mfn)| (*mfn, pfn)).collect();
        Ok(Self { mfns, pfns })
    }

    /// The machine frame of a pfn, if it is memory.
    fn mfn(&self, pfn: u64) -> Option<u64> {
        self.mfns.get(usize::try_from(pfn).ok()?).copied().filter(|mfn| *mfn < PFNS_MAX)
    }

    fn pfn(&self, mfn: u64) -> Result<u64> {
        self.pfns.get(&mfn).copied().with_context(|| format!("machine frame {mfn:x} is not in the p2m"))
    }

    fn normalise(&self, level: u8, page: &mut [u8; PAGE_SIZE]) -> Result<()> {
        for (slot, word) in page.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let entry = u64::from_le_bytes(*word);
            let entry = if level == 4 && XEN_SLOTS.contains(&slot) { 0 } else { entry };
            if entry & 1 == 1 {
                *word = (entry & !ADDRESS | self.pfn((entry & ADDRESS) >> 12)? << 12).to_le_bytes();
            } else {
                *word = entry.to_le_bytes();
            }
        }
        Ok(())
    }
}

/// Prints `pfn type digest` of each page, page tables with pfns; pfn and digest in hexadecimal without prefix.
pub fn frames(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let p2m = P2m::read(probe)?;
    let populated: Vec<(u64, u64)> =
        (0..).zip(&p2m.mfns).filter(|(_, m)| **m < PFNS_MAX).map(|(p, m)| (p, *m)).collect();
    for batch in populated.chunks(PAGE_TYPES_MAX) {
        let mut kinds: Vec<u64> = batch.iter().map(|(_, mfn)| *mfn).collect();
        probe.xen.page_types(probe.domain, &mut kinds)?;
        let there: Vec<(u64, u64, PageType)> = batch
            .iter()
            .zip(kinds.into_iter().map(PageType::from_raw))
            .filter(|(_, kind)| kind.has_data())
            .map(|((pfn, mfn), kind)| (*pfn, *mfn, kind))
            .collect();
        let mfns: Vec<u64> = there.iter().map(|(_, mfn, _)| *mfn).collect();
        read(probe, &mfns, |index, page| {
            let (pfn, _, kind) = there[index];
            if let Some(level) = kind.table_level() {
                p2m.normalise(level, page).with_context(|| format!("pfn {pfn:x} ({kind})"))?;
            }
            Ok(writeln!(out, "{pfn:x} {kind} {:032x}", digest(page))?)
        })?;
    }
    Ok(())
}

/// The frame that dom0 maps to see the guest's `gfn`: a PV guest speaks of its own pfns.
pub fn frame(probe: &Probe, gfn: u64) -> Result<Gfn> {
    if probe.xen.getdomaininfo(probe.domain, None)?.is_hvm() {
        return Ok(Gfn::new(gfn));
    }
    P2m::read(probe)?.mfn(gfn).map(Gfn::new).with_context(|| format!("pfn {gfn:x} is no memory"))
}

/// Prints the pfn of a machine frame.
pub fn pfn(probe: &Probe, mfn: &str, out: &mut impl Write) -> Result<()> {
    Ok(writeln!(out, "{}", P2m::read(probe)?.pfn(mfn.parse()?)?)?)
}

/// Prints `type vcpu length digest` of each record that an image has for a vCPU (libxc-migration-stream.pandoc).
pub fn vcpus(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let p2m = P2m::read(probe)?;
    let info = probe.xen.getdomaininfo(probe.domain, None)?;
    let mut line =
        |kind: u32, vcpu: u32, body: &[u8]| writeln!(out, "{kind} {vcpu} {} {:032x}", body.len(), digest(body));
    for vcpu in 0..=info.max_vcpu_id.context("no vCPU")? {
        let mut context = VcpuGuestContext::new_zeroed();
        if probe.xen.getvcpucontext(probe.domain, vcpu, &mut context).is_err() || context.flags & VGCF_ONLINE == 0 {
            continue;
        }
        if vcpu == 0 {
            context.user_regs.rdx = p2m.pfn(context.user_regs.rdx)?;
        }
        let gdt = context.gdt_ents.div_ceil(512) as usize;
        for frame in context.gdt_frames.iter_mut().take(gdt) {
            *frame = p2m.pfn(*frame)?;
        }
        context.ctrlreg[3] = p2m.pfn(context.ctrlreg[3] >> 12)? << 12;
        if context.ctrlreg[1] != 0 {
            context.ctrlreg[1] = p2m.pfn(context.ctrlreg[1] >> 12)? << 12 | 1;
        }
        line(4, vcpu, context.as_bytes())?;
        let extended = probe.xen.get_ext_vcpucontext(probe.domain, vcpu)?;
        line(5, vcpu, extended.as_bytes())?;
        let format = probe.xen.vcpuextstate_format(probe.domain, vcpu)?;
        let mut state = vec![0; format.size];
        let length = probe.xen.getvcpuextstate(probe.domain, vcpu, format, &mut state)?;
        line(6, vcpu, state.get(..length).context("longer than its room")?)?;
        let mut msrs = vec![VcpuMsr::new_zeroed(); probe.xen.vcpu_msr_count(probe.domain, vcpu)? as usize];
        let count = probe.xen.get_vcpu_msrs(probe.domain, vcpu, &mut msrs)?;
        if count > 0 {
            line(12, vcpu, msrs.get(..count).context("more than their room")?.as_bytes())?;
        }
    }
    Ok(())
}
