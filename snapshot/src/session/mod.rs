//! One take as a state machine: what to do next, given what was seen. No clock, no I/O, no memory of pages.

pub mod limits;
mod machine;
mod trouble;
mod words;

pub use machine::Machine;
pub use trouble::Trouble;
pub use words::{Action, Capture, Observation, Pass};
