//! What hypervisor this is.

use core::fmt;

use zerocopy::IntoBytes;

use crate::abi::version::{self as abi, FeatureInfo};
use crate::abi::xen::HYPERVISOR_XEN_VERSION;
use crate::{DomHandle, Error, Loan, Result, Transport};

/// Xen's version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct XenVersion {
    /// 4.
    pub major: u16,
    /// 17 and up.
    pub minor: u16,
}

impl fmt::Display for XenVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

fn ask<T: Transport>(transport: &T, call: &'static str, op: u64, answer: &mut [u8]) -> Result<u64> {
    let loan = transport.lend_mut(answer)?;
    // SAFETY: the callers pass a buffer of the length that the operation fills, and it is on loan.
    let value = unsafe { transport.call2(HYPERVISOR_XEN_VERSION, op, loan.address()) };
    Error::check(call, value)
}

/// Xen's version.
///
/// # Errors
/// What Xen answered.
pub fn xen_version<T: Transport>(transport: &T) -> Result<XenVersion> {
    // SAFETY: the operation has no argument.
    let value = unsafe { transport.call2(HYPERVISOR_XEN_VERSION, abi::XENVER_VERSION, 0) };
    let [minor0, minor1, major0, major1, ..] = Error::check("XENVER_version", value)?.to_le_bytes();
    Ok(XenVersion { major: u16::from_le_bytes([major0, major1]), minor: u16::from_le_bytes([minor0, minor1]) })
}

/// The rest of the version, such as ".5"; NUL-padded.
///
/// # Errors
/// What Xen answered.
pub fn extraversion<T: Transport>(transport: &T) -> Result<[u8; abi::EXTRAVERSION_LEN]> {
    let mut answer = [0; abi::EXTRAVERSION_LEN];
    ask(transport, "XENVER_extraversion", abi::XENVER_EXTRAVERSION, &mut answer)?;
    Ok(answer)
}

/// The kinds of guest that can run, such as "xen-3.0-x86_64"; NUL-padded.
///
/// # Errors
/// What Xen answered.
pub fn capabilities<T: Transport>(transport: &T) -> Result<[u8; abi::CAPABILITIES_INFO_LEN]> {
    let mut answer = [0; abi::CAPABILITIES_INFO_LEN];
    ask(transport, "XENVER_capabilities", abi::XENVER_CAPABILITIES, &mut answer)?;
    Ok(answer)
}

/// Xen's command line; NUL-padded. FLASK allows it to few.
///
/// # Errors
/// What Xen answered.
pub fn commandline<T: Transport>(transport: &T) -> Result<[u8; abi::COMMANDLINE_LEN]> {
    let mut answer = [0; abi::COMMANDLINE_LEN];
    ask(transport, "XENVER_commandline", abi::XENVER_COMMANDLINE, &mut answer)?;
    Ok(answer)
}

/// One 32-bit word of the feature map.
///
/// # Errors
/// What Xen answered.
pub fn features<T: Transport>(transport: &T, word: u32) -> Result<u32> {
    let mut answer = FeatureInfo { submap_idx: word, submap: 0 };
    ask(transport, "XENVER_get_features", abi::XENVER_GET_FEATURES, answer.as_mut_bytes())?;
    Ok(answer.submap)
}

/// The caller's own handle.
///
/// # Errors
/// What Xen answered.
pub fn guest_handle<T: Transport>(transport: &T) -> Result<DomHandle> {
    let mut answer = [0; 16];
    ask(transport, "XENVER_guest_handle", abi::XENVER_GUEST_HANDLE, &mut answer)?;
    Ok(DomHandle::new(answer))
}
