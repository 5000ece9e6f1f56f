//! Several hypercalls in one trap. Xen does them in order and goes on whatever one of them answers.

use zerocopy::IntoBytes;

use crate::abi::xen::{HYPERVISOR_MULTICALL, MulticallEntry};
use crate::domctl::count;
use crate::{Error, Loan, Result, Transport};

/// One of the calls, with at most six arguments.
#[must_use]
pub fn entry(number: u32, arguments: &[u64]) -> MulticallEntry {
    let mut args = [0; 6];
    args.iter_mut().zip(arguments).for_each(|(to, from)| *to = *from);
    MulticallEntry { op: number.into(), result: 0, args }
}

/// Does `calls` in order; what each answered is in its `result`.
///
/// # Errors
/// What Xen answered to the whole, none of which was done then.
///
/// # Safety
/// The caller vouches for each call as if it were issued alone, and for what it touches after those before it failed.
pub unsafe fn multicall<T: Transport>(transport: &T, calls: &mut [MulticallEntry]) -> Result<()> {
    const CALL: &str = "multicall";
    let len = count(CALL, calls.len())?;
    let loan = transport.lend_mut(calls.as_mut_bytes())?;
    // SAFETY: the list is on loan; the caller vouches for the calls in it.
    let value = unsafe { transport.call2(HYPERVISOR_MULTICALL, loan.address(), len.into()) };
    drop(loan);
    Error::check(CALL, value).map(|_| ())
}

/// What one of the calls answered.
///
/// # Errors
/// The errno in it.
pub fn answer(call: &'static str, done: &MulticallEntry) -> Result<u64> {
    Error::check(call, done.result.cast_signed())
}
