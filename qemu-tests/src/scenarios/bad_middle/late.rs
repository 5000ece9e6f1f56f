//! Guests that do not suspend when they are asked to: never, or only after everybody gave up.

use anyhow::Result;

use super::super::after::{self, TAKE_WAIT};
use super::super::ward::Ward;
use super::idle;
use crate::lab::{Guest, Lab};
use crate::say;
use crate::verdict::check;

/// The keeper waits 30 s for the acknowledgement, and as long for the suspend after it.
const AFTER_WE_GAVE_UP_MS: u32 = 36_000;
/// So late that a recovery has come and gone before.
const AFTER_A_RECOVERY_MS: u32 = 55_000;

/// All three, each of them without a copy before the suspend. The store is the other guest's affair.
pub fn run(lab: &Lab, guest: &Guest, store: &mut Ward) -> Result<()> {
    let mut ward = Ward::new(lab, guest);
    ward.guard_store()?;
    never_acks(&mut ward)?;
    keeper_resumes(&mut ward)?;
    recovery_resumes(&mut ward)?;
    store.adopt(ward);
    // It hears its shutdown through the subscription that every one of these takes had borrowed.
    lab.sh(&format!("xl shutdown {}", guest.name))?;
    after::becomes(lab, "xl sees the guest's shutdown", TAKE_WAIT, |lab| {
        Ok(lab.run(&format!("xl domid {}", guest.name))?.status != 0)
    })?;
    store.unharmed("late suspends of another guest")
}

fn take(ward: &Ward, manners: &str) -> String {
    let name = &ward.guest.name;
    format!(
        "xenstore-write /local/domain/$(xl domid {name})/data/manners '{manners}'; \
         livesave take {name} --name late --mode save"
    )
}

fn never_acks(ward: &mut Ward) -> Result<()> {
    let command = take(ward, "");
    ward.refused("the guest never acknowledges", &command, 24, "did not take the suspend request")?;
    let left = ward.lab.sh(&format!("xenstore-read /local/domain/$(xl domid {})/control/shutdown", ward.guest.name))?;
    let withdrawn = check(left.is_empty(), || format!("control/shutdown holds `{left}`"));
    ward.note("the guest never acknowledges", withdrawn)?;
    idle(ward.lab)
}

/// The keeper outlives the command, and watches.
fn keeper_resumes(ward: &mut Ward) -> Result<()> {
    let command = take(ward, &format!("ack=200 suspend={AFTER_WE_GAVE_UP_MS}"));
    let before = suspends(ward)?;
    let output = ward.lab.run_for(&command, TAKE_WAIT)?;
    after::becomes(ward.lab, "the guest suspends late and is resumed", TAKE_WAIT, |_| Ok(suspends(ward)? > before))?;
    ward.told("the guest suspends late, the keeper resumes it", &output, 25, "did not suspend in time")?;
    idle(ward.lab)
}

/// The keeper is killed while it watches: a recovery before the suspend must not forget the guest, one after it resumes
/// it.
fn recovery_resumes(ward: &mut Ward) -> Result<()> {
    let command = take(ward, &format!("ack=200 suspend={AFTER_A_RECOVERY_MS}"));
    let before = suspends(ward)?;
    let output = ward.lab.run_for(&command, TAKE_WAIT)?;
    let early =
        ward.lab.run("kill -9 $(sed -n 's/.*\"pid\":\\([0-9]*\\).*/\\1/p' /run/livesave/*.json); livesave recover")?;
    say!("   {:<44} {:>2}  {}", "recover before the suspend", early.status, early.text());
    let kept = check(early.status == 33 && early.text().contains("should it suspend late"), || {
        format!("recover before the suspend: {} {} {}", early.status, early.text(), early.errors())
    });
    ward.note("recover before the suspend", kept)?;
    let domid = ward.guest.domid(ward.lab)?;
    after::becomes(ward.lab, "the guest suspends late", TAKE_WAIT, |lab| {
        Ok(lab.sh(&format!("probe info {domid}"))?.contains("shutdown=suspend"))
    })?;
    ward.lab.sh("livesave recover")?;
    after::becomes(ward.lab, "the guest was resumed", TAKE_WAIT, |_| Ok(suspends(ward)? > before))?;
    ward.told("the guest suspends late, recover resumes it", &output, 25, "did not suspend in time")?;
    idle(ward.lab)
}

/// How often the guest has come back from a suspend, by its own word.
fn suspends(ward: &Ward) -> Result<usize> {
    Ok(ward.guest.console(ward.lab)?.matches("GUEST goes on").count())
}
