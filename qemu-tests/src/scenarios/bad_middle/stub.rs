//! A stub that stands still, and a guest that does: `xl pause` in the middle. (Stubs that are killed: `kills`.)

use anyhow::Result;

use super::super::after;
use super::super::ward::Ward;
use super::{ended, taken};
use crate::lab::STUB;
use crate::say;
use crate::verdict::check;

/// While it copies: the keeper hears nothing for 30 s. The tracking is the stub's until it runs again.
pub fn wedged(ward: &mut Ward) -> Result<()> {
    let take = taken(ward, "copying", "")?;
    ward.lab.sh(&format!("xl pause {STUB}"))?;
    let output = take.join()?;
    after::counts(ward.lab, ward.guest)?;
    let recover = ward.lab.run("livesave recover")?;
    say!("   {:<44} {:>2}  {}", "recover beside a wedged stub", recover.status, recover.text());
    let left = check(recover.status == 33 && recover.text().contains("the stub is at work"), || {
        format!("recover beside a wedged stub: {} {}", recover.status, recover.text())
    });
    ward.note("recover beside a wedged stub", left)?;
    ward.lab.sh(&format!("xl unpause {STUB}"))?;
    super::idle(ward.lab)?;
    after::recovers(ward.lab)?;
    ward.told("the stub is wedged while it copies", &output, 31, "fell silent")
}

/// While the guest stands: it is resumed at once, whatever may become of the stub.
pub fn wedged_in_the_pause(ward: &mut Ward) -> Result<()> {
    let take = taken(ward, "capturing", "--mode save")?;
    ward.lab.sh(&format!("xl pause {STUB}"))?;
    let output = take.join()?;
    after::counts(ward.lab, ward.guest)?;
    ward.lab.sh(&format!("xl unpause {STUB}"))?;
    super::idle(ward.lab)?;
    after::recovers(ward.lab)?;
    ward.told("the stub is wedged in the pause", &output, 31, "the stub")
}

/// The request is never seen by a guest that is paused, and must be gone when it goes on.
pub fn paused_guest(ward: &mut Ward) -> Result<()> {
    let take = taken(ward, "copying", "")?;
    ward.lab.sh(&format!("xl pause {}", ward.guest.name))?;
    after::becomes(ward.lab, "the take gives up", after::TAKE_WAIT, |_| Ok(take.is_done()))?;
    ward.lab.sh(&format!("xl unpause {}", ward.guest.name))?;
    ended(ward, "the guest is paused in the middle", take, 24, "paused by `xl pause`").map(drop)
}
