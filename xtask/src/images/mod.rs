//! What the nested host boots: hypervisor, policy, dom0's image, and the Rust programs inside.

mod boot;
pub mod dom0;
pub mod hypervisor;
pub mod kernel;
pub mod narrow;
pub mod policy;
pub mod programs;
pub mod small;
pub mod stubdom;

pub use boot::build;
