//! The ready hook for LVM, with a real LVM below a guest that writes to its disk: the snapshot of the pause is kept
//! with a take that is sealed, removed with one that fails, and what `restore` gives back fits the guest's memory.

use anyhow::{Context, Result};
use serde_json::Value;

use super::after::{TAKE_WAIT, becomes};
use super::oracle::continues;
use super::words::{fails_with, json, succeed, target};
use crate::lab::{Counter, Guest, Lab};
use crate::say;
use crate::verdict::check;

/// The hook as it is delivered.
const HOOK: &str = include_str!("../../../cli/hooks/lvm");
/// LVM's programs are on the scratch disk.
const WITH_LVM: &str = "export PATH=/scratch/lvm:$PATH LIVESAVE_LVM_SIZE=100%ORIGIN;";
const LOOP: &str = "/dev/loop6";
/// Blocks that the guest writes meanwhile, at the least.
const BLOCKS_MIN: u64 = 20;
/// docs/operating/exit-codes.md.
const HOOK_FAILED: i32 = 29;

/// A good take, one that fails, a restore.
pub fn run(lab: &Lab) -> Result<()> {
    lab.put_bytes(HOOK.as_bytes(), "/run/lvm-hook")?;
    lab.sh(&format!(
        "{WITH_LVM} mkdir -p /run/lvm-lock; truncate -s 96M /run/lvm; losetup {LOOP} /run/lvm; \
         pvcreate -q {LOOP} && vgcreate -q vg0 {LOOP} && lvcreate -q -W n -n root -L 16M vg0"
    ))?;
    lab.init_store()?;
    lab.start_stub("")?;
    let mut spec = target("lvm01", 96, "ls.mem=16 ls.dirty=4 ls.publish=2 ls.disk=8");
    spec.extra.push("disk = [\"phy:/dev/vg0/root,xvda,w\"]".to_owned());
    let guest = lab.create_guest(&spec)?;
    writes(lab, &guest)?;
    // Under emulation LVM itself needs long to start.
    let take = "livesave take lvm01 --mode live --max-pause none --hook-timeout 2m";
    let said = "|| { R=$?; cat /run/livesave/keeper.log >&2; exit $R; }";
    succeed(lab, &format!("{WITH_LVM} {take} --name good --hook 'sh /run/lvm-hook' {said}"))?;
    let kept = kept(lab)?;
    let fails = "sh /run/lvm-hook; R=$?; [ $LIVESAVE_PHASE != captured ] || exit 3; exit $R";
    fails_with(lab, &format!("{WITH_LVM} {take} --name bad --hook '{fails}'"), HOOK_FAILED)?;
    let volumes = volumes(lab)?;
    check(volumes.len() == 2 && volumes.iter().any(|volume| kept.ends_with(volume)), || {
        format!("besides the guest's disk and {kept} there is: {volumes:?}")
    })?;
    writes(lab, &guest)?;
    comes_back(lab, &guest, &kept)?;
    lab.sh("xl destroy lvm01")?;
    lab.stop_stub()?;
    lab.sh(&format!("{WITH_LVM} vgremove -q -f vg0; losetup -d {LOOP}; rm /run/lvm /run/lvm-hook")).map(drop)
}

/// The snapshot's own word on where the disk is; LVM knows the same.
fn kept(lab: &Lab) -> Result<String> {
    let shown = json(lab, "livesave show lvm01@good")?;
    let kept = shown.pointer("/disks/0/kept").and_then(Value::as_str).context("no disk was kept")?.to_owned();
    let there = lab.run(&format!("test -b {kept}"))?.status == 0 && kept.starts_with("/dev/vg0/livesave-");
    check(there, || format!("{kept} is no snapshot of the guest's disk"))?;
    say!("   kept: {kept}");
    Ok(kept)
}

fn volumes(lab: &Lab) -> Result<Vec<String>> {
    let text = lab.sh(&format!("{WITH_LVM} lvs --noheadings --options lv_name vg0"))?;
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

fn writes(lab: &Lab, guest: &Guest) -> Result<()> {
    let before = guest.details(lab)?.blocks;
    becomes(lab, "the guest writes to its disk", TAKE_WAIT, |lab| Ok(guest.details(lab)?.blocks >= before + BLOCKS_MIN))
}

/// Nobody says where the disk is: the snapshot does. The guest itself checks that it fits its memory.
fn comes_back(lab: &Lab, guest: &Guest, kept: &str) -> Result<()> {
    let before = guest.counter(lab)?.context("no counter")?;
    lab.sh("xl destroy lvm01")?;
    succeed(lab, "livesave restore lvm01@good")?;
    let listed: Value = serde_json::from_str(&lab.sh("xl list -l lvm01")?)?;
    let path = listed.pointer("/0/config/disks/0/pdev_path").and_then(Value::as_str);
    check(path == Some(kept), || format!("the restored guest's disk is {path:?}"))?;
    continues(Counter { ticks: 1, errors: 0, passes: 0 }, guest.next_counter(lab)?, before)?;
    writes(lab, guest)?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("memory or disk is wrong after the restore: {whole:?}"))
}
