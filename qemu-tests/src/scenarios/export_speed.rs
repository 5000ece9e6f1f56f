//! How fast an export is beside `dd` on the same disk, of a fresh snapshot and of one at the end of fifty incremental
//! takes that changed pages at random, with the older ones removed and the cleaner at work in between.
//!
//! On a machine of its own, whose disks QEMU throttles for reading: the disk is what the export waits for, not the
//! emulation. What is compared is memory of the guest in a second, zero pages not counted, with what `dd` reads in a
//! second; what lies beside it on the disk, indexes and gaps, counts against the export.

use std::time::Duration;

use anyhow::{Context, Result};

use super::words::{self, json, number, succeed};
use crate::lab::{Guest, Lab, STORE_DEVICE, Spec};
use crate::say;
use crate::verdict::check;

const NAME: &str = "speed";
const MEMORY_MIB: u32 = 96;
/// Of 24 MiB any page is rewritten at random, so many in each tick.
const PARAMETERS: &str = "ls.mem=24 ls.random=1 ls.dirty=12 ls.tick=100 ls.verify=2 ls.publish=2";
/// Ticks between two takes, at least: in them an eighth of those 24 MiB is written to.
const TICKS: u64 = 64;
const TAKES: usize = 50;
const KEPT: usize = 7;
/// Runs of each, of which the middle one counts.
const RUNS: usize = 3;
/// What `dd` reads each time, where no snapshot has to be.
const DD_MIB: u64 = 12;
const DD_SKIP_MIB: u64 = 1024;
/// What a disk gives in a second: a part of what the emulated dom0 can check and write to a pipe.
const READ_BYTES_PER_SECOND: u64 = 1 << 20;
/// Percent of what `dd` reads that an export gives at least.
const FRESH_PERCENT: u64 = 80;
const CHAIN_PERCENT: u64 = 50;
/// Until the guest has ticked as often as it shall.
const TICKS_WAIT: Duration = Duration::from_secs(300);

/// Its machine.
pub fn machine(spec: &mut Spec) {
    spec.disk_read_bytes_per_second = Some(READ_BYTES_PER_SECOND);
}

/// All of it on one boot.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let guest = lab.create_guest(&words::target(NAME, MEMORY_MIB, PARAMETERS))?;
    take(lab, 0)?;
    // The guest would count in what dom0 has of the processor.
    lab.sh(&format!("xl pause {NAME}"))?;
    let fresh = measure(lab, 0)?;
    lab.sh(&format!("xl unpause {NAME}"))?;
    let mut ticks = ticks_of(lab, &guest)?;
    let sent = (1..=TAKES)
        .map(|number| {
            ticks = wait_for_dirt(lab, &guest, ticks)?;
            let sent = take(lab, number).with_context(|| format!("take {number}"))?;
            succeed(lab, &format!("livesave prune {NAME} --keep-last {KEPT}"))?;
            Ok(sent)
        })
        .collect::<Result<Vec<u64>>>()?;
    say!("   each take sent {} pages, in the middle", middle(&sent));
    lab.sh(&format!("xl destroy {NAME}"))?;
    say!("   {}", lab.sh("livesave status")?);
    // It would go on cleaning.
    lab.stop_stub()?;
    let chain = measure(lab, TAKES)?;
    check(fresh >= FRESH_PERCENT, || format!("fresh: {fresh} percent of dd"))?;
    check(chain >= CHAIN_PERCENT, || format!("after {TAKES} incrementals: {chain} percent of dd"))?;
    succeed(lab, &format!("livesave verify {NAME}@n{TAKES} --store {STORE_DEVICE}")).map(drop)
}

/// Takes it; pages sent.
fn take(lab: &Lab, number: usize) -> Result<u64> {
    // Packed pages would make the export look better than it is.
    let how = "--incremental --compress none --max-pause none";
    let taken = json(lab, &format!("livesave take {NAME} --name n{number} {how}"))?;
    words::number(&taken, "/pages")
}

fn ticks_of(lab: &Lab, guest: &Guest) -> Result<u64> {
    Ok(guest.counter(lab)?.map_or(0, |counter| counter.ticks))
}

/// Until an eighth of the pages was written to since it ticked so often; how often it has ticked then.
fn wait_for_dirt(lab: &Lab, guest: &Guest, before: u64) -> Result<u64> {
    let mut now = before;
    lab.wait_until("the guest writes", TICKS_WAIT, |lab| {
        now = ticks_of(lab, guest)?;
        Ok(now >= before + TICKS)
    })?;
    Ok(now)
}

/// Exports and reads with `dd` in turns; the export's part of `dd`'s rate in percent, the middle one of all runs.
fn measure(lab: &Lab, snapshot: usize) -> Result<u64> {
    let name = format!("{NAME}@n{snapshot}");
    let pages = number(&json(lab, &format!("livesave show {name} --store {STORE_DEVICE}"))?, "/data_pages")?;
    let dd =
        format!("dd if={STORE_DEVICE} of=/dev/null iflag=direct bs=1M count={DD_MIB} skip={DD_SKIP_MIB} 2>/dev/null");
    let export = format!("livesave export {name} -o - --store {STORE_DEVICE} | cat >/dev/null");
    let mut percents = Vec::new();
    for _ in 0..RUNS {
        let (plain, exported) = (Timed::run(lab, &dd)?, Timed::run(lab, &export)?);
        let (rate, read, given) = (plain.rate(plain.bytes), exported.rate(exported.bytes), exported.rate(pages * 4096));
        say!(
            "   {name}: dd {rate} KiB/s; export {} ms: {given} KiB/s of memory, {read} KiB/s from the disk, {} bytes \
             for {pages} pages in {} requests",
            exported.ms,
            exported.bytes,
            exported.requests,
        );
        percents.push(given * 100 / rate.max(1));
    }
    say!("   {name}: {percents:?} percent of dd");
    Ok(middle(&percents))
}

fn middle(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// What a command took, by dom0's clock, and what the store's disk read meanwhile.
struct Timed {
    ms: u64,
    bytes: u64,
    requests: u64,
}

impl Timed {
    /// A command that must succeed, every part of its pipe.
    fn run(lab: &Lab, command: &str) -> Result<Self> {
        let disk = STORE_DEVICE.trim_start_matches("/dev/");
        let look = format!("cut -d ' ' -f 1 /proc/uptime; awk '{{ print $1, $3 }}' /sys/block/{disk}/stat");
        let text = succeed(lab, &format!("set -o pipefail; {look}; {command} >/dev/null && {{ {look}; }}"))?;
        Self::parse(&text).with_context(|| format!("no times in `{text}`"))
    }

    /// Seconds with two digits, then requests and sectors of 512 bytes: before and after.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let mut look = || {
            let centiseconds: u64 = words.next()?.replace('.', "").parse().ok()?;
            Some((centiseconds * 10, words.next()?.parse::<u64>().ok()?, words.next()?.parse::<u64>().ok()?))
        };
        let (before, after) = (look()?, look()?);
        let bytes = after.2.checked_sub(before.2)? * 512;
        Some(Self { ms: after.0.checked_sub(before.0)?, requests: after.1.checked_sub(before.1)?, bytes })
    }

    /// So many bytes in its time, in KiB a second.
    fn rate(&self, bytes: u64) -> u64 {
        bytes * 1000 / 1024 / self.ms.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_looks_give_time_bytes_and_requests() {
        let timed = Timed::parse("100.25\n10 2000\n102.75\n14 12240\n").unwrap();
        assert_eq!((timed.ms, timed.bytes, timed.requests), (2500, 10240 * 512, 4));
        assert_eq!(timed.rate(timed.bytes), 2048);
        assert!(Timed::parse("100.25\n10 2000\n102.75\n14").is_none(), "cut short");
        assert!(Timed::parse("100.25\n10 2000\n99.75\n14 12240").is_none(), "time that goes back");
        assert_eq!(middle(&[9, 1, 5]), 5);
    }
}
