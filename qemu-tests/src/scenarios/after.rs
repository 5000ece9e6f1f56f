//! What must hold after any take, however it ended: the guest runs and counts, its dirty tracking is off, its reboot is
//! honoured, the store holds what it held. Looked at from dom0, with tools that are not under test.

use std::time::Duration;

use anyhow::Result;

use crate::lab::{Guest, Lab};
use crate::verdict::{Stop, Verdict, check, stop};

/// A take of a small guest under emulation.
pub const TAKE_WAIT: Duration = Duration::from_secs(600);
/// From the end of a command to a guest that is left alone by keeper and stub.
const SETTLE_WAIT: Duration = Duration::from_secs(60);
/// Between a reboot and the guest's next word.
const REBOOT_WAIT: Duration = Duration::from_secs(600);

/// Runs and counts, and its dirty tracking is off.
pub fn at_peace(lab: &Lab, guest: &Guest) -> Result<()> {
    let domid = guest.domid(lab)?;
    let mut tracking = String::new();
    // The keeper outlives the command by the time of its last two writes.
    becomes(lab, "dirty tracking is off", SETTLE_WAIT, |lab| {
        tracking = lab.sh(&format!("probe logdirty {domid} status"))?;
        Ok(tracking == "off")
    })?;
    counts(lab, guest)
}

/// The guest is not shut down, nobody pauses it, and its counter moves.
pub fn counts(lab: &Lab, guest: &Guest) -> Result<()> {
    let info = lab.sh(&format!("probe info {}", guest.domid(lab)?))?;
    let runs = info.contains("shutdown=no") && !info.contains("PAUSED") && !info.contains("DYING");
    check(runs, || format!("the guest does not run: {info}"))?;
    let before = guest.counter(lab)?;
    becomes(lab, &format!("{} counts on from {before:?}", guest.name), SETTLE_WAIT, |lab| {
        Ok(guest.counter(lab)?.map(|now| now.ticks) > before.map(|before| before.ticks))
    })?;
    let errors = guest.counter(lab)?.map_or(0, |now| now.errors);
    check(errors == 0, || format!("{errors} pages of the guest are wrong"))
}

/// What the store holds, for comparison.
pub fn listing(lab: &Lab) -> Result<String> {
    lab.sh("livesave ls --json --store /dev/vda")
}

/// The store holds what it held.
pub fn same_store(lab: &Lab, before: &str) -> Result<()> {
    let now = listing(lab)?;
    check(now == before, || format!("the store held {before} and holds {now}"))
}

/// `livesave recover` has its way, if not at once then when the stub is done, and finds nothing the next time.
pub fn recovers(lab: &Lab) -> Result<()> {
    becomes(lab, "livesave recover succeeds", SETTLE_WAIT, |lab| Ok(lab.run("livesave recover")?.status == 0))?;
    let again = lab.sh("livesave recover")?;
    check(again == "nothing to recover", || format!("the second `livesave recover` says {again}"))
}

/// xl sees the guest's next shutdown, so the subscription to it is what it was.
pub fn reboots(lab: &Lab, guest: &Guest) -> Result<()> {
    let before = guest.domid(lab)?;
    lab.sh(&format!("xl reboot {}", guest.name))?;
    becomes(lab, "xl honours the reboot", REBOOT_WAIT, |lab| {
        // Between two lives the name is nobody's.
        let now = lab.run(&format!("xl domid {}", guest.name))?;
        Ok(now.status == 0 && now.text() != before.to_string() && guest.counter(lab)?.is_some())
    })
}

/// [`Lab::wait_until`] for what the subject owes: its absence is a FAILURE, not a slow machine.
pub fn becomes(lab: &Lab, what: &str, wait: Duration, ready: impl FnMut(&Lab) -> Result<bool>) -> Result<()> {
    lab.wait_until(what, wait, ready).map_err(|error| match error.downcast_ref::<Stop>() {
        Some(late) if late.verdict == Verdict::Timeout => stop(Verdict::Failure, late.why.clone()),
        _ => error,
    })
}

/// The guest can be taken, to the end.
pub fn takes(lab: &Lab, guest: &Guest, name: &str) -> Result<()> {
    let command = format!("livesave take {} --name {name} --max-pause none", guest.name);
    let output = lab.run_for(&command, TAKE_WAIT)?;
    check(output.status == 0, || {
        format!("`{command}` ended with {}: {}\n{}", output.status, output.errors(), lab.stub_console())
    })
}

/// Shell that waits, in dom0, until the stub reports the state; it ends the whole command with 99 if that never comes.
/// `$S` is the base of the stub's nodes afterwards.
pub fn until_state(state: &str) -> String {
    format!(
        "S=/local/domain/$(xl domid livesave)/data/livesave; i=0; \
         until xenstore-read $S/status 2>/dev/null | grep -q 'state={state}'; do \
         i=$((i+1)); [ $i -lt 1200 ] || exit 99; sleep 0.05; done; "
    )
}
