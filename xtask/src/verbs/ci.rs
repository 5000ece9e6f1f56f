//! `cargo xtask ci`: exactly what CI runs, cheapest first.

use anyhow::Result;

use super::{sim, test};
use crate::packages;
use crate::paths;
use crate::sh::{cmd, heading, read, run as run_command};
use crate::{abi, tidy};

/// Arguments of `cargo xtask ci`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_args: &Args) -> Result<()> {
    heading("tools");
    for (program, argument) in [("cargo", "--version"), ("rustc", "--version")] {
        print!("{}", read(&mut cmd(program, &[argument]))?);
    }
    packages::ensure_installed()?;
    heading("tidy");
    tidy::run()?;
    cargo(&["fmt", "--all", "--check"])?;
    heading("abi");
    abi::run()?;
    heading("clippy");
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    sim::ci()?;
    test::run(&test::Args::default())
}

fn cargo(words: &[&str]) -> Result<()> {
    run_command(cmd("cargo", words).current_dir(paths::root()))
}
