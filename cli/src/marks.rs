//! Guests that stay tracked between their incremental snapshots, noted in dom0: a stub that dies takes its knowledge
//! with it, and leaves the tracking on.
//!
//! A mark is written and synced before the request that may leave tracking on, one for each guest, and removed when the
//! stub lives and says that it tracks the guest no more, or when what a dead one left was switched off. It says whose
//! the tracking was, never that it is on. Like the guests it does not outlive the host's boot. Tracking is switched off
//! under the guest's lock, and never while somebody saves or migrates the guest: then it belongs to that.

use crate::exit::{Exit, Outcome};
use crate::host::tree::{self, Tree, XenStore};
use crate::host::xen::Xen;
use crate::host::{files, xl};
use crate::keeper::keepoff;
use crate::keeper::words::Job;
use serde::{Deserialize, Serialize};
use snapshot::keeper::Target;
use snapshot::request::parse_uuid;
use snapshot::status::{StubNode, StubState};
use std::io;
use std::path::{Path, PathBuf};
use xen_hypercall::types::{DomHandle, DomId};

/// How the files end.
const EXTENSION: &str = "tracked";
/// The form that this program writes and reads.
const VERSION: u32 = 1;

/// One guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    version: u32,
    /// The guest's name.
    pub guest: String,
    /// The guest.
    pub domid: u16,
    handle: String,
    /// Name of the stub's domain.
    pub stub: String,
    /// The stub.
    pub stub_domid: u16,
    stub_handle: String,
    /// Other tools are to be kept off for as long.
    guard: bool,
}

/// What a mark means by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The stub lives and says that it tracks the guest.
    Tracked,
    /// The stub is in the middle of something: it will say.
    AtWork,
    /// The stub is gone or dead: tracking may have been left on.
    LeftOn,
    /// The guest is gone, or the stub tracks it no more.
    Over,
}

/// What was done about a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Nothing was to be done.
    Nothing,
    /// For people: what a dead stub had left is gone.
    Done(String),
    /// For people: why it is there still.
    Left(String),
}

impl Mark {
    /// That `stub` may leave the guest of this take tracked.
    fn of(job: &Job, stub: &str, guard: bool) -> Self {
        Self {
            version: VERSION,
            guest: job.guest.clone(),
            domid: job.domid,
            handle: job.handle.clone(),
            stub: stub.to_owned(),
            stub_domid: job.stub_domid,
            stub_handle: job.stub_handle.clone(),
            guard,
        }
    }

    /// Writes it, durably.
    fn write(&self, dir: &Path) -> Outcome {
        let path = self.path(dir);
        let written = serde_json::to_vec(self).map_err(io::Error::from).and_then(|text| files::replace(&path, &text));
        written.map_err(|error| Exit::CannotWrite.fail(format_args!("{}: {error}", path.display())))
    }

    /// Removes it.
    fn forget(&self, dir: &Path) {
        // One that stays is looked at again.
        let _ = std::fs::remove_file(self.path(dir));
    }

    /// Is it by this stub?
    fn is_by(&self, job: &Job) -> bool {
        self.stub_domid == job.stub_domid && self.stub_handle == job.stub_handle
    }

    /// Is it of this guest?
    fn is_of(&self, handle: &str) -> bool {
        self.handle == handle
    }

    fn path(&self, dir: &Path) -> PathBuf {
        dir.join(&self.handle).with_extension(EXTENSION)
    }

    fn ids(&self) -> Option<[(DomId, DomHandle); 2]> {
        let id = |domid, handle: &str| Some((DomId::new(domid), parse_uuid(handle)?));
        Some([id(self.domid, &self.handle)?, id(self.stub_domid, &self.stub_handle)?])
    }

    /// What it means by now. `alive` says of a domain what Xen does.
    pub fn standing(
        &self,
        tree: &mut impl Tree,
        alive: impl Fn(DomId, DomHandle) -> Target,
    ) -> Result<Standing, String> {
        let Some([guest, stub]) = self.ids() else { return Ok(Standing::Over) };
        if alive(guest.0, guest.1) == Target::Gone {
            return Ok(Standing::Over);
        }
        if alive(stub.0, stub.1) != Target::Running {
            return Ok(Standing::LeftOn);
        }
        let text = tree.get(&format!("/local/domain/{}/data/livesave/stub", stub.0)).map_err(|e| e.to_string())?;
        let node = text.and_then(|text| StubNode::parse(text.as_bytes()).ok());
        Ok(match node {
            Some(node) if tracks(&node, self.domid) => Standing::Tracked,
            Some(node) if matches!(node.state, StubState::Idle | StubState::Failed) => Standing::Over,
            _ => Standing::AtWork,
        })
    }

    /// Ends what is left of it.
    fn settle(&self, dir: &Path, xen: &Xen, store: &mut XenStore) -> Outcome<Deed> {
        let standing = |store: &mut XenStore| self.standing(store, |domid, handle| xen.target(domid, handle));
        let left = |why: String| Ok(Deed::Left(format!("tracking by the stub '{}': {why}", self.stub)));
        let Some(_lock) = files::lock(&format!("guest-{}", self.handle))? else { return Ok(Deed::Nothing) };
        match standing(store) {
            Ok(Standing::Tracked | Standing::AtWork) => return Ok(Deed::Nothing),
            Ok(Standing::Over) => {
                self.forget(dir);
                return Ok(Deed::Nothing);
            }
            Ok(Standing::LeftOn) => {}
            Err(error) => return left(error),
        }
        if let Some(saver) = xl::saver_of(self.domid, &self.guest) {
            return left(format!("left alone, it belongs to {saver} now"));
        }
        match switch_off(xen, DomId::new(self.domid)) {
            Ok(on) => {
                self.forget(dir);
                let was = if on { "was switched off" } else { "is off" };
                Ok(Deed::Done(format!("the dirty tracking that the stub '{}' left {was}", self.stub)))
            }
            Err(error) => left(error),
        }
    }
}

/// Switches tracking off if it is on. True: it was.
pub fn switch_off(xen: &Xen, domid: DomId) -> Result<bool, String> {
    match keepoff::lifted(&files::run_dir(), xen, || off(xen, domid)) {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(error) => Err(error),
    }
}

fn off(xen: &Xen, domid: DomId) -> xen_hypercall::Result<bool> {
    let on = xen.log_dirty_on(domid)?;
    if on { xen.log_dirty_off(domid).map(|()| true) } else { Ok(false) }
}

/// Does this stub say that it tracks the domain between its snapshots?
pub fn tracks(node: &StubNode, domid: u16) -> bool {
    node.armed.as_str().split(' ').any(|word| word == domid.to_string())
}

/// All marks; one that cannot be read is named by its path.
pub fn all(dir: &Path) -> Outcome<Vec<Result<Mark, String>>> {
    let trouble = |error: io::Error| Exit::Internal.fail(format_args!("{}: {error}", dir.display()));
    let mut marks = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(trouble)? {
        let path = entry.map_err(trouble)?.path();
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        let parsed = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => Err(error.to_string()),
        };
        let known = parsed.and_then(|mark: Mark| match mark.version {
            VERSION => Ok(mark),
            other => Err(format!("of version {other}, which this program does not know")),
        });
        marks.push(known.map_err(|error| format!("{}: {error}", path.display())));
    }
    Ok(marks)
}

/// The guest of this handle is tracked no more.
pub fn forget(handle: &str) -> Outcome {
    let dir = files::make_run_dir()?;
    all(&dir)?.into_iter().flatten().filter(|mark| mark.is_of(handle)).for_each(|mark| mark.forget(&dir));
    Ok(())
}

/// Notes that the stub of this take may leave its guest tracked. The keeper holds the guest's lock.
pub fn note(job: &Job, stub: &str, guard: bool) -> Outcome {
    Mark::of(job, stub, guard).write(&files::make_run_dir()?)
}

/// Are other tools to be kept off for some guest that may be tracked?
pub fn guards(dir: &Path) -> bool {
    all(dir).is_ok_and(|marks| marks.into_iter().flatten().any(|mark| mark.guard))
}

/// Refuses a take by another stub than the one that tracks the guest: its log-dirty is in use.
pub fn refuse_others(job: &Job, store: &mut XenStore, xen: &Xen) -> Outcome {
    let marks = all(&files::make_run_dir()?)?;
    let Some(mark) = marks.into_iter().flatten().find(|mark| mark.is_of(&job.handle) && !mark.is_by(job)) else {
        return Ok(());
    };
    let standing = mark.standing(store, |domid, handle| xen.target(domid, handle));
    match standing.map_err(|error| Exit::Internal.fail(error))? {
        Standing::LeftOn | Standing::Over => Ok(()),
        Standing::Tracked | Standing::AtWork => {
            let Mark { guest, stub, .. } = mark;
            let failure = Exit::LogDirtyOn.fail(format_args!("the guest '{guest}' stays tracked by the stub '{stub}'"));
            Err(failure.hint(format_args!("`livesave disarm {guest} --stub {stub}` ends that")))
        }
    }
}

/// Settles every mark whose stub is dead, and says what was done: of the guests, by name.
pub fn settle_all() -> Outcome<Vec<(String, String, Deed)>> {
    let dir = files::make_run_dir()?;
    let marks = all(&dir)?;
    if marks.is_empty() {
        return Ok(Vec::new());
    }
    let (xen, mut store) = (Xen::open()?, tree::connect()?);
    let settle = |mark: Result<Mark, String>| match mark {
        Ok(mark) => mark.settle(&dir, &xen, &mut store).map(|deed| (mark.handle, mark.guest, deed)),
        Err(error) => Ok((String::new(), "a mark of a tracked guest".to_owned(), Deed::Left(error))),
    };
    marks.into_iter().map(settle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tests::tree;
    use crate::keeper::record::tests::job;

    fn mark() -> Mark {
        Mark::of(&job(), "livesave", true)
    }

    #[test]
    fn a_mark_comes_back_and_its_ways_are_its_own() {
        let dir = std::env::temp_dir().join(format!("livesave-marks-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        mark().write(&dir).unwrap();
        std::fs::write(dir.join("x.tracked"), "rubbish").unwrap();
        std::fs::write(dir.join("x.json"), "{}").unwrap();
        let found = all(&dir).unwrap();
        assert_eq!(found.iter().flatten().collect::<Vec<_>>(), [&mark()]);
        assert_eq!(found.iter().filter(|one| one.is_err()).count(), 1, "{found:?}");
        assert!(mark().is_by(&job()) && mark().is_of(&job().handle));
        assert!(!mark().is_by(&Job { stub_domid: 77, ..job() }));
        assert!(guards(&dir));
        Mark::of(&job(), "livesave", false).write(&dir).unwrap();
        assert!(!guards(&dir), "the last word counts");
        mark().forget(&dir);
        assert_eq!(all(&dir).unwrap().iter().flatten().count(), 0);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn only_a_dead_stub_has_left_something_on() {
        let job = job();
        let (guest, stub) = (job.domid, job.stub_domid);
        let node = |state: &str, armed: &str| format!("protocol=1\nversion=1\nstate={state}\ndevice=\narmed={armed}\n");
        let path = format!("/local/domain/{stub}/data/livesave/stub");
        let standing = |text: &str, guest_is: Target, stub_is: Target| {
            let alive = |domid: DomId, _| if domid == DomId::new(guest) { guest_is } else { stub_is };
            mark().standing(&mut tree(&[(path.as_str(), text)]), alive).unwrap()
        };
        let (ours, others) = (format!("1{guest} {guest}"), format!("1{guest}"));
        let running = Target::Running;
        assert_eq!(standing(&node("idle", &ours), running, running), Standing::Tracked);
        assert_eq!(standing(&node("busy", &others), running, running), Standing::AtWork);
        assert_eq!(standing(&node("starting", ""), running, running), Standing::AtWork);
        assert_eq!(standing("rubbish", running, running), Standing::AtWork);
        assert_eq!(standing(&node("idle", &others), running, running), Standing::Over);
        for dead in [Target::Gone, Target::Stopped] {
            assert_eq!(standing(&node("idle", &ours), running, dead), Standing::LeftOn, "what it says counts no more");
        }
        assert_eq!(standing(&node("idle", &ours), Target::Gone, running), Standing::Over);
    }
}
