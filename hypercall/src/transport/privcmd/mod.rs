//! Hypercalls of a process in dom0, and what goes with them: frames of guests, event channels.
//!
//! All that is unsafe about the devices `/dev/xen/{privcmd,hypercall,evtchn}` is in this directory; its callers need
//! none.

mod device;
mod evtchn;
mod foreign;
mod ioctl;
mod pages;

pub use device::{Bounced, Privcmd};
pub use evtchn::Evtchn;
pub use foreign::ForeignPages;
