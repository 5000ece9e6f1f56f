//! What the scenarios that take snapshots have in common: a guest that can be taken, `livesave`'s words, its results.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lab::{Guest, GuestSpec, Lab, TARGET_LABEL};
use crate::say;
use crate::verdict::check;

/// A take, an export or a restore of a small guest under emulation, on a machine that may be busy.
pub const TAKE_WAIT: Duration = Duration::from_secs(600);

/// Sets the boolean that keeps other tools off while a take runs; a 0 or 1 follows.
pub const SET_TAKING: &str = "/usr/lib/xen-4.17/bin/flask-set-bool livesave_taking";
/// A hook that begins so is nothing but what it does while the guest stands: it is run once more when all is over.
pub const IN_PAUSE: &str = "[ $LIVESAVE_PHASE = captured ] || exit 0";

/// A guest with the label of a target.
pub fn target(name: &str, memory_mib: u32, parameters: &str) -> GuestSpec {
    let mut spec = GuestSpec::new(name);
    spec.label = Some(TARGET_LABEL.to_owned());
    spec.memory_mib = memory_mib;
    parameters.clone_into(&mut spec.parameters);
    spec
}

/// Runs a command in dom0 that must succeed, and shows it; its standard output.
pub fn succeed(lab: &Lab, command: &str) -> Result<String> {
    fails_with(lab, command, 0)
}

/// Runs a command in dom0 that must end with this status.
pub fn fails_with(lab: &Lab, command: &str, status: i32) -> Result<String> {
    let output = lab.run_for(command, TAKE_WAIT)?;
    say!("   dom0# {command}");
    check(output.status == status, || {
        let said = format!("{} {}", output.text(), output.errors());
        let keeper = lab.sh("tail -n 40 /run/livesave/keeper.log; xl dmesg | tail -n 20").unwrap_or_default();
        format!("`{command}` ended with {}, not {status}: {said}\n{}\n{keeper}", output.status, lab.stub_console())
    })?;
    Ok(output.text())
}

/// [`succeed`] with `--json`, parsed.
pub fn json(lab: &Lab, command: &str) -> Result<Value> {
    let text = succeed(lab, &format!("{command} --json"))?;
    serde_json::from_str(&text).with_context(|| format!("`{command} --json` said: {text}"))
}

/// The number that `pointer` (RFC 6901) names.
pub fn number(value: &Value, pointer: &str) -> Result<u64> {
    value.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("no number {pointer} in {value}"))
}

/// Dirty tracking of the guest is off, asked with a call that answers 0 only then.
pub fn tracking_is_off(lab: &Lab, guest: &Guest) -> Result<()> {
    let state = lab.sh(&format!("probe logdirty {} status", guest.domid(lab)?))?;
    check(state == "off", || format!("log-dirty of {} is {state} after the take", guest.name))
}
