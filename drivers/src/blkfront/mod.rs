//! The frontend of a block device (public/io/blkif.h): handshake, data path, errors.
//!
//! ```text
//! connect.rs   xenstore + xenbus machine -> ring, port, features, geometry
//! device.rs    Blkfront: write, read, flush over a fixed pool of granted pages
//! inflight.rs  what is outstanding: slots, ids, the pool
//! request.rs   bytes of requests and responses
//! geometry.rs  the backend's numbers, checked once
//! ```

mod connect;
mod device;
mod error;
mod geometry;
mod inflight;
mod request;

#[cfg(any(test, feature = "fake"))]
pub mod fake_backend;
#[cfg(test)]
mod tests;

pub use connect::{CloseReport, ConnectError, Options, connect, list};
pub use device::{BLOCK_LEN, Blkfront, PageWriter, Stats};
pub use error::{IoError, Op, Violation};
pub use geometry::{Geometry, GeometryError};
