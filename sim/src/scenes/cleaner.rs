//! Requests that come while the cleaner has something under way.

use snapshot::store::{Store, StoreError};

use super::stock::{clean_some, is_whole, said, shared_guest, sharing, thin};
use crate::content::run;
use crate::disk::Disk;
use crate::history::{History, LONG};
use crate::judge::Verdict;

/// Steps after which the cleaner of this store has come to an end.
const STEPS: usize = 40;

type Request = fn(&mut History, &mut Store<Disk>) -> Result<(), StoreError>;

/// The request comes after each number of steps; then the cleaner goes on.
fn interrupted(start: &History, request: Request) -> Verdict {
    (0..STEPS).try_for_each(|steps| {
        let mut history = History::new(Disk::with(LONG, start.disk.image()), start.possible.clone());
        let mut store = history.open().map_err(said)?;
        clean_some(&mut store, steps)?;
        request(&mut history, &mut store).map_err(|error| format!("after {steps} steps: {error}"))?;
        history.clean(&mut store).map_err(said)?;
        let _ = history.take(&mut store, "last@1", &[run(0, 40, 9)]);
        is_whole(&history).map_err(|error| format!("after {steps} steps: {error}"))
    })
}

/// A take that shares what is being moved.
pub fn a_take_comes() -> Verdict {
    interrupted(&sharing(), |history, store| history.diff(store, "new@9", &[shared_guest()]))
}

/// A removal, after which the free map is made afresh: what the cleaner has used by then is free in it.
pub fn a_removal_comes() -> Verdict {
    interrupted(&thin(), |history, store| history.remove(store, "old@1"))
}
