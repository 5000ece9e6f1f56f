//! Pages that a peer may map: allocated, granted and given back together.
//!
//! Invariant: a page leaves this type only after its grant has ended. A page that the peer still maps is leaked, never
//! reused: whoever gets it next would share it with the peer.

use crate::platform::{Access, Platform, PlatformError};
use crate::ring::shared::SharedPage;
use crate::types::{DomId, EvtchnPort, GrantRef};
use alloc::vec::Vec;

/// Granted pages, by index. Dropping it releases them.
#[derive(Debug)]
pub struct GrantedPages<P: Platform> {
    platform: P,
    entries: Vec<(SharedPage, GrantRef)>,
}

impl<P: Platform> GrantedPages<P> {
    /// `count` zeroed pages, all granted to `peer` for reading and writing; none if not all can be had.
    pub fn new(platform: P, peer: DomId, count: usize) -> Result<Self, PlatformError> {
        let mut pages = Self { platform, entries: Vec::with_capacity(count) };
        for _ in 0..count {
            let page = pages.platform.alloc_page()?;
            match pages.platform.grant(peer, &page, Access::ReadWrite) {
                Ok(gref) => pages.entries.push((page, gref)),
                Err(error) => {
                    pages.platform.free_page(page);
                    return Err(error);
                }
            }
        }
        Ok(pages)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The page with this index.
    pub fn page(&self, index: usize) -> &SharedPage {
        &self.entries[index].0
    }

    /// The grant of the page with this index.
    pub fn gref(&self, index: usize) -> GrantRef {
        self.entries[index].1
    }

    /// Ends all grants and frees the pages; returns how many the peer still maps. Those are lost for good.
    pub fn release(&mut self) -> usize {
        let mut held = 0;
        for (page, gref) in self.entries.drain(..) {
            match self.platform.ungrant(gref) {
                Ok(()) => self.platform.free_page(page),
                Err(_) => held += 1,
            }
        }
        held
    }
}

impl<P: Platform> Drop for GrantedPages<P> {
    fn drop(&mut self) {
        self.release();
    }
}

/// An event channel port that is closed when dropped.
#[derive(Debug)]
pub struct OwnedPort<P: Platform> {
    platform: P,
    port: EvtchnPort,
}

impl<P: Platform> OwnedPort<P> {
    /// A port that `peer` may bind.
    pub fn alloc_unbound(platform: P, peer: DomId) -> Result<Self, PlatformError> {
        let port = platform.alloc_unbound(peer)?;
        Ok(Self { platform, port })
    }

    /// The port.
    pub fn port(&self) -> EvtchnPort {
        self.port
    }
}

impl<P: Platform> Drop for OwnedPort<P> {
    fn drop(&mut self) {
        self.platform.close_port(self.port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fake::{FakeHost, FakePlatform};

    const PEER: DomId = DomId::new(0);

    #[test]
    fn a_failure_in_the_middle_gives_everything_back() {
        for budget in 0..8 {
            let host = FakeHost::default();
            host.set_budget(Some(budget));
            assert!(GrantedPages::new(FakePlatform::clone(&host), PEER, 4).is_err());
            assert_eq!(host.held(), (0, 0, 0), "{budget}");
        }
    }

    #[test]
    fn a_page_that_the_peer_maps_is_lost_not_reused() {
        let host = FakeHost::default();
        let mut pages = GrantedPages::new(FakePlatform::clone(&host), PEER, 3).unwrap();
        let gref = pages.gref(1);
        host.map(PEER, gref, true).unwrap();
        assert_eq!(pages.release(), 1);
        assert_eq!(host.forgive_leaks(), (1, 1, 0));
    }
}
