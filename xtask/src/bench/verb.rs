//! `cargo xtask bench`: builds, lets machines run their shares side by side, and writes what they found: raw data
//! first, so that nothing is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use qemu_tests::lab::GuestKind;

use super::plan::{Bed, Plan};
use super::raw::{self, Versions};
use super::report;
use super::sample::Sample;
use super::site::{Job, Word, work};
use super::{host, time};
use crate::images::small;
use crate::sh::{cmd, heading, read};
use crate::verbs::{dist, lab};
use crate::{packages, paths};

/// A week: what is longer is a slip.
const MINUTES_MAX: u64 = 7 * 24 * 60;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// One run each of one kind of guest, in minutes.
    #[arg(long)]
    quick: bool,
    /// Runs of each cell; five or more say something about a spread.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// No run begins later than this.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MINUTES_MAX))]
    minutes: Option<u64>,
    /// Only these mechanisms.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these CPU caps of the guest that writes; 100: none; 0: a guest that is idle.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(..=100))]
    caps: Vec<u32>,
    /// Only these kinds of guest: pvh, pv.
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
    /// Nested machines side by side, each with one processor.
    #[arg(long)]
    machines: Option<usize>,
    /// MiB of the guests. Much less than this, and their kernel has no room beside the half that is written to.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(32..=2048))]
    memory: u32,
    /// KiB that each disk takes in a second.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(64..=4_194_304))]
    disk: u64,
    /// Take stub and CLI as they were built last.
    #[arg(long)]
    as_built: bool,
    /// Where the results go.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Instead: report and plots of raw data that is there already.
    #[arg(long, value_name = "CSV")]
    report: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(|| paths::target().join("bench"));
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    if let Some(data) = &args.report {
        let text = fs::read_to_string(data).with_context(|| data.display().to_string())?;
        let (versions, samples) = raw::parse(&text).with_context(|| data.display().to_string())?;
        return write(&out, &samples, &versions);
    }
    let plan = plan(args)?;
    packages::ensure_installed()?;
    if !args.as_built {
        dist::programs()?;
    }
    heading("what the benchmark boots");
    let kernel = small::build()?;
    let (mut versions, samples) = (versions(args, &plan, kernel.what)?, Vec::new());
    let mut found = (Vec::new(), samples);
    let ended = measure(args, &plan, &kernel.vmlinux, &mut found, |found| raw::write(&out, &versions, found));
    let (mut facts, samples) = found;
    facts.sort();
    versions.append(&mut facts);
    versions.push(("time".to_owned(), took(&samples)));
    versions.extend(time::told(&Plan::full(), &samples).map(|told| ("a full benchmark takes".to_owned(), told)));
    raw::write(&out, &versions, &(Vec::new(), samples.clone()))?;
    write(&out, &samples, &versions)?;
    ended?;
    ensure!(samples.iter().any(|sample| sample.outcome.is_ok()), "no run was completed; see {}", out.display());
    Ok(())
}

fn plan(args: &Args) -> Result<Plan> {
    let plan = if args.quick { Plan::quick() } else { Plan::full() };
    let caps = if args.caps.is_empty() { plan.caps } else { args.caps.clone() };
    let mechanisms = chosen(&args.only, &plan.mechanisms, |one| one.name())?;
    let both = [GuestKind::Pvh, GuestKind::Pv];
    let kinds = if args.kinds.is_empty() { plan.kinds } else { chosen(&args.kinds, &both, kind_name)? };
    let (runs, minutes) = (args.runs.unwrap_or(plan.runs), args.minutes.unwrap_or(plan.minutes));
    Ok(Plan { kinds, caps, mechanisms, runs, minutes, machines: args.machines.unwrap_or(plan.machines) })
}

fn kind_name(kind: GuestKind) -> &'static str {
    Bed { kind, writes: false }.kind()
}

/// Those of `all` that are named; all of them if none is.
fn chosen<T: Copy>(names: &[String], all: &[T], name: impl Fn(T) -> &'static str) -> Result<Vec<T>> {
    let known: Vec<_> = all.iter().map(|one| name(*one)).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no '{unknown}' to choose; known: {}", known.join(", "));
    }
    let is_wanted = |one: &&T| names.is_empty() || names.iter().any(|wanted| wanted == name(**one));
    Ok(all.iter().filter(is_wanted).copied().collect())
}

fn versions(args: &Args, plan: &Plan, kernel: String) -> Result<Versions> {
    let qemu = read(&mut cmd("qemu-system-x86_64", &["--version"]))?;
    let commit = read(cmd("git", &["describe", "--always", "--dirty"]).current_dir(paths::root()))?;
    let image = paths::target().join("dist").join("livesave-stubdom");
    let image = fs::metadata(&image).with_context(|| image.display().to_string())?.len();
    let beside = if plan.shares().len() > 1 { ", a machine for each kind, side by side" } else { "" };
    let rows = [
        ("Live Save", commit.trim().to_owned()),
        ("machine", format!("{}, one processor{beside}", qemu.lines().next().unwrap_or_default())),
        ("guests", format!("{} MiB, 1 vCPU; writing: at random over {} MiB", args.memory, args.memory / 2)),
        ("their kernel", kernel),
        ("stub", format!("{} MiB: what the guest writes to fits its staging", host::stub_mib(args.memory))),
        ("bytes of the stub's image, stripped", image.to_string()),
        ("disks", format!("throttled by QEMU to {} KiB/s each", args.disk)),
    ];
    Ok(rows.map(|(what, value)| (what.to_owned(), value)).to_vec())
}

/// What the machines told so far.
type Found = (Versions, Vec<Sample>);

/// All runs. `keep` is called after each of them. What failed on one machine does not stop another.
fn measure(
    args: &Args,
    plan: &Plan,
    kernel: &Path,
    found: &mut Found,
    keep: impl Fn(&Found) -> Result<()>,
) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(plan.minutes * 60);
    let (out, words) = mpsc::channel();
    let mut jobs = Vec::new();
    for kinds in plan.shares() {
        let name = kinds.iter().map(|kind| kind_name(*kind)).collect::<Vec<_>>().join("+");
        let dir = paths::target_dir("qemu")?.join(format!("bench-{name}"));
        let spec = host::machine(lab::spec(dir)?, args.disk * 1024);
        let (steps, memory_mib, out) = (plan.steps(&kinds), args.memory, out.clone());
        jobs.push(Job { name, spec, steps, kernel: kernel.to_owned(), memory_mib, until, out });
    }
    // What a machine boots from is laid out anew for each, so none boots before all is there.
    let threads: Vec<_> = jobs.into_iter().map(|job| thread::spawn(move || work(&job))).collect();
    drop(out);
    for word in words {
        match word {
            Word::Fact(what, value) => found.0.push((what, value)),
            Word::Run(sample) => found.1.push(*sample),
        }
        keep(found)?;
    }
    let ended = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a thread died"))));
    ended.collect::<Vec<_>>().into_iter().collect()
}

/// How long the runs took, and how much of that our host was busy with something else.
fn took(samples: &[Sample]) -> String {
    let numbers = || samples.iter().filter_map(|sample| sample.outcome.as_ref().ok());
    let slots: u64 = numbers().filter_map(|numbers| numbers.slot_us).sum();
    let waited: u64 = numbers().filter_map(|numbers| numbers.host_wait_us).sum();
    let percent = waited * 100 / slots.max(1);
    let (minutes, count) = (slots as f64 / 6e7, numbers().count());
    format!("{count} completed runs, {minutes:.1} min of a machine, which waited {percent} % of it for a processor")
}

fn write(out: &Path, samples: &[Sample], versions: &Versions) -> Result<()> {
    fs::write(out.join("bench.md"), report::markdown(samples, versions)).context("bench.md")?;
    for (name, svg) in report::plots(samples) {
        fs::write(out.join(&name), svg).context(name)?;
    }
    println!("{}", out.join("bench.md").display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_cannot_be_measured_is_refused_before_anything_is_built() {
        let parsed = |words: &str| Line::try_parse_from(format!("bench {words}").split_whitespace());
        for bad in ["--caps 200", "--caps 10,-1", "--runs 0", "--minutes 0", "--memory 8", "--disk 0"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
        let planned = |words| plan(&parsed(words).unwrap_or_else(|error| panic!("{error}")).args);
        let least = planned("--caps 0,100 --runs 1 --minutes 1 --memory 32 --disk 64").unwrap();
        assert_eq!((least.caps.as_slice(), least.runs, least.minutes), ([0, 100].as_slice(), 1, 1));
        for unknown in ["--only fast", "--kinds hvm"] {
            assert!(planned(unknown).unwrap_err().to_string().contains("known: "), "{unknown}");
        }
    }
}
