//! What can go wrong with a call: which call, on whose word, and what Xen said. Callers decide what it means.

use core::fmt;

use crate::{DomHandle, DomId, XenErrno};

/// The result of a typed call.
pub type Result<T> = core::result::Result<T, Error>;

/// Why a typed call did not do its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Error {
    /// Xen answered the call with this error.
    Xen {
        /// Xen's name of the call, such as `XEN_DOMCTL_shadow_op/CLEAN`.
        call: &'static str,
        /// Its answer.
        errno: XenErrno,
    },
    /// The domain does not exist, or the domid now names another one.
    NotFound {
        /// The domain that was asked for.
        domain: DomId,
        /// The handle that stands at this domid now, if it is another than the one asked for.
        found: Option<DomHandle>,
    },
    /// The domctl interface of this hypervisor is not known to this program.
    UnknownVersion {
        /// Xen's major version.
        major: u16,
        /// Xen's minor version.
        minor: u16,
    },
    /// The call succeeded for less than was asked for, where only the whole is of use.
    Short {
        /// Xen's name of the call.
        call: &'static str,
        /// What was asked for, in the call's own unit.
        asked: u64,
        /// What was done.
        got: u64,
    },
    /// The arguments break a rule of the call; nothing was issued.
    Argument {
        /// Xen's name of the call.
        call: &'static str,
        /// The rule.
        rule: &'static str,
    },
    /// A grant table operation failed with this status (grant_table.h: `GNTST_*`).
    Grant {
        /// Xen's name of the call.
        call: &'static str,
        /// The status, negative.
        status: i16,
    },
    /// The operating system below the transport failed.
    Host {
        /// What it was asked for.
        what: &'static str,
        /// Linux's errno; the numbers are those of Xen.
        errno: XenErrno,
    },
}

impl Error {
    /// What Xen answered, if Xen answered with an error.
    #[must_use]
    pub const fn xen(&self) -> Option<XenErrno> {
        match self {
            Self::Xen { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Turns a hypercall's return value into its result: not negative, or the error of `call`.
    pub(crate) fn check(call: &'static str, value: i64) -> Result<u64> {
        match XenErrno::from_return(value) {
            Some(errno) => Err(Self::Xen { call, errno }),
            None => Ok(value.unsigned_abs()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xen { call, errno } => write!(f, "{call}: Xen answered {errno}"),
            Self::NotFound { domain, found: None } => write!(f, "no domain {domain}"),
            Self::NotFound { domain, found: Some(handle) } => {
                write!(f, "domain {domain} is another one now (uuid {handle})")
            }
            Self::UnknownVersion { major, minor } => {
                write!(f, "Xen {major}.{minor} is not supported: its domctl interface version is unknown")
            }
            Self::Short { call, asked, got } => write!(f, "{call}: {got} done of {asked}"),
            Self::Argument { call, rule } => write!(f, "{call}: {rule}"),
            Self::Grant { call, status } => write!(f, "{call}: grant status {status}"),
            Self::Host { what, errno } => write!(f, "{what}: {errno}"),
        }
    }
}

impl core::error::Error for Error {}
