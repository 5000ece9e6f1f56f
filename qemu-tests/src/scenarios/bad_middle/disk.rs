//! The store's disk fails in the middle: a device mapper table that answers every request with an error, then the disk
//! again.

use anyhow::Result;

use super::super::after;
use super::super::ward::Ward;
use super::{restart_stub, taken};
use crate::lab::{Lab, STORE_DEVICE};
use crate::verdict::check;

/// What the stub gets: the first device of the mapper. Names would be udev's affair, which dom0 here has not.
pub const MAPPED: &str = "/dev/dm-0";
/// Sectors of the store's disk (4 GiB).
const SECTORS: u64 = (4 << 30) / 512;

/// Puts the table between the disk and the stub.
pub fn map(lab: &Lab) -> Result<()> {
    let table = format!("0 {SECTORS} linear {STORE_DEVICE} 0");
    lab.sh(&format!("dmsetup --noudevsync create store --table '{table}' && test -b {MAPPED}")).map(drop)
}

/// Takes it away.
pub fn unmap(lab: &Lab) -> Result<()> {
    lab.sh("dmsetup --noudevsync remove --retry store").map(drop)
}

fn becomes(lab: &Lab, target: &str) -> Result<()> {
    lab.sh(&format!(
        "dmsetup --noudevsync suspend --noflush store; \
         dmsetup --noudevsync load store --table '0 {SECTORS} {target}'; dmsetup --noudevsync resume store"
    ))
    .map(drop)
}

/// The take fails and names the store; the stub says that it cannot serve; with the disk back all is as it was.
pub fn fails(ward: &mut Ward) -> Result<()> {
    let take = taken(ward, "copying", "")?;
    becomes(ward.lab, "error")?;
    let output = take.join()?;
    let reason = ward.lab.stub_reason()?;
    after::counts(ward.lab, ward.guest)?;
    let again = ward.lab.run(&format!("livesave take {}", ward.guest.name))?;
    becomes(ward.lab, &format!("linear {STORE_DEVICE} 0"))?;
    restart_stub(ward.lab, "")?;
    let said = check(reason.contains("device failed"), || format!("the stub's reason is `{reason}`"));
    ward.note("the stub whose disk failed", said)?;
    ward.told("a take with a stub whose disk failed", &again, 8, "device failed")?;
    ward.told("the store's disk fails in the middle", &output, 22, "store")?;
    ward.verified()
}
