//! What goes wrong in the middle of a take: each cause has its own exit status, a message and a hint; afterwards the
//! guest counts, its tracking is off, no keeper has it on record, and the store lists what it listed.
//!
//! Two guests: `mid01` is an ordinary one, `late01` answers suspend requests as badly as it is told to. The store lies
//! behind a device mapper table, so that its disk can be made to fail. Where a take must be met in a state, the stub
//! dwells there (`hold=`).

mod disk;
mod late;
pub(super) mod savers;
mod stub;

use std::time::Duration;

use anyhow::{Context, Result};

use super::after::{self, TAKE_WAIT};
use super::ward::{Ward, told};
use super::words;
use crate::lab::{Background, Lab, Output};
use crate::say;
use crate::verdict::{Verdict, stop};

/// Until a take has come to a state in which the stub dwells.
const STATE_WAIT: Duration = Duration::from_secs(120);
/// Calm guests: what is tested here is not the copying.
const CALM: &str = "ls.mem=16 ls.dirty=1";
/// Its kernel does not hear suspend requests, its program does.
const DEAF: &str = "ls.mem=8 ls.dirty=1 ls.manners=1 initcall_blacklist=xen_setup_shutdown_event";
/// The first takes dwell while they copy, so long that only their end ends it.
const DWELL: &str = "hold=copying:300000 holds=5";

/// All of it on one boot.
pub fn run(lab: &Lab) -> Result<()> {
    let [middle, late] =
        [("mid01", CALM), ("late01", DEAF)].map(|(name, parameters)| words::target(name, 96, parameters));
    let (middle, late) = (lab.start_guest(&middle)?, lab.start_guest(&late)?);
    lab.init_store()?;
    disk::map(lab)?;
    start_stub(lab, "")?;
    middle.next_counter(lab)?;
    after::takes(lab, &middle, "kept")?;
    late.next_counter(lab)?;
    let mut ward = Ward::new(lab, &middle);
    ward.guard_store()?;
    late::run(lab, &late, &mut ward)?;
    restart_stub(lab, "hold=capturing:300000")?;
    stub::wedged_in_the_pause(&mut ward)?;
    restart_stub(lab, DWELL)?;
    busy_and_cancelled(&mut ward)?;
    stub::wedged(&mut ward)?;
    reboot_in_the_middle(&mut ward)?;
    // From here on xl's monitor of the guest is gone: it ends at the suspend of any save (up to Xen 4.19).
    savers::save_in_the_middle(&mut ward)?;
    savers::migration_in_the_middle(&mut ward)?;
    savers::migration_before(&mut ward)?;
    restart_stub(lab, "hold=copying:8000 holds=2")?;
    stub::paused_guest(&mut ward)?;
    disk::fails(&mut ward)?;
    restart_stub(lab, DWELL)?;
    destroyed_in_the_middle(&mut ward)?;
    ward.verified()?;
    ward.judge()?;
    lab.stop_stub()?;
    disk::unmap(lab)
}

fn start_stub(lab: &Lab, extra: &str) -> Result<()> {
    lab.create_stub(disk::MAPPED, "w", extra)?;
    idle(lab)
}

fn restart_stub(lab: &Lab, extra: &str) -> Result<()> {
    lab.stop_stub()?;
    start_stub(lab, extra).context(lab.stub_console())
}

fn idle(lab: &Lab) -> Result<()> {
    lab.wait_until("the stub is idle", TAKE_WAIT, Lab::stub_is_idle)
}

/// A take of the ward that has come to this state. One that ends before is a FAILURE, with what it said.
fn taken(ward: &Ward, state: &str, options: &str) -> Result<Background> {
    let command = format!("livesave take {} --name middle --max-pause none {options}", ward.guest.name);
    let take = ward.lab.spawn(&command, TAKE_WAIT)?;
    let status = "xenstore-read /local/domain/$(xl domid livesave)/data/livesave/status 2>/dev/null";
    let wanted = format!("state={state}");
    let came = after::becomes(ward.lab, &format!("the take is {state}"), STATE_WAIT, |lab| {
        Ok(take.is_done() || lab.run(status)?.text().contains(&wanted))
    });
    if came.is_err() || take.is_done() {
        let said = if take.is_done() { take.join()?.errors() } else { "it runs still".to_owned() };
        let status = ward.lab.run(status)?.text();
        let why = format!("never `{state}`: the take: {said}; its status: {status}; {}", ward.lab.stub_console());
        return Err(stop(Verdict::Failure, why));
    }
    Ok(take)
}

/// The take's end, as it must be; the stub is idle again, the guest well.
fn ended(ward: &mut Ward, what: &str, take: Background, exit: i32, says: &str) -> Result<Output> {
    let output = take.join()?;
    idle(ward.lab)?;
    ward.told(what, &output, exit, says)?;
    Ok(output)
}

/// The stub is in a session: others are refused, and `cancel` ends it.
fn busy_and_cancelled(ward: &mut Ward) -> Result<()> {
    let name = &ward.guest.name;
    let take = taken(ward, "copying", "")?;
    for command in [format!("livesave take {name} --no-wait"), format!("livesave rm {name}@kept")] {
        let output = ward.lab.run(&command)?;
        let refused = told(&output, 9, "in a session");
        ward.note("a second request", refused)?;
    }
    ward.lab.sh("livesave cancel")?;
    ended(ward, "cancelled", take, 30, "cancelled").map(drop)
}

/// The guest reboots by itself: the take ends, and xl makes it anew.
fn reboot_in_the_middle(ward: &mut Ward) -> Result<()> {
    let take = taken(ward, "copying", "")?;
    after::reboots(ward.lab, ward.guest)?;
    ended(ward, "the guest reboots in the middle", take, 26, ward.guest.name.as_str()).map(drop)
}

/// No page of it stays mapped, so it goes altogether. The last case of this guest.
fn destroyed_in_the_middle(ward: &mut Ward) -> Result<()> {
    let take = taken(ward, "copying", "")?;
    let guest = ward.guest;
    let domid = guest.domid(ward.lab)?;
    ward.lab.sh(&format!("xl destroy {}", guest.name))?;
    let output = take.join()?;
    say!("   {:<44} {:>2}  {}", "the guest is destroyed in the middle", output.status, output.errors());
    let gone = told(&output, 26, &guest.name);
    ward.note("the guest is destroyed in the middle", gone)?;
    idle(ward.lab)?;
    after::becomes(ward.lab, "nothing of the guest is left", TAKE_WAIT, |lab| {
        Ok(lab.run(&format!("probe info {domid}"))?.status != 0)
    })?;
    let listed = ward.same_store();
    ward.note("the guest is destroyed in the middle", listed)
}
