//! The grant table as a whole: its version, its size, its frames. Entries are the drivers' business.

use zerocopy::{FromZeros, IntoBytes};

use crate::abi::grant::{self as abi, QuerySize, SetVersion, SetupTable};
use crate::abi::xen::{DOMID_SELF, HYPERVISOR_GRANT_TABLE_OP};
use crate::domctl::count;
use crate::{Error, Loan, Mfn, Result, Transport};

/// Issues one grant table operation.
///
/// # Safety
/// Every address in `argument` is on loan for what the operation reads or writes there.
unsafe fn grant_op<T: Transport>(transport: &T, call: &'static str, op: u64, argument: &mut [u8]) -> Result<()> {
    let loan = transport.lend_mut(argument)?;
    // SAFETY: the argument is on loan, the caller vouches for the addresses in it; one operation is passed.
    let value = unsafe { transport.call3(HYPERVISOR_GRANT_TABLE_OP, op, loan.address(), 1) };
    Error::check(call, value).map(|_| ())
}

fn status(call: &'static str, status: i16) -> Result<()> {
    if status == abi::GNTST_OKAY { Ok(()) } else { Err(Error::Grant { call, status }) }
}

/// Grows the caller's grant table to as many frames as `frames` has, and fills in their numbers, to be mapped.
///
/// # Errors
/// [`Error::Grant`] beyond the limit; what Xen answered.
pub fn setup_table<T: Transport>(transport: &T, frames: &mut [Mfn]) -> Result<()> {
    const CALL: &str = "GNTTABOP_setup_table";
    let nr_frames = count(CALL, frames.len())?;
    let list = transport.lend_mut(frames.as_mut_bytes())?;
    let mut op = SetupTable { dom: DOMID_SELF, nr_frames, frame_list: list.address(), ..SetupTable::new_zeroed() };
    // SAFETY: Xen writes `nr_frames` words at `frame_list`, which are on loan.
    unsafe { grant_op(transport, CALL, abi::GNTTABOP_SETUP_TABLE, op.as_mut_bytes()) }?;
    status(CALL, op.status)
}

/// Frames that the caller's grant table has, and may have.
///
/// # Errors
/// [`Error::Grant`], or what Xen answered.
pub fn query_size<T: Transport>(transport: &T) -> Result<(u32, u32)> {
    const CALL: &str = "GNTTABOP_query_size";
    let mut op = QuerySize { dom: DOMID_SELF, ..QuerySize::new_zeroed() };
    // SAFETY: there is no address.
    unsafe { grant_op(transport, CALL, abi::GNTTABOP_QUERY_SIZE, op.as_mut_bytes()) }?;
    status(CALL, op.status)?;
    Ok((op.nr_frames, op.max_nr_frames))
}

/// Chooses the version of the caller's grant table (1 or 2). The table has to be unused.
///
/// # Errors
/// What Xen answered; [`Error::Short`] if another version is in force.
pub fn set_version<T: Transport>(transport: &T, version: u32) -> Result<()> {
    const CALL: &str = "GNTTABOP_set_version";
    let mut op = SetVersion { version };
    // SAFETY: there is no address.
    unsafe { grant_op(transport, CALL, abi::GNTTABOP_SET_VERSION, op.as_mut_bytes()) }?;
    let got = op.version;
    if got == version { Ok(()) } else { Err(Error::Short { call: CALL, asked: version.into(), got: got.into() }) }
}
