//! `livesave recover`: undoes what a killed keeper, or a stub that died, left behind.
//!
//! It acts on the keepers' records only, and only on guests whose keeper is dead. A guest that stands is resumed only
//! if the record says that we asked and xenstore says that the guest took our request. Doing it twice is harmless.

use super::status;
use crate::args::Place;
use crate::exit::{Exit, Outcome};
use crate::host::tree::{self, XenStore};
use crate::host::xen::Xen;
use crate::host::{files, xl};
use crate::keeper::hook::{self, Phase};
use crate::keeper::keepoff;
use crate::keeper::record::{self, Record, Stage};
use crate::marks::{self, Deed};
use crate::show;
use serde_json::json;
use snapshot::keeper::{Deadlines, Target};
use snapshot::status::{State, Status, StubNode, StubState};
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
    fn of(deed: Deed) -> Option<Self> {
        match deed {
            Deed::Nothing => None,
            Deed::Done(what) => Some(Self { done: vec![what], left: Vec::new() }),
            Deed::Left(what) => Some(Self { done: Vec::new(), left: vec![what] }),
        }
    }

    fn note(&mut self, what: &str, result: Result<(), impl std::fmt::Display>) {
        match result {
            Ok(()) => self.done.push(what.to_owned()),
            Err(error) => self.left.push(format!("{what}: {error}")),
        }
    }
}

/// Recovers all that can be.
pub fn run(place: &Place) -> Outcome {
    let shown = all(None)?;
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

/// Lets others in where guests that were guarded are tracked no more, if there are any.
pub fn end_guards() {
    if files::make_run_dir().is_ok_and(|dir| marks::guards(&dir)) {
        guard_ended();
    }
}

/// The same after a guard's mark may be gone already. What cannot be done now `doctor` finds.
pub fn guard_ended() {
    let Ok(dir) = files::make_run_dir() else { return };
    let _ = marks::settle_all();
    let _ = let_others(&dir);
}

/// Recovers the guest of this handle at once: its keeper was killed, or an earlier take of it left something. True:
/// nothing of it is left. What is wrong with other guests is no reason to fail.
pub fn at_once(handle: &str) -> bool {
    all(Some(handle)).is_ok_and(|shown| shown.iter().all(|(_, deeds)| deeds.left.is_empty()))
}

/// Of one guest, or of all: a record that cannot be read may be anybody's.
fn all(only: Option<&str>) -> Outcome<Vec<(String, Deeds)>> {
    let dir = files::make_run_dir()?;
    let records = record::all(&dir).map_err(|error| Exit::Internal.fail(format_args!("{}: {error}", dir.display())))?;
    let ours = |record: &Result<Record, String>| match (only, record) {
        (Some(handle), Ok(record)) => record.job.handle == handle,
        (Some(_), Err(_)) => false,
        (None, _) => true,
    };
    let each = records.into_iter().filter(|(_, record)| ours(record)).map(|(path, record)| match record {
        Ok(record) => Ok((record.job.guest.clone(), of_guest(&path, &record)?)),
        Err(error) => Ok((path.display().to_string(), Deeds { left: vec![error], ..Deeds::default() })),
    });
    let mut shown = each.collect::<Outcome<Vec<_>>>()?;
    let settled = marks::settle_all()?.into_iter().filter(|(handle, ..)| only.is_none_or(|only| only == handle));
    shown.extend(settled.filter_map(|(_, guest, deed)| Some((guest, Deeds::of(deed)?))));
    shown.extend(let_others(&dir).map(|deeds| ("other tools".to_owned(), deeds)));
    Ok(shown)
}

/// Acts on the record as it is once nobody else can change it: a recovery at the same time, or a keeper that was just
/// ending, may have done all that the first look found undone.
fn of_guest(path: &Path, seen: &Record) -> Outcome<Deeds> {
    let mut deeds = Deeds::default();
    let Some((_, handle)) = seen.job.target() else { return Ok(deeds) };
    let Some(_lock) = files::lock(&format!("guest-{handle}"))? else {
        deeds.done.push(format!("its keeper {} is alive, nothing to do", seen.pid));
        return Ok(deeds);
    };
    match record::read(path) {
        Ok(Some(record)) => of_record(path, &record),
        Ok(None) => {
            deeds.done.push("recovered by another, nothing to do".to_owned());
            Ok(deeds)
        }
        Err(error) => {
            deeds.left.push(error);
            Ok(deeds)
        }
    }
}

/// The caller holds the guest's lock.
fn of_record(path: &Path, record: &Record) -> Outcome<Deeds> {
    let mut deeds = Deeds::default();
    let (Some((domid, handle)), Some(stub)) = (record.job.target(), record.job.stub()) else { return Ok(deeds) };
    let (xen, mut store) = (Xen::open()?, tree::connect()?);
    if xen.target(domid, handle) == Target::Gone {
        deeds.done.push("the guest is gone".to_owned());
    } else {
        let asked = matches!(record.stage, Stage::Asked | Stage::Standing);
        let awaited = asked && !resume(&xen, &mut store, record, (domid, handle), &mut deeds);
        // A suspend that is still to come has to be as silent as any of ours: xl's monitor of the guest ends at it.
        if !awaited {
            deeds.note("suspends are announced again", xen.silence(domid, handle, false));
        }
        if asked && !awaited {
            // The next recovery, if one is needed, must not wait for a suspend that has been.
            deeds.note("the request is settled", record::settle(path, record));
        }
        if let Some(cap) = record.cap {
            deeds.note("the guest has its CPU cap back", xen.set_cpu_cap(domid, handle, cap.into()));
        }
        tracking(&xen, &mut store, (domid, handle), stub, &record.job.guest, &mut deeds);
    }
    if record.hooked && deeds.left.is_empty() {
        tell_hook(path, record, &mut store, stub.0, &mut deeds);
    }
    if deeds.left.is_empty() {
        deeds.note("record removed", std::fs::remove_file(path));
    }
    Ok(deeds)
}

/// Resumes the guest if it stands by our request; takes back a request that it has not seen. False: the request may
/// still make it suspend, or makes it stand.
fn resume(
    xen: &Xen,
    store: &mut XenStore,
    record: &Record,
    (domid, handle): (DomId, DomHandle),
    deeds: &mut Deeds,
) -> bool {
    if record.stage == Stage::Standing {
        // The request is used up: a word that stands there now is not ours.
        return Taken { xen, store, record, guest: (domid, handle) }.resume(deeds);
    }
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
            deeds.done.push("the guest stands by another tool's suspend: left alone, our request withdrawn".to_owned());
        }
        Ok((true, false)) => deeds.done.push("the request was withdrawn before the guest took it".to_owned()),
        Ok((false, _)) => return Taken { xen, store, record, guest: (domid, handle) }.resume(deeds),
        Err(error) => {
            deeds.left.push(format!("whether the guest took the request: {error}"));
            return false;
        }
    }
    true
}

/// A guest that took our request.
struct Taken<'a> {
    xen: &'a Xen,
    store: &'a mut XenStore,
    record: &'a Record,
    guest: (DomId, DomHandle),
}

impl Taken<'_> {
    /// Resumes it. If it has not suspended by now it still may, for as long as a keeper would have watched for it:
    /// until then the record stays, so that the next recovery finds it.
    fn resume(self, deeds: &mut Deeds) -> bool {
        let (domid, handle) = self.guest;
        let until = Instant::now() + LATE;
        while self.xen.target(domid, handle) != Target::Suspended {
            let awaited = still_awaited(self.record, record::uptime());
            if awaited.is_none() || Instant::now() >= until {
                let Some(seconds) = awaited else {
                    deeds.done.push("the guest runs".to_owned());
                    return true;
                };
                deeds.left.push(format!(
                    "the guest took the suspend request and runs still: should it suspend late, recover again; after \
                     {seconds} s it is not waited for any more"
                ));
                return false;
            }
            thread::sleep(LOOK);
        }
        if let Some(saver) = xl::saver_of(domid.raw(), &self.record.job.guest) {
            // It may stand for that by now, and what is saved must not go on meanwhile.
            deeds
                .left
                .push(format!("the guest stands, and {saver} is at work on it: recover again when that has ended"));
            return false;
        }
        let resumed = self.xen.resume(domid, handle).map(drop);
        let runs = resumed.is_ok();
        deeds.note("the guest was resumed", resumed);
        if runs {
            deeds.note("xenstored was told", self.store.resume(domid));
        }
        runs
    }
}

/// For how many seconds a suspend by the record's request is still to be reckoned with.
fn still_awaited(record: &Record, now: u64) -> Option<u64> {
    if record.stage == Stage::Standing {
        return None;
    }
    let end = record.asked?.saturating_add(Deadlines::LIVE.late.as_secs());
    end.checked_sub(now).filter(|left| *left > 0)
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
        Ok(false) if stub_tracks(store, stub.0, domid) => {
            deeds.done.push("dirty tracking is the stub's, for the next incremental snapshot".to_owned());
        }
        Ok(false) => match marks::switch_off(xen, domid) {
            Ok(true) => deeds.done.push("dirty tracking switched off".to_owned()),
            Ok(false) => deeds.done.push("dirty tracking is off".to_owned()),
            Err(error) => deeds.left.push(format!("dirty tracking: {error}")),
        },
    }
}

/// Does the stub say that the guest stays tracked between its snapshots?
fn stub_tracks(store: &mut XenStore, stub: DomId, guest: DomId) -> bool {
    let text = store.find_text(&format!("/local/domain/{stub}/data/livesave/stub")).ok().flatten();
    let node = text.and_then(|text| StubNode::parse(text.as_bytes()).ok());
    node.is_some_and(|node| marks::tracks(&node, guest.raw()))
}

/// The hook hears what became of the snapshot, as from a keeper that lives. Its failure keeps nothing: like there.
fn tell_hook(path: &Path, record: &Record, store: &mut XenStore, stub: DomId, deeds: &mut Deeds) {
    let text = store.find_text(&format!("/local/domain/{stub}/data/livesave/status"));
    let status = text.ok().flatten().and_then(|text| Status::parse(text.as_bytes()).ok());
    let phase = fate(record, status.as_ref());
    deeds.done.push(match hook::conclude(phase, &record.job, &Record::disks_beside(path)) {
        Ok(()) => format!("the hook was told `{}`", phase.word()),
        Err(error) => error,
    });
}

/// What became of the take of a dead keeper, as far as it can be known: without a resume there was no verdict.
fn fate(record: &Record, status: Option<&Status>) -> Phase {
    let last = status.filter(|status| Some(status.token) == record.job.session()).map(|status| status.state);
    match last {
        Some(State::Sealed) => Phase::Sealed,
        Some(state) if state.is_final() => Phase::Failed,
        _ if matches!(record.stage, Stage::Watching | Stage::Silenced | Stage::Asked) => Phase::Failed,
        _ => Phase::Unknown,
    }
}

/// Whom a dead keeper keeps off is let in again, whatever became of its record.
fn let_others(dir: &Path) -> Option<Deeds> {
    let mut deeds = Deeds::default();
    // Where Xen cannot be reached there is nothing to reset.
    let xen = Xen::open().ok()?;
    let settled = keepoff::settle(dir, &xen, marks::guards, |record| status::lives(record).unwrap_or(true));
    match settled {
        Ok(false) => return None,
        Ok(true) => deeds.done.push("saves and migrations are possible again".to_owned()),
        Err(error) => deeds.left.push(format!("saves and migrations may be refused still: {error}")),
    }
    Some(deeds)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn left() -> Record {
        let job = record::tests::job();
        let (pid, version) = (1, record::VERSION);
        Record { version, pid, stage: Stage::Asked, asked: Some(1000), job, cap: None, keeps_off: false, hooked: true }
    }

    #[test]
    fn a_hook_hears_only_what_is_known() {
        let mut record = left();
        let says = |token: &str, state: &str| {
            let text = format!("token={token}\nstate={state}\n");
            Status::parse(text.as_bytes()).ok()
        };
        let ours = |state: &str| says(&left().job.token, state);
        assert!(ours("sealed").is_some(), "the test's own words are right");
        assert_eq!(fate(&record, None), Phase::Failed, "nobody had resumed it, so nobody had let the stub seal");
        assert_eq!(fate(&record, ours("void").as_ref()), Phase::Failed);
        record.stage = Stage::Standing;
        assert_eq!(fate(&record, None), Phase::Unknown, "the verdict may have been given");
        assert_eq!(fate(&record, ours("flushing").as_ref()), Phase::Unknown);
        assert_eq!(fate(&record, ours("sealed").as_ref()), Phase::Sealed);
        let other = says("ffffffffffffffffffffffffffffffff", "sealed");
        assert_eq!(fate(&record, other.as_ref()), Phase::Unknown, "another take's word");
    }

    #[test]
    fn a_guest_that_was_asked_is_reckoned_with_as_long_as_by_a_keeper() {
        let mut record = left();
        assert_eq!(still_awaited(&record, 1030), Some(570));
        assert_eq!(still_awaited(&record, 1600), None);
        assert_eq!(still_awaited(&record, 9000), None);
        record.stage = Stage::Standing;
        assert_eq!(still_awaited(&record, 1030), None, "it has suspended: it runs because it was resumed");
        record.stage = Stage::Asked;
        record.asked = None;
        assert_eq!(still_awaited(&record, 0), None);
    }
}
