//! Power cuts in every workload, and the sums.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::disk::Faults;
use crate::explore::{Effort, Outcome, explore};
use crate::workloads::{self, Work};
use crate::{faults, replay};

/// Flushes of `reuse`, each of which fails once.
const FLUSHES: u64 = 17;
/// Wrong points of a workload that are told.
const TOLD: usize = 5;

/// For the short workloads.
const SHORT: Effort = Effort { exhaustive: 12, random: 24, deep: 8, thin: 1, enough: TOLD };
/// For those with many or large steps.
const LONG: Effort = Effort { exhaustive: 8, random: 24, deep: 8, thin: 4, enough: TOLD };
/// For those whose stores hold many pages.
const LARGE: Effort = Effort { exhaustive: 5, random: 8, deep: 32, thin: 16, enough: TOLD };
/// For random work.
const RANDOM: Effort = Effort { exhaustive: 7, random: 12, deep: 8, thin: 4, enough: TOLD };

/// How much is tried in a workload of this name.
fn effort(name: &str) -> Effort {
    match name {
        "format" | "reformat" | "take" | "rounds" | "reuse" | "restart" => SHORT,
        "random" => RANDOM,
        "full" | "clean" | "clean-reuse" | "chain-clean" | "diff-clean" | "long-chain" | "engine-tracked" => LARGE,
        _ => LONG,
    }
}

/// Runs everything, or one workload. Prints what was tried, and fails if anything was wrong.
pub fn run(first: u64, seeds: u64, only: Option<&str>, least: u64) -> Result<()> {
    let start = Instant::now();
    let mut sum = Sum::default();
    for (name, _, work) in workloads::ALL {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        // What the short ones do does not depend on the seed, only which samples are taken.
        let count = if name == "random" { seeds } else { 1 };
        sum.workload(name, work, first..first + count);
    }
    if only.is_none_or(|only| only == "failed-flush") {
        sum.begin("failed-flush", first);
        for number in 0..FLUSHES {
            let outcome = explore(&workloads::failed_flush(number, Faults::default()), first, RANDOM);
            sum.add("failed-flush", first, &outcome);
        }
        sum.line("failed-flush", FLUSHES, "a flush that fails and loses, then another writer");
    }
    println!("{} distinct crash points, {} wrong, in {:.1} s", sum.points, sum.wrong, start.elapsed().as_secs_f64());
    if only.is_none_or(|only| only == "errors") {
        sum.device(first);
    }
    ensure!(sum.wrong == 0, "{} are not as promised", sum.wrong);
    ensure!(only.is_some() || sum.points >= least, "{} crash points, at least {least} are wanted", sum.points);
    Ok(())
}

/// Over all workloads.
#[derive(Default)]
struct Sum {
    points: u64,
    wrong: usize,
    of_this: u64,
}

impl Sum {
    fn begin(&mut self, name: &str, seed: u64) {
        self.of_this = 0;
        replay::note(name, seed);
    }

    fn workload(&mut self, name: &'static str, work: Work, seeds: std::ops::Range<u64>) {
        self.begin(name, seeds.start);
        let count = seeds.end - seeds.start;
        for seed in seeds {
            replay::note(name, seed);
            let outcome = explore(&work(seed, Faults::default()), seed, effort(name));
            self.add(name, seed, &outcome);
        }
        self.line(name, count, workloads::ALL.iter().find(|(known, ..)| *known == name).map_or("", |one| one.1));
    }

    fn add(&mut self, name: &str, seed: u64, outcome: &Outcome) {
        self.points += outcome.points;
        self.of_this += outcome.points;
        self.tell(name, seed, &outcome.wrong);
    }

    fn tell(&mut self, name: &str, seed: u64, wrong: &[String]) {
        self.wrong += wrong.len();
        wrong.iter().take(TOLD).for_each(|wrong| println!("WRONG: {name}: {wrong}"));
        if !wrong.is_empty() {
            println!("again: {}", replay::command(name, seed));
        }
    }

    fn line(&self, name: &str, runs: u64, about: &str) {
        println!("{:>9} points  {name:<14} {runs:>5} x  {about}", self.of_this);
    }

    fn device(&mut self, seed: u64) {
        self.begin("errors", seed);
        let tally = faults::all(seed);
        self.tell("errors", seed, &tally.wrong);
        println!(
            "{} failed operations and full devices, {} lost and misdirected writes: {} states, {} wrong",
            tally.errors,
            tally.lies,
            tally.states,
            tally.wrong.len()
        );
    }
}
