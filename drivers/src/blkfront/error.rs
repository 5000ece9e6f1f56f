//! What can go wrong with a device or a request, and who is at fault.

use super::geometry::GeometryError;
use crate::platform::PlatformError;
use crate::xenbus::Failure;
use crate::xenstore::XsError;
use core::fmt;

/// What was asked of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Blocks to memory.
    Read,
    /// Memory to blocks.
    Write,
    /// Everything accepted becomes durable.
    Flush,
}

/// How the backend broke the protocol. The ring is not used any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An impossible producer index.
    BadIndex {
        /// Requests published so far.
        ours: u32,
        /// What the backend wrote.
        theirs: u32,
    },
    /// A response to no request, or a second one.
    BadId(u64),
    /// The response names another operation than the request.
    BadOperation(u8),
    /// A status that the protocol does not have.
    BadStatus(i16),
}

/// Why a request failed. The first error that leaves the content of the disk unknown stays: every later call repeats
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoError {
    /// Beyond the end of the device: the caller's mistake.
    OutOfRange,
    /// Not a whole number of blocks: the caller's mistake.
    Misaligned,
    /// The device is attached read-only: the operator attaches it writable.
    ReadOnly,
    /// The backend reports a failure: the operator looks at the disk.
    Device {
        /// What failed.
        op: Op,
        /// First block of the request; 0 for a flush.
        at: u64,
    },
    /// The backend does not know an operation that it announced.
    Unsupported(Op),
    /// No answer in time: the operator looks at the backend.
    Timeout,
    /// The backend closed the device or vanished.
    Closed,
    /// The backend broke the protocol.
    Broken(Violation),
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange => f.write_str("beyond the end of the device"),
            Self::Misaligned => f.write_str("not a whole number of blocks"),
            Self::ReadOnly => f.write_str("the device is attached read-only"),
            Self::Device { op, at } => write!(f, "the device failed a {op:?} at block {at}"),
            Self::Unsupported(op) => write!(f, "the backend does not support {op:?} although it said so"),
            Self::Timeout => f.write_str("the backend does not answer"),
            Self::Closed => f.write_str("the backend has closed the device"),
            Self::Broken(violation) => write!(f, "the backend broke the protocol: {violation:?}"),
        }
    }
}

impl core::error::Error for IoError {}

/// Why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// xenstore failed.
    Xenstore(XsError),
    /// No pages, grants or ports.
    Platform(PlatformError),
    /// This domain has no such device.
    NoDevice,
    /// A node of the toolstack or the backend is missing or makes no sense.
    BadNode(&'static str),
    /// The backend did not follow the protocol.
    Handshake(Failure),
    /// The backend's numbers make no sense.
    Geometry(GeometryError),
    /// The backend did not get ready in time.
    Timeout,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xenstore(error) => write!(f, "{error}"),
            Self::Platform(error) => write!(f, "{error}"),
            Self::NoDevice => f.write_str("there is no such block device"),
            Self::BadNode(name) => write!(f, "xenstore node `{name}` of the block device makes no sense"),
            Self::Handshake(failure) => write!(f, "{failure}"),
            Self::Geometry(error) => write!(f, "{error}"),
            Self::Timeout => f.write_str("the block backend does not get ready"),
        }
    }
}

impl core::error::Error for ConnectError {}

impl From<XsError> for ConnectError {
    fn from(error: XsError) -> Self {
        Self::Xenstore(error)
    }
}

impl From<PlatformError> for ConnectError {
    fn from(error: PlatformError) -> Self {
        Self::Platform(error)
    }
}

impl From<GeometryError> for ConnectError {
    fn from(error: GeometryError) -> Self {
        Self::Geometry(error)
    }
}
