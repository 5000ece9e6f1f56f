//! A store that is not what it was: older than before, exchanged, used by two stubs, detached, on a disk that fails.
//! Each is noticed with a word of its own, the guest runs, and there is a way back.

use anyhow::{Context, Result};

use super::after::{self, TAKE_WAIT, becomes};
use super::words::{fails_with, succeed, target};
use crate::lab::{Guest, Lab, STORE_DEVICE, STUB};
use crate::say;
use crate::verdict::check;

/// docs/operating/exit-codes.md.
const BAD_STORE: i32 = 22;
const UNHEALTHY: i32 = 37;
const WENT_BACK: i32 = 42;
const SWAPPED: i32 = 43;

/// Where both superblocks lie (docs/format/store-v1.md): the first and the last block of the 4 GiB disk.
const LAST_BLOCK: u64 = (4 << 30) / 4096 - 1;
/// A disk that fails: a file that is larger than the file system it lies in.
const FAILING: &str = "/dev/loop3";
/// A block script that connects the device and checks nothing.
const SHARING: &str = "#!/bin/sh\n[ \"$1\" = add ] || exit 0\n\
    xenstore-write $XENBUS_PATH/physical-device $(stat -c %t:%T /dev/vda) $XENBUS_PATH/hotplug-status connected\n";

/// A calm guest, and one store after the other.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let guest = lab.create_guest(&target("store", 96, "ls.mem=16 ls.dirty=1 ls.tick=50 ls.publish=2"))?;
    went_back(lab, &guest).context("an older copy of the device")?;
    two_stubs(lab).context("two stubs with one store")?;
    at_once(lab).context("two stubs that find a store closed at the same moment")?;
    anothers_beat(lab, &guest).context("another writer's beat in the place of an idle stub's")?;
    detached(lab, &guest).context("a disk that is detached")?;
    swapped(lab).context("another store on the device")?;
    fails(lab, &guest).context("a disk that fails")?;
    after::at_peace(lab, &guest)
}

/// One commit undone behind the stub's back, as by an older image of the device.
fn went_back(lab: &Lab, guest: &Guest) -> Result<()> {
    let name = format!("{}@one", guest.name);
    let take = format!("livesave take {} --mode save --name one", guest.name);
    succeed(lab, &take)?;
    superblocks(lab, "if=/dev/vda of=/run/super", "skip")?;
    succeed(lab, &format!("livesave rm {name}"))?;
    lab.stop_stub()?;
    superblocks(lab, "if=/run/super of=/dev/vda conv=notrunc", "seek")?;
    let listed = fails_with(lab, "livesave ls --store /dev/vda", WENT_BACK)?;
    check(listed.contains(&name), || format!("it is shown all the same, but this is: {listed}"))?;
    fails_with(lab, &format!("livesave verify {name} --store /dev/vda"), WENT_BACK)?;
    fails_with(lab, &format!("livesave export {name} -o /run/export --store /dev/vda"), WENT_BACK)?;
    lab.start_stub("")?;
    fails_with(lab, &take, WENT_BACK)?;
    fails_with(lab, &format!("livesave restore {name} --clone back"), WENT_BACK)?;
    let doctor = fails_with(lab, "livesave doctor", UNHEALTHY)?;
    check(doctor.contains("store accept"), || format!("doctor says {doctor}"))?;
    after::at_peace(lab, guest)?;
    succeed(lab, "livesave store accept")?;
    succeed(lab, &format!("livesave verify {name}"))?;
    succeed(lab, &format!("livesave take {} --mode save --name three", guest.name)).map(drop)
}

/// Copies both superblocks, past the page cache, which knows nothing of what the stub wrote.
fn superblocks(lab: &Lab, files: &str, side: &str) -> Result<()> {
    let file = |block: u64| files.replace("/run/super", &format!("/run/super{block}"));
    let copy = |block: u64| format!("dd {} bs=4096 count=1 {side}={block} 2>/dev/null", file(block));
    lab.sh(&format!("sync; echo 3 >/proc/sys/vm/drop_caches; {}; {}; sync", copy(0), copy(LAST_BLOCK))).map(drop)
}

/// The second one listens first, sees that the first one lives, and leaves the store alone.
fn two_stubs(lab: &Lab) -> Result<()> {
    // Xen's own block script would refuse to give a device to two domains; this one does not ask.
    lab.put_bytes(SHARING.as_bytes(), "/run/share")?;
    let disk = format!("format=raw,vdev=xvda,access=w,script=/run/share,target={STORE_DEVICE}");
    lab.sh(&format!(
        "chmod +x /run/share; \
         sed -e 's/^name .*/name = \"second\"/' -e 's|phy:.*,xvda,w|{disk}|' /run/livesave.cfg >/run/second.cfg; \
         xl create -q /run/second.cfg"
    ))?;
    let node = "/local/domain/$(xl domid second)/data/livesave/stub";
    becomes(lab, "the second stub refuses the store", TAKE_WAIT, |lab| {
        let text = lab.run(&format!("xenstore-read {node} 2>/dev/null"))?.text();
        check(!text.contains("state=idle"), || format!("two stubs write to one store: {text}"))?;
        Ok(text.contains("state=failed") && text.contains("another stub"))
    })?;
    lab.sh("xl destroy second")?;
    check(lab.stub_is_idle()?, || "the first stub was disturbed".to_owned())
}

/// One has it, the other gives way.
fn at_once(lab: &Lab) -> Result<()> {
    lab.stop_stub()?;
    lab.sh(&format!(
        "for C in livesave second; do xl create -q -p /run/$C.cfg; done; xl unpause {STUB}; xl unpause second"
    ))?;
    let text = |lab: &Lab, name: &str| -> Result<String> {
        Ok(lab.run(&format!("xenstore-read /local/domain/$(xl domid {name})/data/livesave/stub 2>/dev/null"))?.text())
    };
    let mut first_has_it = false;
    becomes(lab, "one of two stubs has the store", TAKE_WAIT, |lab| {
        let texts = [text(lab, STUB)?, text(lab, "second")?];
        let idle = texts.each_ref().map(|text| text.contains("state=idle"));
        let refused = texts.each_ref().map(|text| text.contains("state=failed") && text.contains("another stub"));
        check(idle != [true; 2] && refused != [true; 2], || format!("both, or none: {texts:?}"))?;
        first_has_it = idle[0];
        Ok(idle == refused.map(|refused| !refused))
    })?;
    say!("   the {} stub has the store", if first_has_it { "first" } else { "second" });
    // Whoever has it closes it, so that the next one need not listen.
    lab.run("xl shutdown -w second")?;
    lab.run("xl destroy second 2>/dev/null")?;
    lab.stop_stub()?;
    lab.start_stub("")
}

/// As from a second writer that did not look: an idle stub finds it and lets go, and nothing of its own is written over
/// that beat. Here it is the beat of the stub before this one, put back by hand.
fn anothers_beat(lab: &Lab, guest: &Guest) -> Result<()> {
    let beat = |from: &str, to: &str| format!("dd {from} {to} bs=4096 count=1 2>/dev/null");
    let (read, write) =
        (format!("if={STORE_DEVICE} skip=1 iflag=direct"), format!("of={STORE_DEVICE} seek=1 oflag=direct"));
    lab.sh(&beat(&read, "of=/run/beat"))?;
    lab.stop_stub()?;
    lab.start_stub("")?;
    lab.sh(&beat("if=/run/beat", &write))?;
    let reason = lab.stub_reason()?;
    check(reason.contains("another stub"), || format!("the stub's reason is `{reason}`"))?;
    lab.stop_stub()?;
    lab.sh(&format!("{}; cmp /run/beat /run/beat.after", beat(&read, "of=/run/beat.after")))
        .context("the other one's beat was written over")?;
    lab.start_stub("")?;
    after::takes(lab, guest, "beat")
}

/// While it is idle and in the middle of a take; each time a disk that is attached again is enough.
fn detached(lab: &Lab, guest: &Guest) -> Result<()> {
    lab.sh(&format!("xl block-detach {STUB} xvda"))?;
    let reason = lab.stub_reason()?;
    check(reason.contains("disk"), || format!("the stub's reason is `{reason}`"))?;
    attach(lab)?;
    lab.stop_stub()?;
    lab.start_stub("hold=copying:60000")?;
    let take = lab.spawn(&format!("livesave take {} --name lost", guest.name), TAKE_WAIT)?;
    lab.sh(&after::until_state("copying"))?;
    lab.sh(&format!("xl block-detach {STUB} xvda"))?;
    let output = take.join()?;
    say!("   {} {}", output.status, output.errors().replace('\n', " | "));
    check(output.status == BAD_STORE && output.errors().contains("closing"), || {
        format!("the take ended with {}: {}", output.status, output.errors())
    })?;
    after::at_peace(lab, guest)?;
    attach(lab)?;
    after::takes(lab, guest, "found")
}

fn attach(lab: &Lab) -> Result<()> {
    lab.sh(&format!("xl block-attach {STUB} phy:{STORE_DEVICE},xvda,w"))?;
    serves_again(lab)
}

/// The stub finds its way back without a restart.
fn serves_again(lab: &Lab) -> Result<()> {
    becomes(lab, "the stub serves again", TAKE_WAIT, |lab| {
        let status = lab.run("livesave status --json")?;
        Ok(status.text().contains("\"state\": \"idle\""))
    })
}

/// A new store behind dom0's back.
fn swapped(lab: &Lab) -> Result<()> {
    lab.stop_stub()?;
    lab.sh(&format!(
        "LIVESAVE_STATE=/run/elsewhere livesave store init {STORE_DEVICE} --destroy-contents-of {STORE_DEVICE}"
    ))?;
    fails_with(lab, &format!("livesave ls --store {STORE_DEVICE}"), SWAPPED)?;
    succeed(lab, &format!("livesave store accept --store {STORE_DEVICE}"))?;
    succeed(lab, &format!("livesave ls --store {STORE_DEVICE}")).map(drop)
}

/// The file system below the disk is full: a write fails, the take with it. The stub opens the store anew by itself,
/// and takes again as soon as there is room.
fn fails(lab: &Lab, guest: &Guest) -> Result<()> {
    lab.sh(&format!(
        "mkdir -p /run/small; mount -t tmpfs -o size=12m none /run/small; truncate -s 800M /run/small/disk; \
         losetup {FAILING} /run/small/disk; livesave store init {FAILING}"
    ))?;
    lab.create_stub(FAILING, "w", "")?;
    serves_again(lab)?;
    fails_with(lab, &format!("livesave take {} --mode save --name full", guest.name), BAD_STORE)?;
    after::at_peace(lab, guest)?;
    serves_again(lab)?;
    lab.sh("mount -o remount,size=300m /run/small")?;
    after::takes(lab, guest, "room")?;
    succeed(lab, "livesave verify")?;
    lab.stop_stub()?;
    lab.sh(&format!("losetup -d {FAILING}; umount /run/small")).map(drop)
}
