//! `xl save` and `xl migrate` beside a take. Xen has one dirty bitmap for a guest and lets two tools share it without a
//! word: so where the policy does not keep them off, one of them has to end, and the guest has to be whole on whichever
//! side it runs.

use std::time::Duration;

use anyhow::{Context, Result};

use super::super::after::{self, TAKE_WAIT};
use super::super::ward::Ward;
use super::super::words;
use super::{ended, taken};
use crate::lab::Background;
use crate::say;
use crate::verdict::check;

/// Saving or migrating the guest under emulation.
const SAVE_WAIT: Duration = Duration::from_secs(300);
/// Where the guest is saved to.
const SAVED: &str = "/scratch/middle.save";

/// A save that begins in the middle suspends the guest, which is not ours to resume: the take gives way.
pub fn save_in_the_middle(ward: &mut Ward) -> Result<()> {
    let take = taken(ward, "copying", "")?;
    let_in(ward)?;
    let save = format!("xl save -c {} {SAVED}; R=$?; rm -f {SAVED}; exit $R", ward.guest.name);
    let save = ward.lab.run_for(&save, SAVE_WAIT)?;
    let saved = check(save.status == 0, || format!("xl save ended with {}: {}", save.status, save.errors()));
    ward.note("the save beside the take", saved)?;
    ended(ward, "xl save begins in the middle", take, 27, "save or migration").map(drop)
}

/// The take gives way before the migration touches the tracking, or the migration fails in order. Either way the guest
/// runs, once, with every page right.
pub fn migration_in_the_middle(ward: &mut Ward) -> Result<()> {
    let take = taken(ward, "copying", "")?;
    let_in(ward)?;
    let migration = migrate(ward)?.join()?;
    say!("   the migration ended with {}", migration.status);
    one_left(ward)?;
    ended(ward, "xl migrate begins in the middle", take, 27, "save or migration")?;
    whole(ward)
}

/// A migration is under way: the take is refused, and the migration ends well.
pub fn migration_before(ward: &mut Ward) -> Result<()> {
    let migration = migrate(ward)?;
    ward.lab.sh("i=0; until pidof libxl-save-helper >/dev/null; do i=$((i+1)); [ $i -lt 600 ] || exit 99; done")?;
    let take = ward.lab.run(&format!("livesave take {}", ward.guest.name))?;
    let output = migration.join()?;
    let moved = check(output.status == 0, || format!("xl migrate ended with {}: {}", output.status, output.errors()));
    ward.note("the migration before the take", moved)?;
    one_left(ward)?;
    ward.told("xl migrate is under way", &take, 14, "being saved or migrated")?;
    whole(ward)
}

/// As on a host whose policy cannot keep them off. (Kept off: the scenario `others`.)
fn let_in(ward: &Ward) -> Result<()> {
    ward.lab.sh(&format!("{} 0", words::SET_TAKING)).map(drop)
}

fn migrate(ward: &Ward) -> Result<Background> {
    ward.lab.spawn(&format!("xl migrate -s '' {} 'xl migrate-receive'", ward.guest.name), SAVE_WAIT)
}

/// Neither lost nor doubled.
fn one_left(ward: &mut Ward) -> Result<()> {
    let name = &ward.guest.name;
    after::becomes(ward.lab, "one domain is left of the guest", TAKE_WAIT, |lab| {
        let list = lab.sh("xl list | awk 'NR > 1 { print $1 }'")?;
        let ours: Vec<&str> = list.lines().filter(|line| line.starts_with(name.as_str())).collect();
        Ok(ours == [name.as_str()])
    })
}

/// Every page is right. A guest that was built anew by xl has not said there that it can suspend.
fn whole(ward: &mut Ward) -> Result<()> {
    let pass = ward.guest.wait_whole_pass(ward.lab).context("after a migration")?;
    let right = check(pass.errors == 0, || format!("pages are wrong after a migration: {pass:?}"));
    ward.note("after a migration", right)?;
    let node = "/local/domain/$(xl domid $G)/control/feature-suspend";
    ward.lab.sh(&format!("G={}; xenstore-write {node} 1", ward.guest.name)).map(drop)
}
