//! A guest with a disk and a network card, both in use while it is taken. After the take they go on: no xenbus state
//! and no event channel has changed, and a connection through the card lives on. After a restore they are connected
//! anew: the disk of the pause holds what the guest's memory says, the network answers.

use anyhow::{Context, Result};

use super::after::{TAKE_WAIT, becomes};
use super::oracle::continues;
use super::shapes::{new_warnings, runs};
use super::words::{self, IN_PAUSE, succeed, target};
use crate::lab::{Guest, GuestKind, GuestSpec, Lab};
use crate::say;
use crate::talk::{DOM0, GUEST, PREFIX};
use crate::verdict::check;

/// The guest's disk, and what it was in the pause.
const DISK: &str = "/dev/loop4";
const THEN: &str = "/dev/loop5";
const BRIDGE: &str = "lsbr0";
/// Puts the card on the bridge; Xen's own script needs more programs than this dom0 has.
const SCRIPT: &str = "#!/bin/sh\n[ \"$1\" = online ] || exit 0\n\
    brctl addif lsbr0 $vif && ip link set $vif up && xenstore-write $XENBUS_PATH/hotplug-status connected\n";
/// Blocks that the guest writes meanwhile, at the least.
const BLOCKS_MIN: u64 = 20;
/// Numbers that come back meanwhile, at the least.
const ECHOES_MIN: u64 = 5;
const PARAMETERS: &str = "ls.mem=16 ls.dirty=8 ls.tick=30 ls.publish=2 ls.disk=8 ls.net=1";
/// The processors of the PV guest, which watches them and its clock.
const CPUS: [usize; 2] = [0, 1];

/// One PVH guest, a take in each of two modes, a restore.
pub fn run(lab: &Lab) -> Result<()> {
    all_of(lab, GuestKind::Pvh)
}

/// The same with a PV guest of two processors.
pub fn run_pv(lab: &Lab) -> Result<()> {
    all_of(lab, GuestKind::Pv)
}

fn all_of(lab: &Lab, kind: GuestKind) -> Result<()> {
    network(lab)?;
    lab.sh(&format!("truncate -s 16M /run/xvda; losetup {DISK} /run/xvda"))?;
    lab.init_store()?;
    lab.start_stub("")?;
    let guest = create(lab, kind)?;
    let known = guest.warnings(lab)?;
    let cpus: &[usize] = if kind == GuestKind::Pv { &CPUS } else { &[] };
    runs(lab, &guest, cpus).context("before any take")?;
    for mode in ["live", "staged"] {
        goes_on(lab, &guest, mode).with_context(|| format!("a take in mode {mode}"))?;
        runs(lab, &guest, cpus)?;
    }
    comes_back(lab, &guest).context("a restore")?;
    runs(lab, &guest, cpus)?;
    let warnings = new_warnings(&known, &guest.warnings(lab)?);
    lab.sh(&format!("xl destroy {}", guest.name))?;
    lab.stop_stub()?;
    lab.sh(&format!(
        "losetup -d {DISK}; losetup -d {THEN}; rm /run/xvda*; ip link set {BRIDGE} down; brctl delbr {BRIDGE}"
    ))?;
    check(warnings.is_empty(), || format!("the guest's kernel complains:\n{}", warnings.join("\n")))
}

/// A bridge with dom0 on it. The modules stay: other guests do not mind.
fn network(lab: &Lab) -> Result<()> {
    lab.put_bytes(SCRIPT.as_bytes(), "/run/vif-lab")?;
    lab.sh(&format!(
        "chmod +x /run/vif-lab; \
         test -d /sys/module/xen_netback || \
         while read module; do insmod $module || exit 1; done </etc/modules-net.list; \
         brctl addbr {BRIDGE} && ip addr add {DOM0}/{PREFIX} dev {BRIDGE} && ip link set {BRIDGE} up"
    ))
    .map(drop)
}

fn create(lab: &Lab, kind: GuestKind) -> Result<Guest> {
    let mut spec = GuestSpec { kind, ..target("devices", 112, PARAMETERS) };
    if kind == GuestKind::Pv {
        spec.vcpus = 2;
        spec.parameters += " ls.cpus=2";
    }
    spec.extra.push(format!("disk = [\"phy:{DISK},xvda,w\"]"));
    spec.extra.push(format!("vif = [\"mac=00:16:3e:00:00:51,bridge={BRIDGE},script=/run/vif-lab\"]"));
    let guest = lab.create_guest(&spec)?;
    in_use(lab, &guest)?;
    Ok(guest)
}

/// The guest writes to its disk, and answers.
fn in_use(lab: &Lab, guest: &Guest) -> Result<()> {
    let before = guest.details(lab)?.blocks;
    becomes(lab, "the guest writes to its disk", TAKE_WAIT, |lab| {
        Ok(guest.details(lab)?.blocks >= before + BLOCKS_MIN)
    })?;
    becomes(lab, "the guest answers", TAKE_WAIT, |lab| Ok(lab.run(&format!("ping -c 1 -W 5 {GUEST}"))?.status == 0))
}

/// All that xenstore and Xen say of the guest's devices.
fn connected(lab: &Lab, guest: &Guest) -> Result<String> {
    let domid = guest.domid(lab)?;
    lab.sh(&format!(
        "xenstore-ls -f /local/domain/{domid}/device; xenstore-ls -f /local/domain/0/backend/vbd/{domid}; \
         xenstore-ls -f /local/domain/0/backend/vif/{domid}; probe ports {domid}"
    ))
}

/// Taken, with a connection open and the disk copied in the pause; then all is as before and goes on.
fn goes_on(lab: &Lab, guest: &Guest, mode: &str) -> Result<()> {
    let before = connected(lab, guest)?;
    let states = before.lines().filter(|line| line.ends_with("/state = \"4\"")).count();
    check(states == 4, || format!("the devices are not connected: {before}"))?;
    lab.sh("{ probe talk 0 >/run/talk 2>/run/talk.err & echo $! >/run/talk.pid; } </dev/null")?;
    becomes(lab, "a number comes back", TAKE_WAIT, |lab| Ok(echoes(lab)? > 0))?;
    let (blocks, numbers) = (guest.details(lab)?.blocks, echoes(lab)?);
    let hook = format!("{IN_PAUSE}; cp /run/xvda /run/xvda.then");
    succeed(
        lab,
        &format!("livesave take {} --name {mode} --mode {mode} --max-pause none --hook '{hook}'", guest.name),
    )?;
    becomes(lab, "numbers come back through the same connection", TAKE_WAIT, |lab| {
        Ok(echoes(lab)? >= numbers + ECHOES_MIN)
    })?;
    becomes(lab, "the disk is written on", TAKE_WAIT, |lab| Ok(guest.details(lab)?.blocks >= blocks + BLOCKS_MIN))?;
    let last = lab.sh("tail -n 1 /run/talk; kill $(cat /run/talk.pid)")?;
    say!("   {mode}: numbers and their way: {last}");
    let after = connected(lab, guest)?;
    check(after == before, || format!("the devices are connected otherwise, before:\n{before}\nafter:\n{after}"))?;
    words::tracking_is_off(lab, guest)?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("something is wrong after the take: {whole:?}\n{}", tail(lab, guest)))
}

/// Numbers that came back so far; a connection that is lost is a FAILURE.
fn echoes(lab: &Lab) -> Result<u64> {
    let output = lab.run("test -d /proc/$(cat /run/talk.pid) && wc -l </run/talk")?;
    check(output.status == 0, || {
        format!("the connection is lost: {:?}", lab.run("cat /run/talk.err").map(|o| o.text()))
    })?;
    output.text().trim().parse().context("lines")
}

/// Memory of the pause, disk of the pause: the guest itself checks that they fit.
fn comes_back(lab: &Lab, guest: &Guest) -> Result<()> {
    let (before, blocks) = (guest.counter(lab)?.context("no counter")?, guest.details(lab)?.blocks);
    lab.sh(&format!("xl destroy {}; losetup {THEN} /run/xvda.then", guest.name))?;
    succeed(lab, &format!("livesave restore {}@staged --disk xvda={THEN}", guest.name))?;
    let first = guest.next_counter(lab)?;
    continues(crate::lab::Counter { ticks: 1, errors: 0, passes: 0 }, first, before)?;
    say!("   destroyed after {blocks} blocks, restored with {}", guest.details(lab)?.blocks);
    in_use(lab, guest)?;
    let talked = lab.run_for("timeout 60 probe talk 0 | head -n 20 | tail -n 1", TAKE_WAIT)?;
    check(talked.text().starts_with("20 "), || format!("no conversation: {} {}", talked.text(), talked.errors()))?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("something is wrong after the restore: {whole:?}\n{}", tail(lab, guest)))
}

fn tail(lab: &Lab, guest: &Guest) -> String {
    guest.console(lab).map_or_else(
        |error| error.to_string(),
        |console| {
            let wrong: Vec<&str> = console.lines().filter(|line| line.contains("WRONG")).take(16).collect();
            wrong.join("\n")
        },
    )
}
