//! One take as a state machine: what to do next, given what was seen. No clock, no I/O, no memory of pages.

pub mod limits;
mod machine;
mod trouble;

pub use machine::{Action, Capture, Machine, Observation, Pass};
pub use trouble::Trouble;
