//! The system calls that the devices share.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use crate::{Error, Result, XenErrno};

/// Opens a device for reading and writing.
pub(super) fn open(path: &str, what: &'static str, flags: i32) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    file.map_err(|error| host(what, &error))
}

/// An error of Linux, as a value.
pub(super) fn host(what: &'static str, error: &std::io::Error) -> Error {
    Error::Host { what, errno: XenErrno::new(error.raw_os_error().unwrap_or(libc::EIO)) }
}

/// The result of an ioctl, or the negated errno. It is the whole `long` of the kernel (libc's `ioctl` would cut it to
/// an `int`, and a hypercall may return more).
///
/// # Safety
/// `argument` is what the request takes, and the request's effects are the caller's to vouch for.
pub(super) unsafe fn ioctl(device: &File, request: u64, argument: u64) -> i64 {
    // SAFETY: the caller vouches for request and argument; the descriptor is open.
    let value = unsafe { libc::syscall(libc::SYS_ioctl, device.as_raw_fd(), request, argument) };
    if value == -1 {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        return -i64::from(errno);
    }
    value
}
