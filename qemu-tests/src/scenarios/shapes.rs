//! Guests of other shapes: several processors, some of them offline, memory of odd sizes, ballooned before a take and
//! during it. Every frame that dom0 saw in the pause is in the restored guest, and so is the state of every vCPU; after
//! the take and after the restore the same processors run, time went forward on all of them, and the kernel has nothing
//! new to complain about.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::after::{TAKE_WAIT, becomes, until_state};
use super::oracle::{self, Rings, Standing, continues, frames, same_context, same_frames};
use super::words::{self, succeed, target};
use crate::lab::{Guest, GuestSpec, Lab};
use crate::say;
use crate::verdict::check;

/// Until every processor has counted again.
const BEAT_WAIT: Duration = Duration::from_secs(60);
/// Until a guest of four processors has booted, and how often it is tried: under emulation the processors of such a
/// guest now and then wait for one another for good when its kernel stops them all for a moment.
const BOOT_WAIT: Duration = Duration::from_secs(240);
const BOOTS: usize = 3;
/// Until a guest has the size that it was told.
const BALLOON_WAIT: Duration = Duration::from_secs(120);
/// Ballooning moves at least so many pages here: 12 MiB.
const MOVED_MIN: u64 = 3072;
/// What every guest here does: little, for four busy processors leave dom0 no time on the one that there is (xenstored
/// answered in more than five seconds). A smaller weight in Xen's scheduler is no help: such guests hardly boot.
const BUSY: &str = "ls.mem=24 ls.dirty=24 ls.tick=50 ls.publish=4 ls.cpus=4";

/// One guest. `$G` is its name in the commands.
struct Shape {
    name: &'static str,
    /// MiB at its start, and at most. A PVH guest that may have more than it starts with is populate-on-demand, and
    /// stays so, for it never touches all that it has: such a guest is refused.
    memory: u32,
    /// vCPUs at its start, and at most.
    vcpus: (u32, u32),
    /// Further parameters of the guest.
    parameters: &'static str,
    /// Before the take.
    before: &'static str,
    /// While it copies: the guest changes its size.
    during: &'static str,
    mode: &'static str,
    /// The processors that run.
    runs: &'static [usize],
}

/// In CI.
const FEW: [Shape; 2] = [
    Shape {
        name: "grows",
        memory: 163,
        vcpus: (3, 4),
        parameters: "ls.offline=2",
        before: "xl mem-set $G 131",
        during: "xl mem-set $G 150",
        mode: "live",
        runs: &[0, 1],
    },
    Shape {
        name: "shrunk",
        memory: 133,
        vcpus: (4, 4),
        parameters: "",
        before: "xl mem-set $G 117",
        during: "",
        mode: "staged",
        runs: &[0, 1, 2, 3],
    },
];

/// Beside those.
const MORE: [Shape; 3] = [
    Shape {
        name: "shrinks",
        memory: 127,
        vcpus: (2, 2),
        parameters: "",
        before: "",
        during: "xl mem-set $G 111",
        mode: "staged",
        runs: &[0, 1],
    },
    Shape {
        name: "unplugged",
        memory: 97,
        vcpus: (4, 4),
        parameters: "",
        before: "xl vcpu-set $G 2",
        during: "",
        mode: "save",
        runs: &[0, 1],
    },
    Shape {
        name: "odd",
        memory: 99,
        vcpus: (1, 1),
        parameters: "",
        before: "",
        during: "",
        mode: "improved",
        runs: &[0],
    },
];

/// Some shapes.
pub fn run(lab: &Lab) -> Result<()> {
    all_of(lab, &FEW)
}

/// The others.
pub fn run_more(lab: &Lab) -> Result<()> {
    all_of(lab, &MORE)
}

fn all_of(lab: &Lab, shapes: &[Shape]) -> Result<()> {
    let mut warnings = Vec::new();
    for shape in shapes {
        lab.init_store()?;
        // The dwell gives the guest time to change its size after the stub has noted it.
        lab.start_stub(if shape.during.is_empty() { "" } else { "hold=copying:20000" })?;
        warnings.extend(one(lab, shape).context(shape.name)?);
        lab.stop_stub()?;
    }
    check(warnings.is_empty(), || format!("the guests' kernels complain:\n{}", warnings.join("\n")))
}

/// One guest through a take and a restore. What its kernel said meanwhile is told at the end: it is no reason to see
/// less of the rest.
fn one(lab: &Lab, shape: &Shape) -> Result<Vec<String>> {
    let guest = create(lab, shape)?;
    let (known, rings) = (guest.warnings(lab)?, Rings::of(lab, &guest)?);
    taken(lab, &guest, shape)?;
    let pause = Standing::seen(lab)?;
    let after = guest.wait_whole_pass(lab)?;
    check(after.errors == 0 && after.ticks > pause.counter.ticks, || format!("after the take: {after:?}"))?;
    runs(lab, &guest, shape.runs)?;
    words::tracking_is_off(lab, &guest)?;
    comes_back(lab, &guest, shape, &pause, &rings)?;
    let warnings = new_warnings(&known, &guest.warnings(lab)?);
    lab.sh(&format!("xl destroy {}", guest.name))?;
    Ok(warnings)
}

fn create(lab: &Lab, shape: &Shape) -> Result<Guest> {
    let mut spec = target(shape.name, shape.memory, &format!("{BUSY} {}", shape.parameters));
    (spec.vcpus, spec.maxvcpus) = (shape.vcpus.0, Some(shape.vcpus.1));
    let guest = booted(lab, &spec)?;
    guest.wait_whole_pass(lab)?;
    if !shape.before.is_empty() {
        let pages = size(lab, &guest)?;
        command(lab, &guest, shape.before)?;
        if shape.before.contains("mem-set") {
            moved(lab, &guest, pages)?;
        }
    }
    runs(lab, &guest, shape.runs)?;
    Ok(guest)
}

/// A guest that counts. What keeps it from that before anybody has touched it is none of our business.
fn booted(lab: &Lab, spec: &GuestSpec) -> Result<Guest> {
    for _ in 1..BOOTS {
        let guest = lab.start_guest(spec)?;
        let counts = |lab: &Lab| Ok(guest.counter(lab)?.is_some());
        if lab.wait_until(&format!("{} counts", spec.name), BOOT_WAIT, counts).is_ok() {
            return Ok(guest);
        }
        say!("   {} did not come up; once more", spec.name);
        lab.sh(&format!("xl destroy {}", spec.name))?;
    }
    lab.create_guest(spec)
}

fn command(lab: &Lab, guest: &Guest, words: &str) -> Result<()> {
    say!("   dom0# {}", words.replace("$G", &guest.name));
    lab.sh(&format!("G={}; {words}", guest.name)).map(drop)
}

/// Pages that the guest has now.
fn size(lab: &Lab, guest: &Guest) -> Result<u64> {
    let info = lab.sh(&format!("probe info {}", guest.domid(lab)?))?;
    let pages = info.split_whitespace().find_map(|word| word.strip_prefix("tot_pages="));
    pages.and_then(|pages| pages.parse().ok()).with_context(|| format!("no size in {info}"))
}

/// Waits until the guest has another size than before, twice the same.
fn moved(lab: &Lab, guest: &Guest, before: u64) -> Result<()> {
    let mut last = before;
    becomes(lab, "the guest has changed its size", BALLOON_WAIT, |lab| {
        let now = size(lab, guest)?;
        let rests = std::mem::replace(&mut last, now) == now;
        Ok(rests && now.abs_diff(before) >= MOVED_MIN)
    })?;
    say!("   {} had {before} pages, has {last}", guest.name);
    Ok(())
}

/// The take, with dom0 looking on in the pause, and the guest changing its size before.
fn taken(lab: &Lab, guest: &Guest, shape: &Shape) -> Result<()> {
    let take = format!("livesave take {} --name one --mode {} {} --json", guest.name, shape.mode, oracle::looking());
    let before = size(lab, guest)?;
    let take = lab.spawn(&take, TAKE_WAIT)?;
    if !shape.during.is_empty() {
        let copies = lab.sh(&until_state("copying"));
        if copies.is_err() && take.is_done() {
            let output = take.join()?;
            return check(false, || format!("the take did not come to copying: {} {}", output.status, output.errors()));
        }
        copies?;
        command(lab, guest, shape.during)?;
        moved(lab, guest, before)?;
    }
    let output = take.join()?;
    check(output.status == 0, || format!("the take: {}\n{}", output.errors(), lab.stub_console()))?;
    let taken: Value = serde_json::from_str(&output.text()).context("take --json")?;
    let rounds = taken.pointer("/trace/rounds").and_then(Value::as_array).context("no trace")?;
    let full = rounds.iter().filter(|round| round.get("kind").and_then(Value::as_str) == Some("full")).count();
    say!("   {}: {} rounds, {full} of them full", guest.name, rounds.len());
    // Else it had its new size before the take began to count, and nothing was shown.
    check(shape.during.is_empty() || full >= 2, || format!("the change of size was not noticed: {taken}"))
}

/// Restored, it is what it was in the pause; let go, it goes on.
fn comes_back(lab: &Lab, guest: &Guest, shape: &Shape, pause: &Standing, rings: &Rings) -> Result<()> {
    let end = guest.counter(lab)?.context("no counter")?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    succeed(lab, &format!("livesave restore {}@one --paused", guest.name))?;
    let domid = guest.domid(lab)?;
    let restored = frames(&lab.sh(&format!("probe frames {domid}"))?)?;
    same_frames(&pause.frames, &restored, &rings.after_restore(), "the restored guest")?;
    let context: Vec<String> = lab.sh(&format!("probe vcpu {domid}"))?.lines().map(str::to_owned).collect();
    same_context(&pause.context, &context, "the restored guest")?;
    lab.sh(&format!("xl unpause {domid}"))?;
    let first = guest.next_counter(lab)?;
    continues(pause.counter, first, end)?;
    runs(lab, guest, shape.runs)?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("something is wrong after the restore: {whole:?}"))
}

/// These processors count, and no others. One that was just told to go may count on for a moment.
pub(super) fn runs(lab: &Lab, guest: &Guest, which: &[usize]) -> Result<()> {
    let mut last = guest.details(lab)?.beats;
    let mut others = Vec::new();
    let settled = becomes(lab, &format!("processors {which:?} run"), BEAT_WAIT, |lab| {
        let now = guest.details(lab)?.beats;
        let counts = |cpu: &usize| now.get(*cpu) > last.get(*cpu);
        others = (0..now.len()).filter(|cpu| !which.contains(cpu) && counts(cpu)).collect();
        let all = which.iter().all(counts) && others.is_empty();
        last = now;
        Ok(all)
    });
    settled.with_context(|| format!("turns on each processor {last:?}, wrongly on {others:?}"))
}

/// Warnings since then, but for those that say only that emulation is slow.
pub(super) fn new_warnings(known: &[String], now: &[String]) -> Vec<String> {
    /// What it begins with, and why it says nothing about the take.
    const SLOW: [(&str, &str); 2] = [
        ("hrtimer: interrupt took", "an interrupt takes long when the processor is emulated (kernel/time/hrtimer.c)"),
        ("clocksource: Long readout interval", "the same of two readings of a clock (kernel/time/clocksource.c)"),
    ];
    let text = |line: &str| line.split_once("] ").map_or(line, |(_, text)| text).to_owned();
    let fresh = now.get(known.len()..).unwrap_or(now);
    fresh.iter().filter(|line| !SLOW.iter().any(|(begin, _)| text(line).starts_with(begin))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_warnings_count_and_not_slowness() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let known = lines(&["ACPI: something"]);
        assert!(new_warnings(&known, &known).is_empty());
        let now = lines(&["ACPI: something", "hrtimer: interrupt took 5 ns", "WARNING: CPU: 1 PID: 2"]);
        assert_eq!(new_warnings(&known, &now), ["WARNING: CPU: 1 PID: 2"]);
        assert_eq!(new_warnings(&now, &known), ["ACPI: something"], "a log that began anew");
    }
}
