//! Runs scenarios on as few boots as they allow, and reports a verdict for each; the worst one is the run's.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::lab::{Lab, Spec};
use crate::scenarios::{Boot, Scenario};
use crate::verdict::{self, Verdict};

/// What to do on a machine before its first scenario: the files under test are copied into dom0.
pub type Install<'a> = &'a dyn Fn(&Lab) -> Result<()>;

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

/// Runs them all; `base` is the ordinary machine, whose directory's name gets the scenario's or `shared` appended.
pub fn run(scenarios: &[Scenario], base: &Spec, install: Install) -> Report {
    let mut report = Report::default();
    let mut shared: Option<Lab> = None;
    for scenario in scenarios {
        println!("-- {}", scenario.name);
        let started = Instant::now();
        let result = run_one(scenario, base, install, &mut shared);
        note(&mut report, scenario, &result, started);
    }
    if let Some(lab) = shared {
        // A machine that does not go by itself is killed; the verdicts are in already.
        let _ = lab.poweroff();
    }
    report
}

/// Runs them on a machine that is up, one after the other, and leaves it running. Its own `Boot` is not looked at.
pub fn run_in(scenarios: &[Scenario], lab: &Lab) -> Report {
    let mut report = Report::default();
    for scenario in scenarios {
        println!("-- {}", scenario.name);
        let started = Instant::now();
        let result = checked(scenario, lab);
        note(&mut report, scenario, &result, started);
    }
    report
}

fn note(report: &mut Report, scenario: &Scenario, result: &Result<()>, started: Instant) {
    let verdict = verdict::of(result);
    let seconds = started.elapsed().as_secs_f64();
    let why = result.as_ref().err().map_or_else(String::new, |error| format!("{error:#}"));
    println!("   {:<24} {verdict:<8} {seconds:6.1} s  {why}", scenario.name);
    report.verdicts.push((scenario.name.to_owned(), verdict));
}

fn run_one(scenario: &Scenario, base: &Spec, install: Install, shared: &mut Option<Lab>) -> Result<()> {
    if let Boot::Fresh(change) = scenario.boot {
        let mut spec = named(base, scenario.name);
        change(&mut spec);
        let lab = boot(&spec, install)?;
        let result = checked(scenario, &lab);
        lab.poweroff()?;
        return result;
    }
    let lab = match shared.take() {
        Some(lab) => lab,
        None => boot(&named(base, "shared"), install)?,
    };
    let result = checked(scenario, &lab);
    // After anything but a success the machine is suspect, and so is what the next scenario would say about it.
    let reusable = result.is_ok() && lab.destroy_all().is_ok();
    if reusable {
        *shared = Some(lab);
    } else {
        keep_evidence(lab.dir(), scenario.name);
        let _ = lab.poweroff();
    }
    result
}

fn boot(spec: &Spec, install: Install) -> Result<Lab> {
    let started = Instant::now();
    let lab = Lab::boot(spec)?;
    install(&lab)?;
    println!("   booted {} in {:.1} s", spec.dir.display(), started.elapsed().as_secs_f64());
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

fn named(base: &Spec, name: &str) -> Spec {
    let mut spec = base.clone();
    spec.dir = base.dir.join(name);
    spec
}

/// The next boot clears the directory, so the log of a failure is copied beside it.
fn keep_evidence(dir: &Path, name: &str) {
    let kept = dir.with_file_name(format!("{name}.serial.log"));
    if std::fs::copy(dir.join("serial.log"), &kept).is_ok() {
        println!("   serial log: {}", kept.display());
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
