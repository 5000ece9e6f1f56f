//! xenstore over Linux' /dev/xen/xenbus, for dom0 (drivers/xen/xenbus/xenbus_dev_frontend.c).
//!
//! Each file is a connection of its own: its watches and transactions end when it is closed. Reads wait with `poll`, so
//! every wait has its deadline. The kernel takes a whole message per `write` at once, and may answer a bad one with an
//! errno of the call instead of a reply.

use super::transport::{Wire, WireError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read, write};
use rustix::time::{ClockId, clock_gettime};
use xen_hypercall::XenErrno;

/// The device.
pub const XENBUS_DEVICE: &str = "/dev/xen/xenbus";

/// dom0's transport.
#[derive(Debug)]
pub struct XenbusFile {
    file: OwnedFd,
}

impl XenbusFile {
    /// Opens [`XENBUS_DEVICE`].
    pub fn open() -> Result<Self, WireError> {
        let file = open(XENBUS_DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(os)?;
        Ok(Self { file })
    }

    /// Uses a descriptor that speaks the protocol (xenstored's socket, or a test's).
    pub fn from_fd(file: OwnedFd) -> Self {
        Self { file }
    }

    /// Whether something can be read before the deadline.
    fn readable(&self, deadline_ns: u64) -> Result<bool, WireError> {
        loop {
            let left_ns = deadline_ns.saturating_sub(self.now_ns());
            // A deadline beyond i64 nanoseconds is 292 years away.
            let left = i64::try_from(left_ns).unwrap_or(i64::MAX);
            let timeout = Timespec { tv_sec: left / 1_000_000_000, tv_nsec: left % 1_000_000_000 };
            match poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                // A signal: the time left is computed anew.
                Err(Errno::INTR) => {}
                Err(error) => return Err(os(error)),
            }
        }
    }
}

/// To wait on it beside other descriptors; then poll with [`super::Client::next_event`].
impl AsFd for XenbusFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn os(error: Errno) -> WireError {
    WireError::Os(XenErrno::new(error.raw_os_error()))
}

impl Wire for XenbusFile {
    // The device never reports that it can be written to (xenbus_file_poll knows only input); a write of a message that
    // fits its buffer returns at once, but for WATCH and UNWATCH, which wait in the kernel for xenstored.
    fn send(&mut self, bytes: &[u8], _deadline_ns: u64) -> Result<usize, WireError> {
        match write(&self.file, bytes) {
            Ok(count) => Ok(count),
            Err(Errno::PIPE) => Err(WireError::Closed),
            Err(error) => Err(WireError::Refused(XenErrno::new(error.raw_os_error()))),
        }
    }

    fn recv(&mut self, into: &mut [u8], deadline_ns: u64) -> Result<usize, WireError> {
        while !into.is_empty() && self.readable(deadline_ns)? {
            match read(&self.file, &mut *into) {
                Ok(0) => return Err(WireError::Closed),
                Ok(count) => return Ok(count),
                // A signal, or another reader was faster: look again until the deadline.
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(os(error)),
            }
        }
        Ok(0)
    }

    fn now_ns(&self) -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        // The monotonic clock is never negative.
        now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
    }

    fn watch_replies_lack_id(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xenstore::wire::Header;
    use crate::xenstore::{Client, Event, Nodes, XsError};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    /// A client and the daemon's end of its connection.
    fn pair() -> (Client<XenbusFile>, OwnedFd) {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        (Client::new(XenbusFile::from_fd(ours)), theirs)
    }

    fn reply(to: &OwnedFd, kind: u32, req_id: u32, payload: &[u8]) {
        let header = Header { kind, req_id, tx_id: 0, len: payload.len() as u32 };
        write(to, &header.emit()).unwrap();
        write(to, payload).unwrap();
    }

    #[test]
    fn the_client_speaks_over_a_descriptor() {
        let (mut xs, theirs) = pair();
        reply(&theirs, 15, 0, b"a\0t\0");
        reply(&theirs, 4, 0, b"OK\0");
        reply(&theirs, 2, 2, b"value");
        xs.watch("a", "t").unwrap();
        assert_eq!(xs.read_text("a").unwrap(), "value");
        assert_eq!(xs.next_event(0).unwrap(), Some(Event::Fired { path: "a".into(), token: "t".into() }));
        assert_eq!(xs.next_event(0).unwrap(), None);
        let mut sent = [0; 64];
        let count = read(&theirs, &mut sent).unwrap();
        let expected = b"\x04\0\0\0\x01\0\0\0\0\0\0\0\x04\0\0\0a\0t\0\x02\0\0\0\x02\0\0\0\0\0\0\0\x02\0\0\0a\0";
        assert_eq!(sent[..count], expected[..]);
    }

    #[test]
    fn silence_and_a_closed_end_are_told_apart() {
        let (mut xs, theirs) = pair();
        xs.set_timeout_ns(1_000_000);
        assert_eq!(xs.read("a"), Err(XsError::Timeout));
        drop(theirs);
        assert!(matches!(xs.read("a"), Err(XsError::Broken(_) | XsError::Denied(_))));
    }
}
