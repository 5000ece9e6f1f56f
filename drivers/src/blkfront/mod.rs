//! The frontend of a block device (public/io/blkif.h): handshake, data path, errors.
//!
//! ```text
//! connect.rs   xenstore + xenbus machine -> features, ring, geometry; close
//! plan.rs      sizes of a connection, and what it owns
//! device.rs    Blkfront: write, read, flush over a fixed pool of granted pages
//! pump.rs      between slots and ring; every wait
//! inflight.rs  what is outstanding: slots, ids, the pool
//! request.rs   bytes of requests and responses
//! geometry.rs  the backend's numbers, checked once
//! ```

mod connect;
mod device;
mod error;
mod geometry;
mod inflight;
mod plan;
mod pump;
mod request;

#[cfg(any(test, feature = "fake"))]
pub mod fake_backend;
#[cfg(test)]
mod tests;

pub use connect::{CloseReport, connect, list};
pub use device::{BLOCK_LEN, Blkfront, PageWriter, Stats};
pub use error::{ConnectError, IoError, Op, Violation};
pub use geometry::{Geometry, GeometryError};
pub use plan::{IO_TIMEOUT_NS, Options, POOL_PAGES, SEGMENTS_MAX};
