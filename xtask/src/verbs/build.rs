//! `cargo xtask build`.

use anyhow::{Result, bail};

/// Arguments of `cargo xtask build`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_args: &Args) -> Result<()> {
    bail!("not built yet")
}
