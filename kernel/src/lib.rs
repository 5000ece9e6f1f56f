//! The stub domain's machine: boot, memory, exceptions, time, console, and the ports of `snapshot` over hypercalls.
//!
//! `main.rs` is the stub itself; `bin/prober.rs` is a test kernel that shares everything below it. One vCPU, no
//! interrupts, upcalls masked for ever, everything waits in SCHEDOP_poll.
#![cfg_attr(not(test), no_std)]
#![deny(missing_docs)]

extern crate alloc;

pub mod boot;
pub mod console;
pub mod grants;
pub mod hv;
pub mod log;
pub mod machine;
pub mod mm;
pub mod panic;
pub mod platform;
pub mod ports;
pub mod serve;
pub mod shared_info;
pub mod time;
pub mod traps;

// memcpy and its kin, which core calls.
#[cfg(feature = "image")]
core::arch::global_asm!(include_str!("mem.S"));
