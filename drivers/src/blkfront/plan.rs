//! How large a connection is, and what it owns: ring, port, pool, and the pages of segments.
//!
//! Everything is allocated and granted here, once; the data path allocates nothing. Pool and tables together stay below
//! what the backend keeps mapped, so that after the first use of each page no grant is mapped again.

use super::connect::Link;
use super::device::Parts;
use super::geometry::Geometry;
use super::request::{DIRECT_MAX, SLOT_WORDS};
use crate::grant::{GrantedPages, OwnedPort};
use crate::platform::{Platform, PlatformError};
use crate::ring::front::FrontRing;
use crate::types::DomId;

/// Data pages that are granted once: 2 MiB, two of the largest requests.
pub const POOL_PAGES: u16 = 512;
/// Pages that Linux' blkback keeps mapped for a ring (xen-blkback/blkback.c: `max_pgrants`); pool and tables stay
/// below.
pub const PERSISTENT_MAX: usize = 1056;
/// Segments of a request: 1 MiB, what Linux' blkback offers at most.
pub const SEGMENTS_MAX: usize = 256;
/// Ring pages as a power of two (`BLKIF max-ring-page-order` of Linux).
pub const RING_ORDER_MAX: u32 = 4;
/// How long a request may stay unanswered. A disk that retries takes tens of seconds; a guest is not held meanwhile.
pub const IO_TIMEOUT_NS: u64 = 60_000_000_000;
/// What may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Data pages to grant, at least 1.
    pub pool_pages: u16,
    /// Segments of a request at most.
    pub segments_max: usize,
    /// Bound on an unanswered request.
    pub timeout_ns: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { pool_pages: POOL_PAGES, segments_max: SEGMENTS_MAX, timeout_ns: IO_TIMEOUT_NS }
    }
}

/// Sizes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    ring_pages: usize,
    segments: usize,
    tables: usize,
    pool: usize,
}

impl Plan {
    /// With indirect requests a ring of one page holds more than the pool: 32 requests. Without, the ring is as large
    /// as it must be to keep the pool under way, as far as the backend allows.
    pub fn new(pool: u16, segments: usize, order_max: u32) -> Self {
        let slots = |order: u32| 32usize << order;
        let indirect = segments > DIRECT_MAX;
        let pool = usize::from(pool.max(1)).min(PERSISTENT_MAX - slots(0));
        let enough = (0..order_max).find(|order| slots(*order) * DIRECT_MAX >= pool).unwrap_or(order_max);
        let order = if indirect { 0 } else { enough };
        Self {
            ring_pages: 1 << order,
            segments: if indirect { segments } else { DIRECT_MAX },
            tables: if indirect { slots(0) } else { 0 },
            pool,
        }
    }
}

/// What a connection owns.
pub(super) struct Built<P: Platform> {
    pub ring: FrontRing<P, SLOT_WORDS>,
    pub port: OwnedPort<P>,
    data: GrantedPages<P>,
    tables: GrantedPages<P>,
    segments: usize,
}

impl<P: Platform + Clone> Built<P> {
    pub fn new(platform: &P, peer: DomId, plan: &Plan) -> Result<Self, PlatformError> {
        Ok(Self {
            ring: FrontRing::new(GrantedPages::new(platform.clone(), peer, plan.ring_pages)?),
            port: OwnedPort::alloc_unbound(platform.clone(), peer)?,
            data: GrantedPages::new(platform.clone(), peer, plan.pool)?,
            tables: GrantedPages::new(platform.clone(), peer, plan.tables)?,
            segments: plan.segments,
        })
    }

    pub fn finish(self, platform: P, link: Link, geometry: Geometry, options: &Options) -> Parts<P> {
        let Self { ring, port, data, tables, segments } = self;
        Parts { platform, link, ring, port, data, tables, geometry, segments, timeout_ns: options.timeout_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_and_its_tables_fit_what_blkback_keeps_mapped() {
        for (pool, segments, order) in [(512, 256, 0), (512, 32, 0), (u16::MAX, 256, 0), (u16::MAX, 11, 4)] {
            let plan = Plan::new(pool, segments, order);
            assert!(plan.pool + plan.tables <= PERSISTENT_MAX, "{plan:?}");
        }
    }

    #[test]
    fn the_ring_grows_only_as_far_as_the_pool_needs_and_the_backend_allows() {
        assert_eq!(Plan::new(512, 256, 0), Plan { ring_pages: 1, segments: 256, tables: 32, pool: 512 });
        assert_eq!(Plan::new(512, 0, 4), Plan { ring_pages: 2, segments: 11, tables: 0, pool: 512 });
        assert_eq!(Plan::new(512, 11, 0), Plan { ring_pages: 1, segments: 11, tables: 0, pool: 512 });
        assert_eq!(Plan::new(1000, 1, 4), Plan { ring_pages: 4, segments: 11, tables: 0, pool: 1000 });
        assert_eq!(Plan::new(0, 12, 4), Plan { ring_pages: 1, segments: 12, tables: 32, pool: 1 });
    }
}
