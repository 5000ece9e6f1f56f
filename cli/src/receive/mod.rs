//! The receiving end of `xl migrate`: what it says to xl, what it takes from it, and the file that it leaves.
//!
//! `tap` is the wire, `stream` knows what a migration looks like, `landing` is the file.

pub mod landing;
pub mod stream;
mod tap;

pub use tap::{Patient, Tap};

/// `receive` is started by xl, not by people.
pub const HELP: &str = "\
xl starts it, with its pipes as standard input and output:
  xl migrate -s '' GUEST 'livesave receive FILE'
  xl migrate -s '' GUEST 'ssh HOST livesave receive FILE'
  xl migrate -s 'livesave receive FILE' GUEST localhost
xl then says that the migration failed and resumes the guest: so it has to end. FILE is there if and only if it is
whole; `xl restore FILE` takes it. `livesave take` has the shorter pause, and keeps many snapshots.";
