//! After a take nothing of it is left, whether it was sealed, voided or cancelled: no grant, no event channel, no
//! mapping, no memory of the stub; dirty tracking is off, the next take works, xl still follows the guest.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::words::{self, TAKE_WAIT, fails_with, json, number, succeed};
use crate::lab::{Guest, Lab, STUB};
use crate::verdict::{Stop, Verdict, check, stop};

/// docs/operating/exit-codes.md.
const PAUSE_SPENT: i32 = 28;
const CANCELLED: i32 = 30;
/// By how much small lists of the stub may have grown: that of the snapshots which its cleaner has looked at, 8 bytes
/// each, and what the cleaner means to empty, a bit for each of the store's 4096 segments and the family's numbers; a
/// request that comes meanwhile leaves it that plan. The snapshots themselves, each some hundred bytes of the catalog,
/// are removed before its memory is looked at. Four takes, which may not leave more together.
pub const LISTS_BYTES: u64 = 128 + 576;
/// Until keeper, stub and xenstored have let go of what the take used.
const SETTLE_WAIT: Duration = Duration::from_secs(30);
/// What the stub grants for good: 512 pages and 32 tables for the disk, and the rings of disk, xenstore and console.
const POOL_GRANTS: usize = 512 + 32 + 4;
/// Until xl has made the guest anew, and it counts.
const REBOOT_WAIT: Duration = Duration::from_secs(240);
/// Until a domain that was destroyed is gone. One whose memory somebody still maps never goes.
const GONE_WAIT: Duration = Duration::from_secs(60);

/// Four takes of one guest with three endings, a reboot, and an end.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let guest = lab.create_guest(&words::target("after", 96, "ls.mem=16 ls.dirty=64 ls.tick=20 ls.publish=2"))?;
    let take = format!("livesave take {}", guest.name);
    // The first take fills what the stub keeps for good: its pool of persistent grants.
    succeed(lab, &format!("{take} --name one --max-pause none"))?;
    let before = Traces::of(lab, &guest)?;

    succeed(lab, &format!("{take} --name two --mode live --max-pause none"))?;
    succeed(lab, &format!("livesave rm {}@two", guest.name))?;
    nothing_left(lab, &guest, &before).context("after a live take")?;
    succeed(lab, &format!("{take} --name three --mode save"))?;
    succeed(lab, &format!("livesave rm {}@three", guest.name))?;
    nothing_left(lab, &guest, &before).context("after a saving take")?;
    fails_with(lab, &format!("{take} --name spent --mode save --max-pause 1ms"), PAUSE_SPENT)?;
    nothing_left(lab, &guest, &before).context("after a take that was voided in the pause")?;
    cancelled(lab, &guest)?;
    nothing_left(lab, &guest, &before).context("after a take that was cancelled")?;
    same_names(lab, &guest, &["one"])?;

    reboots(lab, &guest)?;
    succeed(lab, &format!("{take} --name rebooted --max-pause none"))?;
    goes(lab, &guest)?;
    lab.stop_stub()
}

/// Cancels a take while it copies.
fn cancelled(lab: &Lab, guest: &Guest) -> Result<()> {
    let take = lab.spawn(&format!("livesave take {} --name cancelled --max-pause none", guest.name), TAKE_WAIT)?;
    becomes(lab, "the take copies", TAKE_WAIT, |lab| {
        let status: Value = serde_json::from_str(&lab.sh("livesave status --json")?)?;
        Ok(status.pointer("/session/state").and_then(Value::as_str) == Some("copying"))
    })?;
    succeed(lab, "livesave cancel")?;
    let output = take.join()?;
    check(output.status == CANCELLED, || {
        format!("the cancelled take ended with {}: {} {}", output.status, output.text(), output.errors())
    })
}

/// What a take could leave behind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Traces {
    /// Event channels of dom0, the stub and the guest, apart from dom0's that are of other domains.
    ports: [BTreeSet<String>; 3],
    /// Entries of the guest's grant table that somebody uses.
    grants: BTreeSet<String>,
    /// How many entries of its own table the stub has in use.
    stub_grants: usize,
    /// What the stub says of its heap.
    pub memory_free: u64,
    /// Keepers with a record.
    keepers: usize,
    /// What xl and keepers ask of the guest.
    control: String,
}

impl Traces {
    pub fn of(lab: &Lab, guest: &Guest) -> Result<Self> {
        let (guest, stub) = (guest.domid(lab)?, lab.sh(&format!("xl domid {STUB}"))?.parse()?);
        let ports = |domid: u32| -> Result<BTreeSet<String>> {
            Ok(lab.sh(&format!("probe ports {domid}"))?.lines().map(str::to_owned).collect())
        };
        let status: Value = serde_json::from_str(&lab.sh("livesave status --json")?)?;
        let table = grant_tables(lab)?;
        Ok(Self {
            ports: [ports(0)?, ports(stub)?, ports(guest)?],
            grants: active_grants(&table, guest),
            stub_grants: active_grants(&table, stub).len(),
            memory_free: number(&status, "/stub/memory_free")?,
            keepers: status.get("keepers").and_then(Value::as_array).map_or(0, Vec::len),
            control: lab.run(&format!("xenstore-read /local/domain/{guest}/control/shutdown"))?.text(),
        })
    }
}

impl Traces {
    /// The same, but for the stub's free memory, which the caller judges.
    pub fn with_memory(self, memory_free: u64) -> Self {
        Self { memory_free, ..self }
    }
}

/// All that Xen says of its grant tables.
fn grant_tables(lab: &Lab) -> Result<String> {
    said(lab, 'g', "gnttab_usage_print_all ]")
}

/// What Xen prints when it is sent a debug key, up to a line that holds `end`.
pub(super) fn said(lab: &Lab, key: char, end: &str) -> Result<String> {
    let before = lab.serial().len();
    lab.sh(&format!("xl debug-keys {key}"))?;
    let mut said = String::new();
    lab.wait_until("Xen prints what it was asked for", SETTLE_WAIT, |lab| {
        said = lab.serial().get(before..).unwrap_or_default().to_owned();
        Ok(said.split_inclusive('\n').any(|line| line.contains(end) && line.ends_with('\n')))
    })?;
    Ok(said)
}

/// The entries in use of a domain's table (gnttab_usage_print, xen/common/grant_table.c).
fn active_grants(said: &str, domid: u32) -> BTreeSet<String> {
    let mut of = None;
    let mut entries = BTreeSet::new();
    for line in said.lines() {
        let line = line.trim_start_matches("(XEN)").trim();
        if let Some((_, rest)) = line.split_once("grant-table for remote d") {
            of = rest.split(' ').next().and_then(|id| id.trim().parse::<u32>().ok());
        } else if of == Some(domid) && line.contains("[0x") {
            entries.insert(line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    entries
}

/// The guest counts, tracking is off, and all traces are as they were.
pub(super) fn nothing_left(lab: &Lab, guest: &Guest, before: &Traces) -> Result<()> {
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("pages are wrong: {whole:?}"))?;
    words::tracking_is_off(lab, guest)?;
    let mut now = Traces::of(lab, guest)?;
    // The keeper outlives its take by a moment.
    let settled = lab.wait_until("all is as before", SETTLE_WAIT, |lab| {
        now = Traces::of(lab, guest)?;
        let grown = before.memory_free.saturating_sub(now.memory_free);
        if grown <= LISTS_BYTES {
            now.memory_free = before.memory_free;
        }
        // blkback maps the pool's pages as they come, and gives back what it has not used for a minute.
        if now.stub_grants <= POOL_GRANTS {
            now.stub_grants = before.stub_grants;
        }
        Ok(now == *before)
    });
    check(settled.is_ok(), || format!("left behind: {}", difference(before, &now)))
}

fn difference(before: &Traces, now: &Traces) -> String {
    let mut text = String::new();
    for (who, (was, is)) in ["dom0", "stub", "guest"].iter().zip(before.ports.iter().zip(&now.ports)) {
        if was != is {
            let (gone, new): (Vec<_>, Vec<_>) = (was.difference(is).collect(), is.difference(was).collect());
            text += &format!("ports of {who}: gone {gone:?}, new {new:?}; ");
        }
    }
    if before.grants != now.grants {
        text += &format!("grants of the guest: {:?}, were {:?}; ", now.grants, before.grants);
    }
    let numbers = |traces: &Traces| (traces.stub_grants, traces.memory_free, traces.keepers, traces.control.clone());
    if numbers(before) != numbers(now) {
        text += &format!(
            "(grants of the stub, its free memory, keepers, control/shutdown): {:?}, were {:?}",
            numbers(now),
            numbers(before)
        );
    }
    text
}

/// Takes that came to nothing left no snapshot.
fn same_names(lab: &Lab, guest: &Guest, names: &[&str]) -> Result<()> {
    let list = json(lab, &format!("livesave ls {}", guest.name))?;
    let list = list.as_array().context("livesave ls gives a list")?;
    let found: BTreeSet<String> =
        list.iter().filter_map(|one| one.get("name").and_then(Value::as_str)).map(str::to_owned).collect();
    let wanted: BTreeSet<String> = names.iter().map(|name| format!("{}@{name}", guest.name)).collect();
    check(found == wanted, || format!("the store holds {found:?}, not {wanted:?}"))
}

/// xl sees the guest's shutdown and makes it anew: nobody took its monitor's subscription away.
fn reboots(lab: &Lab, guest: &Guest) -> Result<()> {
    let before = guest.domid(lab)?;
    succeed(lab, &format!("xl reboot {}", guest.name))?;
    becomes(lab, "xl honours the reboot", REBOOT_WAIT, |lab| {
        // Between two lives the name is nobody's.
        let now = lab.run(&format!("xl domid {}", guest.name))?;
        Ok(now.status == 0 && now.text() != before.to_string() && guest.counter(lab)?.is_some())
    })
}

/// A guest destroyed right after a take is gone altogether: nobody has its memory mapped.
pub(super) fn goes(lab: &Lab, guest: &Guest) -> Result<()> {
    let domid = guest.domid(lab)?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    becomes(lab, "the guest is gone, no mapping of it is left", GONE_WAIT, |lab| {
        Ok(lab.run(&format!("probe info {domid}"))?.status != 0)
    })
}

/// [`Lab::wait_until`] for what the subject owes: its absence is a FAILURE.
fn becomes(lab: &Lab, what: &str, wait: Duration, ready: impl FnMut(&Lab) -> Result<bool>) -> Result<()> {
    lab.wait_until(what, wait, ready).map_err(|error| match error.downcast_ref::<Stop>() {
        Some(late) if late.verdict == Verdict::Timeout => stop(Verdict::Failure, late.why.clone()),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_of_the_domain_count() {
        let said = "(XEN) grant-table for remote d1 (v1)\n(XEN)   1 frames (64 max), 0 maptrack frames (1024 max)\n\
                    (XEN)       -------- active --------\n\
                    (XEN) [0x000]      0 0x00fe0c 0x00000002          0 0x00fe0c 0x19\n\
                    (XEN) grant-table for remote d12 (v1)\n\
                    (XEN) [0x001]      0 0x00fe0d 0x00000002          0 0x1 0x19\n\
                    (XEN) gnttab_usage_print_all ]\n";
        assert_eq!(active_grants(said, 1).len(), 1);
        assert!(active_grants(said, 12).first().is_some_and(|entry| entry.contains("[0x001]")));
        assert!(active_grants(said, 2).is_empty());
    }
}
