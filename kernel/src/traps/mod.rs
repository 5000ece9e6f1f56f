//! Exceptions: how they arrive (entry.S) and how they are reported.

mod report;

pub use report::install;

#[cfg(feature = "image")]
core::arch::global_asm!(include_str!("entry.S"));
