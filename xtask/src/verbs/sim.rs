//! `cargo xtask sim`: the store in a simulated world. What it does is in the crate `sim`; arguments go there as they
//! are.

use anyhow::Result;

use crate::paths;
use crate::sh::{cmd, heading, run as run_command};

/// Crash points that CI wants at least.
const LEAST: &str = "100000";
/// Random workloads in CI; the others alone come near that number.
const SEEDS: &str = "20";
/// Random runs of the whole world in CI, beside the deaths at every step.
const WORLDS: &str = "1500";

/// Arguments of `cargo xtask sim`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Those of the simulator: `cargo xtask sim --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    heading("sim");
    sim(&args.words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What CI runs: enough power cuts, enough deaths, every safeguard left out, damage.
pub fn ci() -> Result<()> {
    heading("sim: power cuts and failing devices");
    sim(&["--seeds", SEEDS, "--least", LEAST])?;
    heading("sim: guest, stub, keeper, xenstored, and their deaths");
    sim(&["world", "--seeds", WORLDS])?;
    heading("sim: without each flush and each safeguard");
    sim(&["sabotage"])?;
    heading("sim: damage");
    sim(&["bits"])?;
    sim(&["rot"])?;
    heading("sim: how large a store becomes");
    sim(&["space"])?;
    heading("sim: hostile bytes");
    sim(&["fuzz"])?;
    heading("sim: memory and requests, 64 MiB to 1 TiB");
    sim(&["bounded"])
}

fn sim(words: &[&str]) -> Result<()> {
    let mut cargo = cmd("cargo", &["run", "--quiet", "--package", "sim", "--"]);
    run_command(cargo.args(words).current_dir(paths::root()))
}
