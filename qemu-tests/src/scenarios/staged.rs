//! Mode `staged` on a guest that keeps writing: its pause is a fraction of that of `live` on the same guest, it sends
//! little more than the memory, what it takes comes back right; with too little staging the pause is as predicted,
//! pages that pack are packed, and one that would be too long is not begun.
//!
//! On a machine of its own, whose disks QEMU throttles: the disk is what the pause with too little staging is about,
//! not the emulation of three parties on one processor.

use anyhow::Result;
use serde_json::Value;

use super::words::{self, json, number, succeed};
use super::{goes_on, stands_at_the_instant};
use crate::lab::{Guest, Lab, Spec};
use crate::say;
use crate::standing::Change;
use crate::verdict::check;

const MEMORY_MIB: u32 = 96;
/// 25 MiB are rewritten over and over, faster than they can be stored. So many that the pause with too little staging
/// is long beside what the disk answers at once, half a second of it: where in that it ends nobody knows.
const PARAMETERS: &str = "ls.mem=28 ls.set=6400 ls.dirty=1600 ls.verify=32 ls.tick=20 ls.publish=1";
/// The stub's part of the pause of `live`, by that of `staged`, at least.
const FRACTION: u64 = 10;
/// Pages sent, in percent of the memory.
const SENT_PERCENT: u64 = 115;
/// With too little staging our part of the pause is, by the median of the runs, within so many percent of what was told
/// before the suspend, and of what was told anew when the guest stood and its last set was known; and no single one is
/// longer than told by more.
const PREDICTED_PERCENT: u64 = 10;
/// or than so many microseconds: about what one turn of dom0 on the one processor costs.
const PREDICTED_SLACK_US: u64 = 5_000;
const TIGHT_RUNS: usize = 5;
/// A twelfth of the set.
const TIGHT: &str = "2M";
/// Exit codes: the pause would be too long; void, for the policy gives up.
const TOO_LONG: i32 = 44;
const TOO_BUSY: i32 = 32;
/// What a disk takes in a second: a third of what the stub can give it here while the machine is busy with others.
const DISK_BYTES_PER_SECOND: u64 = 2 << 20;
/// The observer's words.
const SEEN: &str = "/run/standing";

/// Its machine.
pub fn machine(spec: &mut Spec) {
    spec.disk_bytes_per_second = Some(DISK_BYTES_PER_SECOND);
}

/// All of it on one boot.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let guest = lab.create_guest(&words::target("staged", MEMORY_MIB, PARAMETERS))?;
    guest.wait_whole_pass(lab)?;
    let live = take(lab, &guest, "live", "--mode live --max-pause none")?;
    let tight = (0..TIGHT_RUNS)
        .map(|at| {
            take(lab, &guest, &format!("tight{at}"), &format!("--mode staged --staging {TIGHT} --max-pause none"))
        })
        .collect::<Result<Vec<_>>>()?;
    let watch = guest.watch(lab)?;
    let gfn = watch.gfn().to_owned();
    let staged = take(lab, &guest, "staged", "--mode staged")?;
    let samples = watch.end(lab)?;
    let after = guest.wait_whole_pass(lab)?;
    check(after.errors == 0, || format!("pages are wrong after the takes: {after:?}"))?;
    words::tracking_is_off(lab, &guest)?;
    compare(&live, &staged)?;
    predicted(&tight)?;
    refused(lab, &guest)?;
    throttled(lab, &guest)?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    succeed(lab, &format!("livesave verify {}@staged", guest.name))?;
    succeed(lab, &format!("livesave restore {}@staged --paused", guest.name))?;
    let restored = stands_at_the_instant(lab, &guest, &format!("{}@staged", guest.name), &gfn, &samples)?;
    let whole = goes_on(lab, &guest, restored)?;
    check(whole.errors == 0, || format!("pages are wrong after the restore: {whole:?}"))?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    packed(lab)?;
    lab.stop_stub()
}

/// Pages of which three quarters are one word: with what else was put off, more than three times what fits as it is,
/// and it fits when it is packed, which is faster than this disk.
fn packed(lab: &Lab) -> Result<()> {
    let parameters = "ls.mem=16 ls.set=1000 ls.dirty=1000 ls.noise=128 ls.verify=32 ls.tick=20 ls.publish=1";
    let guest = lab.create_guest(&words::target("packs", MEMORY_MIB, parameters))?;
    guest.wait_whole_pass(lab)?;
    let taken = take(lab, &guest, "packed", &format!("--mode staged --staging {TIGHT} --max-pause none"))?;
    let pause = |what: &str| number(&taken, &format!("/pause/{what}"));
    let (staged, room, packed) = (pause("staged")?, pause("staging")?, pause("packed")?);
    say!("   {staged} pages in the memory of {room}, {packed} packed");
    check(packed > 0 && staged > room * 3 / 2, || format!("they were not packed: {taken}"))?;
    check(pause("pages")? <= staged, || format!("pages went to disk in the pause: {taken}"))?;
    let after = guest.wait_whole_pass(lab)?;
    check(after.errors == 0, || format!("pages are wrong after the take: {after:?}"))?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    succeed(lab, &format!("livesave restore {}@packed", guest.name))?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("pages are wrong after the restore: {whole:?}"))?;
    lab.sh(&format!("xl destroy {}", guest.name)).map(drop)
}

fn take(lab: &Lab, guest: &Guest, name: &str, options: &str) -> Result<Value> {
    let taken = json(lab, &format!("livesave take {} --name {name} {options}", guest.name))?;
    say!("   {name}: {taken}");
    Ok(taken)
}

/// The pause of `staged` is short, and so is what it sends.
fn compare(live: &Value, staged: &Value) -> Result<()> {
    let (long, short) = (number(live, "/pause/stub_us")?, number(staged, "/pause/stub_us")?);
    let (memory, sent) = (number(staged, "/memory_pages")?, number(staged, "/pages")? + number(staged, "/zero_pages")?);
    say!(
        "   capture: live {long} us for {} pages, staged {short} us for {} pages; sent {}.{:02} x memory",
        number(live, "/pause/pages")?,
        number(staged, "/pause/pages")?,
        sent / memory.max(1),
        sent * 100 / memory.max(1) % 100,
    );
    check(short * FRACTION <= long, || format!("{short} us are more than 1/{FRACTION} of {long} us"))?;
    check(sent * 100 <= memory * SENT_PERCENT, || format!("{sent} pages were sent of {memory}"))?;
    check(number(staged, "/pause/staged")? > 0, || format!("nothing was staged: {staged}"))
}

/// With too little memory the rest goes to the store in the pause, and that was told before.
fn predicted(runs: &[Value]) -> Result<()> {
    let mut shares = [Vec::new(), Vec::new()];
    for run in runs {
        let pause = |what: &str| number(run, &format!("/pause/{what}"));
        let (told, said, was) = (pause("predicted_us")?, pause("renewed_us")?, pause("stub_us")?);
        say!("   too little staging: told {told} us, told anew {said} us, was {was} us");
        check(pause("pages")? > pause("staged")?, || format!("staging was not too little: {run}"))?;
        let longer = (told * PREDICTED_PERCENT / 100).max(PREDICTED_SLACK_US);
        check(was <= told + longer, || format!("{was} us are longer than told, {told}: {run}"))?;
        for (limit, shares) in [told, said].into_iter().zip(&mut shares) {
            shares.push(was * 1000 / limit.max(1));
        }
    }
    for shares in &mut shares {
        shares.sort_unstable();
        let median = shares[shares.len() / 2];
        say!("   captured by told, in thousandths: {shares:?}");
        check(median.abs_diff(1000) <= PREDICTED_PERCENT * 10, || {
            format!("the median is not as predicted: {shares:?}")
        })?;
    }
    Ok(())
}

/// What would take too long, or what the operator does not want of a busy guest, is not begun: it never stands.
fn refused(lab: &Lab, guest: &Guest) -> Result<()> {
    let name = &guest.name;
    lab.sh(&format!("{{ probe standing {} >{SEEN} 2>&1 & echo $! >{SEEN}.pid; }} </dev/null", guest.domid(lab)?))?;
    let tight = format!("livesave take {name} --name refused --mode staged --staging {TIGHT}");
    words::fails_with(lab, &format!("{tight} --max-pause 1s"), TOO_LONG)?;
    words::fails_with(lab, &format!("{tight} --max-pause none --on-busy abort"), TOO_BUSY)?;
    lab.sh(&format!("kill $(cat {SEEN}.pid)"))?;
    let seen = lab.sh(&format!("cat {SEEN}"))?;
    let changes: Vec<Change> = seen.lines().filter_map(Change::parse).collect();
    check(matches!(changes[..], [Change { runs: true, .. }]), || format!("the guest was to run all the time: {seen}"))?;
    let listed = succeed(lab, "livesave ls")?;
    check(!listed.contains("refused"), || format!("half a snapshot: {listed}"))?;
    words::tracking_is_off(lab, guest)
}

/// The guest's own cap; it has one, so that "none" would be noticed too.
const CAP: u32 = 90;

/// A throttled guest gets its cap back, after a take and after one whose command is killed.
fn throttled(lab: &Lab, guest: &Guest) -> Result<()> {
    let name = &guest.name;
    let cap = format!("cap() {{ set -- $(xl sched-credit2 -d {name} | tail -n 1); echo $4; }}; ");
    let wait = "for i in $(seq 600); do [ $(cap) {} 90 ] && break; sleep 0.2; done; cap";
    lab.sh(&format!("xl sched-credit2 -d {name} -c {CAP}"))?;
    let options = format!("--mode staged --on-busy throttle --staging {TIGHT} --max-pause none");
    let taken = take(lab, guest, "throttled", &options)?;
    say!("   throttled by {} percent", number(&taken, "/throttle")?);
    check(number(&taken, "/throttle")? > 0, || format!("it was not throttled: {taken}"))?;
    let after = lab.sh(&format!("{cap}cap"))?;
    check(after == CAP.to_string(), || format!("the cap is {after} after the take"))?;
    let killed = lab.run_for(
        &format!(
            "{cap}livesave take {name} --name killed {options} >/dev/null 2>&1 & T=$!; {}; kill -9 $T; {}",
            wait.replace("{}", "!="),
            wait.replace("{}", "=")
        ),
        words::TAKE_WAIT,
    )?;
    let text = killed.text();
    let caps: Vec<&str> = text.split_whitespace().collect();
    say!("   caps when the command was killed and after: {caps:?}");
    let [during, after] = caps[..] else { return check(false, || format!("no caps in `{text}`")) };
    check(during != "90" && after == "90", || format!("the cap was {during}, then {after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(stub_us: u64, pages: u64) -> Value {
        let mut pause = serde_json::json!({"stub_us": stub_us, "pages": 6, "staged": 5, "staging": 5});
        pause["predicted_us"] = 1_000_000.into();
        pause["renewed_us"] = 1_000_000.into();
        serde_json::json!({"memory_pages": 100, "pages": pages, "zero_pages": 0, "pause": pause})
    }

    #[test]
    fn a_long_pause_and_too_many_pages_are_noticed() {
        assert!(compare(&taken(1000, 300), &taken(100, 115)).is_ok());
        assert!(compare(&taken(1000, 300), &taken(101, 115)).is_err());
        assert!(compare(&taken(1000, 300), &taken(100, 116)).is_err());
    }

    #[test]
    fn a_prediction_is_near_or_wrong() {
        let runs = |shares: [u64; 3]| shares.map(|us| taken(us, 1));
        let mut told_less = taken(1_000_000, 1);
        told_less["pause"]["predicted_us"] = 900_000.into();
        assert!(predicted(&[told_less]).is_err(), "longer than was told before");
        for (shares, is_right) in [
            ([1_000_000, 1_100_000, 1_050_000], true),
            ([1_000_000, 1_000_000, 1_101_000], false),
            ([700_000, 900_000, 1_000_000], true),
            ([700_000, 899_000, 1_000_000], false),
        ] {
            assert_eq!(predicted(&runs(shares)).is_ok(), is_right, "{shares:?}");
        }
        let mut fits = taken(1_000_000, 1);
        fits["pause"]["staged"] = 6.into();
        fits["pause"]["pages"] = 6.into();
        assert!(predicted(&[fits]).is_err(), "nothing went to the disk");
    }
}
