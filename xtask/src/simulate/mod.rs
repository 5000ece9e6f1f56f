//! `cargo xtask simulate`: the paper's evaluation, with the product's own policy code against a model of its guests.

mod mechanism;
mod model;
pub mod plot;
pub mod replay;
mod report;
mod shapes;
mod study;
mod verb;

pub use verb::{Args, run};
