//! `cargo xtask VERB`: everything that is done to this repository, one file a verb.
//!
//! Every command that a verb runs is echoed before it starts. A verb leaves nothing behind outside `target/` and the
//! cache directory (`$LIVESAVE_CACHE`, or `~/.cache/livesave`).

mod abi;
mod bench;
mod flask;
mod images;
mod mutants;
mod packages;
mod paths;
mod sh;
mod simulate;
mod tidy;
mod verbs;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, run and check Live Save")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Compile the stub domain, the CLI, the lab's hypervisor and its FLASK policy.
    Build(verbs::build::Args),
    /// Boot nested Xen and run commands in its dom0.
    Lab(verbs::lab::Args),
    /// Snapshot a running guest, destroy it and bring it back, under nested Xen.
    Demo(verbs::demo::Args),
    /// Host tests, then the nested tests.
    Test(verbs::test::Args),
    /// Leave everything that a host needs in target/dist.
    Dist(verbs::dist::Args),
    /// The paper's evaluation, with our policies against a model of its guests.
    Simulate(simulate::Args),
    /// The paper's mechanisms and ours on guests under nested Xen, measured from outside.
    Bench(bench::Args),
    /// The store in a simulated world: power cuts, damage, safeguards left out.
    Sim(verbs::sim::Args),
    /// What would the tests of store and session notice, if the code were wrong? By cargo-mutants, in one build.
    Mutants(mutants::Args),
    /// Exactly what CI runs.
    Ci(verbs::ci::Args),
    /// Compare our ABI types with the installed Xen headers.
    Abi,
    /// Compile the FLASK policy, and compare what it gives to the stub with flask/effective-permissions.txt.
    Flask(flask::Args),
    /// Check the house rules that a machine can check.
    Tidy,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().verb {
        Verb::Build(args) => verbs::build::run(&args),
        Verb::Lab(args) => verbs::lab::run(&args),
        Verb::Demo(args) => verbs::demo::run(&args),
        Verb::Test(args) => verbs::test::run(&args),
        Verb::Dist(args) => verbs::dist::run(&args),
        Verb::Simulate(args) => simulate::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Sim(args) => verbs::sim::run(&args),
        Verb::Mutants(args) => mutants::run(&args),
        Verb::Ci(args) => verbs::ci::run(&args),
        Verb::Abi => abi::run(),
        Verb::Flask(args) => flask::run(&args),
        Verb::Tidy => tidy::run(),
    }
}
