//! Keeps `xl save`, `xl migrate` and their like off the targets while a take runs, by a boolean of the FLASK policy
//! (`livesave_taking`, see flask/README.md), so that they fail before they touch the guest.
//!
//! The boolean is one for the host; the keepers' records say who needs it, and the marks of guests that are guarded
//! while they stay tracked. It is set after the record says so, and reset when nobody needs it, both under one lock. It
//! is never set beside a save or migration that runs: what that tool has begun it must be able to end. Where it cannot
//! be set the take gives way, as it did without it.

use super::record::{self, RecordFile};
use crate::host::files;
use crate::host::xen::Xen;
use crate::host::xl;
use std::io;
use std::path::Path;
use xen_hypercall::types::DomId;

/// The lock's name, in the directory of the records.
const LOCK: &str = "taking";

/// What is done to the hypervisor here, so that the order can be tested without one.
pub trait Boolean {
    /// The boolean; None if there is none.
    fn get(&self) -> Result<Option<bool>, String>;
    /// Sets it.
    fn set(&self, on: bool) -> Result<(), String>;
}

impl Boolean for Xen {
    fn get(&self) -> Result<Option<bool>, String> {
        self.taking().map_err(|error| error.to_string())
    }

    fn set(&self, on: bool) -> Result<(), String> {
        self.set_taking(on).map_err(|error| error.to_string())
    }
}

fn text(error: io::Error) -> String {
    error.to_string()
}

/// For the directory of a record.
fn dir_of(record: &RecordFile) -> &Path {
    record.path().parent().unwrap_or(Path::new("/"))
}

/// Keeps other tools off from now on. An error says why they are not.
pub fn begin(xen: &Xen, target: DomId, record: &mut RecordFile) -> Result<(), String> {
    if let Some(saver) = xl::any_saver() {
        return Err(format!("another guest is being saved or migrated: {saver}"));
    }
    set(xen, record)?;
    // A permissive hypervisor, or a guest type that has Xen's own rule: nothing is withheld.
    if xen.keeps_tools_off(target) {
        return Ok(());
    }
    end(xen, record, |_| false)?;
    Err("the policy withholds nothing for this guest".to_owned())
}

fn set(boolean: &impl Boolean, record: &mut RecordFile) -> Result<(), String> {
    let _lock = files::hold(dir_of(record), LOCK).map_err(text)?;
    if boolean.get()?.is_none() {
        return Err("the policy has no boolean for it".to_owned());
    }
    record.set_keeps_off(true).map_err(text)?;
    boolean.set(true)
}

/// This take needs it no more; `guarded` says whether somebody else than a take does. Done once; after an error the
/// record still says that it is to be done.
pub fn end(boolean: &impl Boolean, record: &mut RecordFile, guarded: impl Fn(&Path) -> bool) -> Result<(), String> {
    if !record.keeps_off() {
        return Ok(());
    }
    let dir = dir_of(record).to_owned();
    let _lock = files::hold(&dir, LOCK).map_err(text)?;
    let others = record::all(&dir).map_err(text)?;
    let needed = others.iter().any(|(path, other)| path != record.path() && other.as_ref().is_ok_and(|r| r.keeps_off));
    if !needed && !guarded(&dir) {
        boolean.set(false)?;
    }
    record.set_keeps_off(false).map_err(text)
}

/// Runs `work`, which switches dirty tracking off, with nothing withheld from dom0.
pub fn lifted<T>(dir: &Path, boolean: &impl Boolean, work: impl FnOnce() -> T) -> Result<T, String> {
    let _lock = files::hold(dir, LOCK).map_err(text)?;
    let was = boolean.get()? == Some(true);
    if was {
        boolean.set(false)?;
    }
    let done = work();
    if was {
        boolean.set(true)?;
    }
    Ok(done)
}

/// Resets what dead keepers left: the boolean is on, no keeper that `lives` needs it, and no guest is `guarded`. True:
/// it was reset.
pub fn settle(
    dir: &Path,
    boolean: &impl Boolean,
    guarded: impl Fn(&Path) -> bool,
    lives: impl Fn(&record::Record) -> bool,
) -> Result<bool, String> {
    let _lock = files::hold(dir, LOCK).map_err(text)?;
    let records = record::all(dir).map_err(text)?;
    let needed = records.iter().any(|(_, record)| record.as_ref().is_ok_and(|r| r.keeps_off && lives(r)));
    if needed || guarded(dir) || boolean.get()? != Some(true) {
        return Ok(false);
    }
    boolean.set(false).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::record::tests::job;
    use std::cell::RefCell;
    use std::path::PathBuf;

    /// A boolean that remembers, or a policy without one.
    struct Fake(RefCell<Option<bool>>);

    impl Boolean for Fake {
        fn get(&self) -> Result<Option<bool>, String> {
            Ok(*self.0.borrow())
        }

        fn set(&self, on: bool) -> Result<(), String> {
            self.0.borrow_mut().as_mut().map(|value| *value = on).ok_or_else(|| "none".to_owned())
        }
    }

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("livesave-keepoff-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn record(dir: &Path, digit: &str) -> RecordFile {
        let job = crate::keeper::words::Job { token: digit.repeat(32), ..job() };
        RecordFile::create(dir, &job).unwrap()
    }

    #[test]
    fn the_last_of_two_takes_resets_it() {
        let (dir, xen) = (dir("two"), Fake(RefCell::new(Some(false))));
        let (mut one, mut two) = (record(&dir, "1"), record(&dir, "2"));
        set(&xen, &mut one).unwrap();
        set(&xen, &mut two).unwrap();
        end(&xen, &mut one, |_| false).unwrap();
        assert_eq!(xen.get(), Ok(Some(true)), "the other still needs it");
        end(&xen, &mut one, |_| false).unwrap();
        end(&xen, &mut two, |_| false).unwrap();
        assert_eq!(xen.get(), Ok(Some(false)));
        assert!(!one.keeps_off() && !two.keeps_off());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_policy_without_it_is_an_answer_and_leaves_no_trace() {
        let (dir, xen) = (dir("none"), Fake(RefCell::new(None)));
        let mut one = record(&dir, "1");
        assert!(set(&xen, &mut one).is_err());
        assert!(!one.keeps_off());
        assert_eq!(lifted(&dir, &xen, || 7), Ok(7));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn tracking_is_switched_off_with_nothing_withheld_and_then_all_is_as_before() {
        let (dir, xen) = (dir("lifted"), Fake(RefCell::new(Some(true))));
        assert_eq!(lifted(&dir, &xen, || xen.get()), Ok(Ok(Some(false))));
        assert_eq!(xen.get(), Ok(Some(true)));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_a_dead_keeper_left_is_reset_and_what_a_living_one_needs_is_not() {
        let (dir, xen) = (dir("dead"), Fake(RefCell::new(Some(false))));
        let mut one = record(&dir, "1");
        set(&xen, &mut one).unwrap();
        assert_eq!(settle(&dir, &xen, |_| false, |_| true), Ok(false));
        assert_eq!(xen.get(), Ok(Some(true)));
        assert_eq!(settle(&dir, &xen, |_| false, |_| false), Ok(true));
        assert_eq!(xen.get(), Ok(Some(false)));
        assert_eq!(settle(&dir, &xen, |_| false, |_| false), Ok(false));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_guarded_guest_needs_it_when_all_takes_have_ended() {
        let (dir, xen) = (dir("guarded"), Fake(RefCell::new(Some(false))));
        let mut one = record(&dir, "1");
        set(&xen, &mut one).unwrap();
        end(&xen, &mut one, |_| true).unwrap();
        assert_eq!((one.keeps_off(), xen.get()), (false, Ok(Some(true))));
        assert_eq!(settle(&dir, &xen, |_| true, |_| false), Ok(false));
        assert_eq!(settle(&dir, &xen, |_| false, |_| false), Ok(true));
        assert_eq!(xen.get(), Ok(Some(false)));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
