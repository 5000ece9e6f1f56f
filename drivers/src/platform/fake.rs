//! A hypervisor for host tests, stricter than Xen.
//!
//! It counts pages, grants and ports and fails the test that leaks one, refuses a free of a granted page, keeps freed
//! pages poisoned and checks the poison at the end, so a write after revoke is found. Peers (fake backends) are
//! closures that run only inside [`Platform::wait`] or [`FakePlatform::step`]; time passes only there. No threads, no
//! sleeps.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a fake fails the test that misuses it")]

use super::{Access, Platform, PlatformError, Wake};
use crate::ring::shared::{PAGE_SIZE, SharedPage, heap};
use crate::types::{DomId, EvtchnPort, GrantRef};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

/// What a freed page holds until the end of the test.
const POISON: u8 = 0xa5;
/// References 0-7 are reserved by Xen.
const FIRST_GRANT: u32 = 8;
/// Rounds of one wait in which peers make progress without any event for the driver: a fake that loops.
const STEPS_PER_WAIT: usize = 100_000;

/// One peer's step: does a bounded piece of work, says whether there was any.
pub type Peer = Box<dyn FnMut() -> bool>;

#[derive(Debug)]
struct Grant {
    page: usize,
    peer: DomId,
    access: Access,
    maps: u32,
}

#[derive(Debug)]
struct PageState {
    page: SharedPage,
    free: bool,
}

#[derive(Default)]
struct Inner {
    now_ns: Cell<u64>,
    step_ns: Cell<u64>,
    /// Allocations (pages, grants, ports) that still succeed; `None` = all.
    budget: Cell<Option<u32>>,
    pages: RefCell<Vec<PageState>>,
    grants: RefCell<BTreeMap<u32, Grant>>,
    next_grant: Cell<u32>,
    /// Local ports: number -> pending.
    ports: RefCell<BTreeMap<u32, bool>>,
    next_port: Cell<u32>,
    /// Events that the driver sent, per port, not yet taken by the peer.
    sent: RefCell<BTreeMap<u32, u64>>,
    notifications: Cell<u64>,
    peers: RefCell<Vec<Peer>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for state in self.pages.get_mut().drain(..) {
            heap::free_page(state.page);
        }
    }
}

/// A handle of the fake hypervisor; clones share it.
#[derive(Clone)]
pub struct FakePlatform(Rc<Inner>);

/// The owner: checks for leaks when it is dropped.
pub struct FakeHost(FakePlatform);

impl core::ops::Deref for FakeHost {
    type Target = FakePlatform;
    fn deref(&self) -> &FakePlatform {
        &self.0
    }
}

impl Default for FakeHost {
    fn default() -> Self {
        let inner = Inner::default();
        inner.step_ns.set(1000);
        inner.next_grant.set(FIRST_GRANT);
        inner.next_port.set(1);
        Self(FakePlatform(Rc::new(inner)))
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        // Peers hold clones of the platform: cut the circle.
        let peers = self.0.0.peers.take();
        drop(peers);
        if !panicking() {
            self.0.assert_clean();
        }
    }
}

/// Whether the test has failed already.
fn panicking() -> bool {
    #[cfg(any(test, feature = "std"))]
    return std::thread::panicking();
    #[cfg(not(any(test, feature = "std")))]
    false
}

impl FakePlatform {
    /// Adds a peer that runs in every step.
    pub fn add_peer(&self, peer: Peer) {
        self.0.peers.borrow_mut().push(peer);
    }

    /// Runs every peer once; whether any did something.
    pub fn step(&self) -> bool {
        self.0.now_ns.set(self.0.now_ns.get() + self.0.step_ns.get());
        let mut peers = self.0.peers.take();
        let mut progress = false;
        for peer in &mut peers {
            progress |= peer();
        }
        self.0.peers.borrow_mut().append(&mut peers);
        progress
    }

    /// Moves the clock forward to `at_ns`.
    pub fn advance_to(&self, at_ns: u64) {
        self.0.now_ns.set(self.0.now_ns.get().max(at_ns));
    }

    /// Time that one step takes.
    pub fn set_step_ns(&self, step_ns: u64) {
        self.0.step_ns.set(step_ns);
    }

    /// Lets only so many more allocations (pages, grants, ports) succeed.
    pub fn set_budget(&self, budget: Option<u32>) {
        self.0.budget.set(budget);
    }

    /// The peer's mapping of a grant; `None` if the reference means nothing, is another domain's, or is read-only.
    pub fn map(&self, peer: DomId, gref: GrantRef, write: bool) -> Option<SharedPage> {
        let mut grants = self.0.grants.borrow_mut();
        let grant = grants.get_mut(&gref.raw())?;
        if grant.peer != peer || (write && grant.access == Access::ReadOnly) {
            return None;
        }
        grant.maps += 1;
        Some(self.0.pages.borrow()[grant.page].page.alias())
    }

    /// The peer lets a mapping go.
    pub fn unmap(&self, gref: GrantRef) {
        let mut grants = self.0.grants.borrow_mut();
        let grant = grants.get_mut(&gref.raw()).expect("unmap of a grant that is gone");
        grant.maps = grant.maps.checked_sub(1).expect("unmap without map");
    }

    /// The peer sends an event to one of our ports.
    pub fn raise(&self, port: EvtchnPort) {
        if let Some(pending) = self.0.ports.borrow_mut().get_mut(&port.raw()) {
            *pending = true;
        }
    }

    /// The peer takes the events that we sent over `port`; how many there were.
    pub fn take_sent(&self, port: EvtchnPort) -> u64 {
        self.0.sent.borrow_mut().remove(&port.raw()).unwrap_or(0)
    }

    /// Events sent by the drivers so far.
    pub fn notifications(&self) -> u64 {
        self.0.notifications.get()
    }

    /// Live pages, grants and ports.
    pub fn held(&self) -> (usize, usize, usize) {
        let pages = self.0.pages.borrow().iter().filter(|state| !state.free).count();
        (pages, self.0.grants.borrow().len(), self.0.ports.borrow().len())
    }

    /// Fails if anything is still held, or if a freed page was written to.
    pub fn assert_clean(&self) {
        assert_eq!(self.held(), (0, 0, 0), "leaked (pages, grants, ports)");
        for state in self.0.pages.borrow().iter() {
            let mut bytes = [0u8; PAGE_SIZE];
            state.page.read_bytes(0, &mut bytes);
            assert!(bytes.iter().all(|byte| *byte == POISON), "a freed page was written to");
        }
    }

    /// Forgets what is held on purpose (a backend that never lets go); returns what it was.
    pub fn forgive_leaks(&self) -> (usize, usize, usize) {
        let held = self.held();
        self.0.grants.borrow_mut().clear();
        self.0.ports.borrow_mut().clear();
        for state in self.0.pages.borrow_mut().iter_mut() {
            state.page.fill(POISON);
            state.free = true;
        }
        held
    }

    fn spend(&self, error: PlatformError) -> Result<(), PlatformError> {
        match self.0.budget.get() {
            Some(0) => Err(error),
            Some(left) => {
                self.0.budget.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn page_index(&self, page: &SharedPage) -> usize {
        let found = self.0.pages.borrow().iter().position(|state| state.page.address() == page.address());
        found.expect("a page of another platform")
    }

    fn new_port(&self) -> Result<EvtchnPort, PlatformError> {
        self.spend(PlatformError::NoPort)?;
        let number = self.0.next_port.get();
        self.0.next_port.set(number + 1);
        self.0.ports.borrow_mut().insert(number, false);
        Ok(EvtchnPort::new(number))
    }

    fn any_pending(&self, ports: &[EvtchnPort]) -> bool {
        let table = self.0.ports.borrow();
        ports.iter().any(|port| *table.get(&port.raw()).expect("wait on a closed port"))
    }
}

impl Platform for FakePlatform {
    fn now_ns(&self) -> u64 {
        self.0.now_ns.get()
    }

    fn alloc_page(&self) -> Result<SharedPage, PlatformError> {
        self.spend(PlatformError::NoMemory)?;
        let page = heap::alloc_page();
        let handle = page.alias();
        self.0.pages.borrow_mut().push(PageState { page, free: false });
        Ok(handle)
    }

    fn free_page(&self, page: SharedPage) {
        let index = self.page_index(&page);
        let granted = self.0.grants.borrow().values().any(|grant| grant.page == index);
        assert!(!granted, "free of a page that is still granted");
        let state = &mut self.0.pages.borrow_mut()[index];
        assert!(!state.free, "double free of a page");
        state.free = true;
        state.page.fill(POISON);
    }

    fn grant(&self, peer: DomId, page: &SharedPage, access: Access) -> Result<GrantRef, PlatformError> {
        self.spend(PlatformError::NoGrant)?;
        let page = self.page_index(page);
        assert!(!self.0.pages.borrow()[page].free, "grant of a freed page");
        let number = self.0.next_grant.get();
        self.0.next_grant.set(number + 1);
        self.0.grants.borrow_mut().insert(number, Grant { page, peer, access, maps: 0 });
        Ok(GrantRef::new(number))
    }

    fn ungrant(&self, gref: GrantRef) -> Result<(), PlatformError> {
        let mut grants = self.0.grants.borrow_mut();
        let grant = grants.get(&gref.raw()).expect("ungrant of a grant that is gone");
        if grant.maps > 0 {
            return Err(PlatformError::StillMapped);
        }
        grants.remove(&gref.raw());
        Ok(())
    }

    fn alloc_unbound(&self, _peer: DomId) -> Result<EvtchnPort, PlatformError> {
        self.new_port()
    }

    fn bind_interdomain(&self, _peer: DomId, _remote: EvtchnPort) -> Result<EvtchnPort, PlatformError> {
        self.new_port()
    }

    fn notify(&self, port: EvtchnPort) {
        assert!(self.0.ports.borrow().contains_key(&port.raw()), "notify of a closed port");
        *self.0.sent.borrow_mut().entry(port.raw()).or_insert(0) += 1;
        self.0.notifications.set(self.0.notifications.get() + 1);
    }

    fn close_port(&self, port: EvtchnPort) {
        assert!(self.0.ports.borrow_mut().remove(&port.raw()).is_some(), "double close of a port");
    }

    fn take_pending(&self, port: EvtchnPort) -> bool {
        let mut ports = self.0.ports.borrow_mut();
        core::mem::take(ports.get_mut(&port.raw()).expect("pending of a closed port"))
    }

    fn wait(&self, ports: &[EvtchnPort], deadline_ns: u64) -> Wake {
        assert!(!ports.is_empty() && ports.len() <= 128, "SCHEDOP_poll takes 1 to 128 ports");
        for _ in 0..STEPS_PER_WAIT {
            if self.any_pending(ports) {
                // Time passes even in a storm of events.
                self.advance_to(self.now_ns() + self.0.step_ns.get());
                return Wake::Event;
            }
            if self.now_ns() >= deadline_ns {
                return Wake::Timeout;
            }
            if !self.step() && !self.any_pending(ports) {
                // Nobody has anything to do: the world sleeps until the deadline.
                self.advance_to(deadline_ns);
                return Wake::Timeout;
            }
        }
        panic!("peers worked {STEPS_PER_WAIT} steps without an event")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    const PEER: DomId = DomId::new(0);

    #[test]
    fn leaks_are_found_at_drop() {
        assert!(
            catch_unwind(|| {
                let host = FakeHost::default();
                host.alloc_page().unwrap();
            })
            .is_err()
        );
        assert!(
            catch_unwind(|| {
                let host = FakeHost::default();
                host.alloc_unbound(PEER).unwrap();
            })
            .is_err()
        );
    }

    #[test]
    fn a_write_after_free_is_found() {
        let caught = catch_unwind(|| {
            let host = FakeHost::default();
            let page = host.alloc_page().unwrap();
            let stale = page.alias();
            host.free_page(page);
            stale.store_u8(17, 0);
        });
        assert!(caught.is_err());
    }

    #[test]
    fn a_mapped_grant_does_not_end_and_its_page_cannot_be_freed() {
        let host = FakeHost::default();
        let page = host.alloc_page().unwrap();
        let gref = host.grant(PEER, &page, Access::ReadOnly).unwrap();
        assert!(host.map(PEER, gref, true).is_none());
        assert!(host.map(DomId::new(7), gref, false).is_none());
        let mapped = host.map(PEER, gref, false).unwrap();
        page.store_u32(0, 9);
        assert_eq!(mapped.load_u32(0), 9);
        assert_eq!(host.ungrant(gref), Err(PlatformError::StillMapped));
        assert!(catch_unwind(AssertUnwindSafe(|| host.free_page(page.alias()))).is_err());
        host.unmap(gref);
        assert_eq!(host.ungrant(gref), Ok(()));
        host.free_page(page);
    }

    #[test]
    fn waiting_runs_peers_and_ends_at_the_deadline() {
        let host = FakeHost::default();
        let port = host.alloc_unbound(PEER).unwrap();
        assert_eq!(host.wait(&[port], 5_000_000), Wake::Timeout);
        assert_eq!(host.now_ns(), 5_000_000);
        let (handle, mut steps) = (FakePlatform::clone(&host), 3);
        host.add_peer(Box::new(move || {
            steps -= 1;
            if steps == 0 {
                handle.raise(port);
            }
            steps >= 0
        }));
        assert_eq!(host.wait(&[port], u64::MAX), Wake::Event);
        assert!(host.take_pending(port));
        assert!(!host.take_pending(port));
        host.close_port(port);
    }
}
