//! Stores that several scenes begin with, and what they do with them.

use snapshot::store::{Store, StoreError};

use crate::content::{Run, run};
use crate::disk::Disk;
use crate::history::{History, LONG, ROOMY};
use crate::judge::{Verdict, whole};

/// An error in a sentence.
pub fn said(error: StoreError) -> String {
    error.to_string()
}

/// Of so many pages those that stay: three of each so many.
fn superseded(pages: u64, each: u64) -> Run {
    (0..pages).filter(|gfn| gfn % each > 2).map(|gfn| (gfn, Some(0))).collect()
}

/// A full segment, and a snapshot of which little is left in each of its segments.
pub fn sparse() -> History {
    History::with(ROOMY, &[("old@1", vec![run(0, 5, 1)]), ("new@1", sparse_runs())])
}

/// The runs of the second one.
pub fn sparse_runs() -> Vec<Run> {
    vec![run(0, 900, 2), superseded(900, 150)]
}

/// Pages of [`thin_runs`] that stay: one in four.
pub fn stays(gfn: u64) -> bool {
    gfn.is_multiple_of(4)
}

/// The runs of a snapshot whose rest takes the cleaner two batches.
pub fn thin_runs() -> [Run; 2] {
    [run(0, 1800, 2), (0..1800).filter(|gfn| !stays(*gfn)).map(|gfn| (gfn, Some(0))).collect()]
}

/// Such a snapshot, and a small one.
pub fn thin() -> History {
    History::with(LONG, &[("old@1", vec![run(0, 5, 1)]), ("new@1", thin_runs().to_vec())])
}

/// Three snapshots that share what is mostly superseded.
pub fn sharing() -> History {
    let mut guest = run(0, 900, 2);
    let mut history = History::with(LONG, &[("old@1", vec![guest.clone()])]);
    if let Ok(mut store) = history.open() {
        guest.extend(superseded(900, 90));
        let _ = history.diff(&mut store, "new@0", std::slice::from_ref(&guest));
        for number in 1..3 {
            guest.extend([(number, Some(70 + number)), (900 + number, Some(80 + number))]);
            let _ = history.diff(&mut store, &format!("new@{number}"), std::slice::from_ref(&guest));
        }
    }
    history.afresh()
}

/// What the newest one of [`sharing`] holds, and a little more.
pub fn shared_guest() -> Run {
    let mut guest = run(0, 900, 2);
    guest.extend(superseded(900, 90));
    guest.extend((1..3).flat_map(|number| [(number, Some(70 + number)), (900 + number, Some(80 + number))]));
    guest.extend([(5, Some(0)), (7, Some(99))]);
    guest
}

/// Takes until nothing fits any more, large and small ones.
pub fn fill_up(history: &mut History, store: &mut Store<Disk>) {
    for number in 0..8 {
        let _ =
            history.take(store, &format!("more@{number}"), &[run(0, if number < 4 { 300 } else { 40 }, 7 + number)]);
    }
}

/// So many steps of the cleaner.
pub fn clean_some(store: &mut Store<Disk>, steps: usize) -> Verdict {
    (0..steps).try_for_each(|_| store.clean_step().map(drop)).map_err(said)
}

/// What is on the disk now is what was promised, entire, and can be worked with.
pub fn is_whole(history: &History) -> Verdict {
    whole(history.blocks(), &history.disk.image(), &history.possible, true)
}
