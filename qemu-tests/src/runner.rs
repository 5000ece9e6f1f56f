//! Runs scenarios on as few boots as they allow, and reports a verdict for each; the worst one is the run's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::lab::{Lab, Spec};
use crate::say;
use crate::scenarios::{Boot, Scenario};
use crate::verdict::{self, Verdict};

/// What to do on a machine before its first scenario: the files under test are copied into dom0.
pub type Install<'a> = &'a (dyn Fn(&Lab) -> Result<()> + Sync);

/// Machines at a time. Each needs a processor of its own and 5 GiB.
pub const MACHINES_MOST: usize = 4;

/// How a run went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Name and verdict of each scenario.
    pub verdicts: Vec<(String, Verdict)>,
}

impl Report {
    /// Scenarios that ended in success.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Success).count()
    }

    /// Scenarios that were skipped.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Skip).count()
    }

    /// All others.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.verdicts.len() - self.passed() - self.skipped()
    }

    /// The worst verdict; a run without any is an error, not a success.
    #[must_use]
    pub fn worst(&self) -> Verdict {
        self.verdicts.iter().map(|(_, verdict)| *verdict).max().unwrap_or(Verdict::Error)
    }
}

/// Runs them all, `machines` at a time. `base` is the ordinary machine, whose directory's name gets the scenario's or
/// `shared-N` appended.
///
/// The scenarios are dealt out in the given order, each to the machine that is free first, so long ones belong first.
/// The report is in the given order again.
pub fn run(scenarios: &[Scenario], base: &Spec, machines: usize, install: Install) -> Report {
    let machines = machines.clamp(1, MACHINES_MOST).min(scenarios.len());
    let next = AtomicUsize::new(0);
    let mut results = thread::scope(|scope| {
        let next = &next;
        let work = move |number| {
            move || Worker { base, install, number, shared: None, aside: machines > 1 }.work(scenarios, next)
        };
        let workers: Vec<_> = (1..=machines).map(|number| scope.spawn(work(number))).collect();
        // A thread that died took its verdicts along: what is missing below is an ERROR.
        workers.into_iter().filter_map(|worker| worker.join().ok()).flatten().collect::<BTreeMap<_, _>>()
    });
    let verdict =
        |(at, scenario): (usize, &Scenario)| (scenario.name.to_owned(), results.remove(&at).unwrap_or(Verdict::Error));
    Report { verdicts: scenarios.iter().enumerate().map(verdict).collect() }
}

/// Runs them on a machine that is up, one after the other, and leaves it running. Its own `Boot` is not looked at.
pub fn run_in(scenarios: &[Scenario], lab: &Lab) -> Report {
    let mut report = Report::default();
    for scenario in scenarios {
        say!("-- {}", scenario.name);
        let started = Instant::now();
        let verdict = told(scenario, &checked(scenario, lab), started);
        report.verdicts.push((scenario.name.to_owned(), verdict));
    }
    report
}

/// One thread, with at most one machine at a time.
struct Worker<'a> {
    base: &'a Spec,
    install: Install<'a>,
    number: usize,
    shared: Option<Lab>,
    aside: bool,
}

impl Worker<'_> {
    /// Takes scenarios until none is left, and says how each ended.
    fn work(mut self, scenarios: &[Scenario], next: &AtomicUsize) -> Vec<(usize, Verdict)> {
        let mut verdicts = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(scenario) = scenarios.get(at) else { break };
            println!("-- {}{}", scenario.name, self.place());
            if self.aside {
                say::hold();
            }
            let started = Instant::now();
            let result = self.run_one(scenario);
            verdicts.push((at, told(scenario, &result, started)));
            say::release();
        }
        if let Some(lab) = self.shared {
            // A machine that does not go by itself is killed; the verdicts are in already.
            let _ = lab.poweroff();
        }
        verdicts
    }

    fn place(&self) -> String {
        if self.aside { format!(" (machine {})", self.number) } else { String::new() }
    }

    fn run_one(&mut self, scenario: &Scenario) -> Result<()> {
        if let Boot::Many(run) = scenario.boot {
            return run(&self.named(scenario.name), self.install);
        }
        if let Some(spec) = self.own(scenario)? {
            let lab = boot(&spec, self.install)?;
            let result = checked(scenario, &lab);
            lab.poweroff()?;
            return result;
        }
        let lab = match self.shared.take() {
            Some(lab) => lab,
            None => boot(&self.named(&format!("shared-{}", self.number)), self.install)?,
        };
        let result = checked(scenario, &lab);
        // After anything but a success the machine is suspect, and so is what the next scenario would say about it.
        let reusable = result.is_ok() && lab.destroy_all().is_ok();
        if reusable {
            self.shared = Some(lab);
        } else {
            keep_evidence(lab.dir(), scenario.name);
            let _ = lab.poweroff();
        }
        result
    }

    /// The scenario's own machine, if it wants one.
    fn own(&self, scenario: &Scenario) -> Result<Option<Spec>> {
        let mut spec = self.named(scenario.name);
        match scenario.boot {
            Boot::Shared | Boot::Many(_) => return Ok(None),
            Boot::Fresh(change) => change(&mut spec),
            Boot::Unshadowed => {
                spec.images.xen = spec.images.unshadowed.clone().context("no hypervisor without shadow paging")?;
            }
        }
        Ok(Some(spec))
    }

    fn named(&self, name: &str) -> Spec {
        let mut spec = self.base.clone();
        spec.dir = self.base.dir.join(name);
        spec
    }
}

fn told(scenario: &Scenario, result: &Result<()>, started: Instant) -> Verdict {
    let verdict = verdict::of(result);
    let seconds = started.elapsed().as_secs_f64();
    let why = result.as_ref().err().map_or_else(String::new, |error| format!("{error:#}"));
    say!("   {:<24} {verdict:<8} {seconds:6.1} s  {why}", scenario.name);
    verdict
}

fn boot(spec: &Spec, install: Install) -> Result<Lab> {
    let started = Instant::now();
    let lab = Lab::boot(spec)?;
    install(&lab)?;
    say!("   booted {} in {:.1} s", spec.dir.display(), started.elapsed().as_secs_f64());
    Ok(lab)
}

/// A machine that died under a scenario makes it a CRASH, whatever the scenario believes.
fn checked(scenario: &Scenario, lab: &Lab) -> Result<()> {
    let result = (scenario.run)(lab);
    if lab.is_alive() {
        return result;
    }
    let why = result.err().map_or_else(String::new, |error| format!("{error:#}"));
    Err(verdict::stop(Verdict::Crash, format!("the machine is gone; {why}")))
}

/// The next boot clears the directory, so the log of a failure is copied beside it.
fn keep_evidence(dir: &Path, name: &str) {
    let kept = dir.with_file_name(format!("{name}.serial.log"));
    if std::fs::copy(dir.join("serial.log"), &kept).is_ok() {
        say!("   serial log: {}", kept.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_not_a_pass_and_an_empty_run_is_an_error() {
        let verdicts = vec![("a".to_owned(), Verdict::Success), ("b".to_owned(), Verdict::Skip)];
        let report = Report { verdicts };
        assert_eq!((report.passed(), report.skipped(), report.failed()), (1, 1, 0));
        assert_eq!(report.worst(), Verdict::Skip);
        assert_eq!(Report::default().worst(), Verdict::Error);
    }
}
