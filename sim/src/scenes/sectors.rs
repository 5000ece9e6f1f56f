//! Sectors that cannot be read while the cleaner is at work. They cost their own snapshot, for as long as they are bad.

use snapshot::store::layout::ROOT_MAGIC;
use snapshot::store::{AttachmentKind, SealInfo, StoreError};

use super::stock::{clean_some, is_whole, said, sharing, sparse_runs, stays, thin, thin_runs};
use crate::content::{flatten, page, run};
use crate::disk::{Disk, Faults};
use crate::history::{History, LONG, fill, new, with};
use crate::judge::Verdict;

/// Steps after which the cleaner of the small stores has come to an end.
const STEPS: usize = 40;

/// Plans that a block with this content cannot be read.
fn spoil(history: &History, is_it: impl Fn(&[u8]) -> bool) -> Verdict {
    let image = history.disk.image();
    let unreadable = image.used().find(|at| is_it(&image.bytes(*at)));
    history.disk.plan(Faults { unreadable, ..Faults::default() });
    if unreadable.is_some() { Ok(()) } else { Err("there is no such block".to_owned()) }
}

/// The cleaner meets the bad sector and leaves the snapshot alone; the writer goes on.
fn cleaner_passes(mut history: History) -> Verdict {
    let mut store = history.open().map_err(said)?;
    let cleaned = history.clean(&mut store);
    history
        .take(&mut store, "more@1", &[run(0, 5, 9)])
        .map_err(|error| format!("a bad sector of one snapshot ends the writer: {error}; the cleaner: {cleaned:?}"))?;
    history.disk.plan(Faults::default());
    is_whole(&history)
}

/// A page of the second batch, when those of the first one were written.
pub fn page_of_a_batch() -> Verdict {
    let history = thin();
    let last = thin_runs()[0].iter().rev().find_map(|(gfn, content)| content.filter(|one| *one != 0 && stays(*gfn)));
    let last = page(last.ok_or("there is no page")?);
    let freed = History::new(Disk::with(LONG, history.disk.image()), history.possible.clone());
    if freed.open().and_then(|mut store| freed.clean(&mut store)).map_err(said)? == 0 {
        return Err("the cleaner found nothing to do".to_owned());
    }
    spoil(&history, |bytes| bytes == last)?;
    cleaner_passes(history)
}

/// The second attachment, when the first one was copied.
pub fn part_of_an_attachment() -> Verdict {
    let mut history = History::empty(LONG);
    let mut store = history.open().map_err(said)?;
    let attach = |store: &mut snapshot::store::Store<Disk>| -> Result<(), StoreError> {
        let mut taking = store.begin(&new("old@1"))?;
        fill(&mut taking, &sparse_runs())?;
        taking.attach(AttachmentKind::STATS, &[7; 5000])?;
        taking.seal(&SealInfo::default()).map(drop)
    };
    attach(&mut store).map_err(said)?;
    drop(store);
    history.possible = vec![with(&history.possible[0], "old@1", flatten(&sparse_runs()))];
    let history = history.afresh();
    spoil(&history, |bytes| bytes.starts_with(&[7; 100]))?;
    cleaner_passes(history)
}

/// The root of one that shares with the others, from each step of the cleaner on.
pub fn root_of_another() -> Verdict {
    let start = sharing();
    (0..STEPS).try_for_each(|steps| {
        let history = History::new(Disk::with(LONG, start.disk.image()), start.possible.clone());
        let mut store = history.open().map_err(said)?;
        clean_some(&mut store, steps)?;
        spoil(&history, |bytes| bytes.starts_with(&ROOT_MAGIC))?;
        history.clean(&mut store).map_err(|error| format!("from step {steps} on: {error}"))?;
        history.disk.plan(Faults::default());
        is_whole(&history).map_err(|error| format!("from step {steps} on: {error}"))
    })
}
