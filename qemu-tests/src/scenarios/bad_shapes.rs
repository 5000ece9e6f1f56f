//! Guests that cannot be taken because of what they are, and guests that end in the middle: each has a message of its
//! own and its exit status, and nobody is harmed by it.

use anyhow::{Context, Result};

use super::after::{self, TAKE_WAIT, until_state};
use super::ward::{Ward, told};
use super::words::target;
use crate::lab::{Background, GuestSpec, Lab, Output};
use crate::say;
use crate::verdict::check;

/// docs/operating/exit-codes.md.
const NOT_PVH: i32 = 15;
const DENIED: i32 = 16;
const ENDED: i32 = 26;
/// A device model that says that it runs, and emulates nothing: all that libxl waits for.
const MODEL: &str = "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = -d ] && D=$2; shift; done\n\
    xenstore-write /local/domain/0/device-model/$D/state running\nexec sleep 100000\n";
/// Two takes dwell while they copy, until their guest ends.
const DWELL: &str = "hold=copying:300000 holds=2";

/// All of it on one boot.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub(DWELL)?;
    let guest = lab.create_guest(&target("shaped", 96, "ls.mem=16 ls.dirty=1"))?;
    let mut ward = Ward::new(lab, &guest);
    ward.guard_store()?;
    passed_through(&mut ward)?;
    device_model(&mut ward).context("a guest with a device model")?;
    unlabelled(&mut ward).context("a guest that is no target")?;
    unmigratable(&mut ward).context("a guest that may not be migrated")?;
    reboots(&mut ward).context("a guest that reboots in the middle")?;
    shuts_down(&mut ward).context("a guest that shuts down in the middle")?;
    ward.judge()?;
    lab.stop_stub()
}

/// There is no passed-through device in this machine; libxl's own record of one is made up.
fn passed_through(ward: &mut Ward) -> Result<()> {
    let node = format!("/local/domain/0/backend/pci/{}", ward.guest.domid(ward.lab)?);
    ward.lab.sh(&format!("xenstore-write {node}/0/state 4"))?;
    let output = ward.lab.run_for(&format!("livesave take {}", ward.guest.name), TAKE_WAIT)?;
    ward.lab.sh(&format!("xenstore-rm {node}"))?;
    ward.told("a passed-through device", &output, NOT_PVH, "passed-through PCI")
}

/// It need not run to be refused, and this one could not.
fn device_model(ward: &mut Ward) -> Result<()> {
    ward.lab.put_bytes(MODEL.as_bytes(), "/run/model")?;
    ward.lab.put(&ward.lab.dir().join("xen-tools/boot/hvmloader"), "/run/hvmloader")?;
    let config = "name = \"hvm01\"\ntype = \"hvm\"\nmemory = 64\nvcpus = 1\nvga = \"none\"\n\
                  firmware_override = \"/run/hvmloader\"\n\
                  device_model_version = \"qemu-xen-traditional\"\ndevice_model_override = \"/run/model\"\n\
                  seclabel = \"system_u:system_r:livesave_guest_t\"\n";
    ward.lab.put_bytes(config.as_bytes(), "/run/hvm01.cfg")?;
    ward.lab.sh("chmod +x /run/model; xl create -q -p /run/hvm01.cfg")?;
    refused(ward, "hvm01", "an HVM guest with a device model", NOT_PVH, "device model")
}

/// The default label has not the attribute of targets while the boolean is off.
fn unlabelled(ward: &mut Ward) -> Result<()> {
    let mut spec: GuestSpec = target("private", 96, "ls.mem=8 ls.dirty=1");
    spec.label = None;
    ward.lab.create_guest(&spec)?;
    refused(ward, "private", "a guest that is no target", DENIED, "FLASK")
}

/// Xen's own label for guests whose memory not even dom0 may read. Under Xen's own policy this xl can make none (a PVH
/// guest's building label lacks gethvmcontext, a PV guest's console may not be mapped), so it is made while nothing is
/// enforced.
fn unmigratable(ward: &mut Ward) -> Result<()> {
    let mut spec: GuestSpec = target("sealed", 96, "ls.mem=8 ls.dirty=1");
    spec.label = Some("system_u:system_r:nomigrate_t".to_owned());
    ward.lab.sh("xl setenforce 0")?;
    let made = ward.lab.create_guest(&spec);
    ward.lab.sh("xl setenforce 1")?;
    made?;
    refused(ward, "sealed", "a guest with the label nomigrate_t", DENIED, "FLASK")
}

/// A take of another guest, which is looked at and destroyed then.
fn refused(ward: &mut Ward, name: &str, what: &str, exit: i32, says: &str) -> Result<()> {
    let output = ward.lab.run_for(&format!("livesave take {name} --name refused"), TAKE_WAIT)?;
    let left = ward.lab.run(&format!("probe info $(xl domid {name}); xl destroy {name}"))?;
    let well =
        check(left.text().contains("shutdown=no"), || format!("it was left as {} {}", left.text(), left.errors()));
    ward.note(what, well)?;
    ward.told(what, &output, exit, says)
}

fn copying(ward: &Ward) -> Result<Background> {
    let take = ward.lab.spawn(&format!("livesave take {} --name middle", ward.guest.name), TAKE_WAIT)?;
    ward.lab.sh(&until_state("copying"))?;
    Ok(take)
}

fn ended(ward: &mut Ward, what: &str, take: Background) -> Result<Output> {
    let output = take.join()?;
    say!("   {what:<44} {:>2}  {}", output.status, output.errors());
    let said = told(&output, ENDED, &ward.guest.name);
    ward.note(what, said)?;
    let same = ward.same_store();
    ward.note(what, same)?;
    Ok(output)
}

fn reboots(ward: &mut Ward) -> Result<()> {
    let take = copying(ward)?;
    after::reboots(ward.lab, ward.guest)?;
    ended(ward, "the guest reboots in the middle", take)?;
    ward.lab.wait_until("the stub is idle", TAKE_WAIT, Lab::stub_is_idle)?;
    ward.unharmed("the guest reboots in the middle")
}

/// It goes as it was told, and altogether: no page of it stays mapped.
fn shuts_down(ward: &mut Ward) -> Result<()> {
    let take = copying(ward)?;
    let domid = ward.guest.domid(ward.lab)?;
    ward.lab.sh(&format!("xl shutdown {}", ward.guest.name))?;
    ended(ward, "the guest shuts down in the middle", take)?;
    after::becomes(ward.lab, "nothing of the guest is left", TAKE_WAIT, |lab| {
        Ok(lab.run(&format!("probe info {domid}"))?.status != 0)
    })
}
