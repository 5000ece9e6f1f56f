//! Every way to restore: as a clone beside the living original, with another disk, with the disks as they are, paused.
//! A restored guest is taken again and restored from that, and xl follows it through a reboot.

use anyhow::{Context, Result};
use serde_json::Value;

use super::after;
use super::words::{fails_with, json, number, succeed, target};
use crate::lab::{Counter, Guest, Lab};
use crate::verdict::check;

/// The guest's writable disk, and another that holds its state of then. Nothing reads them: xl attaches them.
const DISK: &str = "/dev/loop1";
const OTHER: &str = "/dev/loop2";
/// docs/operating/exit-codes.md.
const GUEST_LIVES: i32 = 34;
const DISKS_UNMAPPED: i32 = 35;

/// One guest through three generations.
pub fn run(lab: &Lab) -> Result<()> {
    lab.sh("for i in 1 2; do truncate -s 8M /run/disk$i; losetup /dev/loop$i /run/disk$i; done")?;
    lab.init_store()?;
    lab.start_stub("")?;
    let mut spec = target("gen", 96, "ls.mem=16 ls.dirty=4 ls.tick=50 ls.publish=2");
    spec.extra.push(format!("disk = [\"phy:{DISK},xvda,w\"]"));
    let guest = lab.create_guest(&spec)?;
    let before = guest.wait_whole_pass(lab)?;
    after::takes(lab, &guest, "one")?;
    clone(lab, &guest, before).context("a clone beside the original")?;
    as_they_are(lab, &guest, before).context("with its disks as they are, paused")?;
    again(lab, &guest).context("a restored guest is taken and restored")?;
    after::reboots(lab, &guest).context("a guest restored twice reboots")?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    lab.stop_stub()?;
    lab.sh("for i in 1 2; do losetup -d /dev/loop$i; rm /run/disk$i; done").map(drop)
}

/// Name, uuid, MAC and disk are its own; the content is the original's, which runs on.
fn clone(lab: &Lab, guest: &Guest, before: Counter) -> Result<()> {
    let name = format!("{}@one", guest.name);
    fails_with(lab, &format!("livesave restore {name} --disk xvda={OTHER}"), GUEST_LIVES)?;
    fails_with(lab, &format!("livesave restore {name} --clone copy"), DISKS_UNMAPPED)?;
    let made = json(lab, &format!("livesave restore {name} --clone copy --disk xvda={OTHER}"))?;
    let copy = Guest { name: "copy".to_owned() };
    check(number(&made, "/domid")? == u64::from(copy.domid(lab)?), || format!("another domain: {made}"))?;
    let first = copy.next_counter(lab)?;
    let whole = copy.wait_whole_pass(lab)?;
    let original = guest.counter(lab)?.context("the original does not count")?;
    continues(before, first, original)?;
    check(whole.errors == 0, || format!("pages of the clone are wrong: {whole:?}"))?;
    let (ours, theirs) = (identity(lab, guest)?, identity(lab, &copy)?);
    check(ours.0 != theirs.0, || format!("the uuid is the original's: {ours:?}"))?;
    check((ours.1.as_str(), theirs.1.as_str()) == (DISK, OTHER), || format!("disks: {ours:?}, {theirs:?}"))?;
    after::at_peace(lab, guest)?;
    lab.sh("xl destroy copy").map(drop)
}

/// Uuid and dom0's path of its disk, as xl lists them.
fn identity(lab: &Lab, guest: &Guest) -> Result<(String, String)> {
    let list: Value = serde_json::from_str(&lab.sh(&format!("xl list -l {}", guest.name))?)?;
    let text = |pointer: &str| {
        let found = list.pointer(pointer).and_then(Value::as_str);
        found.map(str::to_owned).with_context(|| format!("no {pointer} in {list}"))
    };
    Ok((text("/0/config/c_info/uuid")?, text("/0/config/disks/0/pdev_path")?))
}

/// Nothing of it runs before it is let go; then it goes on from the instant of the snapshot.
fn as_they_are(lab: &Lab, guest: &Guest, before: Counter) -> Result<()> {
    let name = format!("{}@one", guest.name);
    let end = guest.counter(lab)?.context("no counter")?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    fails_with(lab, &format!("livesave restore {name}"), DISKS_UNMAPPED)?;
    succeed(lab, &format!("livesave restore {name} --disks-as-they-are --paused"))?;
    let info = lab.sh(&format!("probe info {}", guest.domid(lab)?))?;
    check(info.contains("PAUSED"), || format!("it was not left paused: {info}"))?;
    check(guest.counter(lab)?.is_none(), || "it counted while paused".to_owned())?;
    lab.sh(&format!("xl unpause {}", guest.name))?;
    let first = guest.next_counter(lab)?;
    continues(before, first, end)?;
    after::at_peace(lab, guest)
}

/// The second generation: a take of the restored guest, and what is restored from that take.
fn again(lab: &Lab, guest: &Guest) -> Result<()> {
    let before = guest.wait_whole_pass(lab)?;
    after::takes(lab, guest, "two")?;
    after::at_peace(lab, guest)?;
    let end = guest.counter(lab)?.context("no counter")?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    succeed(lab, &format!("livesave restore {}@two --disks-as-they-are", guest.name))?;
    let first = guest.next_counter(lab)?;
    continues(before, first, end)?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("pages are wrong after the second restore: {whole:?}"))
}

/// The restored guest went on from between these two: the exact instant is `take_restore`'s to judge.
fn continues(before: Counter, first: Counter, destroyed: Counter) -> Result<()> {
    check(first.ticks >= before.ticks && first.ticks < destroyed.ticks, || {
        format!("taken after {before:?}, destroyed after {destroyed:?}, restored at {first:?}")
    })
}
