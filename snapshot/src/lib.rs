//! Every decision of Live Save, and its formats: pure, `no_std`, without unsafe code.
//!
//! The crate owns the port traits (`ports`) and the text of the xenstore protocol; the kernel and dom0 depend on it,
//! never the other way round. No clock and no I/O but through a port.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod copy;
pub mod export;
pub mod fault;
pub mod fields;
pub mod keeper;
pub mod mailbox;
pub mod names;
pub mod policy;
pub mod ports;
pub mod prune;
pub mod pv;
pub mod request;
pub mod session;
pub mod staging;
pub mod status;
pub mod store;
pub mod stream;
pub mod take;
pub mod trace;
pub mod tracking;
pub mod verdict;
