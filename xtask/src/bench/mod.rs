//! `cargo xtask bench`: the mechanisms that the paper compares, and ours, on real guests under nested Xen, measured by
//! one observer outside all of them.

mod cells;
mod goals;
mod host;
mod plan;
mod raw;
mod report;
mod sample;
mod site;
mod time;
mod verb;

pub use verb::{Args, run};
