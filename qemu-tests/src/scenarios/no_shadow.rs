//! A hypervisor without shadow paging, as later versions are by default: a PV guest cannot be tracked and is taken
//! standing, which is said with its reason; a PVH guest is taken as ever. And what only this hypervisor has, a 32-bit
//! PV guest: it is refused, and runs on.

use anyhow::{Context, Result};

use super::words::{self, TAKE_WAIT, fails_with, json, succeed, target};
use crate::lab::{Guest, GuestKind, Lab, TARGET_LABEL};
use crate::say;
use crate::verdict::check;

/// docs/operating/exit-codes.md.
const NOT_SUPPORTED: i32 = 15;
/// A few lines of assembly (qemu-tests/narrow).
const NARROW: &str = "name = \"narrow\"\ntype = \"pv\"\nmemory = 32\nvcpus = 1\ncap = 20\nkernel = \"/boot/narrow\"\n\
                      on_crash = \"preserve\"\n";

/// The hypervisor is the right one, then each kind of guest.
pub fn run(lab: &Lab) -> Result<()> {
    let info = lab.sh("xl info")?;
    let line = |key: &str| info.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
    check(!line("virt_caps").contains("shadow"), || format!("it has shadow paging: {}", line("virt_caps")))?;
    check(line("xen_caps").contains("x86_32p"), || format!("no 32-bit PV guests: {}", line("xen_caps")))?;
    lab.init_store()?;
    lab.start_stub("")?;
    pv(lab).context("a PV guest")?;
    pvh(lab).context("a PVH guest")?;
    narrow(lab).context("a 32-bit PV guest")?;
    lab.stop_stub()
}

/// Asked for live, it is taken standing; the message says why. The same when it is asked for so, without the message.
fn pv(lab: &Lab) -> Result<()> {
    let mut spec = target("plain", 96, "ls.mem=16 ls.dirty=8 ls.tick=40 ls.publish=2");
    spec.kind = GuestKind::Pv;
    let guest = lab.create_guest(&spec)?;
    guest.wait_whole_pass(lab)?;
    let checked = lab.run("livesave doctor plain")?.text();
    check(checked.contains("PV without shadow paging: --mode save only"), || format!("doctor says: {checked}"))?;
    for mode in ["live", "staged", "save"] {
        let before = guest.counter(lab)?.context("no counter")?;
        let output = lab.run_for(&format!("livesave take plain --name {mode} --mode {mode}"), TAKE_WAIT)?;
        let said = format!("{}\n{}", output.text(), output.errors());
        let why = said.contains("no shadow paging") && said.contains("--mode save");
        check(output.status == 0 && why == (mode != "save"), || {
            format!("{mode} ended with {}: {said}", output.status)
        })?;
        let after = guest.wait_whole_pass(lab)?;
        check(after.errors == 0 && after.ticks > before.ticks, || format!("{mode}: {before:?}, {after:?}"))?;
        let shown = json(lab, &format!("livesave show plain@{mode}"))?;
        check(shown.to_string().contains("\"save\""), || format!("{mode} was taken as {shown}"))?;
        succeed(lab, &format!("livesave verify plain@{mode}"))?;
    }
    let end = guest.counter(lab)?.context("no counter")?;
    lab.sh("xl destroy plain")?;
    succeed(lab, "livesave restore plain@live")?;
    let first = guest.next_counter(lab)?;
    let whole = guest.wait_whole_pass(lab)?;
    check(first.ticks < end.ticks && whole.errors == 0, || format!("{end:?}, restored {first:?}, then {whole:?}"))?;
    say!("   PV: three takes standing, restored at {first:?}, then {whole:?}");
    lab.sh("xl destroy plain").map(drop)
}

fn pvh(lab: &Lab) -> Result<()> {
    let guest = lab.create_guest(&target("hap", 96, "ls.mem=16 ls.dirty=8 ls.tick=40 ls.publish=2"))?;
    succeed(lab, "livesave take hap --name live --mode live --max-pause none")?;
    let after = guest.wait_whole_pass(lab)?;
    check(after.errors == 0, || format!("{after:?}"))?;
    words::tracking_is_off(lab, &guest)?;
    succeed(lab, "livesave verify hap@live")?;
    lab.sh("xl destroy hap").map(drop)
}

fn narrow(lab: &Lab) -> Result<()> {
    lab.put_bytes(format!("{NARROW}seclabel = \"{TARGET_LABEL}\"\n").as_bytes(), "/run/narrow.cfg")?;
    lab.sh("xl create -q /run/narrow.cfg; xenstore-write /local/domain/$(xl domid narrow)/control/feature-suspend 1")?;
    let guest = Guest { name: "narrow".to_owned() };
    runs(lab, &guest).context("before")?;
    for mode in ["live", "save"] {
        let said = fails_both(lab, &format!("livesave take narrow --name {mode} --mode {mode}"))?;
        check(said.contains("32-bit PV guest"), || format!("{mode}: {said}"))?;
        say!("   32-bit, {mode}: {said}");
        runs(lab, &guest).context(mode)?;
    }
    let listed = succeed(lab, "livesave ls --json")?;
    check(!listed.contains("narrow"), || format!("something of it is left: {listed}"))?;
    lab.sh("xl destroy narrow")?;
    fails_with(lab, "xl domid narrow", 1).map(drop)
}

fn fails_both(lab: &Lab, command: &str) -> Result<String> {
    let output = lab.run_for(command, TAKE_WAIT)?;
    let said = format!("{} {}", output.text(), output.errors());
    check(output.status == NOT_SUPPORTED, || format!("`{command}` ended with {}: {said}", output.status))?;
    Ok(said.trim().to_owned())
}

/// It spends time: it does nothing else.
fn runs(lab: &Lab, guest: &Guest) -> Result<()> {
    let spent = |lab: &Lab| -> Result<f64> {
        Ok(lab.sh(&format!("xl list {} | awk 'NR == 2 {{ print $6 }}'", guest.name))?.parse()?)
    };
    let first = spent(lab)?;
    lab.wait_until("the guest runs", TAKE_WAIT, |lab| Ok(spent(lab)? > first))
}
