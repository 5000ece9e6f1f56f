//! How long a plan takes, told from runs that were made: pure arithmetic, so that a full benchmark that does not fit
//! its hour is known before it is begun.

use super::cells::Spread;
use super::plan::{Plan, Step};
use super::sample::Sample;

/// Boot of a machine, its disk's rate, and its guests; once for each machine. 90 s where two of them had two cores.
const SETUP_S: f64 = 90.0;

/// Seconds of the machine that has most to do, if each run takes what such runs took; without the time in which our
/// host had no processor for them, if `is_quiet`, but never less than the disk needs; of all runs or of those that come
/// first. `None` if a mechanism never ran.
pub fn seconds(plan: &Plan, samples: &[Sample], is_quiet: bool, is_all: bool) -> Option<f64> {
    let of_share = |steps: Vec<Step>| -> Option<f64> {
        let wanted = steps.iter().filter(|step| is_all || step.is_first());
        wanted.map(|step| of_step(step, samples, is_quiet)).sum::<Option<f64>>().map(|runs| runs + SETUP_S)
    };
    let shares = plan.shares().iter().map(|kinds| of_share(plan.steps(kinds))).collect::<Option<Vec<_>>>()?;
    shares.into_iter().reduce(f64::max)
}

/// The median of its cell; where that was not run, the longest median of the mechanism anywhere.
fn of_step(step: &Step, samples: &[Sample], is_quiet: bool) -> Option<f64> {
    let runs_of = |kind: &str, cap: u32| {
        let is_ours = |sample: &&Sample| sample.mechanism == step.mechanism.name();
        let is_there = |sample: &&Sample| sample.kind == kind && sample.cap == cap;
        samples.iter().filter(is_ours).filter(is_there).filter_map(|sample| slot_us(sample, is_quiet)).collect()
    };
    let at = |kind: &str, cap: u32| Spread::of(runs_of(kind, cap)).map(|slots| slots.median());
    let anywhere = || samples.iter().filter_map(|sample| at(sample.kind, sample.cap)).reduce(f64::max);
    at(step.bed.kind(), step.cap).or_else(anywhere).map(|us| us / 1e6)
}

fn slot_us(sample: &Sample, is_quiet: bool) -> Option<f64> {
    let numbers = sample.outcome.as_ref().ok()?;
    let slot = numbers.slot_us? as f64;
    let kib =
        numbers.blkif_kib.or(numbers.bytes.map(|bytes| bytes / 1024)).filter(|_| sample.mechanism != "xl-migrate");
    let disk = kib.zip(numbers.dd_kib_per_s).map_or(0.0, |(kib, rate)| kib as f64 * 1e6 / rate.max(1) as f64);
    // The disk goes on while our host is busy: what was waited for both must not be taken off twice.
    let quiet = (slot - numbers.host_wait_us.unwrap_or(0) as f64).max(disk);
    Some(if is_quiet { quiet.min(slot) } else { slot })
}

/// In words, for the report.
pub fn told(plan: &Plan, samples: &[Sample]) -> Option<String> {
    let of = |is_all| {
        let minutes = |is_quiet| seconds(plan, samples, is_quiet, is_all).map(|seconds| seconds / 60.0);
        Some(format!("{:.0} min as it went here, {:.0} on a host that is quiet", minutes(false)?, minutes(true)?))
    };
    Some(format!("{}; with the cells that come last {}", of(false)?, of(true)?))
}

#[cfg(test)]
mod tests {
    use super::super::plan::Mechanism;
    use super::super::sample::Numbers;
    use super::*;

    fn sample(kind: &'static str, cap: u32, mechanism: &'static str, seconds: u64) -> Sample {
        let (slot_us, host_wait_us) = (Some(seconds * 1_000_000), Some(1_000_000));
        let numbers = Numbers { slot_us, host_wait_us, ..Numbers::default() };
        Sample { kind, cap, mechanism, run: 1, outcome: Ok(numbers) }
    }

    #[test]
    fn a_plan_takes_what_its_longest_machine_takes() {
        let plan = Plan { mechanisms: vec![Mechanism::XlSave], caps: vec![0, 100], runs: 5, ..Plan::full() };
        let samples = [
            sample("pvh", 0, "xl-save", 10),
            sample("pvh", 100, "xl-save", 20),
            sample("pv", 0, "xl-save", 4),
            sample("pv", 0, "xl-save", 6),
            sample("pv", 100, "xl-save", 5),
            Sample { outcome: Err("it broke".to_owned()), ..sample("pv", 100, "xl-save", 500) },
        ];
        assert_eq!(seconds(&plan, &samples, false, true), Some(5.0 * 30.0 + SETUP_S));
        assert_eq!(seconds(&plan, &samples, true, true), Some(5.0 * 28.0 + SETUP_S));
        let alone = Plan { machines: 1, ..plan };
        assert_eq!(seconds(&alone, &samples, false, true), Some(5.0 * 40.0 + SETUP_S));
    }

    #[test]
    fn a_quiet_host_makes_no_disk_faster() {
        let of = |host_wait_us, blkif_kib| {
            let numbers = Numbers {
                slot_us: Some(10_000_000),
                dd_kib_per_s: Some(1000),
                host_wait_us,
                blkif_kib,
                ..Numbers::default()
            };
            let sample = Sample { outcome: Ok(numbers), ..sample("pvh", 0, "live", 1) };
            slot_us(&sample, true)
        };
        assert_eq!((of(Some(7_000_000), Some(2000)), of(Some(7_000_000), Some(6000))), (Some(3e6), Some(6e6)));
        assert_eq!((of(None, Some(90_000)), of(Some(99_000_000), None)), (Some(1e7), Some(0.0)));
    }

    #[test]
    fn a_cell_that_was_not_run_takes_the_longest_of_its_mechanism() {
        let plan =
            Plan { mechanisms: vec![Mechanism::XlSave], caps: vec![0, 40], runs: 1, machines: 1, ..Plan::full() };
        let samples = [sample("pvh", 0, "xl-save", 10), sample("pvh", 100, "xl-save", 20)];
        assert_eq!(seconds(&plan, &samples, false, true), Some(10.0 + 3.0 * 20.0 + SETUP_S));
        let first = Plan { mechanisms: vec![Mechanism::XlMigrate], caps: vec![0, 10], ..plan.clone() };
        let samples_of = [sample("pvh", 0, "xl-migrate", 10)];
        assert_eq!(seconds(&first, &samples_of, false, false), Some(2.0 * 10.0 + SETUP_S), "idle only");
        let unknown = Plan { mechanisms: Mechanism::ALL.to_vec(), ..plan };
        assert_eq!((seconds(&unknown, &samples, false, true), told(&unknown, &samples)), (None, None));
    }
}
