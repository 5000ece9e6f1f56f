//! The target guest and the stock tools: it counts, survives `xl save -c`, and comes back from `xl restore` at the
//! instant of its save with every page right.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{GuestKind, GuestSpec, Lab};
use crate::verdict::check;

/// A save or restore of a small guest under emulation.
const MOVE_WAIT: Duration = Duration::from_secs(300);

/// The same for PVH and PV.
pub fn run(lab: &Lab) -> Result<()> {
    for (kind, name) in [(GuestKind::Pvh, "stockpvh"), (GuestKind::Pv, "stockpv")] {
        let mut spec = GuestSpec::new(name);
        spec.kind = kind;
        save_and_restore(lab, &spec).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn save_and_restore(lab: &Lab, spec: &GuestSpec) -> Result<()> {
    let guest = lab.create_guest(spec)?;
    let before = guest.wait_whole_pass(lab)?;
    check(before.errors == 0, || format!("wrong pages before anything happened: {before:?}"))?;
    let image = format!("/scratch/{}.save", spec.name);
    let saved = lab.run_for(&format!("xl save -c {} {image}", spec.name), MOVE_WAIT)?;
    check(saved.status == 0, || format!("xl save -c: {}", saved.errors()))?;
    let after = guest.wait_whole_pass(lab)?;
    check(after.ticks > before.ticks && after.errors == 0, || format!("after xl save -c: {before:?}, then {after:?}"))?;
    lab.sh(&format!("xl destroy {}", spec.name))?;
    let restored = lab.run_for(&format!("xl restore {image}"), MOVE_WAIT)?;
    check(restored.status == 0, || format!("xl restore: {}", restored.errors()))?;
    let first = guest.next_counter(lab)?;
    check(first.ticks > before.ticks && first.ticks < after.ticks, || {
        format!("saved after {before:?}, destroyed after {after:?}, restored at {first:?}")
    })?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("wrong pages after xl restore: {whole:?}"))?;
    lab.sh(&format!("xl destroy {}; rm {image}", spec.name))?;
    Ok(())
}
