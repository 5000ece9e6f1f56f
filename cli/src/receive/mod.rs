//! The receiving end of `xl migrate`: what it says to xl, what it takes from it, and the file that it leaves.
//!
//! `tap` is the wire, `stream` knows what a migration looks like, `landing` is the file.

pub mod landing;
pub mod stream;
mod tap;

pub use tap::{Patient, Tap};

use std::path::PathBuf;

/// `receive` is started by xl, not by people.
const HELP: &str = "\
xl starts it, with its pipes as standard input and output:
  xl migrate -s '' GUEST 'livesave receive FILE'
  xl migrate -s '' GUEST 'ssh HOST livesave receive FILE'
  xl migrate -s 'livesave receive FILE' GUEST localhost
xl then says that the migration failed and resumes the guest: so it has to end. FILE is there if and only if it is
whole; `xl restore FILE` takes it. `livesave take` has the shorter pause, and keeps many snapshots.";

/// `receive`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The file to make, for `xl restore`
    pub file: PathBuf,
    /// What `xl migrate -s COMMAND` adds: the host, and xl's command for it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub ignored: Vec<String>,
}
