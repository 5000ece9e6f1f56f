//! What was seen in all runs, so that one can tell whether anything was tried.

use std::collections::BTreeMap;

use snapshot::keeper::Verdict;
use snapshot::status::{State, Status};

/// Counts.
#[derive(Default)]
pub struct Tally {
    pub runs: u64,
    pub takes: u64,
    pub steps: u64,
    pub strikes: u64,
    pub suspends: u64,
    pub recoveries: u64,
    /// Guests that `recover` found standing by us.
    pub rescued: u64,
    /// Suspends of another tool that `recover` could not tell from ours, and ended.
    pub undecidable: u64,
    pub throttled: u64,
    pub stood_ns_max: u64,
    /// Disks that were looked at.
    pub disks: u64,
    /// What the last recovery left.
    pub left: Vec<String>,
    deaths: BTreeMap<(&'static str, &'static str), u64>,
    endings: BTreeMap<String, u64>,
    verdicts: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn death(&mut self, party: &'static str, state: State) {
        let state = if state.is_final() { "idle" } else { state.word() };
        *self.deaths.entry((party, state)).or_default() += 1;
    }

    pub fn ending(&mut self, status: &Status) {
        let cause = status.fault.map_or("", |fault| fault.word());
        *self.endings.entry(format!("{} {cause}", status.state.word()).trim_end().to_owned()).or_default() += 1;
    }

    pub fn end(&mut self, how: &str) {
        *self.endings.entry(how.to_owned()).or_default() += 1;
    }

    pub fn verdict(&mut self, verdict: Verdict) {
        let word = match verdict {
            Verdict::Resumed => "resumed",
            Verdict::Void(reason) => reason.word(),
        };
        *self.verdicts.entry(word).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.takes += other.takes;
        self.steps += other.steps;
        self.strikes += other.strikes;
        self.suspends += other.suspends;
        self.recoveries += other.recoveries;
        self.rescued += other.rescued;
        self.undecidable += other.undecidable;
        self.throttled += other.throttled;
        self.stood_ns_max = self.stood_ns_max.max(other.stood_ns_max);
        self.disks += other.disks;
        other.deaths.iter().for_each(|(key, count)| *self.deaths.entry(*key).or_default() += count);
        other.endings.iter().for_each(|(key, count)| *self.endings.entry(key.clone()).or_default() += count);
        other.verdicts.iter().for_each(|(key, count)| *self.verdicts.entry(key).or_default() += count);
    }

    pub fn print(&self) {
        println!(
            "{} runs, {} takes, {} steps, {} strikes, {} suspends, {} recoveries ({} found the guest standing, {} \
             could not tell whose suspend it was), {} throttled, {} disks looked at",
            self.runs,
            self.takes,
            self.steps,
            self.strikes,
            self.suspends,
            self.recoveries,
            self.rescued,
            self.undecidable,
            self.throttled,
            self.disks
        );
        println!(
            "a guest stood by us for {} ms at most; with a keeper that lived, for no longer than its deadlines",
            self.stood_ns_max / 1_000_000
        );
        println!("deaths by party, in the state of the session:");
        for party in ["stub", "keeper", "caller", "guest", "power"] {
            let of_party = self.deaths.iter().filter(|((who, _), _)| *who == party);
            let each: Vec<String> = of_party.map(|((_, state), count)| format!("{state} {count}")).collect();
            println!("  {party:<7} {}", each.join(", "));
        }
        let line = |counts: Vec<String>| counts.join(", ");
        println!("the stub's endings: {}", line(self.endings.iter().map(|(how, n)| format!("{how} {n}")).collect()));
        println!("the keeper's: {}", line(self.verdicts.iter().map(|(how, n)| format!("{how} {n}")).collect()));
    }
}
