//! What the drivers ask of the hypervisor and of the memory manager: time, shareable pages, grants, event channels.
//!
//! The trait takes `&self`, so that one platform serves all drivers of a single-threaded stub; a reference to a
//! platform is a platform. Implementers own the page, grant and port tables; drivers own what they were given and give
//! all of it back. A driver must never free a page that a peer still holds: it leaks it and reports the leak.

use crate::ring::shared::SharedPage;
use crate::types::{DomId, EvtchnPort, GrantRef};

#[cfg(any(test, feature = "fake"))]
pub mod fake;

/// What a peer may do with a granted page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The peer may map the page for reading (GTF_readonly).
    ReadOnly,
    /// The peer may map the page for reading and writing.
    ReadWrite,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// At least one of the ports is pending (its bit is still set).
    Event,
    /// The deadline passed, or the wait ended for no reason of ours (a spurious wake-up is allowed).
    Timeout,
}

/// Why the platform could not do what was asked. The operator must act on the first three (memory, `gnttab` and
/// `max_event_channels` limits), nobody on `StillMapped`: it ends when the peer lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformError {
    /// No page left in the budget.
    NoMemory,
    /// The grant table is full.
    NoGrant,
    /// Xen has no event channel for us.
    NoPort,
    /// The peer still maps the grant; the page must not be reused.
    StillMapped,
    /// A hypercall failed with this (negative) errno.
    Hypercall(i32),
}

impl core::fmt::Display for PlatformError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoMemory => f.write_str("no shareable page left"),
            Self::NoGrant => f.write_str("grant table full"),
            Self::NoPort => f.write_str("no event channel left"),
            Self::StillMapped => f.write_str("the peer still maps the page"),
            Self::Hypercall(errno) => write!(f, "hypercall failed ({errno})"),
        }
    }
}

/// The hypervisor and memory manager as the drivers see them.
pub trait Platform {
    /// Monotonic time in nanoseconds (a PV guest: system time of its pvclock).
    fn now_ns(&self) -> u64;

    /// A zeroed page of 4096 bytes that holds nothing else and may be granted (CVE-2022-33742: a granted page must not
    /// carry other data).
    fn alloc_page(&self) -> Result<SharedPage, PlatformError>;

    /// Takes a page back. The caller has ended every grant of it.
    fn free_page(&self, page: SharedPage);

    /// Lets `peer` map the page.
    fn grant(&self, peer: DomId, page: &SharedPage, access: Access) -> Result<GrantRef, PlatformError>;

    /// Ends a grant. [`PlatformError::StillMapped`] when the peer holds it; the grant then stays as it is.
    fn ungrant(&self, gref: GrantRef) -> Result<(), PlatformError>;

    /// A new port that `peer` may bind (EVTCHNOP_alloc_unbound).
    fn alloc_unbound(&self, peer: DomId) -> Result<EvtchnPort, PlatformError>;

    /// A new local port bound to an unbound port of `peer` (EVTCHNOP_bind_interdomain).
    fn bind_interdomain(&self, peer: DomId, remote: EvtchnPort) -> Result<EvtchnPort, PlatformError>;

    /// Sends an event. Failures show as silence of the peer, which every driver bounds anyway.
    fn notify(&self, port: EvtchnPort);

    /// Closes a port of ours.
    fn close_port(&self, port: EvtchnPort);

    /// Clears the port's pending bit atomically and says whether it was set.
    fn take_pending(&self, port: EvtchnPort) -> bool;

    /// Returns at once if a port is pending, else sleeps until one is or `deadline_ns` has passed (SCHEDOP_poll). Takes
    /// no pending bit. At most 128 ports.
    fn wait(&self, ports: &[EvtchnPort], deadline_ns: u64) -> Wake;
}

impl<P: Platform + ?Sized> Platform for &P {
    fn now_ns(&self) -> u64 {
        (**self).now_ns()
    }
    fn alloc_page(&self) -> Result<SharedPage, PlatformError> {
        (**self).alloc_page()
    }
    fn free_page(&self, page: SharedPage) {
        (**self).free_page(page);
    }
    fn grant(&self, peer: DomId, page: &SharedPage, access: Access) -> Result<GrantRef, PlatformError> {
        (**self).grant(peer, page, access)
    }
    fn ungrant(&self, gref: GrantRef) -> Result<(), PlatformError> {
        (**self).ungrant(gref)
    }
    fn alloc_unbound(&self, peer: DomId) -> Result<EvtchnPort, PlatformError> {
        (**self).alloc_unbound(peer)
    }
    fn bind_interdomain(&self, peer: DomId, remote: EvtchnPort) -> Result<EvtchnPort, PlatformError> {
        (**self).bind_interdomain(peer, remote)
    }
    fn notify(&self, port: EvtchnPort) {
        (**self).notify(port);
    }
    fn close_port(&self, port: EvtchnPort) {
        (**self).close_port(port);
    }
    fn take_pending(&self, port: EvtchnPort) -> bool {
        (**self).take_pending(port)
    }
    fn wait(&self, ports: &[EvtchnPort], deadline_ns: u64) -> Wake {
        (**self).wait(ports, deadline_ns)
    }
}
