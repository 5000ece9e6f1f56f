//! The keeper as a process: the executor around `snapshot::keeper::Machine`, and the CLI's end of it.
//!
//! `process` runs in the keeper, `link` in the CLI; `words` is what they say to each other. The keeper must never
//! wait for xenstored, the stub or the CLI while the guest stands: those waits live in threads of their own.

mod desk;
mod errands;
pub mod hook;
pub mod keepoff;
pub mod link;
pub mod process;
pub mod record;
mod senses;
mod throttle;
pub mod words;
