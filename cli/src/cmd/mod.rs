//! The commands, a file each. Every one returns the failure that becomes the exit status.

mod accept;
mod cancel;
mod check;
mod choices;
mod disarm;
mod dispatch;
mod doctor;
mod export;
mod faults;
mod follow;
mod init;
mod list;
mod policy;
mod preflight;
mod progress;
mod prune;
mod receive;
mod recover;
mod restore;
mod rm;
mod size;
mod status;
mod take;
mod trace;
mod verify;

pub use dispatch::run;
