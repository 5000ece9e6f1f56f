//! Front-end protocols of a Xen guest: shared pages, rings, xenstore, xenbus handshakes, blkfront, console.
//!
//! Everything is generic over [`platform::Platform`], which stands for the hypervisor; the stub implements it with
//! hypercalls, the tests with `platform::fake`, which is stricter than Xen. Invariants of the crate: no peer is
//! believed (one read per shared field into a local, checked before use), every wait has a deadline, every queue a
//! bound, and no code here panics on what a peer wrote. `unsafe` lives in `ring/shared.rs` alone.
#![no_std]
#![deny(missing_docs, unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod blkfront;
pub mod console;
pub mod grant;
pub mod platform;
pub mod ring;
pub mod types;
pub mod xenbus;
pub mod xenstore;
