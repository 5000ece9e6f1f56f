//! `cargo xtask lab`.

use anyhow::{Result, bail};

/// Arguments of `cargo xtask lab`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_args: &Args) -> Result<()> {
    bail!("not built yet")
}
