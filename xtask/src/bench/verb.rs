//! `cargo xtask bench`: builds, boots, runs, and writes what it found: raw data first, so that nothing is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::lab::{Guest, Lab};

use super::host;
use super::plan::{Bed, Mechanism, Plan};
use super::report::{self, Versions};
use super::sample::{Numbers, Sample};
use crate::sh::{cmd, heading, read};
use crate::verbs::{dist, lab};
use crate::{packages, paths};

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// One run each of one kind of guest, in minutes.
    #[arg(long)]
    quick: bool,
    /// Runs of each cell; five or more say something about a spread.
    #[arg(long)]
    runs: Option<u32>,
    /// No run begins later than this.
    #[arg(long)]
    minutes: Option<u64>,
    /// Only these mechanisms.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these CPU caps of the guest that writes; 100: none.
    #[arg(long, value_delimiter = ',')]
    caps: Vec<u32>,
    /// MiB of the guests.
    #[arg(long, default_value_t = 160)]
    memory: u32,
    /// KiB that each disk takes in a second.
    #[arg(long, default_value_t = 8192)]
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
    /// What `dd` took of the disk then, KiB/s.
    #[arg(long, value_name = "RATE", requires = "report")]
    dd: Option<f64>,
}

/// A run that failed is done again so often; each has its line in the raw data.
const ATTEMPTS: u32 = 2;

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let out = args.out.clone().unwrap_or_else(|| paths::target().join("bench"));
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    if let Some(data) = &args.report {
        let text = fs::read_to_string(data).with_context(|| data.display().to_string())?;
        let samples = text.lines().skip(1).map(Sample::parse).collect::<Option<Vec<_>>>();
        let samples = samples.with_context(|| format!("{}: no raw data of this version", data.display()))?;
        return write(&out, &samples, &Versions::new(), args.dd);
    }
    let plan = plan(args);
    let mechanisms = chosen(&args.only)?;
    packages::ensure_installed()?;
    if !args.as_built {
        dist::programs()?;
    }
    heading("what the benchmark boots");
    let spec = host::machine(lab::spec(paths::target_dir("qemu")?.join("bench"))?, args.disk * 1024);
    let machine = lab::start(&spec)?;
    lab::install(&machine)?;
    let (disk, memory) = host::rates(&machine)?;
    let versions = versions(&machine, args, disk, memory)?;
    machine.init_store()?;
    host::start_stub(&machine, args.memory)?;
    let samples = measure(&machine, &plan, &mechanisms, args.memory, &out)?;
    machine.poweroff()?;
    write(&out, &samples, &versions, Some(disk))?;
    ensure!(samples.iter().any(|sample| sample.outcome.is_ok()), "no run was completed; see {}", out.display());
    Ok(())
}

fn plan(args: &Args) -> Plan {
    let plan = if args.quick { Plan::quick() } else { Plan::full() };
    let caps = if args.caps.is_empty() { plan.caps } else { args.caps.clone() };
    Plan { runs: args.runs.unwrap_or(plan.runs), minutes: args.minutes.unwrap_or(plan.minutes), caps, ..plan }
}

fn chosen(names: &[String]) -> Result<Vec<Mechanism>> {
    let known = Mechanism::ALL.map(Mechanism::name);
    let unknown = names.iter().find(|name| !known.contains(&name.as_str()));
    ensure!(unknown.is_none(), "{unknown:?}? known: {}", known.join(", "));
    let wanted = |one: &Mechanism| names.is_empty() || names.iter().any(|name| name == one.name());
    Ok(Mechanism::ALL.into_iter().filter(wanted).collect())
}

fn versions(lab: &Lab, args: &Args, disk: f64, memory: f64) -> Result<Versions> {
    let xen = lab.sh("xl info xen_version; xl info xen_scheduler")?.replace('\n', ", scheduler ");
    let qemu = read(&mut cmd("qemu-system-x86_64", &["--version"]))?;
    let commit = read(cmd("git", &["describe", "--always", "--dirty"]).current_dir(paths::root()))?;
    Ok(vec![
        ("Live Save", commit.trim().to_owned()),
        ("Xen", xen),
        ("dom0", lab.sh("uname -r")?),
        ("machine", qemu.lines().next().unwrap_or_default().to_owned()),
        ("guests", format!("{} MiB, 1 vCPU, one processor for all", args.memory)),
        ("stub", format!("{} MiB: what the guest writes to fits its staging", host::stub_mib(args.memory))),
        ("disk, `dd oflag=direct` in dom0", format!("{disk:.0} KiB/s, throttled by QEMU to {}", args.disk)),
        ("memory, `dd` from zero to null", format!("{memory:.0} KiB/s: {:.0} times the disk", memory / disk.max(1.0))),
    ])
}

/// All runs, as long as there is time. The raw data is on disk after each of them.
fn measure(lab: &Lab, plan: &Plan, mechanisms: &[Mechanism], memory: u32, out: &Path) -> Result<Vec<Sample>> {
    let until = Instant::now() + Duration::from_secs(plan.minutes * 60);
    let mut samples = Vec::new();
    for number in 1..=plan.runs {
        for (bed, caps) in plan.beds() {
            let mut guest = None;
            for (cap, mechanism) in caps.iter().flat_map(|cap| mechanisms.iter().map(move |one| (*cap, *one))) {
                if Instant::now() >= until {
                    println!("the time is over");
                    end(lab, guest)?;
                    return Ok(samples);
                }
                for _ in 0..ATTEMPTS {
                    let outcome = attempt(lab, &mut guest, bed, memory, (cap, mechanism));
                    let outcome = outcome.map_err(|error| format!("{error:#}"));
                    tell(bed, cap, mechanism, &outcome);
                    let is_done = outcome.is_ok();
                    samples.push(Sample { kind: bed.kind(), cap, mechanism: mechanism.name(), run: number, outcome });
                    raw(out, &samples)?;
                    ensure!(lab.is_alive(), "the machine has ended");
                    if is_done {
                        break;
                    }
                }
            }
            end(lab, guest)?;
        }
    }
    Ok(samples)
}

/// On the guest that there is. One of which a run failed is not trusted any more.
fn attempt(lab: &Lab, guest: &mut Option<Guest>, bed: Bed, memory: u32, what: (u32, Mechanism)) -> Result<Numbers> {
    let one = match guest.take() {
        Some(one) => one,
        None => lab.create_guest(&host::guest(bed, memory))?,
    };
    match host::run(lab, &one, what.0, what.1) {
        Ok(numbers) => {
            *guest = Some(one);
            Ok(numbers)
        }
        Err(error) => {
            end(lab, Some(one))?;
            Err(error)
        }
    }
}

fn end(lab: &Lab, guest: Option<Guest>) -> Result<()> {
    let Some(guest) = guest else { return Ok(()) };
    // A migration that failed may have left it under another name, or twice.
    let ours = format!("xl list | awk '$1 ~ /^{}/ {{ print $2 }}'", guest.name);
    lab.sh(&format!("for D in $({ours}); do xl destroy $D; done; livesave recover >/dev/null 2>&1; true")).map(drop)
}

fn tell(bed: Bed, cap: u32, mechanism: Mechanism, outcome: &Result<Numbers, String>) {
    let said = match outcome {
        Ok(numbers) => format!("pause {:?} us, total {:?} us", numbers.pause_us, numbers.total_us),
        Err(why) => format!("FAILED, not counted: {why}"),
    };
    println!("   {} cap {cap:3} {:10} {said}", bed.kind(), mechanism.name());
}

fn raw(out: &Path, samples: &[Sample]) -> Result<()> {
    let lines: Vec<String> = std::iter::once(Sample::head()).chain(samples.iter().map(Sample::line)).collect();
    fs::write(out.join("bench.csv"), lines.join("\n") + "\n").context("bench.csv")
}

fn write(out: &Path, samples: &[Sample], versions: &Versions, disk: Option<f64>) -> Result<()> {
    fs::write(out.join("bench.md"), report::markdown(samples, versions, disk)).context("bench.md")?;
    for (name, svg) in report::plots(samples) {
        fs::write(out.join(&name), svg).context(name)?;
    }
    println!("{}", out.join("bench.md").display());
    Ok(())
}
