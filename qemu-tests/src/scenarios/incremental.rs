//! A chain of incremental takes of a busy guest that stays tracked between them: each sends what changed, restores by
//! itself, and is right by the guest's own check. A foreign hand in the tracking makes the next one a full one that
//! says so; `disarm` and another kind of take end the tracking.

use anyhow::{Context, Result};
use serde_json::Value;

use super::words::{self, fails_with, json, number, succeed};
use crate::lab::{Guest, Lab};
use crate::say;
use crate::verdict::check;

const PARAMETERS: &str = "ls.mem=24 ls.dirty=32 ls.tick=20 ls.publish=2";
/// Incremental takes on top of the first.
const LINKS: usize = 3;
/// Bytes that an incremental take may write whatever it holds, and what the machine's state and the configuration take.
const FIXED: u64 = 64 << 10;
const PLATFORM: u64 = 48 << 10;
/// docs/operating/exit-codes.md.
const NO_SNAPSHOT: i32 = 19;

/// The scenario.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let guest = lab.create_guest(&words::target("chain01", 96, PARAMETERS))?;
    guest.wait_whole_pass(lab)?;
    let orphan = format!("livesave take {} --name orphan --incremental --parent none", guest.name);
    fails_with(lab, &orphan, NO_SNAPSHOT)?;
    let first = take(lab, &guest, "n0", "--incremental")?;
    why(&first, "not tracked so far")?;
    let all = number(&first, "/pages")? + number(&first, "/zero_pages")?;
    for n in 1..=LINKS {
        // What is written can be counted if nothing is packed.
        let next = take(lab, &guest, &format!("n{n}"), "--incremental --compress none")?;
        why(&next, "")?;
        check(text(&next, "/base") == format!("chain01@n{}", n - 1), || format!("built on {}", text(&next, "/base")))?;
        let sent = number(&next, "/pages")? + number(&next, "/zero_pages")?;
        say!("   n{n}: {sent} pages sent of {all}, pause {} us", number(&next, "/pause/total_us")?);
        check(sent < all / 2, || format!("n{n} sent {sent} pages, the first {all}"))?;
        bounded(&next)?;
    }
    // The middle of the chain goes; what lies on it needs it no more than anything else.
    succeed(lab, &format!("livesave rm {}@n1 && livesave verify --all", guest.name))?;
    let status = lab.sh("livesave status")?;
    check(status.contains("stays tracked"), || status.clone())?;
    stolen(lab, &guest)?;
    ended(lab, &guest)?;
    let counter = guest.wait_whole_pass(lab)?;
    check(counter.errors == 0, || format!("pages are wrong after the takes: {counter:?}"))?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    succeed(lab, "livesave verify --all && livesave store check")?;
    for name in ["n0", "n2", "n3", "on-again"] {
        succeed(lab, &format!("livesave restore {}@{name}", guest.name))?;
        let whole = guest.wait_whole_pass(lab)?;
        say!("   {name} restored: {whole:?}");
        check(whole.errors == 0, || format!("{name}: pages are wrong after the restore: {whole:?}"))?;
        lab.sh(&format!("xl destroy {}", guest.name))?;
    }
    lab.stop_stub()
}

/// Nothing is read that Xen did not note, and little is written beside the pages: of each an entry, and what is fixed.
fn bounded(taken: &Value) -> Result<()> {
    let sent = number(taken, "/pages")? + number(taken, "/zero_pages")?;
    let rounds = taken.pointer("/trace/rounds").and_then(Value::as_array).context("no trace")?;
    let given = rounds.iter().map(|round| number(round, "/given_pages")).sum::<Result<u64>>()?;
    check(sent <= given, || format!("{sent} pages were read, {given} were noted: {taken}"))?;
    let (written, bytes) = (number(taken, "/written_bytes")?, number(taken, "/bytes")?);
    let most = bytes + 32 * given + FIXED + PLATFORM;
    say!("   {bytes} bytes of {sent} pages (of {given} noted), {written} written, at most {most}");
    check(written > 0 && written <= most, || format!("{written} bytes were written, at most {most}"))
}

/// OFF, which ends every `xl save`, and OFF with ENABLE, which begins it: the next one is a full one and says why.
fn stolen(lab: &Lab, guest: &Guest) -> Result<()> {
    let domid = guest.domid(lab)?;
    succeed(lab, &format!("probe logdirty {domid} off"))?;
    why(&take(lab, guest, "after-off", "--incremental")?, "switched the dirty tracking off")?;
    // The stub looks at the bits every five seconds: a whole pass of the guest takes longer.
    guest.wait_whole_pass(lab)?;
    succeed(lab, &format!("probe logdirty {domid} off && probe logdirty {domid} on"))?;
    why(&take(lab, guest, "after-on", "--incremental")?, "off and on again")?;
    why(&take(lab, guest, "on-again", "--incremental")?, "")
}

/// Nobody is left tracked without being told.
fn ended(lab: &Lab, guest: &Guest) -> Result<()> {
    succeed(lab, &format!("livesave disarm {}", guest.name))?;
    words::tracking_is_off(lab, guest)?;
    why(&take(lab, guest, "anew", "--incremental")?, "disarm")?;
    // What it lies on is removed: the tracking is of no more use.
    succeed(lab, &format!("livesave rm {}@anew", guest.name))?;
    words::tracking_is_off(lab, guest)?;
    take(lab, guest, "last", "--incremental")?;
    take(lab, guest, "differs", "--diff")?;
    words::tracking_is_off(lab, guest)
}

/// Takes the guest and says what it lies on.
pub fn take(lab: &Lab, guest: &Guest, name: &str, how: &str) -> Result<Value> {
    let taken = json(lab, &format!("livesave take {} --name {name} {how} --max-pause none", guest.name))?;
    say!("   {name}: {} {}", text(&taken, "/base"), text(&taken, "/why_full"));
    Ok(taken)
}

fn text(value: &Value, at: &str) -> String {
    value.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What the take says of why it is a full one; nothing if it is none.
pub fn why(taken: &Value, words: &str) -> Result<()> {
    let said = taken.pointer("/why_full").and_then(Value::as_str).context("no why_full")?;
    let right = if words.is_empty() { said.is_empty() } else { said.contains(words) };
    check(right, || format!("it says {said:?}, not {words:?}"))
}
