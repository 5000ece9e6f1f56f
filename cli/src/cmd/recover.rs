//! `livesave recover`: undoes what a killed keeper, or a stub that died, left behind.
//!
//! It acts on the keepers' records only, and only on guests whose keeper is dead. A guest that stands is resumed only
//! if the record says that we asked and xenstore says that the guest took our request. Doing it twice is harmless.

use crate::args::Place;
use crate::exit::{Exit, Outcome};
use crate::host::tree::{self, XenStore};
use crate::host::xen::Xen;
use crate::host::{files, xl};
use crate::keeper::record::{self, Record, Stage};
use crate::show;
use serde_json::json;
use snapshot::keeper::Target;
use snapshot::status::{StubNode, StubState};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use xen_drivers::xenstore::Nodes;
use xen_hypercall::types::{DomHandle, DomId};

/// A guest that took the request may still be about to suspend: how long to look for it.
const LATE: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// What was done for one record.
#[derive(Debug, Default)]
struct Deeds {
    done: Vec<String>,
    left: Vec<String>,
}

impl Deeds {
    fn note(&mut self, what: &str, result: Result<(), impl std::fmt::Display>) {
        match result {
            Ok(()) => self.done.push(what.to_owned()),
            Err(error) => self.left.push(format!("{what}: {error}")),
        }
    }
}

/// Recovers all that can be.
pub fn run(place: &Place) -> Outcome {
    let shown = all()?;
    let bad = shown.iter().filter(|(_, deeds)| !deeds.left.is_empty()).count();
    if place.json {
        let list = shown.iter().map(|(guest, deeds)| json!({ "guest": guest, "done": deeds.done, "left": deeds.left }));
        show::print_json(&list.collect())?;
    } else if shown.is_empty() {
        show::print("nothing to recover")?;
    } else {
        for (guest, deeds) in &shown {
            let left = deeds.left.iter().map(|what| format!("NOT DONE: {what}"));
            let all: Vec<String> = deeds.done.iter().cloned().chain(left).collect();
            show::print(&format!("{guest}: {}", all.join("; ")))?;
        }
    }
    match bad {
        0 => Ok(()),
        _ => Err(Exit::Stuck.fail("something is left to recover").hint("see above; then run `livesave recover` again")),
    }
}

/// After a keeper was killed under a take: recovers at once. True: nothing is left.
pub fn at_once() -> bool {
    all().is_ok_and(|shown| shown.iter().all(|(_, deeds)| deeds.left.is_empty()))
}

fn all() -> Outcome<Vec<(String, Deeds)>> {
    let dir = files::make_run_dir()?;
    let records = record::all(&dir).map_err(|error| Exit::Internal.fail(format_args!("{}: {error}", dir.display())))?;
    let each = records.into_iter().map(|(path, record)| match record {
        Ok(record) => Ok((record.job.guest.clone(), of_record(&path, &record)?)),
        Err(error) => Ok((path.display().to_string(), Deeds { left: vec![error], ..Deeds::default() })),
    });
    each.collect()
}

fn of_record(path: &Path, record: &Record) -> Outcome<Deeds> {
    let mut deeds = Deeds::default();
    let (Some((domid, handle)), Some(stub)) = (record.job.target(), record.job.stub()) else { return Ok(deeds) };
    let Some(_lock) = files::lock(&format!("guest-{handle}"))? else {
        deeds.done.push(format!("its keeper {} is alive, nothing to do", record.pid));
        return Ok(deeds);
    };
    let (xen, mut store) = (Xen::open()?, tree::connect()?);
    if xen.target(domid, handle) == Target::Gone {
        deeds.done.push("the guest is gone".to_owned());
    } else {
        if record.stage == Stage::Asked {
            resume(&xen, &mut store, domid, handle, &mut deeds);
        }
        deeds.note("suspends are announced again", xen.silence(domid, handle, false));
        tracking(&xen, &mut store, (domid, handle), stub, &record.job.guest, &mut deeds);
    }
    if deeds.left.is_empty() {
        deeds.note("record removed", std::fs::remove_file(path));
    }
    Ok(deeds)
}

/// Resumes the guest if it stands by our request; takes back a request that it has not seen.
fn resume(xen: &Xen, store: &mut XenStore, domid: DomId, handle: DomHandle, deeds: &mut Deeds) {
    let path = format!("/local/domain/{domid}/control/shutdown");
    let standing = store.transaction(|t| {
        let standing = t.find_text(&path)?.as_deref() == Some("suspend");
        let foreign = standing && xen.target(domid, handle) == Target::Suspended;
        if standing {
            t.write(&path, "")?;
        }
        Ok((standing, foreign))
    });
    match standing {
        Ok((_, true)) => {
            deeds.done.push("the guest stands by another tool's suspend: left alone, our request withdrawn".to_owned())
        }
        Ok((true, false)) => deeds.done.push("the request was withdrawn before the guest took it".to_owned()),
        Ok((false, _)) => resume_when_it_stands(xen, store, domid, handle, deeds),
        Err(error) => deeds.left.push(format!("whether the guest took the request: {error}")),
    }
}

fn resume_when_it_stands(xen: &Xen, store: &mut XenStore, domid: DomId, handle: DomHandle, deeds: &mut Deeds) {
    let until = Instant::now() + LATE;
    while xen.target(domid, handle) != Target::Suspended {
        if Instant::now() >= until {
            deeds.done.push("the guest runs".to_owned());
            return;
        }
        thread::sleep(LOOK);
    }
    let resumed = xen.resume(domid, handle).map(drop);
    let runs = resumed.is_ok();
    deeds.note("the guest was resumed", resumed);
    if runs {
        deeds.note("xenstored was told", store.resume(domid));
    }
}

/// Switches log-dirty off, unless somebody who lives uses it.
fn tracking(
    xen: &Xen,
    store: &mut XenStore,
    (domid, _): (DomId, DomHandle),
    stub: (DomId, DomHandle),
    guest: &str,
    deeds: &mut Deeds,
) {
    if let Some(saver) = xl::saver_of(domid.raw(), guest) {
        deeds.done.push(format!("dirty tracking left to {saver}"));
        return;
    }
    match stub_at_work(xen, store, stub) {
        Ok(true) => deeds
            .left
            .push("the stub is at work: its dirty tracking is its own; recover again when it is idle".to_owned()),
        Err(error) => deeds.left.push(format!("what the stub does: {error}")),
        Ok(false) => match xen.log_dirty_on(domid) {
            Ok(true) => deeds.note("dirty tracking switched off", xen.log_dirty_off(domid)),
            Ok(false) => deeds.done.push("dirty tracking is off".to_owned()),
            Err(error) => deeds.left.push(format!("dirty tracking: {error}")),
        },
    }
}

fn stub_at_work(xen: &Xen, store: &mut XenStore, (domid, handle): (DomId, DomHandle)) -> Result<bool, String> {
    if xen.target(domid, handle) != Target::Running {
        return Ok(false);
    }
    let text =
        store.find_text(&format!("/local/domain/{domid}/data/livesave/stub")).map_err(|error| error.to_string())?;
    let node = text.and_then(|text| StubNode::parse(text.as_bytes()).ok());
    Ok(node.is_some_and(|node| node.state == StubState::Busy))
}
