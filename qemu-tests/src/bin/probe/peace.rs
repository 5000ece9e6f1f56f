//! Whether a guest was left as a take must leave it: it runs, it counts on without a wrong page, nobody tracks its
//! dirty pages, no keeper has it on record. In one process, since starting one takes half a second under emulation.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xen_hypercall::domctl::DomainFlags;
use xen_hypercall::{DomHandle, XenErrno};

use crate::Probe;
use crate::bus::Bus;

/// Where keepers keep their records (`livesave status` lists them).
const RECORDS: &str = "/run/livesave";
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Looks until all of it holds, for at most `seconds`; then says what does not.
pub fn run(probe: &Probe, seconds: u64, out: &mut impl Write) -> Result<()> {
    let mut bus = Bus::open()?;
    let path = format!("/local/domain/{}/data/counter", probe.domain);
    let mut counter = || bus.read(&path).map(|text| ticks_and_errors(&text.unwrap_or_default()));
    let until = Instant::now() + Duration::from_secs(seconds);
    let first = counter()?;
    loop {
        let (ticks, errors) = counter()?;
        let trouble = match trouble(probe)? {
            None if errors != Some(0) => Some(format!("pages are wrong: {errors:?}")),
            None if ticks <= first.0 => Some(format!("it does not count: {ticks:?}")),
            other => other,
        };
        let Some(trouble) = trouble else {
            writeln!(out, "at peace, {} ticks", ticks.unwrap_or(0))?;
            return Ok(());
        };
        if Instant::now() >= until {
            bail!("domain {}: {trouble}", probe.domain);
        }
        thread::sleep(INTERVAL);
    }
}

fn ticks_and_errors(text: &str) -> (Option<u64>, Option<u64>) {
    let mut words = text.split_whitespace();
    let ticks = words.next().and_then(|word| word.parse().ok());
    let errors = words.find_map(|word| word.strip_prefix("errors=")).and_then(|word| word.parse().ok());
    (ticks, errors)
}

fn trouble(probe: &Probe) -> Result<Option<String>> {
    let info = probe.xen.getdomaininfo(probe.domain, None)?;
    if let Some(reason) = info.shutdown {
        return Ok(Some(format!("it is shut down: {reason}")));
    }
    if info.flags.intersects(DomainFlags::PAUSED | DomainFlags::DYING) {
        return Ok(Some(format!("it does not run: {:?}", info.flags)));
    }
    if recorded(&info.handle)? {
        return Ok(Some("a keeper has it on record: its suspends may be silenced".to_owned()));
    }
    // ENABLE is the only question that Xen answers.
    match probe.xen.logdirty_enable(probe.domain) {
        Ok(()) => probe.xen.logdirty_off(probe.domain).map(|()| None).map_err(Into::into),
        Err(error) if error.xen() == Some(XenErrno::EINVAL) => Ok(Some("its dirty tracking is on".to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// A keeper removes its record when the subscription is reset and nothing is left to undo.
fn recorded(handle: &DomHandle) -> Result<bool> {
    let Ok(entries) = fs::read_dir(RECORDS) else { return Ok(false) };
    for entry in entries {
        let path = entry.context(RECORDS)?.path();
        let is_record = path.extension().is_some_and(|extension| extension == "json");
        if is_record && fs::read_to_string(&path).is_ok_and(|text| text.contains(&handle.to_string())) {
            return Ok(true);
        }
    }
    Ok(false)
}
