//! Everything that is done to the FLASK policy: compiling it with our module, and reading back what it allows.

mod binary;
mod compile;
mod effective;
mod reader;
mod refusals;
#[cfg(test)]
mod tests;
mod verb;

pub use compile::compile;
pub use verb::{Args, prove, run};
