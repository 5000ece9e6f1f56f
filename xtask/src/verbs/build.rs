//! `cargo xtask build`.

use std::path::PathBuf;

use anyhow::Result;

use crate::images::stubdom;

/// Arguments of `cargo xtask build`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_args: &Args) -> Result<()> {
    stub()?;
    stubdom::prober()?;
    Ok(())
}

/// Builds the stub domain and returns its stripped image.
pub fn stub() -> Result<PathBuf> {
    stubdom::build()
}
