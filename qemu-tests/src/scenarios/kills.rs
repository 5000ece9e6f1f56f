//! Who dies in the middle of a take: the command, the stub, the keeper, in every state of the session.
//!
//! The stub is started so that it dwells in the state (`hold=`), which makes the moment certain. Afterwards the guest
//! runs, its tracking is off, the store holds what it held, a new stub opens it, a take succeeds, a reboot is honoured.

use anyhow::{Context, Result};

use super::{after, words};
use crate::lab::{Guest, Lab};
use crate::say;
use crate::verdict::check;

/// How long the stub dwells: time enough for a loaded machine to strike.
const HOLD_MS: u32 = 15_000;
/// Until the guest runs again after the end of the stub or of the command.
const RUNS_AGAIN_US: u64 = 1_000_000;
/// Until it runs after `livesave recover` was typed, which has to start first.
const RECOVERED_MS: u64 = 5_000;
/// States of a session, in each of which the stub and the command die.
const STATES: [&str; 6] = ["preparing", "copying", "want-suspend", "capturing", "captured", "flushing"];
/// In these the guest stands, or will at any moment: we wait until it does.
const STANDING: [&str; 2] = ["want-suspend", "capturing"];
/// In these the keeper dies as well, and only `recover` is left: `run_all`.
const KEEPER: [&str; 4] = ["copying", "want-suspend", "capturing", "captured"];
/// A small guest, and a calm one: what is tested here is not the copying.
const MEMORY_MIB: u32 = 96;
const PARAMETERS: &str = "ls.mem=16 ls.dirty=1";

/// Stub and command die in every state.
pub fn run(lab: &Lab) -> Result<()> {
    let guest = set_up(lab)?;
    for state in STATES {
        stub_dies(lab, &guest, state).with_context(|| format!("the stub is destroyed in `{state}`"))?;
        take_dies(lab, &guest, state).with_context(|| format!("the command is killed in `{state}`"))?;
    }
    // The stub that went through a death of its command takes to the end.
    after::takes(lab, &guest, "second")?;
    after::reboots(lab, &guest)?;
    lab.stop_stub()
}

/// The keeper dies in every state in which it matters, and after each death a take succeeds and a reboot is honoured.
pub fn run_all(lab: &Lab) -> Result<()> {
    let guest = set_up(lab)?;
    for state in KEEPER {
        keeper_dies(lab, &guest, state).with_context(|| format!("command and keeper are killed in `{state}`"))?;
        after::takes(lab, &guest, &format!("{state}-third"))?;
        after::reboots(lab, &guest)?;
    }
    lab.stop_stub()
}

fn set_up(lab: &Lab) -> Result<Guest> {
    lab.init_store()?;
    lab.create_guest(&words::target("kill01", MEMORY_MIB, PARAMETERS))
}

/// The keeper notices, resumes the guest and switches the tracking off; the snapshot does not exist.
fn stub_dies(lab: &Lab, guest: &Guest, state: &str) -> Result<()> {
    hold(lab, state)?;
    let before = after::listing(lab)?;
    let blow = "probe strike $D $B destroy";
    let (status, first, said) = strike(lab, guest, state, &format!("{state}-stub"), blow)?;
    say!("   {state}: stub destroyed, {first}: {}", said.replace('\n', " "));
    runs_again(state, &first)?;
    let owed = status == 31 && said.contains("hint:");
    check(owed, || format!("the take ended with {status} instead of 31: {said}"))?;
    left_clean(lab, guest)?;
    after::same_store(lab, &before)
}

/// The keeper goes on without the command, as far as resuming the guest; the stub is there for the next.
fn take_dies(lab: &Lab, guest: &Guest, state: &str) -> Result<()> {
    hold(lab, state)?;
    let (status, first, _) = strike(lab, guest, state, state, "probe strike $D $B kill $T")?;
    say!("   {state}: command killed, {first}");
    runs_again(state, &first)?;
    check(status == 137, || format!("the take ended with {status} before it was killed"))?;
    lab.wait_until("the stub is idle", after::TAKE_WAIT, |lab| lab.stub_is_idle())?;
    left_clean(lab, guest)?;
    whole_or_nothing(lab, &format!("{}@{state}", guest.name))
}

/// Nobody is left to resume the guest but `livesave recover`.
fn keeper_dies(lab: &Lab, guest: &Guest, state: &str) -> Result<()> {
    hold(lab, state)?;
    let before = after::listing(lab)?;
    let blow = format!(
        "K=$(sed -n 's/.*\"pid\":\\([0-9]*\\).*/\\1/p' /run/livesave/*.json); kill -9 $T $K; \
         {CLOCK}A=$N; livesave recover >/run/recover.out 2>&1; \
         i=0; until probe info $D | grep -q shutdown=no; do i=$((i+1)); [ $i -lt 600 ] || exit 98; sleep 0.02; done; \
         {CLOCK}echo recovered_ms=$(( (N-A)*10 )) $(cat /run/recover.out)"
    );
    let (_, first, _) = strike(lab, guest, state, "orphan", &blow)?;
    say!("   {state}: command and keeper killed, {first}");
    check(number(&first, "recovered_ms=")? <= RECOVERED_MS, || format!("after `livesave recover`: {first}"))?;
    lab.wait_until("the stub is idle", after::TAKE_WAIT, |lab| lab.stub_is_idle())?;
    left_clean(lab, guest)?;
    if state == "captured" {
        // The keeper may have given its verdict before it died.
        return whole_or_nothing(lab, &format!("{}@orphan", guest.name));
    }
    after::same_store(lab, &before)
}

/// Shell: centiseconds since boot, in N.
const CLOCK: &str = "read N R </proc/uptime; N=${N%.*}${N#*.}; ";

/// A stub that will dwell once in `state`.
fn hold(lab: &Lab, state: &str) -> Result<()> {
    lab.stop_stub()?;
    lab.start_stub(&format!("hold={state}:{HOLD_MS}"))
}

/// Starts a take (process `$T` of guest `$D` by stub `$B`), waits for the state, strikes, and waits for the end of the
/// take. All of it in dom0, in one command: the way from here to there is longer than the times in question. Gives the
/// take's exit status (137 if it was the victim), the blow's own line, and what the take said.
fn strike(lab: &Lab, guest: &Guest, state: &str, name: &str, blow: &str) -> Result<(i32, String, String)> {
    let stands = "i=0; until probe info $D | grep -q shutdown=suspend; do i=$((i+1)); [ $i -lt 600 ] || exit 97; \
                  sleep 0.05; done; ";
    let command = format!(
        "D=$(xl domid {guest}); B=$(xl domid livesave); \
         livesave take {guest} --name {name} --max-pause none >/dev/null 2>/run/take.err & T=$!; \
         {wait}{stands}{blow} || exit 98; wait $T; echo $?; cat /run/take.err",
        guest = guest.name,
        wait = after::until_state(state),
        stands = if STANDING.contains(&state) { stands } else { "" },
    );
    let output = lab.run_for(&command, after::TAKE_WAIT)?;
    let (text, errors) = (output.text(), output.errors());
    check(output.status != 98, || format!("the guest stands still: {text} {errors} {}", lab.stub_console()))?;
    let mut lines = text.splitn(3, '\n');
    let (first, status) = (lines.next().unwrap_or_default(), lines.next().and_then(|line| line.parse().ok()));
    let status = status.with_context(|| format!("never came to `{state}` ({}): {text} {errors}", output.status))?;
    Ok((status, first.to_owned(), lines.next().unwrap_or_default().to_owned()))
}

/// The guest ran again in time, and stood before if the state is one in which it does.
fn runs_again(state: &str, line: &str) -> Result<()> {
    anyhow::ensure!(!STANDING.contains(&state) || line.ends_with("was=standing"), "struck too late: {line}");
    check(number(line, "stood_us=")? <= RUNS_AGAIN_US, || format!("the guest stood longer than a second: {line}"))
}

/// The number behind `key`, the first word of the line.
fn number(line: &str, key: &str) -> Result<u64> {
    let word = line.split(' ').next().and_then(|word| word.strip_prefix(key));
    word.and_then(|text| text.parse().ok()).with_context(|| format!("no {key} in `{line}`"))
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
