//! dom0 as this program needs it: xenstore, Xen, devices, files of state. Each wraps one thing and decides nothing.

pub mod ahead;
pub mod device;
pub mod files;
pub mod lease;
pub mod probe;
pub mod thin;
pub mod tree;
pub mod xen;
pub mod xl;
