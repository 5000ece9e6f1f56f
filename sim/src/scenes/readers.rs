//! Readers with leases, beside a writer that removes, cleans and uses again what they read.

use snapshot::store::{Catalog, LEASE_PATIENCE_NS, Lease, Store, StoreError, StoreId};

use super::stock::{fill_up, said, sparse, sparse_runs};
use crate::content::{Pages, Run, flatten, run};
use crate::disk::Disk;
use crate::history::{History, TIGHT};
use crate::judge::Verdict;

/// Somebody who holds a lease on the newest generation, and reads a snapshot later.
struct Reader {
    catalog: Catalog<Disk>,
    name: &'static str,
    wanted: Pages,
}

impl Reader {
    fn arrives(history: &History, name: &'static str, runs: &[Run]) -> Result<Self, String> {
        let mut catalog = Catalog::open(history.disk.clone()).map_err(|failed| said(failed.error))?;
        let generation = catalog.info().generation;
        let lease = Lease { reader: [8; 16], generation, sequence: 1, unix: 5, in_use: true };
        lease.write(&mut history.disk.clone(), StoreId([1; 16]), 1).map_err(said)?;
        catalog.refresh().map_err(said)?;
        Ok(Self { catalog, name, wanted: flatten(runs) })
    }

    /// Reads to the end: every page is there, and right.
    fn reads_on(mut self) -> Verdict {
        let mut snapshot = self.catalog.snapshot(self.name).map_err(said)?;
        let mut pages = snapshot.pages().map_err(said)?;
        let mut count = 0;
        while let Some((gfn, page)) = pages.next_page().map_err(said)? {
            count += usize::from(self.wanted.get(&gfn.raw()).is_some_and(|block| block.bytes == *page.bytes()));
        }
        if count == self.wanted.len() { Ok(()) } else { Err(format!("{count} of {} pages", self.wanted.len())) }
    }
}

/// A reader that fell silent holds nothing any more.
fn is_forgotten(store: &mut Store<Disk>) -> Verdict {
    store.set_now(2 + LEASE_PATIENCE_NS);
    store.reclaim().map_err(said)?;
    if store.waiting_segments() == 0 { Ok(()) } else { Err("a silent reader holds segments for ever".to_owned()) }
}

/// A writer removes what is read, and fills the store.
pub fn removed() -> Verdict {
    let pages = [run(0, 400, 1)];
    let mut history = History::with(TIGHT, &[("old@1", pages.to_vec())]);
    let mut store = history.open().map_err(said)?;
    store.set_now(1);
    let reader = Reader::arrives(&history, "old@1", &pages)?;
    store.remove("old@1").map_err(said)?;
    fill_up(&mut history, &mut store);
    reader.reads_on()?;
    is_forgotten(&mut store)
}

/// It removes another one as well: the free map is made afresh while something waits.
pub fn removed_twice() -> Verdict {
    let pages = [run(0, 400, 1)];
    let mut history = History::with(TIGHT, &[("old@1", pages.to_vec()), ("old@2", vec![run(0, 5, 2)])]);
    let mut store = history.open().map_err(said)?;
    store.set_now(1);
    let reader = Reader::arrives(&history, "old@1", &pages)?;
    store.remove("old@1").map_err(said)?;
    store.remove("old@2").map_err(said)?;
    fill_up(&mut history, &mut store);
    reader.reads_on()?;
    is_forgotten(&mut store)
}

/// It cleans what is read.
pub fn cleaned() -> Verdict {
    let mut history = sparse();
    let mut store = history.open().map_err(said)?;
    store.set_now(1);
    let reader = Reader::arrives(&history, "new@1", &sparse_runs())?;
    if history.clean(&mut store).map_err(said)? == 0 {
        return Err("the cleaner found nothing to do".to_owned());
    }
    fill_up(&mut history, &mut store);
    reader.reads_on()?;
    is_forgotten(&mut store)
}

/// The writer that removed what is read is gone, and its memory of it; the next one takes and cleans nothing.
pub fn was_there_first() -> Verdict {
    let mut history = sparse();
    let reader = Reader::arrives(&history, "old@1", &[run(0, 5, 1)])?;
    history.open().and_then(|mut store| store.remove("old@1")).map_err(said)?;
    let mut store = history.open().map_err(said)?;
    store.set_now(1);
    history.clean(&mut store).map_err(said)?;
    fill_up(&mut history, &mut store);
    let refused = matches!(history.take(&mut store, "last@1", &[run(0, 5, 3)]), Err(StoreError::HeldByReaders));
    reader.reads_on()?;
    if !refused {
        return Err("a take is not refused as held by readers".to_owned());
    }
    store.set_now(2 + LEASE_PATIENCE_NS);
    history.take(&mut store, "last@1", &[run(0, 5, 3)]).map_err(said)
}
