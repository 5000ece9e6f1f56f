//! PV guests as targets: their pfns behind the same ports as the gfns of PVH guests.
//!
//! ```text
//! host.rs    what a PV guest needs of the hypervisor, as a port
//! walk.rs    finds the frames of the guest's p2m
//! p2m.rs     the p2m while it is in use, checked against the M2P entry by entry
//! tables.rs  page tables: machine frames out, pfns in
//! types.rs   which page is a page table, for the stream
//! vcpu.rs    registers that name machine frames
//! target.rs  the target that the engine works with
//! any.rs     a target of either kind
//! ```
//! p2m, page tables and registers are the guest's word: read once, checked, bounded.

mod any;
mod host;
mod p2m;
mod tables;
mod target;
mod types;
mod vcpu;
mod walk;

pub use any::AnyTarget;
pub use host::{Maps, PvHost};
pub use p2m::{LEAF_PFNS, LEAVES_MAX, P2m};
pub use tables::{Unsettled, normalise};
pub use target::PvTarget;
pub use types::{PageTypes, RANGES_MAX, TypeRange, TypeRanges};
pub use vcpu::{VCPU_CONTEXT_BYTES, VcpuContext};
