//! A PV guest that stays tracked, by its policy: a chain of takes that nobody has to say the kind of. Each sends what
//! changed and its page tables; two are compared frame by frame and type by type with the guest as it stood; each
//! survivor restores to a guest that finds none of its pages wrong. A guest that gave memory back, a reboot, a damaged
//! policy and a theft are said. Another guest, PVH, stays tracked beside it.

use anyhow::{Context, Result};
use serde_json::Value;

use super::incremental::{self, why};
use super::words::{self, fails_with, json, number, succeed};
use super::{after, pv};
use crate::lab::{Guest, GuestKind, Lab};
use crate::say;
use crate::verdict::check;

const PARAMETERS: &str = "ls.mem=16 ls.dirty=8 ls.tick=40 ls.publish=2";
/// Takes on top of the first.
const LINKS: usize = 3;
/// docs/operating/exit-codes.md.
const UNSUPPORTED: i32 = 4;
const BAD_POLICY: i32 = 47;

/// The scenario.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let mut spec = words::target("pvchain", 96, PARAMETERS);
    spec.kind = GuestKind::Pv;
    let guest = lab.create_guest(&spec)?;
    guest.wait_whole_pass(lab)?;
    let name = &guest.name;
    fails_with(lab, &format!("livesave take {name} --incremental"), UNSUPPORTED)?;
    fails_with(lab, &format!("livesave policy {name} --incremental"), UNSUPPORTED)?;
    let said = succeed(lab, &format!("livesave policy {name} --incremental --pv-tracking && livesave policy {name}"))?;
    check(said.contains("means --incremental --pv-tracking"), || said.clone())?;
    beside(lab)?;
    chain(lab, &guest)?;
    stood(lab, &guest)?;
    policy(lab, &guest)?;
    succeed(lab, &format!("livesave rm {name}@n1 && livesave verify --all && livesave store check"))?;
    let counter = guest.wait_whole_pass(lab)?;
    check(counter.errors == 0, || format!("pages are wrong after the takes: {counter:?}"))?;
    lab.sh(&format!("xl destroy {name}"))?;
    for snapshot in ["n0", "n2", "n3", "stood-live", "stood-staged"] {
        succeed(lab, &format!("livesave restore {name}@{snapshot}"))?;
        let whole = guest.wait_whole_pass(lab)?;
        say!("   {snapshot} restored: {whole:?}");
        check(whole.errors == 0, || format!("{snapshot}: pages are wrong after the restore: {whole:?}"))?;
        lab.sh(&format!("xl destroy {name}"))?;
    }
    lab.stop_stub()
}

/// Nobody says of what kind they are to be.
fn take(lab: &Lab, guest: &Guest, name: &str, how: &str) -> Result<Value> {
    let taken = json(lab, &format!("livesave take {} --name {name} {how} --max-pause none", guest.name))?;
    let text = |at: &str| taken.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (calls, pages) = (number(&taken, "/pause/calls")?, number(&taken, "/pause/pages")?);
    let (pause, stub) = (number(&taken, "/pause/total_us")?, number(&taken, "/pause/stub_us")?);
    let (base, full) = (text("/base"), text("/why_full"));
    say!("   {name}: {base} {full}; pause {pause} us, of it ours {stub} us, {calls} calls, {pages} pages");
    Ok(taken)
}

/// Another guest that stays tracked: the stub looks at it each second, in the middle of this one's takes.
fn beside(lab: &Lab) -> Result<()> {
    let other = lab.create_guest(&words::target("beside", 96, PARAMETERS))?;
    succeed(lab, &format!("livesave take {} --incremental --max-pause none", other.name)).map(drop)
}

fn by_policy(taken: &Value, wanted: bool) -> Result<()> {
    let said = taken.pointer("/by_policy").and_then(Value::as_bool).context("no by_policy")?;
    check(said == wanted, || format!("by the policy: {said}, not {wanted}"))
}

fn chain(lab: &Lab, guest: &Guest) -> Result<()> {
    let first = take(lab, guest, "n0", "")?;
    why(&first, "not tracked so far")?;
    let all = number(&first, "/pages")? + number(&first, "/zero_pages")?;
    for n in 1..=LINKS {
        let next = take(lab, guest, &format!("n{n}"), "")?;
        by_policy(&next, true)?;
        why(&next, "")?;
        let sent = number(&next, "/pages")? + number(&next, "/zero_pages")?;
        say!("   n{n}: {sent} pages sent of {all}");
        check(sent < all / 2, || format!("n{n} sent {sent} pages, the first {all}"))?;
    }
    Ok(())
}

/// Every frame, type and vCPU of the guest as it stood, against what is put together from all links.
fn stood(lab: &Lab, guest: &Guest) -> Result<()> {
    for mode in ["live", "staged"] {
        let name = format!("stood-{mode}");
        pv::as_it_stood(lab, guest, &name, &format!("--mode {mode}"), 1)?;
        let shown = json(lab, &format!("livesave show {}@{name}", guest.name))?;
        let base = shown.pointer("/base").and_then(Value::as_str).unwrap_or_default();
        check(!base.is_empty(), || format!("{name} lies on nothing: {shown}"))?;
    }
    Ok(())
}

/// What is said wins; what is damaged is refused and nothing is touched; a reboot leaves the policy alone.
fn policy(lab: &Lab, guest: &Guest) -> Result<()> {
    let name = &guest.name;
    let full = take(lab, guest, "full", "--full")?;
    by_policy(&full, false)?;
    words::tracking_is_off(lab, guest)?;
    why(&take(lab, guest, "anew", "")?, "not tracked so far")?;
    succeed(lab, &format!("xl mem-set {name} 90"))?;
    after::becomes(lab, "the guest gave memory back", words::TAKE_WAIT, |lab| {
        Ok(lab.sh(&format!("xl list {name} | awk 'NR > 1 {{ print $3 }}'"))?.trim().parse::<u32>()? < 95)
    })?;
    why(&take(lab, guest, "smaller", "")?, "memory changed its size")?;
    why(&take(lab, guest, "goes-on", "")?, "")?;
    let domid = guest.domid(lab)?;
    succeed(lab, &format!("probe logdirty {domid} off"))?;
    why(&take(lab, guest, "after-off", "")?, "switched the dirty tracking off")?;
    after::reboots(lab, guest)?;
    guest.wait_whole_pass(lab)?;
    let rebooted = take(lab, guest, "rebooted", "")?;
    by_policy(&rebooted, true)?;
    why(&rebooted, "has ended")?;
    let file = "$(ls /var/lib/livesave/policy/*.json)";
    succeed(lab, &format!("echo '{{\"version\":1}}' > {file}"))?;
    fails_with(lab, &format!("livesave take {name} --name refused"), BAD_POLICY)?;
    why(&incremental::take(lab, guest, "said", "--incremental --pv-tracking")?, "")?;
    succeed(lab, &format!("livesave policy {name} --none"))?;
    by_policy(&take(lab, guest, "plain", "")?, false)?;
    words::tracking_is_off(lab, guest)
}
