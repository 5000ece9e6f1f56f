//! Many takes in a row of one busy guest, in every mode in turn, each verified: nothing is used up, in the stub, in
//! dom0 or in Xen, and nothing of the guest stays mapped. What the takes cost the guest is reported: how much slower it
//! counted, how long Xen held it for each ENABLE, CLEAN and OFF.

use anyhow::{Context, Result};
use serde_json::Value;

use super::aftermath::{Traces, goes, nothing_left, said};
use super::instant::{self, Span};
use super::words::{self, json, number, succeed};
use crate::counter::Sample;
use crate::lab::{Guest, GuestKind, GuestSpec, Lab};
use crate::say;
use crate::verdict::check;

const MODES: [&str; 3] = ["live", "staged", "save"];
const PARAMETERS: &str = "ls.mem=16 ls.dirty=32 ls.tick=20 ls.publish=4 ls.busy=1";
/// What the stub may have less of in the end: one allocation that was merged or split otherwise, not one for each take.
const STUB_BYTES: u64 = 1024;
/// What Xen may have less of for each take: less than a page.
const HEAP_KIB: u64 = 3;
/// From the last round of a take until the guest is left alone.
const SETTLED_NS: u64 = 3_000_000_000;

/// A few.
pub fn run(lab: &Lab) -> Result<()> {
    takes(lab, GuestKind::Pvh, 5)
}

/// Many.
pub fn run_all(lab: &Lab) -> Result<()> {
    takes(lab, GuestKind::Pvh, 25)
}

/// Many, of a PV guest.
pub fn run_pv(lab: &Lab) -> Result<()> {
    takes(lab, GuestKind::Pv, 25)
}

fn takes(lab: &Lab, kind: GuestKind, count: usize) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let guest = lab.create_guest(&GuestSpec { kind, ..words::target("many", 96, PARAMETERS) })?;
    // What is kept for good is had by the first of each mode: grants, pages of the store, buffers.
    for mode in MODES {
        take(lab, &guest, "warm", mode)?;
    }
    let (before, heap_kib) = (Traces::of(lab, &guest)?, free_heap_kib(lab)?);
    let watch = guest.watch(lab)?;
    let taken: Vec<Value> = (0..count)
        .map(|n| take(lab, &guest, "one", MODES[n % MODES.len()]).with_context(|| format!("take {}", n + 1)))
        .collect::<Result<_>>()?;
    let samples = watch.end(lab)?;
    let now = Traces::of(lab, &guest)?;
    say!("   stub: {} bytes free before, {} after {count} takes", before.memory_free, now.memory_free);
    let missing = before.memory_free.saturating_sub(now.memory_free);
    check(missing <= STUB_BYTES, || format!("{missing} bytes of the stub's heap are gone after {count} takes"))?;
    nothing_left(lab, &guest, &before.with_memory(now.memory_free))?;
    let after_kib = free_heap_kib(lab)?;
    say!("   Xen's free heap: {heap_kib} KiB before, {after_kib} KiB after {count} takes");
    let lost = heap_kib.saturating_sub(after_kib);
    check(lost <= HEAP_KIB * count as u64, || format!("{lost} KiB of Xen's heap are gone after {count} takes"))?;
    say!("{}", cost(&taken, &samples)?);
    goes(lab, &guest)?;
    lab.stop_stub()
}

/// One take, verified, and removed again.
fn take(lab: &Lab, guest: &Guest, name: &str, mode: &str) -> Result<Value> {
    let full = format!("{}@{name}", guest.name);
    let taken = json(lab, &format!("livesave take {} --name {name} --mode {mode} --max-pause none", guest.name))?;
    succeed(lab, &format!("livesave verify {full} && livesave rm {full}"))?;
    words::tracking_is_off(lab, guest)?;
    let counter = guest.counter(lab)?.context("no counter")?;
    check(counter.errors == 0, || format!("pages are wrong after the take: {counter:?}"))?;
    Ok(taken)
}

/// Pages that Xen could still give to domains (page_alloc.c, pagealloc_info).
fn free_heap_kib(lab: &Lab) -> Result<u64> {
    let text = said(lab, 'm', "Dom heap:")?;
    dom_heap_kib(&text).with_context(|| format!("no heap in {text}"))
}

fn dom_heap_kib(text: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once("Dom heap:")?;
    rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Steps a second during the rounds of all takes and between the takes, and what Xen may have held the guest for.
fn cost(taken: &[Value], samples: &[Sample]) -> Result<String> {
    let (mut running, mut pauses_us) = (Vec::new(), Vec::new());
    let mut stalls = [("ENABLE", Vec::new()), ("CLEAN", Vec::new()), ("OFF", Vec::new())];
    for take in taken {
        pauses_us.push(number(take, "/pause/total_us")?);
        let spans = instant::rounds(take)?;
        if let [first, .., last] = spans.as_slice() {
            running.push(Span { began_ns: first.began_ns, ended_ns: last.began_ns });
        }
        let rounds = take.pointer("/trace/rounds").and_then(Value::as_array).context("no trace")?;
        let (last, before) = rounds.split_last().context("no round")?;
        stalls[0].1.push(number(&rounds[0], "/enable_ns")? / 1000);
        for round in before {
            stalls[1].1.push(number(round, "/fetch_ns")? / 1000);
        }
        stalls[2].1.push(number(last, "/off_ns")? / 1000);
    }
    let during: Vec<u64> = running.iter().filter_map(|span| rate(&span.of(samples))).collect();
    let gap = |pair: &[Span]| Span { began_ns: pair[0].ended_ns + SETTLED_NS, ended_ns: pair[1].began_ns };
    let between: Vec<u64> = running.windows(2).filter_map(|pair| rate(&gap(pair).of(samples))).collect();
    let (busy, idle) = (median(during), median(between));
    check(busy > 0 && idle > 0, || format!("the guest made {busy} steps a second while it was copied, else {idle}"))?;
    let mut text = format!("   the guest made {busy} steps a second while it was copied, {idle} between the takes");
    for (what, mut us) in stalls {
        us.retain(|us| *us > 0);
        check(!us.is_empty(), || format!("the traces have no time of {what}"))?;
        let (count, longest, all) = (us.len(), us.iter().max().copied().unwrap_or(0), us.iter().sum::<u64>());
        text += &format!("\n   {count} {what}: median {} us, longest {longest} us, all {all} us", median(us));
    }
    Ok(format!("{text}\n   whole pauses {pauses_us:?} us"))
}

/// Steps a second from the first look to the last.
fn rate(seen: &[&Sample]) -> Option<u64> {
    let (first, last) = (seen.first()?, seen.last()?);
    let ns = last.from_ns.checked_sub(first.from_ns)?;
    (last.count.steps - first.count.steps).saturating_mul(1_000_000_000).checked_div(ns)
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::Count;

    #[test]
    fn the_heap_is_read_as_xen_prints_it() {
        let text = "(XEN) Physical memory information:\n(XEN)     Xen heap: 0kB free\n\
                    (XEN)     heap[14]: 64512kB free\n\
                    (XEN)     Dom heap: 2041234kB free\n";
        assert_eq!(dom_heap_kib(text), Some(2_041_234));
        assert_eq!(dom_heap_kib("nothing"), None);
    }

    #[test]
    fn the_guests_speed_is_steps_by_time() {
        let sample = |ms: u64, steps| Sample {
            from_ns: ms * 1_000_000,
            to_ns: ms * 1_000_000 + 1,
            count: Count { ticks: 0, steps },
        };
        let samples = [sample(0, 10), sample(100, 30), sample(200, 50)];
        assert_eq!(rate(&samples.iter().collect::<Vec<_>>()), Some(200));
        assert_eq!(rate(&[]), None);
        assert_eq!(median(vec![5, 1, 9]), 5);
    }
}
