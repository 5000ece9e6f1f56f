//! `cargo xtask test`: host tests, then the nested tests.
//!
//! `cargo xtask test boot guest` runs only these scenarios; `--host` and `--nested` run one half.

use anyhow::{Context, Result, ensure};
use qemu_tests::lab::{GuestKernel, Lab, registers};
use qemu_tests::runner::{self, Report};
use qemu_tests::scenarios::{self, Boot, Scenario};

use super::{dist, lab};
use crate::images::hypervisor::{self, Kind};
use crate::images::small;
use crate::sh::{self, cmd, heading};
use crate::{flask, packages, paths};

/// Arguments of `cargo xtask test`.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Only the host tests.
    #[arg(long, conflicts_with = "nested")]
    host: bool,
    /// Only the nested tests.
    #[arg(long)]
    nested: bool,
    /// The slow scenarios as well.
    #[arg(long)]
    slow: bool,
    /// On the machine of `cargo xtask lab up`, with what is installed there.
    #[arg(long, requires = "scenarios")]
    in_lab: bool,
    /// Nested machines at a time; without it two if there are two processors.
    #[arg(long)]
    jobs: Option<usize>,
    /// Take stub and CLI as they were built last.
    #[arg(long)]
    as_built: bool,
    /// Only these scenarios.
    scenarios: Vec<String>,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let chosen = choose(&args.scenarios, args.slow)?;
    let only_nested = args.nested || !args.scenarios.is_empty();
    let host = if only_nested { Counts::default() } else { host()? };
    let nested = if args.host { Report::default() } else { nested(&chosen, args)? };
    let (passed, failed) = (host.passed + nested.passed(), host.failed + nested.failed());
    println!("\n{passed} passed, {failed} failed, {} skipped", nested.skipped());
    ensure!(failed == 0, "tests failed");
    ensure!(passed > 0, "nothing was tested");
    Ok(())
}

fn choose(names: &[String], slow: bool) -> Result<Vec<Scenario>> {
    let mut all = scenarios::all();
    if names.is_empty() {
        all.retain(|scenario| slow || !scenario.slow);
        return Ok(all);
    }
    let find = |name: &String| {
        let known = || all.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
        all.iter()
            .find(|scenario| scenario.name == name)
            .copied()
            .with_context(|| format!("{name}? known: {}", known()))
    };
    names.iter().map(find).collect()
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
}

/// All crates' tests, the kernel's included. Their output is shown; what it says is counted.
fn host() -> Result<Counts> {
    heading("host tests");
    let mut cargo = cmd("cargo", &["test", "--workspace", "--no-fail-fast"]);
    cargo.current_dir(paths::root());
    let (status, output) = sh::watched(&mut cargo)?;
    let counts = count(&output);
    ensure!(status || counts.failed > 0, "cargo test did not come to the tests");
    Ok(counts)
}

/// Sums up the lines `test result: ok. 9 passed; 0 failed; ...`.
fn count(output: &str) -> Counts {
    let mut counts = Counts::default();
    for line in output.lines().filter(|line| line.starts_with("test result:")) {
        let number = |what: &str| {
            let before = line.split(what).next().unwrap_or_default();
            before.split_whitespace().next_back().and_then(|word| word.parse::<usize>().ok()).unwrap_or(0)
        };
        counts.passed += number(" passed;");
        counts.failed += number(" failed;");
    }
    counts
}

/// Boots as few machines as the scenarios allow.
fn nested(chosen: &[Scenario], args: &Args) -> Result<Report> {
    if args.in_lab {
        return Ok(runner::run_in(chosen, &lab::running()?));
    }
    packages::ensure_installed()?;
    if !args.as_built {
        dist::programs()?;
    }
    heading("FLASK policy");
    flask::prove(&hypervisor::build(Kind::Usual)?.source)?;
    heading("what the nested tests boot");
    let mut base = lab::spec(paths::target_dir("qemu")?.join("test"))?;
    if chosen.iter().any(|scenario| matches!(scenario.boot, Boot::Unshadowed)) {
        base.images.unshadowed = Some(hypervisor::build(Kind::Unshadowed)?.xen);
    }
    let many = chosen.iter().any(|scenario| matches!(scenario.boot, Boot::Many(_)));
    let small = many.then(small::build).transpose()?;
    let install = |lab: &Lab| {
        lab::install(lab)?;
        small.iter().try_for_each(|small| lab.put(&small.vmlinux, GuestKernel::Small.path()))
    };
    heading("argument registers: the test kernel in dom0's place");
    registers(&base, &paths::target_dir("images")?.join("prober"))?;
    heading("nested tests");
    Ok(runner::run(chosen, &base, args.jobs.unwrap_or_else(jobs), &install))
}

/// More than two were never tried; each has one busy thread.
fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed_over_crates() {
        let ok = "test result: ok. 9 passed; 0 failed; 0 ignored";
        let output = &format!("{ok}\nnoise 3 passed;\ntest result: FAILED. 1 passed; 2 failed; x");
        let counts = count(output);
        assert_eq!((counts.passed, counts.failed), (10, 2));
    }
}
