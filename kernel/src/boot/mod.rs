//! From the first instruction to a checked start_info.
//!
//! Owns the ELF notes, the entry point and the reading of what the domain builder left behind. The builder is trusted
//! with where things are, not with whether they fit: every address is checked against the size of the domain before
//! the memory behind it is touched. Nothing here talks to anyone but the hypervisor.

mod command_line;
mod start_info;

pub use command_line::{CommandLine, CommandLineError, StoreDisk};
pub use start_info::{StartInfo, StartInfoError};

/// Virtual address of guest-physical address 0 (linker/x86_64-xen-pv.ld says the same).
pub const VIRT_BASE: u64 = 0x4000_0000;

#[cfg(feature = "image")]
core::arch::global_asm!(include_str!("entry.S"), virt_base = const VIRT_BASE);
