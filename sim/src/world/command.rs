//! `cargo xtask sim world`: random runs, and one death at every step of a few short ones.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use snapshot::policy::Busy;
use snapshot::request::{Kind, Mode};

use super::plan::{MS, Manners, Plan, S, Strike, Wish, calm, of_seed};
use super::run::{Outcome, run as run_plan};
use super::tally::Tally;
use crate::replay;

/// Wrong runs that are told.
const TOLD: usize = 5;
/// A run of no more steps is short.
const SHORT: u64 = 1000;
/// Of a long one, which consists of waiting: so many first steps, and so many others.
const FIRST: u64 = 120;
const SAMPLES: u64 = 30;

/// Arguments of `cargo xtask sim world`.
#[derive(clap::Args)]
pub struct Options {
    /// Random runs, with as many seeds
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the random runs
    #[arg(long)]
    random: bool,
    /// Only this death: SCENARIO:PARTY:STEP
    #[arg(long)]
    death: Option<String>,
}

/// Who dies, alone or together.
const PARTIES: [(&str, &[Strike]); 7] = [
    ("stub", &[Strike::StubDies]),
    ("keeper", &[Strike::KeeperDies]),
    ("caller", &[Strike::CliDies]),
    ("guest", &[Strike::Destroy]),
    ("power", &[Strike::PowerCut]),
    ("keeper-and-stub", &[Strike::KeeperDies, Strike::StubDies]),
    ("caller-and-keeper", &[Strike::CliDies, Strike::KeeperDies]),
];

/// The short runs in which each party dies at every step.
fn scenarios() -> [(&'static str, Vec<Wish>); 6] {
    let slow = Manners { ack_ns: Some(3 * MS), suspend_ns: Some(31 * S) };
    let throttled = Wish { on_busy: Busy::Throttle, staging_kib: Some(16), ..calm(Mode::Staged) };
    [
        ("save", vec![calm(Mode::Save)]),
        ("live", vec![calm(Mode::Live)]),
        ("staged", vec![calm(Mode::Staged)]),
        ("throttled", vec![throttled]),
        ("late", vec![Wish { manners: slow, ..calm(Mode::Live) }]),
        ("tracked", vec![Wish { kind: Kind::Incremental, ..calm(Mode::Live) }; 2]),
    ]
}

/// The random run of this seed; `told`: with its story.
pub fn one(seed: u64, told: bool) -> Outcome {
    replay::note("world", seed);
    run_plan(of_seed(seed), told)
}

/// What was wrong, and how to see it again.
#[derive(Default)]
struct Sum {
    tally: Tally,
    wrong: usize,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome, again: &str) {
        self.tally.add(&outcome.tally);
        let Some(first) = outcome.wrong.first() else { return };
        self.wrong += 1;
        if self.wrong <= TOLD {
            println!("WRONG: {first}\nagain: {again}");
        }
    }
}

/// Runs it all. Prints what was tried, and fails if anything was wrong.
pub fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let mut sum = Sum::default();
    if let Some(death) = &options.death {
        let outcome = of_name(death)?;
        sum.add(&outcome, &format!("cargo xtask sim world --death {death}"));
    } else {
        for seed in options.seed..options.seed + options.seeds {
            sum.add(&one(seed, options.seeds == 1), &replay::command("world", seed));
        }
        if !options.random && options.seeds > 1 {
            every_step(&mut sum);
        }
    }
    sum.tally.print();
    println!("{} of {} runs wrong, in {:.1} s", sum.wrong, sum.tally.runs, start.elapsed().as_secs_f64());
    ensure!(sum.wrong == 0, "{} runs are not as promised", sum.wrong);
    Ok(())
}

/// The plan of a scenario, with deaths at a step.
fn plan(takes: &[Wish], deaths: &[Strike], step: u64) -> Plan {
    let strikes = deaths.iter().map(|death| (step, *death)).collect();
    Plan { seed: 7, takes: takes.to_vec(), strikes, cap: 70 }
}

/// All steps of a short run; of a long one the first, and some of the others.
fn steps_of(steps: u64) -> impl Iterator<Item = u64> {
    let stride = (steps / SAMPLES).max(1);
    (0..steps).filter(move |step| steps <= SHORT || *step < FIRST || step.is_multiple_of(stride))
}

/// Each party dies once at every step of every scenario.
fn every_step(sum: &mut Sum) {
    for (scenario, takes) in scenarios() {
        replay::note(&format!("world {scenario}"), 0);
        let whole = run_plan(plan(&takes, &[], 0), false);
        sum.add(&whole, &format!("cargo xtask sim world --death {scenario}:stub:{}", u64::MAX));
        let steps = whole.tally.steps;
        for (party, deaths) in PARTIES {
            for step in steps_of(steps) {
                let name = format!("{scenario}:{party}:{step}");
                replay::note(&format!("world {scenario}:{party}"), step);
                sum.add(&run_plan(plan(&takes, deaths, step), false), &format!("cargo xtask sim world --death {name}"));
            }
        }
        let tried = steps_of(steps).count();
        println!("{steps:>9} steps  {scenario:<10} each of {} deaths at {tried} of them", PARTIES.len());
    }
}

fn of_name(name: &str) -> Result<Outcome> {
    let parts: Vec<&str> = name.split(':').collect();
    let [scenario, party, step] = parts[..] else { bail!("SCENARIO:PARTY:STEP") };
    let takes = scenarios().into_iter().find(|(known, _)| *known == scenario).context("no such scenario")?.1;
    let deaths = PARTIES.iter().find(|(known, _)| *known == party).context("no such party")?.1;
    Ok(run_plan(plan(&takes, deaths, step.parse()?), true))
}
