//! First light: a running guest is snapshotted, goes on, is destroyed, and comes back at the instant of the snapshot.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::instant::{self, Instant};
use crate::counter::{Count, Sample};
use crate::lab::{Counter, Guest, GuestSpec, Lab, TARGET_LABEL};
use crate::say;
use crate::verdict::check;

/// A take or a restore of a small guest under emulation.
const TAKE_WAIT: Duration = Duration::from_secs(600);

/// Three modes, one after the other, into the same store.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    for mode in ["staged", "live", "save"] {
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
    let watch = guest.watch(lab)?;
    let gfn = watch.gfn().to_owned();
    succeed(lab, &format!("livesave take {} --name first --mode {mode} --max-pause none", guest.name))?;
    let samples = watch.end(lab)?;
    let after = guest.wait_whole_pass(lab)?;
    check(after.ticks > before.ticks && after.errors == 0, || format!("during the take {before:?} became {after:?}"))?;
    succeed(lab, &format!("livesave verify {name}"))?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    succeed(lab, &format!("livesave restore {name} --paused"))?;
    let restored = stands_at_the_instant(lab, guest, &name, &gfn, &samples)?;
    let whole = goes_on(lab, guest, restored)?;
    check(whole.errors == 0, || format!("pages are wrong after the restore: {whole:?}"))
}

/// The guest restored from `name`, not started yet, counts exactly what it counted in the pause of that take.
pub fn stands_at_the_instant(lab: &Lab, guest: &Guest, name: &str, gfn: &str, samples: &[Sample]) -> Result<Count> {
    let shown: Value =
        serde_json::from_str(&lab.sh(&format!("livesave show {name} --json"))?).context("show --json")?;
    let pause = *instant::rounds(&shown)?.last().context("no round")?;
    let restored = guest.sample(lab, gfn)?.count;
    let instant = Instant::of(pause, samples)?;
    say!("   in the pause the guest stood at {instant}; restored it stands at {restored}");
    instant.is_of(restored)?;
    Ok(restored)
}

/// Started, it counts on from there, and checks all its memory.
pub fn goes_on(lab: &Lab, guest: &Guest, from: Count) -> Result<Counter> {
    lab.sh(&format!("xl unpause {}", guest.name))?;
    let first = guest.next_counter(lab)?;
    check(first.ticks >= from.ticks, || format!("restored at {from:?}, went on at {first:?}"))?;
    guest.wait_whole_pass(lab)
}

fn succeed(lab: &Lab, command: &str) -> Result<()> {
    let output = lab.run_for(command, TAKE_WAIT)?;
    say!("   dom0# {command}\n{}", output.text());
    check(output.status == 0, || {
        format!("`{command}` ended with {}: {}\n{}", output.status, output.errors(), lab.stub_console())
    })
}
