//! The drivers' platform, over hypercalls: what `xen_drivers` asks of a hypervisor, answered by this one.
//!
//! A value of this type carries nothing: memory, grants and ports are the domain's, and the domain has one of each. The
//! counters are what the end of a take is checked against: it must leave as many pages, grants and ports as it found.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use xen_drivers::platform::{Access, Platform, PlatformError, Wake};
use xen_drivers::ring::shared::SharedPage;
use xen_hypercall::{DomId, Error, EvtchnPort, GrantRef, XenErrno, event, sched};

use crate::grants::{self, GrantError};
use crate::mm::{self, layout};
use crate::{hv, shared_info, time};

/// Ports that are open and not the toolstack's.
static PORTS: AtomicUsize = AtomicUsize::new(0);
/// Shareable pages that are handed out.
static PAGES: AtomicUsize = AtomicUsize::new(0);

/// The platform.
#[derive(Debug, Clone, Copy, Default)]
pub struct Xen;

/// What the stub holds of things that other domains see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Shareable pages.
    pub pages: usize,
    /// Grants.
    pub grants: usize,
    /// Event channel ports, those of console and xenstore not counted.
    pub ports: usize,
    /// Slots of the window that may hold a frame of another domain.
    pub mappings: usize,
}

impl Held {
    /// Counts now.
    pub fn now() -> Self {
        Self {
            pages: PAGES.load(Ordering::Relaxed),
            grants: grants::in_use(),
            ports: PORTS.load(Ordering::Relaxed),
            mappings: mm::window::in_use(),
        }
    }
}

impl core::fmt::Display for Held {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { pages, grants, ports, mappings } = self;
        write!(out, "{pages} pages, {grants} grants, {ports} ports, {mappings} mappings")
    }
}

fn refused(error: Error) -> PlatformError {
    match error.xen() {
        Some(XenErrno::ENOSPC) => PlatformError::NoPort,
        errno => PlatformError::Hypercall(-errno.unwrap_or(XenErrno::EINVAL).raw()),
    }
}

impl Platform for Xen {
    fn now_ns(&self) -> u64 {
        time::now_ns()
    }

    fn alloc_page(&self) -> Result<SharedPage, PlatformError> {
        let pfn = mm::take_frame().ok_or(PlatformError::NoMemory)?;
        let base = NonNull::new(layout::address_of(pfn) as *mut u8).ok_or(PlatformError::NoMemory)?;
        PAGES.fetch_add(1, Ordering::Relaxed);
        // SAFETY: a whole frame of ours, cleared, mapped for ever, and with this page alone until `free_page`.
        Ok(unsafe { SharedPage::from_raw(base) })
    }

    fn free_page(&self, page: SharedPage) {
        if let Some(pfn) = layout::pfn_of(page.address().as_ptr() as u64) {
            PAGES.fetch_sub(1, Ordering::Relaxed);
            mm::give_frame(pfn);
        }
    }

    fn grant(&self, peer: DomId, page: &SharedPage, access: Access) -> Result<GrantRef, PlatformError> {
        let pfn = layout::pfn_of(page.address().as_ptr() as u64).ok_or(PlatformError::NoMemory)?;
        let mfn = mm::mfn_of(pfn).ok_or(PlatformError::NoMemory)?;
        grants::open(peer, mfn, access == Access::ReadOnly).map_err(|_| PlatformError::NoGrant)
    }

    fn ungrant(&self, gref: GrantRef) -> Result<(), PlatformError> {
        grants::close(gref).map_err(|error| match error {
            GrantError::InUse => PlatformError::StillMapped,
            GrantError::Full | GrantError::Unknown => PlatformError::NoGrant,
        })
    }

    fn alloc_unbound(&self, peer: DomId) -> Result<EvtchnPort, PlatformError> {
        let port = event::alloc_unbound(&hv::xen(), peer).map_err(refused)?;
        PORTS.fetch_add(1, Ordering::Relaxed);
        Ok(port)
    }

    fn bind_interdomain(&self, peer: DomId, remote: EvtchnPort) -> Result<EvtchnPort, PlatformError> {
        let port = event::bind_interdomain(&hv::xen(), peer, remote).map_err(refused)?;
        PORTS.fetch_add(1, Ordering::Relaxed);
        Ok(port)
    }

    fn notify(&self, port: EvtchnPort) {
        hv::notify(port);
    }

    fn close_port(&self, port: EvtchnPort) {
        if event::close(&hv::xen(), port).is_ok() {
            PORTS.fetch_sub(1, Ordering::Relaxed);
            // A port number is used again: the next owner must not find our event.
            shared_info::take_pending(port);
        }
    }

    fn take_pending(&self, port: EvtchnPort) -> bool {
        shared_info::take_pending(port)
    }

    fn wait(&self, ports: &[EvtchnPort], deadline_ns: u64) -> Wake {
        let pending = || ports.iter().any(|&port| shared_info::is_pending(port));
        if !pending() && self.now_ns() < deadline_ns {
            // Xen takes a deadline of 0 for "never"; an error (too many ports) shows as an early end of the wait.
            _ = sched::poll(&hv::xen(), ports, deadline_ns.clamp(1, i64::MAX as u64));
        }
        if pending() { Wake::Event } else { Wake::Timeout }
    }
}
