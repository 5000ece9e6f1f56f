//! Booleans of the FLASK policy (xsm_op), for dom0.

use zerocopy::IntoBytes;

use crate::abi::flask::{self as abi, FlaskBoolean, FlaskOp};
use crate::abi::xen::HYPERVISOR_XSM_OP;
use crate::{Error, Loan, Result, Transport, XenErrno};

/// The boolean's value; None if the policy has no such boolean, or the hypervisor no policy.
///
/// # Errors
/// What Xen answered.
pub fn boolean<T: Transport>(transport: &T, name: &str) -> Result<Option<bool>> {
    // The answer's `size` would be the room for the name; resolving the name makes it 0 (flask_security_resolve_bool).
    match issue(transport, "FLASK_GETBOOL", abi::GETBOOL, name, false) {
        Ok(op) => Ok(Some(op.boolean.enforcing != 0)),
        Err(Error::Xen { errno: XenErrno::ENOSYS | XenErrno::ENOENT, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets the boolean, at once for every access that begins later.
///
/// # Errors
/// What Xen answered: -ENOENT if the policy has no such boolean, -ENOSYS without FLASK.
pub fn set_boolean<T: Transport>(transport: &T, name: &str, on: bool) -> Result<()> {
    issue(transport, "FLASK_SETBOOL", abi::SETBOOL, name, on).map(|_| ())
}

fn issue<T: Transport>(transport: &T, call: &'static str, cmd: u32, name: &str, on: bool) -> Result<FlaskOp> {
    let text = transport.lend(name.as_bytes())?;
    let boolean = FlaskBoolean {
        bool_id: abi::BY_NAME,
        enforcing: 0,
        pending: 0,
        new_value: on.into(),
        commit: 1,
        // Xen adds the NUL itself (safe_copy_string_from_guest).
        size: u32::try_from(name.len()).unwrap_or(u32::MAX),
        pad: 0,
        name: text.address(),
    };
    let mut op = FlaskOp { cmd, interface_version: abi::INTERFACE_VERSION, boolean, rest: 0 };
    let loan = transport.lend_mut(op.as_mut_bytes())?;
    // SAFETY: Xen reads and writes the argument and reads `size` bytes at `name`; both are on loan.
    let value = unsafe { transport.call1(HYPERVISOR_XSM_OP, loan.address()) };
    drop(loan);
    Error::check(call, value).map(|_| op)
}
