//! `cargo xtask bench`: the mechanisms that the paper compares, and ours, on real guests under nested Xen, measured by
//! one observer outside all of them.

mod goals;
mod host;
mod plan;
mod report;
mod sample;
mod verb;

pub use verb::{Args, run};
