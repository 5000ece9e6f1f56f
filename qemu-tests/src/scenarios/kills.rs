//! Who dies in the middle of a take: the command, the stub, the keeper, in every state of the session.
//!
//! The stub is started so that it dwells in the state (`hold=`), which makes the moment certain. Afterwards the guest
//! runs, its tracking is off, the store holds what it held, a new stub opens it, a take succeeds, a reboot is honoured.

use std::time::Duration;

use anyhow::{Context, Result};

use super::after;
use crate::lab::{Guest, GuestSpec, Lab, TARGET_LABEL};
use crate::verdict::check;

/// How long the stub dwells: time enough for a loaded machine to strike.
const HOLD_MS: u32 = 20_000;
/// Until the guest runs again after the stub's or the command's end: a second, and slack for an emulated machine.
const RUNS_AGAIN: Duration = Duration::from_secs(5);
/// States of a session in which somebody can die.
const STATES: [&str; 6] = ["preparing", "copying", "want-suspend", "capturing", "captured", "flushing"];
/// Those that CI looks at: rounds under way, guest standing, guest running again with data in flight.
const STATES_OF_CI: [&str; 3] = ["copying", "capturing", "captured"];

/// What [`strike`] saw.
struct Struck {
    /// Exit status of the take; 137 if it was the victim.
    status: i32,
    /// What the take said on standard error.
    said: String,
    /// From the blow to a guest that runs, milliseconds of dom0's clock.
    stood_ms: u64,
}

/// When to strike: in which state of the take of which name.
struct Moment<'a> {
    state: &'a str,
    name: &'a str,
}

/// The states that matter most.
pub fn run(lab: &Lab) -> Result<()> {
    all(lab, &STATES_OF_CI, &["capturing"])
}

/// All of them, and a reboot after each.
pub fn run_all(lab: &Lab) -> Result<()> {
    all(lab, &STATES, &["copying", "want-suspend", "capturing", "captured"])
}

fn all(lab: &Lab, states: &[&str], of_keeper: &[&str]) -> Result<()> {
    lab.init_store()?;
    let mut spec = GuestSpec::new("kill01");
    spec.label = Some(TARGET_LABEL.to_owned());
    // A calm guest: what is tested here is not the copying.
    "ls.mem=16 ls.dirty=1".clone_into(&mut spec.parameters);
    let guest = lab.create_guest(&spec)?;
    for state in states {
        stub_dies(lab, &guest, state).with_context(|| format!("the stub is destroyed in `{state}`"))?;
        take_dies(lab, &guest, state).with_context(|| format!("the command is killed in `{state}`"))?;
    }
    for state in of_keeper {
        keeper_dies(lab, &guest, state).with_context(|| format!("command and keeper are killed in `{state}`"))?;
    }
    after::reboots(lab, &guest)?;
    lab.stop_stub()
}

/// The keeper notices, resumes the guest and switches the tracking off; the snapshot does not exist.
fn stub_dies(lab: &Lab, guest: &Guest, state: &str) -> Result<()> {
    hold(lab, state)?;
    let before = after::listing(lab)?;
    let struck = strike(lab, guest, &Moment { state, name: state }, "xl destroy livesave")?;
    println!("   {state}: stub destroyed, guest ran after {} ms: {}", struck.stood_ms, struck.said.replace('\n', " "));
    let owed = struck.status == 31 && struck.said.contains("hint:");
    check(owed, || format!("the take ended with {} instead of 31: {}", struck.status, struck.said))?;
    left_clean(lab, guest)?;
    after::same_store(lab, &before)
}

/// The keeper goes on without the command, as far as resuming the guest; then the same stub takes to the end.
fn take_dies(lab: &Lab, guest: &Guest, state: &str) -> Result<()> {
    hold(lab, state)?;
    let struck = strike(lab, guest, &Moment { state, name: state }, "kill -9 $T")?;
    println!("   {state}: command killed, guest ran after {} ms", struck.stood_ms);
    check(struck.status == 137, || format!("the take ended with {} before it was killed", struck.status))?;
    lab.wait_until("the stub is idle", after::TAKE_WAIT, |lab| lab.stub_is_idle())?;
    left_clean(lab, guest)?;
    whole_or_nothing(lab, &format!("{}@{state}", guest.name))?;
    after::takes(lab, guest, &format!("{state}-second"))
}

/// Nobody is left to resume the guest but `livesave recover`.
fn keeper_dies(lab: &Lab, guest: &Guest, state: &str) -> Result<()> {
    hold(lab, state)?;
    let before = after::listing(lab)?;
    let blow = "K=$(sed -n 's/.*\"pid\":\\([0-9]*\\).*/\\1/p' /run/livesave/*.json); kill -9 $T $K; livesave recover";
    let struck = strike(lab, guest, &Moment { state, name: "orphan" }, blow)?;
    println!("   {state}: command and keeper killed, guest ran {} ms after the recovery", struck.stood_ms);
    lab.wait_until("the stub is idle", after::TAKE_WAIT, |lab| lab.stub_is_idle())?;
    left_clean(lab, guest)?;
    after::same_store(lab, &before)?;
    after::takes(lab, guest, &format!("{state}-third"))?;
    after::reboots(lab, guest)
}

/// A stub that will dwell once in `state`.
fn hold(lab: &Lab, state: &str) -> Result<()> {
    lab.stop_stub()?;
    lab.start_stub(&format!("hold={state}:{HOLD_MS}"))
}

/// Starts a take, waits for the state, strikes, and waits until the guest runs and the take has ended. All of it in
/// dom0, in one command: the way from here to there is longer than the times in question.
fn strike(lab: &Lab, guest: &Guest, at: &Moment, blow: &str) -> Result<Struck> {
    let command = format!(
        "D=$(xl domid {name}); livesave take {name} --name {at} --max-pause none >/dev/null 2>/run/take.err & T=$!; \
         {wait} {blow} >/dev/null 2>&1; {clock}A=$N; \
         i=0; until probe info $D | grep -q shutdown=no; do i=$((i+1)); [ $i -lt 600 ] || exit 98; sleep 0.02; done; \
         {clock}wait $T; echo $? $(( (N-A)*10 )); cat /run/take.err",
        name = guest.name,
        at = at.name,
        wait = after::until_state(at.state),
        // Centiseconds since boot.
        clock = "read N R </proc/uptime; N=${N%.*}${N#*.}; ",
    );
    let output = lab.run_for(&command, after::TAKE_WAIT)?;
    check(output.status != 98, || format!("the guest stands still: {}", lab.stub_console()))?;
    let text = output.text();
    let (first, said) = text.split_once('\n').unwrap_or((&text, ""));
    let numbers: Vec<i64> = first.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [status, stood] = numbers.as_slice() else {
        anyhow::bail!("the session never came to `{}` ({}): {text} {}", at.state, output.status, output.errors());
    };
    let stood_ms = u64::try_from(*stood).unwrap_or_default();
    let limit = u64::try_from(RUNS_AGAIN.as_millis()).unwrap_or_default();
    check(stood_ms <= limit, || format!("the guest stood for {stood_ms} ms"))?;
    Ok(Struck { status: i32::try_from(*status).unwrap_or(-1), said: said.to_owned(), stood_ms })
}

fn left_clean(lab: &Lab, guest: &Guest) -> Result<()> {
    after::recovers(lab)?;
    after::at_peace(lab, guest)?;
    let zombies = lab.sh("xl list | grep -c null || true")?;
    check(zombies == "0", || format!("{zombies} domains cannot die"))
}

/// A take whose command died may have been sealed. Then it is a snapshot like any other.
fn whole_or_nothing(lab: &Lab, name: &str) -> Result<()> {
    let listed = after::listing(lab)?.contains(&format!("\"{name}\""));
    let verified = lab.run_for(&format!("livesave verify {name}"), after::TAKE_WAIT)?;
    // 19: no such snapshot.
    let expected = if listed { 0 } else { 19 };
    check(verified.status == expected, || format!("{name}: listed {listed}, verify says {}", verified.errors()))
}
