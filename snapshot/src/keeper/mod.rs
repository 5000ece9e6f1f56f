//! The keeper: who owns the guest between the request and the resume.
//!
//! This directory holds the decisions only: a machine that is stepped with what dom0 sees and answers with one action.
//! It has no clock and does no I/O; the process around it lives in the CLI. Invariants, each with a test in
//! `tests/`: a guest that we suspended is resumed on every path; a suspend that is not ours is never resumed by us; the
//! subscription that keeps the suspend silent is reset on every path; exactly one verdict is given.

mod deadlines;
mod heard;
mod machine;
mod recovery;
mod steps;
mod words;

pub use deadlines::{Deadlines, ROWS, Row};
pub use heard::Heard;
pub use machine::{Machine, Mark, Report, Times};
pub use recovery::{Deeds, Dom0, Left, Request, StubNow, recover, still_awaited};
pub use words::{
    Action, Cli, Command, Completion, Control, Hook, Observation, Outcome, Pace, Reason, Stub, Target, Verdict,
};

#[cfg(test)]
mod tests;
