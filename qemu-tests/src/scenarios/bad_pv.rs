//! What goes wrong around a take of a PV guest, and is not the guest's doing: the host lacks the memory for its dirty
//! tracking, `xl save` and `xl migrate` begin in the middle or before. Each has its exit status and its message, and
//! the guest is as it was.

use anyhow::{Context, Result};

use super::after;
use super::bad_middle::savers;
use super::ward::Ward;
use super::words::{TAKE_WAIT, target};
use crate::lab::{GuestKind, GuestSpec, Lab};
use crate::say;
use crate::verdict::check;

/// docs/operating/exit-codes.md.
const NO_MEMORY: i32 = 17;
/// vCPUs that the guest may be given. Tracking a PV guest takes 128 pages for each of them from Xen, at the least
/// (xen/arch/x86/mm/shadow/common.c, sh_min_allocation): 4 MiB.
const VCPUS_MAX: u32 = 8;
/// What Xen has left then, in MiB.
const LEFT_MIB: u64 = 3;
/// Two takes dwell while they copy.
const DWELL: &str = "hold=copying:300000 holds=2";

/// All of it on one boot.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub(DWELL)?;
    let spec = target("midpv", 96, "ls.mem=16 ls.dirty=1");
    let guest = lab.create_guest(&GuestSpec { kind: GuestKind::Pv, maxvcpus: Some(VCPUS_MAX), ..spec })?;
    let mut ward = Ward::new(lab, &guest);
    ward.guard_store()?;
    too_little_memory(&mut ward).context("a host that is short of memory")?;
    savers::save_in_the_middle(&mut ward)?;
    savers::migration_in_the_middle(&mut ward)?;
    savers::migration_before(&mut ward)?;
    // None of it left anything behind that a take would trip over.
    after::takes(lab, &guest, "after")?;
    lab.sh("livesave verify midpv@after")?;
    ward.judge()?;
    lab.stop_stub()
}

/// Guests that never run take the host's memory. They go before the guest is looked at, for that asks Xen to track it.
fn too_little_memory(ward: &mut Ward) -> Result<()> {
    let lab = ward.lab;
    // A PVH guest's paging pool takes 1 MiB, and 8 KiB for each MiB (libxl_get_required_shadow_memory).
    hog(lab, "pvh", free_mib(lab)?.saturating_sub(64) * 120 / 128)?;
    while free_mib(lab)? > LEFT_MIB {
        hog(lab, "pv", free_mib(lab)? + 1 - LEFT_MIB)?;
    }
    say!("   {} MiB are left of the host's memory", free_mib(lab)?);
    let output = lab.run_for("livesave take midpv --name poor --mode live", TAKE_WAIT)?;
    lab.sh("for D in $(xl list | awk '/^hog/ { print $2 }'); do xl destroy $D; done")?;
    check(free_mib(lab)? > LEFT_MIB, || "the hogs have not gone".to_owned())?;
    ward.told("the host is short of memory", &output, NO_MEMORY, "out of memory for dirty tracking")
}

fn free_mib(lab: &Lab) -> Result<u64> {
    lab.sh("xl info free_memory")?.trim().parse().context("free_memory")
}

/// A guest of so many MiB that stays paused.
fn hog(lab: &Lab, kind: &str, mib: u64) -> Result<()> {
    let kernel = if kind == "pvh" { "/boot/vmlinuz" } else { "/boot/prober" };
    let name = format!("hog{kind}{mib}");
    let config = format!("name = \"{name}\"\ntype = \"{kind}\"\nmemory = {mib}\nvcpus = 1\nkernel = \"{kernel}\"\n");
    lab.put_bytes(config.as_bytes(), "/run/hog.cfg")?;
    lab.sh("xl create -q -p /run/hog.cfg").with_context(|| name)?;
    Ok(())
}
