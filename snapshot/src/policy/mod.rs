//! When to stop copying in rounds: pure functions from what was counted to a decision.
//!
//! A policy sees counts and predictions, never pages or ports, so a table can test it and a simulation can compare it
//! with the closed form. It cannot extend a take beyond [`Policy::rounds`]. By file: `outlook` what a pause would cost,
//! `disk` what of it the store's device decides; `paper` the rules of the paper and of Xen; `staged` ours; `rules` all
//! of them under one roof.

mod disk;
mod outlook;
mod paper;
mod rules;
mod staged;

pub use disk::{Disk, Pace};
pub use outlook::{INDEX_BYTES, Outlook};
pub use paper::{HIGH_DEFAULT_MILLI, LIVE_DIRTY_MIN, LIVE_ROUNDS_MAX, LIVE_SENT_FACTOR, XEN_DIRTY_MIN, XEN_ROUNDS_MAX};
pub use rules::{Decision, High, Policy, Refusal, RoundStats, Settings};
pub use staged::{Busy, STAGED_ROUNDS_MAX, THROTTLE_STEPS};
