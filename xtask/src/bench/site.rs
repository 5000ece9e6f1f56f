//! One nested machine of a benchmark, and its share of the runs.
//!
//! A guest that was made is kept for the next pass, paused while it is another's turn: no time goes into booting one
//! again. A machine that ended is booted anew, a few times, and goes on with the run that it ended in; runs of two
//! boots are never compared with each other (`Numbers::boot`).

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use qemu_tests::lab::{Guest, GuestKernel, Lab, STUB, Spec};

use super::host;
use super::plan::{Bed, Mechanism, Step};
use super::sample::{Numbers, Sample};
use crate::verbs::lab;

/// A run that failed is done again so often; each has its line in the raw data.
const ATTEMPTS: u32 = 2;
/// Machines that may end, or be of no use any more, before their work is given up.
const BOOTS_MAX: u32 = 3;
/// Boots of all machines.
static BOOT: AtomicU64 = AtomicU64::new(0);

/// What a machine tells while it works.
pub enum Word {
    /// Of itself, for the report.
    Fact(String, String),
    /// Of a run.
    Run(Box<Sample>),
}

/// What it is to do.
pub struct Job {
    /// Before what it says.
    pub name: String,
    /// The machine.
    pub spec: Spec,
    /// The runs, in order.
    pub steps: Vec<Step>,
    /// What the guests boot.
    pub kernel: PathBuf,
    /// MiB of the guests.
    pub memory_mib: u32,
    /// No run begins later.
    pub until: Instant,
    /// Who listens.
    pub out: Sender<Word>,
}

/// All runs, as long as there is time.
pub fn work(job: &Job) -> Result<()> {
    let mut next = 0;
    for _ in 0..BOOTS_MAX {
        // One that did not come up is gone when its `Lab` is.
        let why = match Site::boot(job) {
            Ok(mut site) => {
                let ended = site.steps(job, &mut next);
                site.lab.poweroff()?;
                let Err(error) = ended else { return Ok(()) };
                format!("it is of no use any more: {error:#}")
            }
            Err(error) => format!("it did not come up: {error:#}"),
        };
        println!("   {}: no machine, {why}", job.name);
    }
    bail!("{}: no machine stayed, of {BOOTS_MAX}", job.name)
}

/// A machine that is up, with its stub.
struct Site {
    lab: Lab,
    memory_mib: u32,
    /// Those that were made, and which of them is not paused.
    guests: Vec<(Bed, Guest)>,
    awake: Option<Bed>,
    boot: u64,
    dd_kib_per_s: u64,
}

impl Site {
    fn boot(job: &Job) -> Result<Self> {
        let lab = lab::start(&job.spec)?;
        lab::install(&lab)?;
        lab.put(&job.kernel, GuestKernel::Small.path())?;
        let (disk, memory) = host::rates(&lab)?;
        lab.init_store()?;
        let requests = host::start_stub(&lab, job.memory_mib)?;
        host::trace_grants(&lab)?;
        let boot = BOOT.fetch_add(1, Ordering::Relaxed) + 1;
        let xen = lab.sh("xl info xen_version; xl info xen_scheduler")?.replace('\n', ", scheduler ");
        for (what, value) in [
            ("Xen", xen),
            ("dom0", lab.sh("uname -r")?),
            ("disk, `dd oflag=direct` in dom0", format!("{disk:.0} KiB/s")),
            (
                "memory, `dd` from zero to null",
                format!("{memory:.0} KiB/s: {:.0} times the disk", memory / disk.max(1.0)),
            ),
            ("requests of the stub to xenstore until it is ready", requests),
        ] {
            let _ = job.out.send(Word::Fact(format!("{}: {what}", job.name), value));
        }
        let (guests, awake) = (Vec::new(), None);
        Ok(Self { lab, memory_mib: job.memory_mib, guests, awake, boot, dd_kib_per_s: disk as u64 })
    }

    /// From `next` on, until all is done, the time is over, or the machine ends.
    fn steps(&mut self, job: &Job, next: &mut usize) -> Result<()> {
        while let Some(step) = job.steps.get(*next) {
            for _ in 0..ATTEMPTS {
                if Instant::now() >= job.until {
                    println!("   {}: the time is over", job.name);
                    return Ok(());
                }
                let outcome = self.attempt(*step).map_err(|error| format!("{error:#}"));
                let is_done = outcome.is_ok();
                tell(step, &outcome);
                let (kind, mechanism) = (step.bed.kind(), step.mechanism.name());
                let sample = Sample { kind, cap: step.cap, mechanism, run: step.run, outcome };
                // Nobody listens any more when the whole is given up.
                job.out.send(Word::Run(Box::new(sample))).context("the results are not wanted any more")?;
                if is_done {
                    break;
                }
                self.clean(step.bed).context("after a run that failed")?;
            }
            *next += 1;
        }
        Ok(())
    }

    fn attempt(&mut self, step: Step) -> Result<Numbers> {
        let guest = self.awake(step.bed)?;
        let numbers = host::run(&self.lab, &guest, step.cap, step.mechanism)?;
        Ok(Numbers { boot: Some(self.boot), dd_kib_per_s: Some(self.dd_kib_per_s), ..numbers })
    }

    /// The guest of that bed, made if there is none; all others stand.
    fn awake(&mut self, bed: Bed) -> Result<Guest> {
        let find = |guests: &[(Bed, Guest)], bed: Bed| guests.iter().find(|(of, _)| *of == bed).cloned();
        if self.awake != Some(bed) {
            if let Some((_, guest)) = self.awake.take().and_then(|bed| find(&self.guests, bed)) {
                self.lab.sh(&format!("xl pause {}", guest.name))?;
            }
            if let Some((_, guest)) = find(&self.guests, bed) {
                self.lab.sh(&format!("xl unpause {}", guest.name))?;
            }
        }
        let guest = match find(&self.guests, bed) {
            Some((_, guest)) => guest,
            None => {
                let guest = self.lab.create_guest(&host::guest(bed, self.memory_mib))?;
                self.guests.push((bed, guest.clone()));
                guest
            }
        };
        self.awake = Some(bed);
        Ok(guest)
    }

    /// A guest of which a run failed is not trusted any more, nor is a stub that does not get ready.
    fn clean(&mut self, bed: Bed) -> Result<()> {
        self.guests.retain(|(of, _)| *of != bed);
        if self.awake == Some(bed) {
            self.awake = None;
        }
        // A migration that failed may have left it under another name, or twice.
        let name = host::guest(bed, self.memory_mib).name;
        let ours = format!("xl list | awk '$1 ~ /^{name}/ {{ print $2 }}'");
        self.lab.sh(&format!("for D in $({ours}); do xl destroy $D; done; livesave recover >/dev/null 2>&1; true"))?;
        let left = host::snapshots(bed, self.memory_mib);
        self.lab.run(&format!("livesave rm {left} >/dev/null 2>&1"))?;
        if self.lab.wait_until("the stub is idle", host::BEGIN_WAIT, Lab::stub_is_idle).is_err() {
            self.lab.run(&format!("xl destroy {STUB} 2>/dev/null"))?;
            host::start_stub(&self.lab, self.memory_mib)?;
        }
        Ok(())
    }
}

fn tell(step: &Step, outcome: &Result<Numbers, String>) {
    let seconds = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), |us| format!("{:.3}", us as f64 / 1e6));
    let said = match outcome {
        Ok(numbers) => format!(
            "pause {:>8} s, total {:>8} s, run {:>8} s, of which our host was busy {:>8} s",
            seconds(numbers.pause_us),
            seconds(numbers.total_us),
            seconds(numbers.slot_us),
            seconds(numbers.host_wait_us)
        ),
        Err(why) => format!("FAILED, not counted: {why}"),
    };
    let Step { run, bed, cap, mechanism } = step;
    println!("   {run} {:3} cap {cap:3} {:10} {said}", bed.kind(), Mechanism::name(*mechanism));
}
