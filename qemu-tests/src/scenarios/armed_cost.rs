//! What it costs a guest to stay tracked: its own work for the processor time that it used, with tracking off, just
//! after the bits were cleared, and when all that it writes is dirty already. Under emulation only ratios mean
//! anything, so the three follow each other again and again in one boot, and medians of ratios are printed. It fails
//! only if a guest does not get on at all: a figure is no verdict.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::words;
use crate::lab::{Guest, GuestKind, Lab};
use crate::say;
use crate::verdict::check;

/// How often the three are measured.
const TURNS: usize = 5;
/// How long a guest is watched.
const WATCHED: Duration = Duration::from_secs(8);
/// Until its working set is dirty again, and it is settled.
const SETTLES: Duration = Duration::from_secs(8);
/// A guest that writes its memory all the time, and one that maps and unmaps memory as well.
const WORKS: [(&str, &str); 2] = [
    ("writes", "ls.mem=8 ls.dirty=32 ls.verify=1 ls.tick=1 ls.busy=1 ls.publish=64"),
    ("remaps", "ls.mem=8 ls.dirty=4 ls.verify=1 ls.remap=256 ls.tick=1 ls.busy=1 ls.publish=64"),
];

/// PVH and PV, each with both works.
pub fn run(lab: &Lab) -> Result<()> {
    for (kind, what) in [(GuestKind::Pvh, "pvh"), (GuestKind::Pv, "pv")] {
        for (work, parameters) in WORKS {
            let mut spec = words::target(&format!("cost-{what}-{work}"), 96, parameters);
            spec.kind = kind;
            let guest = lab.create_guest(&spec)?;
            guest.wait_whole_pass(lab)?;
            measure(lab, &guest, &format!("{what}, {work}"))?;
            lab.sh(&format!("xl destroy {}", guest.name))?;
        }
    }
    Ok(())
}

/// What a guest did for how much processor time.
struct Pace {
    /// Ticks in a second of its processor time, in thousandths.
    milli: u64,
}

fn pace(lab: &Lab, guest: &Guest) -> Result<Pace> {
    let (ticks, ns) = reading(lab, guest)?;
    // What is measured is a rate: it takes its time.
    thread::sleep(WATCHED);
    let (ticks_after, ns_after) = reading(lab, guest)?;
    let (ticks, ns) = (ticks_after.saturating_sub(ticks), ns_after.saturating_sub(ns));
    check(ticks > 0 && ns > 0, || format!("{} did nothing in {WATCHED:?}", guest.name))?;
    Ok(Pace { milli: u64::try_from(u128::from(ticks) * 1_000_000_000_000 / u128::from(ns))? })
}

/// Its ticks, and its processor time in nanoseconds. A new publication is waited for, so that neither is old.
fn reading(lab: &Lab, guest: &Guest) -> Result<(u64, u64)> {
    let domid = guest.domid(lab)?;
    let counter = guest.next_counter(lab)?;
    Ok((counter.ticks, lab.sh(&format!("probe cputime {domid}"))?.trim().parse().context("cputime")?))
}

fn measure(lab: &Lab, guest: &Guest, what: &str) -> Result<()> {
    let domid = guest.domid(lab)?;
    let log_dirty = |deed: &str| lab.sh(&format!("probe logdirty {domid} {deed}"));
    let (mut fresh, mut dirty, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let off = pace(lab, guest)?.milli;
        log_dirty("on")?;
        log_dirty("clean")?;
        fresh.push(pace(lab, guest)?.milli * 1000 / off.max(1));
        faults.push(log_dirty("dirty")?.trim().parse::<u64>().context("dirty")?);
        thread::sleep(SETTLES);
        dirty.push(pace(lab, guest)?.milli * 1000 / off.max(1));
        log_dirty("off")?;
        thread::sleep(SETTLES);
    }
    let seconds = WATCHED.as_secs();
    say!(
        "   {what}: of its pace untracked, in thousandths: {} in the {seconds} s after a clearing ({} pages written), \
         {} when all is dirty; all of them {fresh:?} {dirty:?}",
        median(&mut fresh.clone()),
        median(&mut faults),
        median(&mut dirty.clone()),
    );
    Ok(())
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&mut [5, 1, 9]), 5);
        assert_eq!(median(&mut []), 0);
    }
}
