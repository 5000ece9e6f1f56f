//! The nested host: QEMU with Xen and a Linux dom0, driven over virtio-serial ports.

mod client;
mod guest;
mod handle;
mod machine;

pub use client::{Output, Port};
pub use guest::{Counter, Guest, GuestKind, GuestSpec};
pub use handle::{Background, Lab};
pub use machine::{Content, Disk, Images, Machine, Spec};
