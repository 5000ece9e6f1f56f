//! Xen's public headers as Rust: numbers, flags and `repr(C)` structures, little-endian x86_64 only.
//!
//! The rules: names follow Xen's; integers stay integers (no enum, bool or reference over memory that Xen or a guest
//! can write); every structure is free of implicit padding and asserts its size and offsets. Guest handles are `u64`
//! addresses in the caller. Nothing here checks a value: a field that a peer can write is believed by nobody yet.
//!
//! Each file cites its header; the layouts are the same from Xen 4.17 to 4.22.

pub mod domctl;
pub mod event;
pub mod flask;
pub mod grant;
pub mod hvm;
pub mod io;
pub mod linux;
pub mod memory;
pub mod mmu;
pub mod sched;
pub mod start_info;
#[cfg(feature = "abi-table")]
mod table;
pub mod vcpu;
pub mod version;
pub mod xen;

#[cfg(feature = "abi-table")]
pub use table::{Row, errnos, rows};
