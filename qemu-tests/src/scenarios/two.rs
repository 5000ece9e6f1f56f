//! Two guests at once: the second take waits for its turn and says so; what befalls the first guest (it is destroyed in
//! the middle of its take) neither touches the second one's snapshot nor its place.

use std::time::Duration;

use anyhow::{Context, Result};

use super::after::{self, TAKE_WAIT};
use super::words::{self, fails_with, succeed};
use crate::lab::{Background, Guest, Lab};
use crate::say;
use crate::verdict::check;

/// The first take dwells while it copies, so long that only its end ends it.
const DWELL: &str = "hold=copying:300000";
/// Until a command that was started stands in the queue.
const QUEUE_WAIT: Duration = Duration::from_secs(60);

/// Three takes of two guests.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub(DWELL)?;
    let [first, second] = ["first01", "second01"].map(|name| words::target(name, 96, "ls.mem=16 ls.dirty=4"));
    let (first, second) = (lab.start_guest(&first)?, lab.start_guest(&second)?);
    first.next_counter(lab)?;
    second.wait_whole_pass(lab)?;
    let doomed = take(lab, &first, "doomed")?;
    lab.sh(&after::until_state("copying"))?;
    let waits = take(lab, &second, "kept")?;
    queued(lab, 2)?;
    let last = take(lab, &second, "again")?;
    queued(lab, 3)?;
    fails_with(lab, &format!("livesave take {} --no-wait", second.name), 9)?;
    fails_with(lab, &format!("livesave take {} --wait 1s", second.name), 9)?;
    lab.sh(&format!("xl destroy {}", first.name))?;
    let output = doomed.join()?;
    check(output.status == 26, || format!("the destroyed guest's take: {} {}", output.status, output.errors()))?;
    for (name, take) in [("kept", waits), ("again", last)] {
        let output = take.join()?;
        say!("   {name}: {} {}", output.status, output.errors().replace('\n', " | "));
        check(output.status == 0, || format!("the take `{name}` ended with {}: {}", output.status, output.errors()))?;
        let place = output.errors().contains("waiting for the stub");
        check(place, || format!("it did not say that it waits: {}", output.errors()))?;
        succeed(lab, &format!("livesave verify {}@{name}", second.name))?;
    }
    queued(lab, 0)?;
    let list = lab.sh("livesave ls --json")?;
    check(!list.contains("doomed"), || format!("a void snapshot is listed: {list}"))?;
    after::at_peace(lab, &second)?;
    after::recovers(lab)?;
    restored(lab, &second)?;
    lab.stop_stub()
}

fn take(lab: &Lab, guest: &Guest, name: &str) -> Result<Background> {
    lab.spawn(&format!("livesave take {} --name {name} --max-pause none", guest.name), TAKE_WAIT)
}

/// So many are in the queue, whose take runs included.
fn queued(lab: &Lab, count: usize) -> Result<()> {
    after::becomes(lab, &format!("{count} in the queue"), QUEUE_WAIT, |lab| {
        let status: serde_json::Value = serde_json::from_str(&lab.sh("livesave status --json")?)?;
        Ok(status["queue"].as_array().context("no queue")?.len() == count)
    })
}

/// What was taken after the trouble comes back whole.
fn restored(lab: &Lab, guest: &Guest) -> Result<()> {
    lab.sh(&format!("xl destroy {}", guest.name))?;
    succeed(lab, &format!("livesave restore {}@kept", guest.name))?;
    guest.next_counter(lab)?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("pages are wrong after the restore: {whole:?}"))?;
    lab.sh(&format!("xl destroy {}", guest.name)).map(drop)
}
