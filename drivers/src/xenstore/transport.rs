//! What carries xenstore's bytes: a ring in the stub, a device file in dom0, a fake in tests.

use crate::ring::bytes::BadIndex;
use crate::xenstore::Fault;
use xen_hypercall::XenErrno;

/// Why the transport failed. `Refused` concerns one message, the others end the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The message as a whole was not taken (Linux answers some malformed requests through `write`).
    Refused(XenErrno),
    /// The peer's ring index is impossible.
    BadIndex(BadIndex),
    /// The other end is gone.
    Closed,
    /// The operating system failed the transfer.
    Os(XenErrno),
}

impl WireError {
    /// What it means to the connection.
    pub(super) fn fault(self) -> Fault {
        match self {
            Self::BadIndex(bad) => Fault::BadIndex(bad),
            Self::Closed => Fault::Closed,
            Self::Refused(errno) | Self::Os(errno) => Fault::Os(errno),
        }
    }
}

/// A byte stream to xenstored, with a clock.
pub trait Wire {
    /// Hands over as many bytes as possible before the deadline; 0 = none in time.
    fn send(&mut self, bytes: &[u8], deadline_ns: u64) -> Result<usize, WireError>;

    /// Takes at least one byte unless the deadline comes first; 0 = none in time. A deadline that has passed polls.
    fn recv(&mut self, into: &mut [u8], deadline_ns: u64) -> Result<usize, WireError>;

    /// Monotonic time, the clock of the deadlines.
    fn now_ns(&self) -> u64;

    /// Whether replies to WATCH and UNWATCH carry request id 0: Linux' /dev/xen/xenbus makes those replies up itself
    /// (drivers/xen/xenbus/xenbus_dev_frontend.c:xenbus_write_watch).
    fn watch_replies_lack_id(&self) -> bool {
        false
    }
}
