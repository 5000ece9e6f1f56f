//! `cargo xtask build`: the stub domain, the CLI, and what the lab boots.

use std::path::PathBuf;

use anyhow::Result;

use crate::images::{self, programs, stubdom};
use crate::packages;
use crate::sh::heading;

/// Arguments of `cargo xtask build`.
#[derive(clap::Args, Default)]
pub struct Args {}

/// What was built of our own.
pub struct Built {
    /// The stub domain, stripped.
    pub stub: PathBuf,
    /// The test kernel that tries what the policy forbids.
    pub prober: PathBuf,
    /// The CLI, static.
    pub cli: PathBuf,
}

/// Runs the verb.
pub fn run(_args: &Args) -> Result<()> {
    packages::ensure_installed()?;
    ours()?;
    images::build()?;
    Ok(())
}

/// Stub domain, test kernel and CLI.
pub fn ours() -> Result<Built> {
    heading("stub domain and CLI");
    let (stub, prober) = (stubdom::build()?, stubdom::prober()?);
    let cli = programs::build("livesave")?.join("livesave");
    Ok(Built { stub, prober, cli })
}
