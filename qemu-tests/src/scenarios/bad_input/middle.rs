//! What goes wrong in the middle of a take. The stub dwells in `copying` to make the middle long enough.

use anyhow::{Context, Result};

use super::super::after;
use crate::lab::{Background, Guest, Lab, Output};
use crate::verdict::check;

/// Takes that are disturbed, from outside the guest.
pub fn run(lab: &Lab, guest: &Guest) -> Result<()> {
    busy_and_cancelled(lab, guest).context("a second take, and a cancel")?;
    after::at_peace(lab, guest)?;
    never_acks(lab, guest).context("a guest that does not take the request")?;
    after::at_peace(lab, guest)
}

/// The stub is in a session: others are refused, and `cancel` ends it.
fn busy_and_cancelled(lab: &Lab, guest: &Guest) -> Result<()> {
    let take = taken(lab, guest, 60_000)?;
    for command in [format!("livesave take {}", guest.name), format!("livesave rm {}@kept", guest.name)] {
        let output = lab.run(&command)?;
        told(&output, 9, "in a session")?;
    }
    lab.sh("livesave cancel")?;
    told(&take.join()?, 30, "cancelled")?;
    idle(lab)
}

/// `xl pause` in the middle: the request for the suspend is never seen, and must be gone when the guest goes on.
fn never_acks(lab: &Lab, guest: &Guest) -> Result<()> {
    let take = taken(lab, guest, 5_000)?;
    lab.sh(&format!("xl pause {}", guest.name))?;
    let output = take.join()?;
    lab.sh(&format!("xl unpause {}", guest.name))?;
    told(&output, 24, guest.name.as_str())?;
    idle(lab)
}

/// The guest is destroyed in the middle; no page of it stays mapped, so it goes altogether.
pub fn guest_goes(lab: &Lab, guest: &Guest) -> Result<()> {
    let take = taken(lab, guest, 60_000)?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    told(&take.join()?, 26, guest.name.as_str())?;
    idle(lab)?;
    let left = lab.sh("xl list | awk 'NR > 1 && $1 != \"Domain-0\" && $1 != \"livesave\"'")?;
    check(left.is_empty(), || format!("the guest does not die: {left}"))
}

/// A take that is in `copying`, with a stub of its own.
fn taken(lab: &Lab, guest: &Guest, hold_ms: u32) -> Result<Background> {
    lab.stop_stub()?;
    lab.start_stub(&format!("hold=copying:{hold_ms}"))?;
    let take = lab.spawn(&format!("livesave take {} --name middle", guest.name), after::TAKE_WAIT)?;
    lab.sh(&after::until_state("copying"))?;
    Ok(take)
}

fn told(output: &Output, exit: i32, says: &str) -> Result<()> {
    let told = output.errors();
    println!("   {:<36} {:>2}  {}", "", output.status, told.replace('\n', " | "));
    check(output.status == exit && told.contains(says), || {
        format!("want {exit} and `{says}`, got {}: {told}", output.status)
    })
}

fn idle(lab: &Lab) -> Result<()> {
    lab.wait_until("the stub is idle", after::TAKE_WAIT, |lab| lab.stub_is_idle())
}
