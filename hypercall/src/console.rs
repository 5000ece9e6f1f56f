//! The hypervisor's own console: for last words, and for the time before the PV console works.

use crate::abi::xen::{CONSOLEIO_WRITE, HYPERVISOR_CONSOLE_IO};
use crate::domctl::count;
use crate::{Error, Loan, Result, Transport};

/// Writes bytes to the hypervisor's console.
///
/// # Errors
/// What Xen answered; FLASK may refuse.
pub fn write<T: Transport>(transport: &T, bytes: &[u8]) -> Result<()> {
    const CALL: &str = "CONSOLEIO_write";
    let len = count(CALL, bytes.len())?;
    let loan = transport.lend(bytes)?;
    // SAFETY: Xen reads `len` bytes, which are on loan.
    let value = unsafe { transport.call3(HYPERVISOR_CONSOLE_IO, CONSOLEIO_WRITE, len.into(), loan.address()) };
    Error::check(CALL, value).map(|_| ())
}
