//! The simulator: the production store on a disk that loses, tears, reorders and lies, with power cuts everywhere; the
//! whole world around it, with the deaths of everybody; and hostile bytes for every parser, those of the drivers too.
//!
//! Deterministic: seed and workload give the same run again. `cargo xtask sim` runs it. It uses the store as the stub
//! does, with nothing of its own between the two but the disk.

mod bits;
mod content;
mod crashes;
mod disk;
mod explore;
mod faults;
mod forge;
mod fuzz;
mod heap;
mod history;
mod image;
mod judge;
mod replay;
#[cfg(test)]
mod requests;
mod rng;
mod rot;
mod sabotage;
mod scenes;
mod space;
mod take;
mod workloads;
mod world;

use clap::{Args, Parser, Subcommand};

/// Cut the power, damage the disk, leave out safeguards.
#[derive(Parser)]
#[command(name = "cargo xtask sim")]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    crashes: Crashes,
}

#[derive(Args)]
struct Crashes {
    /// Random workloads, with as many seeds
    #[arg(long, default_value_t = 150)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this workload; also `failed-flush` and `errors`
    #[arg(long)]
    workload: Option<String>,
    /// Fail with fewer crash points
    #[arg(long, default_value_t = 0)]
    least: u64,
}

#[derive(Subcommand)]
enum Part {
    /// Leave out each flush and each safeguard in turn; each must be missed
    Sabotage {
        /// Only those with this in their name; several with commas
        #[arg(long)]
        only: Option<String>,
    },
    /// Flip single bits of a small store
    Bits {
        /// Really every one
        #[arg(long)]
        every: bool,
    },
    /// Hostile bytes for every parser
    Fuzz {
        /// Inputs for each target, divided by what one costs there
        #[arg(long, default_value_t = 200_000)]
        inputs: u64,
        /// Where the randomness begins
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only this one
        #[arg(long)]
        target: Option<String>,
    },
    /// What a take of guests of all sizes costs in memory and requests
    Bounded {
        /// The largest guest
        #[arg(long, default_value_t = 1 << 20)]
        mib: u64,
    },
    /// What a store needs when the last snapshots are kept and each take changes a part
    Space {
        /// MiB of the guest
        #[arg(long, default_value_t = 32)]
        mib: u64,
        /// Takes
        #[arg(long, default_value_t = 100)]
        takes: u64,
        /// Snapshots that are kept
        #[arg(long, default_value_t = 7)]
        keep: usize,
        /// Where the randomness begins
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Guest, stub, keeper, xenstored and who calls them, with deaths at any step
    World(world::Options),
    /// Random damage in a large store
    Rot {
        /// MiB of pages
        #[arg(long, default_value_t = 32)]
        mib: u64,
        /// Flips, swaps, stale and misdirected blocks
        #[arg(long, default_value_t = 60_000)]
        events: u64,
        /// So many at a time, then everything is read; without it one for every fourth page
        #[arg(long)]
        batch: Option<u64>,
        /// Where the randomness begins
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> anyhow::Result<()> {
    replay::on_panic();
    let Arguments { part, crashes } = Arguments::parse();
    match part {
        None => {
            let known = |name: &&str| ["failed-flush", "errors"].contains(name) || workloads::find(name).is_some();
            let only = crashes.workload.as_deref();
            anyhow::ensure!(only.as_ref().is_none_or(known), "no such workload");
            crashes::run(crashes.seed, crashes.seeds, only, crashes.least)
        }
        Some(Part::Sabotage { only }) => sabotage::run_all(only.as_deref().unwrap_or_default()),
        Some(Part::Bits { every }) => bits::table(if every { bits::Bits::Every } else { bits::Bits::Some }),
        Some(Part::Fuzz { inputs, seed, target }) => fuzz::run(inputs, seed, target.as_deref()),
        Some(Part::World(options)) => world::command(&options),
        Some(Part::Bounded { mib }) => take::table(mib),
        Some(Part::Space { mib, takes, keep, seed }) => space::table(mib, takes, keep, seed),
        Some(Part::Rot { mib, events, batch, seed }) => {
            rot::random(mib, events, batch.unwrap_or(mib * 64).max(1), seed)
        }
    }
}
