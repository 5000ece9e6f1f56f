//! The nested host: QEMU with Xen and a Linux dom0, driven over virtio-serial ports.

mod bare;
mod client;
mod guest;
mod handle;
mod machine;
mod monitor;
pub mod overlay;
mod pulse;
mod stub;
mod watch;

pub use bare::registers;
pub use client::{Output, Port};
pub use guest::{Counter, Details, Guest, GuestKernel, GuestKind, GuestSpec, TARGET_LABEL};
pub use handle::{Background, Lab};
pub use machine::{Content, Disk, Images, Machine, Spec, stream_judge};
pub use monitor::{DiskWork, Monitor};
pub use stub::{STORE_DEVICE, STUB};
pub use watch::Watch;
