//! A PV guest as the engine's target: its gfns are pfns. The ports of the engine over [`PvHost`].
//!
//! Invariants: a page goes out as it is or, a page table, with pfns; what can be neither now is *unsettled*, never left
//! out. Its type is noted with the copy. All memory is had in `open`, before the guest is touched.

use alloc::boxed::Box;
use alloc::vec::Vec;

use xen_hypercall::types::{Gfn, Mfn};

use super::host::{Maps, PvHost};
use super::p2m::{self, P2m};
use super::tables::{Unsettled, level, normalise};
use super::types::PageTypes;
use super::vcpu::{self, Convert, Needs, VCPU_CONTEXT_BYTES, VcpuContext};
use crate::ports::{
    BATCH_MAX, DirtyLog, DomainControl, DomainInfo, Fill, GuestMemory, Landing, OneByOne, Page, PageError, PageSink,
    PageType, RecordKind, Seen, Stop, TargetError,
};
use crate::store::Digest;

/// X86_PV_INFO of a 64-bit guest: 8 bytes a word, 4 levels, reserved.
const PV_INFO: [u8; 8] = [8, 4, 0, 0, 0, 0, 0, 0];

/// errno of a pfn that is no memory (ENOENT).
const NO_MEMORY_THERE: PageError = PageError { errno: 2 };

/// Most vCPUs of a PV guest (xen/include/public/xen.h knows 8192; libxc's tools stop far below).
const VCPUS_MAX: u32 = 512;

/// Looks for pages that moved while their types were asked.
const MOVES_MAX: u32 = 4;

/// A PV guest.
pub struct PvTarget<H: PvHost> {
    host: H,
    p2m: P2m<H::Maps>,
    types: PageTypes,
    batch: Frames,
    page: Box<Page>,
    /// 5 KiB that do not belong on the stack.
    context: Box<VcpuContext>,
    needs: Needs,
    record: Vec<u8>,
}

impl<H: PvHost> PvTarget<H> {
    /// Finds the guest's p2m.
    pub fn open(mut host: H) -> Result<Self, TargetError> {
        if host.address_bits()? != 64 {
            return Err(TargetError::Kind { what: "a 32-bit PV guest" });
        }
        let vcpus = host.info()?.max_vcpu_id.min(VCPUS_MAX - 1) as usize + 1;
        let p2m = P2m::open(&mut host)?;
        let (mut types, mut needs, mut record) = (PageTypes::default(), Needs::default(), Vec::new());
        // The frames of the p2m make the longest record that is put together here, but for registers.
        let record_bytes = 8 + VCPU_CONTEXT_BYTES + (p2m.end() / 64) as usize;
        let room = types.reach(p2m.end()) && needs.reserve(vcpus) && record.try_reserve_exact(record_bytes).is_ok();
        let batch = Frames::try_new().filter(|_| room).ok_or(TargetError::NoMemory)?;
        let context = context()?;
        Ok(Self { host, p2m, types, batch, page: p2m::page()?, context, needs, record })
    }

    /// The p2m as it is now; the guest's shared_info is in `page` then.
    fn look(&mut self) -> Result<(), TargetError> {
        self.p2m.refresh(&mut self.host, &mut self.page)?;
        if self.types.reach(self.p2m.end()) { Ok(()) } else { Err(TargetError::NoMemory) }
    }

    /// All of the guest's state. Unless it `stands`, what does not agree is passed over: it is of no use then.
    fn records(&mut self, stands: bool, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        self.look()?;
        judged(self.p2m.frames_record(&mut self.record), stands)?;
        out(RecordKind::X86_PV_P2M_FRAMES, &self.record);
        self.host.platform_records(out)?;
        out(RecordKind::SHARED_INFO, &*self.page);
        self.vcpus(stands, out)
    }

    /// Each online vCPU's records, in libxc's order.
    fn vcpus(&mut self, stands: bool, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        let last = self.host.info()?.max_vcpu_id;
        if last >= VCPUS_MAX || !self.needs.reserve(last as usize + 1) {
            return Err(TargetError::NoMemory);
        }
        let context = &mut *self.context;
        for vcpu in 0..=last {
            if !self.host.vcpu_context(vcpu, context)? || !vcpu::is_online(context) {
                continue;
            }
            let p2m = &self.p2m;
            let mut convert = Convert { pfn_of: |mfn| p2m.pfn_of(mfn), needs: &mut self.needs };
            judged(convert.context(vcpu, context), stands)?;
            out(RecordKind::X86_PV_VCPU_BASIC, vcpu_record(&mut self.record, vcpu, context)?);
            let (record, mut trouble) = (&mut self.record, None);
            self.host.vcpu_extras(vcpu, &mut |kind, body| match vcpu_record(record, vcpu, body) {
                Ok(body) => out(kind, body),
                Err(error) => trouble = Some(error),
            })?;
            if let Some(error) = trouble {
                return Err(error);
            }
        }
        Ok(())
    }
}

fn context() -> Result<Box<VcpuContext>, TargetError> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(VCPU_CONTEXT_BYTES).map_err(|_| TargetError::NoMemory)?;
    bytes.resize(VCPU_CONTEXT_BYTES, 0);
    bytes.into_boxed_slice().try_into().map_err(|_| TargetError::NoMemory)
}

/// Of a guest that runs nothing has to agree with anything.
fn judged(answer: Result<(), TargetError>, stands: bool) -> Result<(), TargetError> {
    answer.or_else(|error| if stands || !matches!(error, TargetError::P2m { .. }) { Err(error) } else { Ok(()) })
}

/// vCPU u32, zero u32, then what Xen gave.
fn vcpu_record<'r>(record: &'r mut Vec<u8>, vcpu: u32, body: &[u8]) -> Result<&'r [u8], TargetError> {
    record.clear();
    record.try_reserve(8 + body.len()).map_err(|_| TargetError::NoMemory)?;
    record.extend_from_slice(&u64::from(vcpu).to_le_bytes());
    record.extend_from_slice(body);
    Ok(record)
}

impl<H: PvHost> DomainControl for PvTarget<H> {
    fn info(&mut self) -> Result<DomainInfo, TargetError> {
        self.host.info()
    }

    /// Highest pfn of the p2m, which is looked at anew.
    fn max_gfn(&mut self) -> Result<Gfn, TargetError> {
        self.look()?;
        Ok(Gfn::new(self.p2m.end() - 1))
    }

    fn static_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        out(RecordKind::X86_PV_INFO, &PV_INFO);
        self.host.static_records(out)
    }

    fn platform_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        self.records(true, out)
    }

    fn rehearse_platform(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        self.records(false, out)
    }

    fn hypercalls(&self) -> u64 {
        self.host.hypercalls()
    }

    fn arrangement(&mut self, page: &mut dyn FnMut(Gfn)) -> Result<Option<Digest>, TargetError> {
        self.look()?;
        self.p2m.digest(&mut self.page, page).map(Some)
    }

    fn page_types(&mut self) -> Result<Vec<u8>, TargetError> {
        self.needs.check(&self.types)?;
        self.p2m.check(&self.types)?;
        self.types.encode().ok_or(TargetError::NoMemory)
    }
}

impl<H: PvHost> DirtyLog for PvTarget<H> {
    fn enable(&mut self) -> Result<(), TargetError> {
        self.host.enable()
    }

    fn clean(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.host.clean(into)
    }

    fn peek(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.host.peek(into)
    }

    fn peek_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.host.peek_final(into)
    }

    fn clean_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.host.clean_final(into)
    }

    fn dirty_count(&mut self) -> Result<u64, TargetError> {
        self.host.dirty_count()
    }

    fn still_on(&mut self) -> Result<bool, TargetError> {
        self.host.still_on()
    }

    fn still_on_as_seen(&mut self) -> Result<bool, TargetError> {
        self.host.still_on_as_seen()
    }

    fn off(&mut self) -> Result<(), TargetError> {
        self.host.off()
    }
}

/// The frames of a batch of pfns: what goes to Xen, and for each its place in the batch.
struct Frames {
    mfns: Vec<Mfn>,
    places: Vec<usize>,
    kinds: Vec<PageType>,
}

impl Frames {
    fn try_new() -> Option<Self> {
        let (mut mfns, mut places, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        mfns.try_reserve_exact(BATCH_MAX).ok()?;
        places.try_reserve_exact(BATCH_MAX).ok()?;
        kinds.try_reserve_exact(BATCH_MAX).ok()?;
        Some(Self { mfns, places, kinds })
    }

    /// Asks again for what was no frame of the guest and has another one by now: the guest moved it in between.
    fn ask_moved<H: PvHost>(&mut self, host: &mut H, p2m: &P2m<H::Maps>, pfns: &[Gfn]) -> Result<bool, TargetError> {
        let mut moved = false;
        for ((mfn, &place), kind) in self.mfns.iter_mut().zip(&self.places).zip(&mut self.kinds) {
            let now = p2m.mfn_of(pfns[place].raw()).filter(|now| *kind == PageType::XTAB && now != mfn);
            if let Some(now) = now {
                *mfn = now;
                moved = true;
                host.frame_types(&[now], core::slice::from_mut(kind))?;
            }
        }
        Ok(moved)
    }

    /// The frames behind `pfns`, as far as they are memory by the guest's word, and what Xen says they are.
    fn load<H: PvHost>(&mut self, host: &mut H, p2m: &P2m<H::Maps>, pfns: &[Gfn]) -> Result<(), TargetError> {
        if pfns.len() > BATCH_MAX {
            return Err(TargetError::Hypercall { op: "a batch of frames", errno: 0 });
        }
        self.mfns.clear();
        self.places.clear();
        self.kinds.clear();
        for (place, pfn) in pfns.iter().enumerate() {
            if let Some(mfn) = p2m.mfn_of(pfn.raw()) {
                self.mfns.push(mfn);
                self.places.push(place);
            }
        }
        self.kinds.resize(self.mfns.len(), PageType::XTAB);
        if self.mfns.is_empty() { Ok(()) } else { host.frame_types(&self.mfns, &mut self.kinds) }
    }
}

impl<H: PvHost> GuestMemory for PvTarget<H> {
    fn types(&mut self, gfns: &[Gfn], out: &mut [PageType]) -> Result<(), TargetError> {
        self.batch.load(&mut self.host, &self.p2m, gfns)?;
        for _ in 0..MOVES_MAX {
            if !self.batch.ask_moved(&mut self.host, &self.p2m, gfns)? {
                break;
            }
        }
        out.fill(PageType::XTAB);
        for (&place, &kind) in self.batch.places.iter().zip(&self.batch.kinds) {
            out[place] = kind;
        }
        Ok(())
    }

    fn copy(&mut self, gfns: &[Gfn], out: &mut PageSink<'_>) -> Result<(), TargetError> {
        let Self { host, p2m, types, batch, page, .. } = self;
        batch.load(host, p2m, gfns)?;
        Hand { p2m, types, batch, gfns, at: &mut OneByOne { page, out }, next: 0 }.run(host, Seen::Now)
    }

    fn land(&mut self, gfns: &[Gfn], at: &mut dyn Landing) -> Result<(), TargetError> {
        let Self { host, p2m, types, batch, .. } = self;
        batch.load(host, p2m, gfns)?;
        Hand { p2m, types, batch, gfns, at, next: 0 }.run(host, Seen::Later)
    }

    fn untold(&mut self, gfns: &[Gfn], odd: &mut dyn FnMut(Gfn)) -> Result<(), TargetError> {
        self.batch.load(&mut self.host, &self.p2m, gfns)?;
        let Frames { mfns, places, kinds } = &self.batch;
        let mut frames = places.iter().zip(mfns.iter().zip(kinds)).peekable();
        for (place, &gfn) in gfns.iter().enumerate() {
            let frame = frames.next_if(|(at, _)| **at == place).map(|(_, frame)| frame);
            let told = frame.is_some_and(|(&mfn, &kind)| {
                let ordinary = kind == PageType::NOTAB && self.types.get(gfn.raw()) == PageType::NOTAB;
                ordinary && self.p2m.pfn_of(mfn).is_some_and(|pfn| pfn.raw() == gfn.raw())
            });
            if !told {
                odd(gfn);
            }
        }
        Ok(())
    }

    fn let_go(&mut self) -> Result<(), TargetError> {
        self.host.let_go_batch()
    }
}

/// Lands the pages of a batch, each in its place.
struct Hand<'a, M> {
    p2m: &'a P2m<M>,
    types: &'a mut PageTypes,
    batch: &'a Frames,
    gfns: &'a [Gfn],
    at: &'a mut dyn Landing,
    /// Pages below this place have landed.
    next: usize,
}

impl<M: Maps> Hand<'_, M> {
    fn run<H: PvHost<Maps = M>>(mut self, host: &mut H, seen: Seen) -> Result<(), TargetError> {
        if !self.batch.mfns.is_empty() {
            host.land_frames(&self.batch.mfns, &mut self, seen)?;
        }
        // All frames came, so what is left is no memory; else the caller has stopped us.
        if self.next > self.batch.places.last().copied().unwrap_or(0) || self.batch.mfns.is_empty() {
            let _ = self.gaps(self.gfns.len());
        }
        Ok(())
    }

    /// The pfns before `place` that are no memory.
    fn gaps(&mut self, place: usize) -> Result<(), Stop> {
        while self.next < place {
            self.at.land(self.next, &mut |_| Err(NO_MEMORY_THERE))?;
            self.next += 1;
        }
        Ok(())
    }
}

impl<M: Maps> Landing for Hand<'_, M> {
    fn land(&mut self, index: usize, fill: &mut Fill<'_>) -> Result<(), Stop> {
        let Frames { mfns, places, kinds } = self.batch;
        let (place, mfn, kind) = (places[index], mfns[index], kinds[index]);
        self.gaps(place)?;
        let (p2m, types, pfn) = (self.p2m, &mut *self.types, self.gfns[place].raw());
        self.at.land(place, &mut |page| {
            fill(page).map_err(|_| PageError::UNSETTLED)?;
            settle(p2m, pfn, mfn, kind, page)?;
            types.set(pfn, kind);
            Ok(())
        })?;
        self.next = place + 1;
        Ok(())
    }
}

/// The copy of a frame as the page of `pfn`. The guest may have given the pfn another frame meanwhile; and log-dirty
/// marks the pfn of the M2P: a frame that has another one there is not tracked as this page.
fn settle<M: Maps>(p2m: &P2m<M>, pfn: u64, mfn: Mfn, kind: PageType, page: &mut Page) -> Result<(), PageError> {
    if !kind.has_data() || p2m.pfn_of(mfn).is_none_or(|there| there.raw() != pfn) {
        return Err(PageError::UNSETTLED);
    }
    let Some(level) = level(kind) else { return Ok(()) };
    normalise(page, level, |mfn| p2m.pfn_of(mfn)).map_err(|Unsettled| PageError::UNSETTLED)
}
