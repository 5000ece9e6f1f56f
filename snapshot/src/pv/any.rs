//! A target of either kind behind one type, so that the stub carries one engine and not two.

use alloc::boxed::Box;
use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use super::host::PvHost;
use super::target::PvTarget;
use crate::ports::{
    DirtyLog, DomainControl, DomainInfo, GuestMemory, Landing, PageSink, PageType, RecordKind, TargetError,
};
use crate::store::Digest;

/// A guest.
pub enum AnyTarget<H: PvHost> {
    /// PVH or HVM: the host's own ports serve it.
    Translated(Box<H>),
    /// PV.
    Pv(Box<PvTarget<H>>),
}

impl<H: PvHost + GuestMemory> AnyTarget<H> {
    /// The target for the guest behind `host`, by what Xen says that it is.
    pub fn open(mut host: H) -> Result<Self, TargetError> {
        if host.info()?.hvm {
            return Ok(Self::Translated(Box::new(host)));
        }
        PvTarget::open(host).map(|target| Self::Pv(Box::new(target)))
    }

    fn domain(&mut self) -> &mut dyn DomainControl {
        match self {
            Self::Translated(host) => &mut **host,
            Self::Pv(target) => &mut **target,
        }
    }

    fn log(&mut self) -> &mut dyn DirtyLog {
        match self {
            Self::Translated(host) => &mut **host,
            Self::Pv(target) => &mut **target,
        }
    }

    fn memory(&mut self) -> &mut dyn GuestMemory {
        match self {
            Self::Translated(host) => &mut **host,
            Self::Pv(target) => &mut **target,
        }
    }
}

impl<H: PvHost + GuestMemory> DomainControl for AnyTarget<H> {
    fn info(&mut self) -> Result<DomainInfo, TargetError> {
        self.domain().info()
    }

    fn max_gfn(&mut self) -> Result<Gfn, TargetError> {
        self.domain().max_gfn()
    }

    fn static_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        self.domain().static_records(out)
    }

    fn platform_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        self.domain().platform_records(out)
    }

    fn rehearse_platform(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        self.domain().rehearse_platform(out)
    }

    fn hypercalls(&self) -> u64 {
        match self {
            Self::Translated(host) => host.hypercalls(),
            Self::Pv(target) => target.hypercalls(),
        }
    }

    fn arrangement(&mut self, page: &mut dyn FnMut(Gfn)) -> Result<Option<Digest>, TargetError> {
        self.domain().arrangement(page)
    }

    fn page_types(&mut self) -> Result<Vec<u8>, TargetError> {
        self.domain().page_types()
    }
}

impl<H: PvHost + GuestMemory> DirtyLog for AnyTarget<H> {
    fn enable(&mut self) -> Result<(), TargetError> {
        self.log().enable()
    }

    fn clean(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.log().clean(into)
    }

    fn peek(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.log().peek(into)
    }

    fn peek_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.log().peek_final(into)
    }

    fn clean_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.log().clean_final(into)
    }

    fn dirty_count(&mut self) -> Result<u64, TargetError> {
        self.log().dirty_count()
    }

    fn still_on(&mut self) -> Result<bool, TargetError> {
        self.log().still_on()
    }

    fn still_on_as_seen(&mut self) -> Result<bool, TargetError> {
        self.log().still_on_as_seen()
    }

    fn off(&mut self) -> Result<(), TargetError> {
        self.log().off()
    }
}

impl<H: PvHost + GuestMemory> GuestMemory for AnyTarget<H> {
    fn types(&mut self, gfns: &[Gfn], out: &mut [PageType]) -> Result<(), TargetError> {
        self.memory().types(gfns, out)
    }

    fn copy(&mut self, gfns: &[Gfn], out: &mut PageSink<'_>) -> Result<(), TargetError> {
        self.memory().copy(gfns, out)
    }

    fn land(&mut self, gfns: &[Gfn], at: &mut dyn Landing) -> Result<(), TargetError> {
        self.memory().land(gfns, at)
    }

    fn untold(&mut self, gfns: &[Gfn], odd: &mut dyn FnMut(Gfn)) -> Result<(), TargetError> {
        self.memory().untold(gfns, odd)
    }

    fn let_go(&mut self) -> Result<(), TargetError> {
        self.memory().let_go()
    }
}
