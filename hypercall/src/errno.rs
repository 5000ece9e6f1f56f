//! Xen's error numbers (errno.h), as values. A number that this list lacks stays a number: a newer hypervisor or a
//! peer may answer anything, so this is never an enum.

use core::fmt;

/// A positive error number of Xen's. Its numbers are those of Linux on x86.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct XenErrno(i32);

macro_rules! errnos {
    ($( $name:ident = $value:literal, $text:literal; )*) => {
        impl XenErrno {
            $( #[doc = $text] pub const $name: Self = Self($value); )*

            /// Every number that errno.h names, aliases excluded, with its name.
            pub const NAMES: &[(i32, &str)] = &[$( ($value, stringify!($name)) ),*];
        }
    };
}

errnos! {
    EPERM = 1, "Operation not permitted.";
    ENOENT = 2, "No such file or directory.";
    ESRCH = 3, "No such process.";
    EINTR = 4, "Interrupted system call.";
    EIO = 5, "I/O error.";
    ENXIO = 6, "No such device or address.";
    E2BIG = 7, "Arg list too long.";
    ENOEXEC = 8, "Exec format error.";
    EBADF = 9, "Bad file number.";
    ECHILD = 10, "No child processes.";
    EAGAIN = 11, "Try again.";
    ENOMEM = 12, "Out of memory.";
    EACCES = 13, "Permission denied.";
    EFAULT = 14, "Bad address.";
    EBUSY = 16, "Device or resource busy.";
    EEXIST = 17, "File exists.";
    EXDEV = 18, "Cross-device link.";
    ENODEV = 19, "No such device.";
    ENOTDIR = 20, "Not a directory.";
    EISDIR = 21, "Is a directory.";
    EINVAL = 22, "Invalid argument.";
    ENFILE = 23, "File table overflow.";
    EMFILE = 24, "Too many open files.";
    ENOSPC = 28, "No space left on device.";
    EROFS = 30, "Read-only file system.";
    EMLINK = 31, "Too many links.";
    EDOM = 33, "Math argument out of domain of func.";
    ERANGE = 34, "Math result not representable.";
    EDEADLK = 35, "Resource deadlock would occur.";
    ENAMETOOLONG = 36, "File name too long.";
    ENOLCK = 37, "No record locks available.";
    ENOSYS = 38, "Function not implemented.";
    ENOTEMPTY = 39, "Directory not empty.";
    ENODATA = 61, "No data available.";
    ETIME = 62, "Timer expired.";
    EBADMSG = 74, "Not a data message.";
    EOVERFLOW = 75, "Value too large for defined data type.";
    EILSEQ = 84, "Illegal byte sequence.";
    ERESTART = 85, "Interrupted system call should be restarted.";
    ENOTSOCK = 88, "Socket operation on non-socket.";
    EMSGSIZE = 90, "Message too large.";
    EOPNOTSUPP = 95, "Operation not supported on transport endpoint.";
    EADDRINUSE = 98, "Address already in use.";
    EADDRNOTAVAIL = 99, "Cannot assign requested address.";
    ENOBUFS = 105, "No buffer space available.";
    EISCONN = 106, "Transport endpoint is already connected.";
    ENOTCONN = 107, "Transport endpoint is not connected.";
    ETIMEDOUT = 110, "Connection timed out.";
    ECONNREFUSED = 111, "Connection refused.";
}

impl XenErrno {
    /// The error with this (positive) number; every number is accepted.
    #[must_use]
    pub const fn new(errno: i32) -> Self {
        Self(errno)
    }

    /// The (positive) number.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }

    /// Its name in errno.h, if it has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(value, _)| *value == self.0).map(|(_, name)| *name)
    }

    /// The error in a hypercall's return value, or None if the call succeeded.
    #[must_use]
    pub fn from_return(value: i64) -> Option<Self> {
        if value >= 0 {
            return None;
        }
        // Xen returns -errno; a value below any int32 is no errno, and is kept recognisable as such.
        Some(Self(i32::try_from(value.unsigned_abs()).unwrap_or(i32::MAX)))
    }
}

impl fmt::Display for XenErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for XenErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn numbers_have_names_and_unknown_numbers_keep_themselves() {
        assert_eq!(XenErrno::new(13).to_string(), "EACCES");
        assert_eq!(XenErrno::new(13), XenErrno::EACCES);
        assert_eq!(XenErrno::new(4711).to_string(), "errno 4711");
    }

    #[test]
    fn only_a_negative_return_value_is_an_error() {
        assert_eq!(XenErrno::from_return(0), None);
        assert_eq!(XenErrno::from_return(i64::MAX), None);
        assert_eq!(XenErrno::from_return(-22), Some(XenErrno::EINVAL));
        assert_eq!(XenErrno::from_return(i64::MIN), Some(XenErrno::new(i32::MAX)));
    }

    #[test]
    fn no_number_has_two_names() {
        for (index, (value, name)) in XenErrno::NAMES.iter().enumerate() {
            assert!(XenErrno::NAMES[..index].iter().all(|(v, n)| v != value && n != name), "{name} twice");
        }
    }
}
