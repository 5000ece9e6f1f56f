//! A guest that stays tracked, and who ends: the stub dies, politely or not; another tool saves the guest; the guest
//! itself goes. Each time tracking is off afterwards, or said to be on and by whom; the next snapshot is a full one
//! that says why. A parent that is not there, or another guest's, is an error that changes nothing. Beside it is
//! measured what it costs a guest to stay tracked.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::after::{self, becomes};
use super::incremental::{take, why};
use super::words::{self, fails_with, succeed};
use crate::lab::{Guest, Lab};
use crate::say;
use crate::verdict::check;

/// Never sleeps, so that what it is slowed by shows.
const PARAMETERS: &str = "ls.mem=16 ls.dirty=4 ls.busy=1 ls.publish=8";
/// How long its steps are counted.
const COUNTED: Duration = Duration::from_secs(20);
/// Until the stub has noticed what became of a guest: it looks each second.
const NOTICED: Duration = Duration::from_secs(60);
const SAVED: &str = "/scratch/tracked.save";
/// docs/operating/exit-codes.md.
const USAGE: i32 = 2;
const UNHEALTHY: i32 = 37;
const NO_SNAPSHOT: i32 = 19;

/// The scenario.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let guest = lab.create_guest(&words::target("tail01", 96, PARAMETERS))?;
    guest.wait_whole_pass(lab)?;
    let before = steps(lab, &guest)?;
    why(&take(lab, &guest, "n0", "--incremental")?, "not tracked so far")?;
    let after = steps(lab, &guest)?;
    say!("   steps/s: {before} untracked, {after} tracked ({} %)", after * 100 / before.max(1));
    check(after * 2 >= before, || format!("a tracked guest makes {after} steps/s, {before} without"))?;
    doctor(lab, "stays tracked by the stub 'livesave'")?;
    parents(lab, &guest)?;
    rebooted(lab, &guest)?;
    saved(lab, &guest)?;
    guarded(lab, &guest).context("guarded")?;
    orphaned(lab, &guest)?;
    let counter = guest.wait_whole_pass(lab)?;
    check(counter.errors == 0, || format!("pages are wrong after the takes: {counter:?}"))?;
    succeed(lab, "livesave verify --all && livesave store check")?;
    gone(lab, &guest)
}

/// Steps of the guest in a second.
fn steps(lab: &Lab, guest: &Guest) -> Result<u64> {
    let ticks = || guest.counter(lab)?.map(|counter| counter.ticks).context("no counter");
    let (began, first) = (Instant::now(), ticks()?);
    // What is measured is a rate: it takes its time.
    thread::sleep(COUNTED);
    let made = ticks()?.saturating_sub(first);
    Ok(made * 1000 / u64::try_from(began.elapsed().as_millis())?.max(1))
}

/// A parent that cannot be had: nothing changes, the next one lies where it should.
fn parents(lab: &Lab, guest: &Guest) -> Result<()> {
    let with = |parent: &str| format!("livesave take {} --name x --incremental --parent {parent}", guest.name);
    fails_with(lab, &with("other@n0"), USAGE)?;
    fails_with(lab, &with("missing"), NO_SNAPSHOT)?;
    doctor(lab, "stays tracked by the stub 'livesave'")?;
    why(&take(lab, guest, "n1", "--incremental --parent n0")?, "")
}

/// `xl save -c` switches tracking off at its end, and is not disturbed by it.
fn saved(lab: &Lab, guest: &Guest) -> Result<()> {
    succeed(lab, &format!("xl save -c {} {SAVED}; R=$?; rm -f {SAVED}; exit $R", guest.name))?;
    after::counts(lab, guest)?;
    words::tracking_is_off(lab, guest)?;
    let control = format!("/local/domain/{}/control/feature-suspend", guest.domid(lab)?);
    lab.sh(&format!("xenstore-write {control} 1"))?;
    why(&take(lab, guest, "saved", "--incremental")?, "switched the dirty tracking off")
}

/// With `--guard` saves and migrations are refused as long as the guest stays tracked, before they touch it. Its end
/// lets them in again: the guard of another take, `disarm`, a removal.
fn guarded(lab: &Lab, guest: &Guest) -> Result<()> {
    let name = &guest.name;
    let save = format!("xl save -c {name} {SAVED}; R=$?; rm -f {SAVED}; exit $R");
    let refused = |lab: &Lab| -> Result<()> {
        for command in [save.as_str(), &format!("xl migrate -s '' {name} 'xl migrate-receive'")] {
            let output = lab.run_for(command, after::TAKE_WAIT)?;
            let said = format!("{} {}", output.text(), output.errors());
            check(output.status != 0 && said.contains("Permission denied"), || format!("`{command}`: {said}"))?;
        }
        after::counts(lab, guest)
    };
    why(&take(lab, guest, "g0", "--incremental --guard")?, "")?;
    refused(lab)?;
    why(&take(lab, guest, "g1", "--incremental --guard")?, "")?;
    refused(lab)?;
    doctor(lab, "kept off now: a tracked guest is guarded")?;
    succeed(lab, &format!("livesave disarm {name}"))?;
    open(lab, guest)?;
    why(&take(lab, guest, "g2", "--incremental --guard")?, "disarm")?;
    why(&take(lab, guest, "g3", "--incremental")?, "")?;
    open(lab, guest)?;
    take(lab, guest, "g4", "--incremental --guard")?;
    succeed(lab, &format!("livesave rm {name}@g4"))?;
    open(lab, guest)?;
    why(&take(lab, guest, "g5", "--incremental")?, "was removed")
}

/// Nobody is kept off.
fn open(lab: &Lab, guest: &Guest) -> Result<()> {
    let state = lab.sh("/usr/lib/xen-4.17/bin/flask-get-bool livesave_taking")?;
    check(state.trim_end().ends_with('0'), || format!("the boolean: {state}"))?;
    doctor(lab, "kept off while a take runs")?;
    after::counts(lab, guest)
}

/// The stub is destroyed while it tracks the guest: it is said, and set right by `recover` or by the next take.
fn orphaned(lab: &Lab, guest: &Guest) -> Result<()> {
    let tracked = format!("probe logdirty {} status", guest.domid(lab)?);
    for by_take in [false, true] {
        lab.sh("xl destroy livesave")?;
        let state = lab.sh(&tracked)?;
        check(state == "on", || format!("log-dirty is {state} after the stub's death: nothing is tried here"))?;
        doctor_fails(lab, "which is gone or dead: its tracking may be on")?;
        if !by_take {
            let said = succeed(lab, "livesave recover")?;
            check(said.contains("left was switched off"), || said.clone())?;
            words::tracking_is_off(lab, guest)?;
            after::recovers(lab)?;
        }
        lab.start_stub("")?;
        let name = if by_take { "taken-over" } else { "recovered" };
        let next = take(lab, guest, name, "--incremental")?;
        why(&next, "not tracked so far")?;
        let all = words::number(&next, "/pages")? + words::number(&next, "/zero_pages")?;
        check(all >= words::number(&next, "/memory_pages")?, || format!("only {all} pages were sent"))?;
    }
    why(&take(lab, guest, "goes-on", "--incremental")?, "")
}

/// The guest is rebooted while it stays tracked. (Not after `xl save -c`, at which this xl forgets the guest.)
fn rebooted(lab: &Lab, guest: &Guest) -> Result<()> {
    after::reboots(lab, guest)?;
    forgotten(lab)?;
    guest.wait_whole_pass(lab)?;
    why(&take(lab, guest, "rebooted", "--incremental")?, "has ended")
}

/// A stub that is asked to end leaves nobody tracked; a guest that is destroyed is forgotten.
fn gone(lab: &Lab, guest: &Guest) -> Result<()> {
    lab.stop_stub()?;
    words::tracking_is_off(lab, guest)?;
    lab.start_stub("")?;
    take(lab, guest, "last", "--incremental")?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    forgotten(lab)?;
    lab.stop_stub()?;
    let said = succeed(lab, "livesave recover")?;
    check(said == "nothing to recover", || said.clone())
}

fn forgotten(lab: &Lab) -> Result<()> {
    becomes(lab, "the stub tracks nobody", NOTICED, |lab| Ok(!lab.sh("livesave status")?.contains("stays tracked")))
}

fn doctor(lab: &Lab, words: &str) -> Result<()> {
    // Whatever else it may find in this lab.
    let said = lab.run("livesave doctor")?.text();
    check(said.contains(words), || format!("doctor does not say `{words}`: {said}"))
}

fn doctor_fails(lab: &Lab, words: &str) -> Result<()> {
    let said = fails_with(lab, "livesave doctor", UNHEALTHY)?;
    check(said.contains(words), || format!("doctor does not say `{words}`: {said}"))
}
