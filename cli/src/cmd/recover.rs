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
use snapshot::keeper::{self, Deeds, Dom0, Left, Request, StubNow, Target};
use snapshot::status::{State, Status, StubNode, StubState};
use std::path::Path;
use std::thread;
use std::time::Duration;
use xen_drivers::xenstore::Nodes;
use xen_hypercall::types::{DomHandle, DomId};

/// Between two looks at a guest that may still suspend.
const LOOK: Duration = Duration::from_millis(10);

fn deeds_of(deed: Deed) -> Option<Deeds> {
    match deed {
        Deed::Nothing => None,
        Deed::Done(what) => Some(Deeds { done: vec![what], left: Vec::new() }),
        Deed::Left(what) => Some(Deeds { done: Vec::new(), left: vec![what] }),
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
    shown.extend(settled.filter_map(|(_, guest, deed)| Some((guest, deeds_of(deed)?))));
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
    let (Some(guest), Some(stub)) = (record.job.target(), record.job.stub()) else { return Ok(Deeds::default()) };
    let mut hands = Hands { xen: Xen::open()?, store: tree::connect()?, path, record, guest, stub };
    let mut deeds = keeper::recover(&left_by(record), &mut hands);
    if record.hooked && deeds.left.is_empty() {
        tell_hook(path, record, &mut hands.store, stub.0, &mut deeds);
    }
    if deeds.left.is_empty() {
        deeds.note("record removed", std::fs::remove_file(path));
    }
    Ok(deeds)
}

fn left_by(record: &Record) -> Left {
    Left { mark: record.stage.mark(), asked_s: record.asked, capped: record.cap.is_some() }
}

/// The hands of a recovery.
struct Hands<'a> {
    xen: Xen,
    store: XenStore,
    path: &'a Path,
    record: &'a Record,
    guest: (DomId, DomHandle),
    stub: (DomId, DomHandle),
}

impl Dom0 for Hands<'_> {
    type Error = String;

    fn target(&mut self) -> Target {
        self.xen.target(self.guest.0, self.guest.1)
    }

    fn take_back(&mut self) -> Result<Request, String> {
        let path = format!("/local/domain/{}/control/shutdown", self.guest.0);
        let (xen, (domid, handle)) = (&self.xen, self.guest);
        let found = self.store.transaction(|t| {
            if t.find_text(&path)?.as_deref() != Some("suspend") {
                return Ok(Request::Taken);
            }
            let foreign = xen.target(domid, handle) == Target::Suspended;
            t.write(&path, "")?;
            Ok(if foreign { Request::Foreign } else { Request::Withdrawn })
        });
        found.map_err(|error| error.to_string())
    }

    fn saver(&mut self) -> Option<String> {
        xl::saver_of(self.guest.0.raw(), &self.record.job.guest).map(|saver| saver.to_string())
    }

    fn resume(&mut self) -> Result<(), String> {
        self.xen.resume(self.guest.0, self.guest.1).map(drop).map_err(|error| error.to_string())
    }

    fn tell_xenstore(&mut self) -> Result<(), String> {
        self.store.resume(self.guest.0).map_err(|error| error.to_string())
    }

    fn unsilence(&mut self) -> Result<(), String> {
        self.xen.silence(self.guest.0, self.guest.1, false).map_err(|error| error.to_string())
    }

    fn settle(&mut self) -> Result<(), String> {
        record::settle(self.path, self.record).map_err(|error| error.to_string())
    }

    fn put_cap_back(&mut self) -> Result<(), String> {
        let Some(cap) = self.record.cap else { return Ok(()) };
        self.xen.set_cpu_cap(self.guest.0, self.guest.1, cap.into()).map_err(|error| error.to_string())
    }

    fn stub(&mut self) -> Result<StubNow, String> {
        let at_work = stub_at_work(&self.xen, &mut self.store, self.stub)?;
        Ok(match at_work {
            true => StubNow::AtWork,
            false if stub_tracks(&mut self.store, self.stub.0, self.guest.0) => StubNow::Tracks,
            false => StubNow::Nothing,
        })
    }

    fn tracking_off(&mut self) -> Result<bool, String> {
        marks::switch_off(&self.xen, self.guest.0)
    }

    fn uptime(&mut self) -> Duration {
        record::since_boot()
    }

    fn rest(&mut self) {
        thread::sleep(LOOK);
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
        assert_eq!(keeper::still_awaited(&left_by(&record), 1030), Some(570));
        assert_eq!(keeper::still_awaited(&left_by(&record), 1600), None);
        assert_eq!(keeper::still_awaited(&left_by(&record), 9000), None);
        record.stage = Stage::Standing;
        assert_eq!(
            keeper::still_awaited(&left_by(&record), 1030),
            None,
            "it has suspended: it runs because it was resumed"
        );
        record.stage = Stage::Asked;
        record.asked = None;
        assert_eq!(keeper::still_awaited(&left_by(&record), 0), None);
    }
}
