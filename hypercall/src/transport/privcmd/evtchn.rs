//! Event channels of dom0, through `/dev/xen/evtchn`. The ports belong to the open device: closing it closes them all,
//! so a process that dies leaves none behind.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use super::ioctl::{host, ioctl, open};
use crate::abi::linux::{
    EvtchnBindInterdomain, IOCTL_EVTCHN_BIND_INTERDOMAIN, IOCTL_EVTCHN_BIND_UNBOUND_PORT, IOCTL_EVTCHN_NOTIFY,
    IOCTL_EVTCHN_UNBIND,
};
use crate::{DomId, Error, EvtchnPort, Result, XenErrno};

/// The device, with the ports that were bound through it.
#[derive(Debug)]
pub struct Evtchn {
    device: File,
}

impl Evtchn {
    /// Opens the device, without ports.
    ///
    /// # Errors
    /// [`Error::Host`]: -ENOENT outside a Xen domain, -EACCES without root.
    pub fn open() -> Result<Self> {
        Ok(Self { device: open("/dev/xen/evtchn", "opening /dev/xen/evtchn", libc::O_NONBLOCK)? })
    }

    /// A new port to which `remote` may bind.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn bind_unbound_port(&self, remote: DomId) -> Result<EvtchnPort> {
        let argument = u32::from(remote.raw());
        // SAFETY: the argument of this request is the domain, one u32.
        let value = unsafe { ioctl(&self.device, IOCTL_EVTCHN_BIND_UNBOUND_PORT, &raw const argument as u64) };
        port("IOCTL_EVTCHN_BIND_UNBOUND_PORT", value)
    }

    /// A new port, connected to the unbound `remote_port` of `remote`.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn bind_interdomain(&self, remote: DomId, remote_port: EvtchnPort) -> Result<EvtchnPort> {
        let argument = EvtchnBindInterdomain { remote_domain: u32::from(remote.raw()), remote_port: remote_port.raw() };
        // SAFETY: the argument is the structure of this request.
        let value = unsafe { ioctl(&self.device, IOCTL_EVTCHN_BIND_INTERDOMAIN, &raw const argument as u64) };
        port("IOCTL_EVTCHN_BIND_INTERDOMAIN", value)
    }

    /// Closes a port.
    ///
    /// # Errors
    /// [`Error::Host`]: -ENOTCONN for a port that is not this device's.
    pub fn unbind(&self, port: EvtchnPort) -> Result<()> {
        self.on_port("IOCTL_EVTCHN_UNBIND", IOCTL_EVTCHN_UNBIND, port)
    }

    /// Notifies the other end of a port.
    ///
    /// # Errors
    /// [`Error::Host`]: -ENOTCONN for a port that is not this device's.
    pub fn notify(&self, port: EvtchnPort) -> Result<()> {
        self.on_port("IOCTL_EVTCHN_NOTIFY", IOCTL_EVTCHN_NOTIFY, port)
    }

    fn on_port(&self, what: &'static str, request: u64, port: EvtchnPort) -> Result<()> {
        let argument = port.raw();
        // SAFETY: the argument of these requests is the port, one u32.
        let value = unsafe { ioctl(&self.device, request, &raw const argument as u64) };
        XenErrno::from_return(value).map_or(Ok(()), |errno| Err(Error::Host { what, errno }))
    }

    /// Waits until a port was notified, at most for `timeout`; None when it passed or a signal came. The port stays
    /// masked until [`Evtchn::unmask`].
    ///
    /// # Errors
    /// [`Error::Host`]: -EFBIG when more ports were notified than the device's buffer holds.
    pub fn pending(&self, timeout: Duration) -> Result<Option<EvtchnPort>> {
        const WHAT: &str = "reading /dev/xen/evtchn";
        if !self.readable(timeout)? {
            return Ok(None);
        }
        let mut word = [0; 4];
        match (&self.device).read_exact(&mut word) {
            Ok(()) => Ok(Some(EvtchnPort::new(u32::from_le_bytes(word)))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(host(WHAT, &error)),
        }
    }

    fn readable(&self, timeout: Duration) -> Result<bool> {
        let mut poll = libc::pollfd { fd: self.device.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // Rounded up: a wait that is too short would turn the caller's loop into a busy one.
        let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
        let milliseconds = i32::try_from(milliseconds).unwrap_or(i32::MAX);
        // SAFETY: one structure is passed, and it lives across the call.
        let value = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
        if value >= 0 {
            return Ok(value > 0);
        }
        match std::io::Error::last_os_error() {
            error if error.kind() == ErrorKind::Interrupted => Ok(false),
            error => Err(host("polling /dev/xen/evtchn", &error)),
        }
    }

    /// Lets a port that was pending be notified again.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn unmask(&self, port: EvtchnPort) -> Result<()> {
        let done = (&self.device).write_all(&port.raw().to_le_bytes());
        done.map_err(|error| host("writing /dev/xen/evtchn", &error))
    }
}

impl AsFd for Evtchn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn port(what: &'static str, value: i64) -> Result<EvtchnPort> {
    if let Some(errno) = XenErrno::from_return(value) {
        return Err(Error::Host { what, errno });
    }
    let port = u32::try_from(value).map_err(|_| Error::Host { what, errno: XenErrno::EOVERFLOW })?;
    Ok(EvtchnPort::new(port))
}
