//! `cargo xtask mutants`: what would the tests of store and session notice, if the code were wrong?

mod judge;
mod known;
mod list;
mod tree;
mod verb;
mod weave;

pub use verb::{Args, run};
