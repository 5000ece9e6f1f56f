//! How a hypercall reaches Xen, and how a buffer does.
//!
//! Xen reads and writes the caller's memory by virtual address. In a domain of our own every address will do, and a
//! loan is only the address: nothing is copied, nothing allocated. A process in dom0 may lend only memory that Linux
//! never moves, so its loans are copies. The typed calls know neither: they lend slices.

#[cfg(feature = "fake")]
pub mod fake;
mod interface;
#[cfg(all(feature = "privcmd", target_os = "linux"))]
pub mod privcmd;
#[cfg(all(feature = "guest", target_arch = "x86_64"))]
pub mod pv;

pub use interface::{Loan, Transport};
