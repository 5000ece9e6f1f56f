//! Xen's public interface for this project: the ABI structures as Xen's headers have them, the types that name
//! domains and frames, and typed hypercalls that are generic over how a hypercall is issued.
//!
//! * [`abi`] holds bytes: `repr(C)` structures, numbers, flags; checked against Xen's headers by `cargo xtask abi`.
//! * [`Transport`] issues a call and lends buffers to the hypervisor: the PV hypercall page (feature `guest`),
//!   `/dev/xen/privcmd` (feature `privcmd`), or a script (feature `fake`).
//! * The other modules are the typed calls, one module for each group of Xen's.
//!
//! Nothing here decides anything: policies, retries and waits belong to the callers. The crate is a leaf.
#![cfg_attr(not(any(test, feature = "privcmd", feature = "fake")), no_std)]
#![deny(missing_docs)]

#[macro_use]
mod macros;
pub mod abi;
pub mod cap;
pub mod console;
#[cfg(any(feature = "privcmd", feature = "fake"))]
pub mod dom0;
pub mod domctl;
mod errno;
mod error;
pub mod event;
pub mod flask;
pub mod grant;
pub mod hvm;
pub mod memory;
pub mod mmu;
pub mod multicall;
pub mod sched;
pub mod shadow;
pub mod transport;
pub mod traps;
pub mod types;
pub mod vcpu;
pub mod version;

#[cfg(test)]
mod tests;

pub use domctl::Domctl;
pub use errno::XenErrno;
pub use error::{Error, Result};
pub use transport::{Loan, Transport};
pub use types::{DomHandle, DomId, EvtchnPort, Gfn, GrantRef, Mfn, PAGE_SHIFT, PAGE_SIZE, Pfn};
