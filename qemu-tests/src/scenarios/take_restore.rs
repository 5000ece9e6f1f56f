//! First light: a running guest is snapshotted, goes on, is destroyed, and comes back at the instant of the snapshot.

use std::time::Duration;

use anyhow::Result;

use crate::lab::{Counter, Guest, GuestSpec, Lab, TARGET_LABEL};
use crate::say;
use crate::verdict::check;

/// A take or a restore of a small guest under emulation.
const TAKE_WAIT: Duration = Duration::from_secs(600);

/// `live`, then `save`, each into the same store.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    for mode in ["live", "save"] {
        let mut spec = GuestSpec::new(&format!("web{mode}"));
        spec.label = Some(TARGET_LABEL.to_owned());
        let guest = lab.create_guest(&spec)?;
        round_trip(lab, &guest, mode)?;
        lab.sh(&format!("xl destroy {}", guest.name))?;
    }
    lab.stop_stub()
}

fn round_trip(lab: &Lab, guest: &Guest, mode: &str) -> Result<()> {
    let name = format!("{}@first", guest.name);
    let before = guest.wait_whole_pass(lab)?;
    succeed(lab, &format!("livesave take {} --name first --mode {mode} --max-pause none", guest.name))?;
    let after = guest.wait_whole_pass(lab)?;
    check(after.ticks > before.ticks && after.errors == 0, || format!("during the take {before:?} became {after:?}"))?;
    succeed(lab, &format!("livesave verify {name}"))?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    succeed(lab, &format!("livesave restore {name}"))?;
    let first = guest.next_counter(lab)?;
    let whole = guest.wait_whole_pass(lab)?;
    continues(before, first, after)?;
    check(whole.errors == 0, || format!("pages are wrong after the restore: {whole:?}"))
}

/// The restored guest counts on from within the take, not from its start and not from its end.
pub fn continues(before: Counter, first: Counter, destroyed: Counter) -> Result<()> {
    check(first.ticks >= before.ticks && first.ticks < destroyed.ticks, || {
        format!("taken after {before:?}, destroyed after {destroyed:?}, restored at {first:?}")
    })
}

fn succeed(lab: &Lab, command: &str) -> Result<()> {
    let output = lab.run_for(command, TAKE_WAIT)?;
    say!("   dom0# {command}\n{}", output.text());
    check(output.status == 0, || {
        format!("`{command}` ended with {}: {}\n{}", output.status, output.errors(), lab.stub_console())
    })
}
