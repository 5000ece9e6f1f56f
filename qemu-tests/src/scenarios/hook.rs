//! The hook beside a take: its phases, what it keeps of the disks and `restore` gives back, and that its failure ends
//! the take with the guest running. (The hook for LVM: with a fake LVM, on the host.)

use anyhow::Result;
use serde_json::Value;

use super::after;
use super::ward::Ward;
use super::words::{self, json, number, succeed};
use crate::lab::Lab;
use crate::verdict::check;

/// The guest's writable disk, and where the hook keeps it. Nothing reads them: xl attaches them.
const DISK: &str = "/dev/loop3";
const KEPT: &str = "/dev/loop4";
/// What the hook saw.
const LOG: &str = "/run/hook.log";
/// It notes its phase; in the pause it keeps the disk.
const HOOK: &str = "#!/bin/sh\n\
                    echo $LIVESAVE_PHASE $LIVESAVE_GUEST@$LIVESAVE_NAME $LIVESAVE_GUEST_DISKS >>/run/hook.log\n\
                    [ $LIVESAVE_PHASE = captured ] || exit 0\n\
                    probe info $LIVESAVE_DOMID | grep -q shutdown=suspend || exit 7\n\
                    echo xvda=/dev/loop4 >>$LIVESAVE_DISKS\n";

/// A good hook, one that fails, one that takes too long, one that names a disk that is none.
pub fn run(lab: &Lab) -> Result<()> {
    lab.sh("for i in 3 4; do truncate -s 8M /run/disk$i; losetup /dev/loop$i /run/disk$i; done")?;
    lab.put_bytes(HOOK.as_bytes(), "/run/hook")?;
    lab.init_store()?;
    lab.start_stub("")?;
    let mut spec = words::target("hooked", 96, "ls.mem=16 ls.dirty=4");
    spec.extra.push(format!("disk = [\"phy:{DISK},xvda,w\"]"));
    let guest = lab.create_guest(&spec)?;
    guest.wait_whole_pass(lab)?;
    let taken = json(lab, "livesave take hooked --name good --max-pause none --hook 'sh /run/hook'")?;
    check(number(&taken, "/hook_us")? > 0, || format!("no time of the hook: {taken}"))?;
    phases(lab, "good", &["captured", "sealed"])?;
    let shown = json(lab, "livesave show hooked@good")?;
    let kept = shown.pointer("/disks/0/kept").and_then(Value::as_str);
    check(kept == Some(KEPT), || format!("the kept disk is not in the snapshot: {shown}"))?;
    let mut ward = Ward::new(lab, &guest);
    ward.guard_store()?;
    for (name, hook) in [
        ("fails", "sh /run/hook; exit $([ $LIVESAVE_PHASE = captured ] && echo 3 || echo 0)"),
        ("slow", "sh /run/hook; [ $LIVESAVE_PHASE != captured ] || sleep 600"),
        ("wrong", "sh /run/hook; echo xvdb=/dev/null >>$LIVESAVE_DISKS"),
    ] {
        let command = format!("livesave take hooked --name {name} --max-pause none --hook-timeout 5s --hook '{hook}'");
        ward.refused(&format!("a hook that is {name}"), &command, 29, "hook")?;
        let seen = phases(lab, name, &["captured", "failed"]);
        ward.note(name, seen)?;
    }
    keeper_killed(&mut ward)?;
    ward.judge()?;
    restored(lab)?;
    lab.stop_stub()?;
    lab.sh("for i in 3 4; do losetup -d /dev/loop$i; rm /run/disk$i; done; rm -f /run/hook*").map(drop)
}

/// The hook itself kills the keeper while the guest stands: `recover` resumes the guest, and tells the hook the end.
fn keeper_killed(ward: &mut Ward) -> Result<()> {
    let pid = "sed -n \"s/.*pid.:\\([0-9]*\\).*/\\1/p\" /run/livesave/*.json";
    let hook = format!("sh /run/hook; [ $LIVESAVE_PHASE != captured ] || kill -9 $({pid})");
    let command = format!("livesave take hooked --name orphan --max-pause none --hook '{hook}'");
    let output = ward.lab.run_for(&command, after::TAKE_WAIT)?;
    let failed = check(output.status != 0, || format!("a take whose keeper was killed: {}", output.errors()));
    ward.note("the keeper's death", failed)?;
    after::recovers(ward.lab)?;
    let seen = phases(ward.lab, "orphan", &["captured", "failed"]);
    ward.note("the hook after the keeper's death", seen)?;
    ward.unharmed("the keeper's death")
}

/// The hook was run in these phases for this take, and knew the guest and its disks; the command waited for it.
fn phases(lab: &Lab, name: &str, wanted: &[&str]) -> Result<()> {
    let lines: Vec<String> = wanted.iter().map(|phase| format!("{phase} hooked@{name} xvda={DISK}")).collect();
    let seen = lab.sh(&format!("grep @{name} {LOG} || true"))?;
    check(seen.lines().eq(lines.iter().map(String::as_str)), || format!("the hook saw for {name}: {seen}"))
}

/// Without a word about disks the restored guest gets the one that was kept.
fn restored(lab: &Lab) -> Result<()> {
    lab.sh("xl destroy hooked")?;
    succeed(lab, "livesave restore hooked@good --paused")?;
    let listed: Value = serde_json::from_str(&lab.sh("xl list -l hooked")?)?;
    let path = listed.pointer("/0/config/disks/0/pdev_path").and_then(Value::as_str);
    check(path == Some(KEPT), || format!("the restored guest's disk is {path:?}"))?;
    lab.sh("xl destroy hooked").map(drop)
}
