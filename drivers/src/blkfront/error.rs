//! What can go wrong with a request, and who is at fault.

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
