//! The commands, a file each. Every one returns the failure that becomes the exit status.

mod cancel;
mod dispatch;
mod doctor;
mod faults;
mod preflight;
mod progress;
mod recover;
mod rm;
mod status;
mod take;

pub use dispatch::run;
