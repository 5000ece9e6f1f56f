//! The ports of `snapshot`, over hypercalls and drivers.
//!
//! ```text
//! target.rs   one guest: who it is, its platform state
//! dirty.rs    its dirty bitmap
//! memory.rs   its frames
//! pv.rs      what a PV guest needs beside
//! block.rs    the store's device
//! ```
//! Nothing here decides: an error is translated into who must act, a value is passed on as Xen gave it.

mod block;
mod dirty;
mod memory;
mod pv;
mod target;

pub use block::Disk;
pub use target::XenTarget;
