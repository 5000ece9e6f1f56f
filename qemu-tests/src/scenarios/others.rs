//! Other tools are kept off while a take runs: `xl save` and `xl migrate` fail before they touch the guest, the take is
//! sealed, and afterwards they work again, whoever died meanwhile. Somebody who lets them in by hand gets the old way:
//! the take gives way (`bad_middle`).

use std::time::Duration;

use anyhow::Result;

use super::after::{self, TAKE_WAIT};
use super::ward::Ward;
use super::words::{self, fails_with, succeed};
use crate::lab::{Background, Lab, Output};
use crate::say;
use crate::verdict::check;

/// Saving or migrating the guest under emulation.
const SAVE_WAIT: Duration = Duration::from_secs(300);
const SAVED: &str = "/scratch/others.save";
/// The takes of this scenario dwell while they copy: long enough for a save and a migration to be tried.
const DWELL: &str = "hold=copying:60000 holds=3";
/// docs/operating/exit-codes.md.
const FOREIGN: i32 = 27;
/// What `flask-get-bool` has to say when no take runs.
const GET_TAKING: &str = "/usr/lib/xen-4.17/bin/flask-get-bool livesave_taking";

/// A take beside which others try, and one whose keeper is killed.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub(DWELL)?;
    let guest = lab.create_guest(&words::target("alone01", 96, "ls.mem=16 ls.dirty=4"))?;
    guest.wait_whole_pass(lab)?;
    let mut ward = Ward::new(lab, &guest);
    let withheld = doctor_says(lab, "kept off while a take runs");
    ward.note("doctor before", withheld)?;
    kept_off(&mut ward)?;
    stolen(&mut ward)?;
    left_behind(&mut ward)?;
    works_again(&mut ward)?;
    ward.judge()?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    lab.stop_stub()
}

fn take(ward: &Ward, name: &str) -> Result<Background> {
    let command = format!("livesave take {} --name {name} --max-pause none", ward.guest.name);
    let take = ward.lab.spawn(&command, TAKE_WAIT)?;
    ward.lab.sh(&after::until_state("copying"))?;
    Ok(take)
}

/// Neither a save nor a migration begins; the take does not notice them.
fn kept_off(ward: &mut Ward) -> Result<()> {
    let running = take(ward, "alone")?;
    let on = doctor_says(ward.lab, "kept off now");
    ward.note("doctor during the take", on)?;
    for (what, command) in
        [("xl save", save(ward)), ("xl save -c", save_and_go_on(ward)), ("xl migrate", migrate(ward))]
    {
        let output = ward.lab.run_for(&command, SAVE_WAIT)?;
        say!("   {what} during a take: {} {}", output.status, output.errors().replace('\n', " | "));
        let failed = refused(&output);
        ward.note(what, failed)?;
        let counts = after::counts(ward.lab, ward.guest);
        ward.note(what, counts)?;
    }
    let list = ward.lab.sh("xl list | awk 'NR > 1 { print $1 }' | grep -c alone01")?;
    let one = check(list == "1", || format!("{list} domains of the guest after a refused migration"));
    ward.note("one guest", one)?;
    let late = check(!running.is_done(), || "the take had ended before all was tried".to_owned());
    ward.note("the take ran all the time", late)?;
    let output = running.join()?;
    let sealed = check(output.status == 0, || format!("the take: {} {}", output.status, output.errors()));
    ward.note("the take", sealed)?;
    succeed(ward.lab, &format!("livesave verify {}@alone", ward.guest.name))?;
    ward.unharmed("the take that kept others off")
}

/// It failed, and by the refusal: not after a suspend, not for want of space.
fn refused(output: &Output) -> Result<()> {
    let said = output.errors();
    check(output.status != 0 && said.contains("Permission denied"), || format!("{} {said}", output.status))
}

/// dom0 itself may not switch tracking off. Where somebody lets it and it does, the take notices, and is void.
fn stolen(ward: &mut Ward) -> Result<()> {
    let running = take(ward, "stolen")?;
    let off = format!("probe logdirty {} off", ward.guest.domid(ward.lab)?);
    let output = ward.lab.run(&off)?;
    let refused = check(output.status != 0, || "dom0 may switch off what the take needs".to_owned());
    ward.note("log-dirty off by dom0 during a take", refused)?;
    ward.lab.sh(&format!("{} 0; {off}", words::SET_TAKING))?;
    ward.told("tracking is stolen", &running.join()?, FOREIGN, "dirty tracking")?;
    ward.unharmed("the theft")
}

/// The keeper and the command are killed: what they withhold stays withheld until `livesave recover`.
fn left_behind(ward: &mut Ward) -> Result<()> {
    let running = take(ward, "orphan")?;
    let keeper = "sed -n 's/.*\"pid\":\\([0-9]*\\).*/\\1/p' /run/livesave/*.json";
    ward.lab.sh(&format!("kill -9 $({keeper}) $(pidof livesave) || true"))?;
    drop(running.join()?);
    let output = ward.lab.run_for(&save(ward), SAVE_WAIT)?;
    let failed = refused(&output);
    ward.note("xl save after the keeper's death", failed)?;
    let left = doctor_says(ward.lab, "no take runs");
    ward.note("doctor after the keeper's death", left)?;
    ward.lab.run("livesave cancel")?;
    ward.lab.wait_until("the stub is idle", TAKE_WAIT, Lab::stub_is_idle)?;
    let recovered = succeed(ward.lab, "livesave recover")?;
    let said = check(recovered.contains("saves and migrations are possible again"), || recovered);
    ward.note("recover", said)?;
    after::recovers(ward.lab)?;
    ward.unharmed("the keeper's death")
}

/// Nobody needs it any more: all is as on any host.
fn works_again(ward: &mut Ward) -> Result<()> {
    let off = ward.lab.sh(GET_TAKING)?;
    let is_off = check(off.trim_end().ends_with('0'), || format!("the boolean after all takes: {off}"));
    ward.note("the boolean", is_off)?;
    fails_with(ward.lab, &save_and_go_on(ward), 0)?;
    fails_with(ward.lab, &migrate(ward), 0)?;
    let pass = ward.guest.wait_whole_pass(ward.lab)?;
    let right = check(pass.errors == 0, || format!("pages are wrong after a migration: {pass:?}"));
    ward.note("the migration after the takes", right)
}

fn save(ward: &Ward) -> String {
    format!("xl save {} {SAVED}; R=$?; rm -f {SAVED}; exit $R", ward.guest.name)
}

fn save_and_go_on(ward: &Ward) -> String {
    format!("xl save -c {} {SAVED}; R=$?; rm -f {SAVED}; exit $R", ward.guest.name)
}

fn migrate(ward: &Ward) -> String {
    format!("xl migrate -s '' {} 'xl migrate-receive'", ward.guest.name)
}

/// Its exit status does not matter here: the host may lack other things.
fn doctor_says(lab: &Lab, words: &str) -> Result<()> {
    let text = lab.run("livesave doctor --json")?.text();
    check(text.contains(words), || format!("doctor does not say `{words}`: {text}"))
}
