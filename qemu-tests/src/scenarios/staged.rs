//! Mode `staged` on a guest that keeps writing: its pause is a fraction of that of `live` on the same guest, it sends
//! little more than the memory, what it takes comes back right; with too little staging the pause is as predicted.

use anyhow::Result;
use serde_json::Value;

use super::words::{self, json, number, succeed};
use super::{goes_on, stands_at_the_instant};
use crate::lab::{Guest, Lab};
use crate::say;
use crate::verdict::check;

const MEMORY_MIB: u32 = 128;
/// 25 MiB are rewritten over and over, faster than they can be stored.
const PARAMETERS: &str = "ls.mem=40 ls.set=6400 ls.dirty=1600 ls.verify=32 ls.tick=20 ls.publish=1";
/// The stub's part of the pause of `live`, by that of `staged`, at least.
const FRACTION: u64 = 10;
/// Pages sent, in percent of the memory.
const SENT_PERCENT: u64 = 115;
/// No pause is longer, by more than so many percent, than was told before the suspend, which counts all that the guest
/// may write by then, or than was predicted when it stood. On one emulated processor that guest, stub and dom0 share, a
/// page costs less when the guest stands than it did while it ran, even without the guest's own time.
const PREDICTED_PERCENT: u64 = 10;
/// Nor is the best of them more than this much of the pause.
const BOUND_PERCENT: u64 = 150;
const TIGHT_RUNS: usize = 3;
/// A twelfth of the set.
const TIGHT: &str = "2M";

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
    throttled(lab, &guest)?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    succeed(lab, &format!("livesave verify {}@staged", guest.name))?;
    succeed(lab, &format!("livesave restore {}@staged --paused", guest.name))?;
    let restored = stands_at_the_instant(lab, &guest, &format!("{}@staged", guest.name), &gfn, &samples)?;
    let whole = goes_on(lab, &guest, restored)?;
    check(whole.errors == 0, || format!("pages are wrong after the restore: {whole:?}"))?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    lab.stop_stub()
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
    let mut excess = Vec::new();
    for run in runs {
        let pause = |what: &str| number(run, &format!("/pause/{what}"));
        let (told, said, was) = (pause("predicted_us")?, pause("renewed_us")?, pause("stub_us")?);
        say!("   too little staging: at most {told} us, predicted {said} us, was {was} us");
        check(pause("staged")? == pause("staging")?, || format!("staging was not too little: {run}"))?;
        check(was * 100 <= told * (100 + PREDICTED_PERCENT), || format!("{was} us are longer than told: {run}"))?;
        check(was * 100 <= said * (100 + PREDICTED_PERCENT), || format!("{was} us, predicted were {said}: {run}"))?;
        excess.push(said * 100 / was.max(1));
    }
    // A bound that is always far away says nothing.
    let least = excess.iter().copied().min().unwrap_or(u64::MAX);
    check(least <= BOUND_PERCENT, || format!("predicted were {excess:?} percent of what it was"))
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
        let mut pause = serde_json::json!({"stub_us": stub_us, "pages": 5, "staged": 5, "staging": 5});
        pause["predicted_us"] = 100.into();
        pause["renewed_us"] = 100.into();
        serde_json::json!({"memory_pages": 100, "pages": pages, "zero_pages": 0, "pause": pause})
    }

    #[test]
    fn a_long_pause_and_too_many_pages_are_noticed() {
        assert!(compare(&taken(1000, 300), &taken(100, 115)).is_ok());
        assert!(compare(&taken(1000, 300), &taken(101, 115)).is_err());
        assert!(compare(&taken(1000, 300), &taken(100, 116)).is_err());
    }

    #[test]
    fn a_prediction_is_a_bound_and_not_far_away() {
        assert!(predicted(&[taken(50, 1), taken(110, 1), taken(67, 1)]).is_ok());
        assert!(predicted(&[taken(90, 1), taken(111, 1)]).is_err(), "longer than predicted");
        assert!(predicted(&[taken(50, 1), taken(66, 1)]).is_err(), "far away");
    }
}
