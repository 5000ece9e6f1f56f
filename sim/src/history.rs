//! Works on a store, and writes down what a power cut may leave at each moment.

use std::collections::BTreeSet;
use std::rc::Rc;

use snapshot::ports::BlockDevice;
use snapshot::store::{
    AttachmentKind, Cleaned, Compression, FormatOptions, NewSnapshot, SealInfo, Sharing, Store, StoreError, Taking,
    format,
};
use xen_hypercall::types::Gfn;

use crate::content::{Held, Pages, Run, flatten, page};
use crate::disk::{Disk, Faults, Op, Phase};
use crate::image::Image;

/// Blocks of the smallest device: four segments.
pub const SMALL: u64 = 1287;
/// One segment more: what is removed is used again at once.
pub const TIGHT: u64 = SMALL + 256;
/// Four more.
pub const ROOMY: u64 = SMALL + 1024;
/// Steps of a cleaner that must have come to an end by then.
const CLEANING_STEPS: usize = 10_000;
/// The uuid of the guest that is taken.
pub const GUEST: [u8; 16] = [7; 16];
/// Enough for a chain whose takes share what the others wrote.
pub const LONG: u64 = ROOMY + 16 * 256;
/// The attachment of every take.
pub const CONFIG: &[u8] = b"{}";

/// A disk, what was done to it, and what is promised of it.
pub struct History {
    /// The disk.
    pub disk: Disk,
    /// What it held before the first operation of the log.
    pub start: Image,
    /// What the store may hold now: one state, or several after an operation failed.
    pub possible: Vec<Held>,
    /// What may be found after a cut, by mark.
    pub allowed: Vec<Vec<Held>>,
    /// What was wrong already while it ran.
    pub wrong: Vec<String>,
    /// It began with what a power cut left: until a writer has settled it, one slot may be damaged already.
    pub unsettled: bool,
}

impl History {
    /// From what is on the disk now.
    pub fn new(disk: Disk, possible: Vec<Held>) -> Self {
        disk.0.borrow_mut().log.clear();
        let start = disk.image();
        Self { disk, start, allowed: vec![possible.clone()], possible, wrong: Vec::new(), unsettled: false }
    }

    /// On a device that holds nothing.
    pub fn blank(blocks: u64) -> Self {
        Self::new(Disk::with(blocks, Image::default()), vec![None])
    }

    /// On a store that holds nothing.
    pub fn empty(blocks: u64) -> Self {
        let mut history = Self::blank(blocks);
        // On a disk without faults; what cannot be done shows at the first judgement.
        let _ = history.format(1);
        history.afresh()
    }

    /// On a store that holds these snapshots, each of one run.
    pub fn with(blocks: u64, snapshots: &[(&str, Vec<Run>)]) -> Self {
        let mut history = Self::empty(blocks);
        if let Ok(mut store) = history.open() {
            for (name, runs) in snapshots {
                let _ = history.take(&mut store, name, runs);
            }
        }
        history.afresh()
    }

    /// Forgets how it came to what it is.
    pub fn afresh(self) -> Self {
        self.disk.plan(Faults::default());
        Self::new(self.disk, self.possible)
    }

    /// Size of the device.
    pub fn blocks(&self) -> u64 {
        self.disk.blocks()
    }

    /// What was done.
    pub fn log(&self) -> Vec<Op> {
        self.disk.0.borrow().log.clone()
    }

    /// From here on any of these may be found.
    pub fn promise(&mut self, states: Vec<Held>) {
        self.disk.mark(self.allowed.len());
        self.allowed.push(states);
    }

    /// While it runs either state may be found; after it only the second, unless it failed.
    fn step<T>(
        &mut self,
        apply: impl Fn(&Held) -> Held,
        action: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let next: Vec<Held> = self.possible.iter().map(apply).collect();
        self.possible.extend(next.iter().cloned());
        self.promise(self.possible.clone());
        let result = action()?;
        self.possible = next;
        self.promise(self.possible.clone());
        Ok(result)
    }

    /// The store was opened again: what it lists tells which of the possible states it is.
    pub fn settle(&mut self, store: &mut Store<Disk>) {
        let Ok(listed) = store.list() else { return };
        let same = |held: &Held| {
            held.as_ref().is_some_and(|held| held.keys().eq(&sorted(listed.iter().map(|one| one.name.clone()))))
        };
        self.possible.retain(same);
        self.possible.truncate(1);
        self.promise(self.possible.clone());
    }

    /// Makes a store, over whatever is there.
    pub fn format(&mut self, id: u8) -> Result<(), StoreError> {
        self.disk.phase(Phase::Format);
        let empty = Some(Default::default());
        self.possible.extend([None, empty.clone()]);
        self.promise(self.possible.clone());
        let (store_id, key) = ([id; 16], [id ^ 0x5a; 32]);
        format(&mut self.disk.clone(), &FormatOptions { label: "sim", store_id, key, now_unix: 1_700_000_000 })?;
        self.possible = vec![empty];
        self.promise(self.possible.clone());
        Ok(())
    }

    /// Opens the store for writing.
    pub fn open(&self) -> Result<Store<Disk>, StoreError> {
        self.disk.phase(Phase::Open);
        Store::open(self.disk.clone()).map_err(|failed| failed.error)
    }

    /// A whole take.
    pub fn take(&mut self, store: &mut Store<Disk>, name: &str, runs: &[Run]) -> Result<(), StoreError> {
        self.take_beside(store, name, runs, Sharing::Nothing, flatten(runs))
    }

    /// A take of everything, compared with the newest snapshot.
    pub fn diff(&mut self, store: &mut Store<Disk>, name: &str, runs: &[Run]) -> Result<(), StoreError> {
        let base = store.newest_of(&GUEST)?.map_or(Sharing::Nothing, |(id, _)| Sharing::Equal(id));
        self.take_beside(store, name, runs, base, flatten(runs))
    }

    /// A take of what changed, on top of the newest snapshot, if that has this name; `whole` is the guest.
    pub fn since(
        &mut self,
        store: &mut Store<Disk>,
        (name, base): (&str, &str),
        runs: &[Run],
        whole: &[Run],
    ) -> Result<(), StoreError> {
        match store.newest_of(&GUEST)?.filter(|(_, newest)| newest == base) {
            Some((id, _)) => self.take_beside(store, name, runs, Sharing::Since(id), flatten(whole)),
            _ => self.take(store, name, whole),
        }
    }

    fn take_beside(
        &mut self,
        store: &mut Store<Disk>,
        name: &str,
        runs: &[Run],
        sharing: Sharing,
        pages: Pages,
    ) -> Result<(), StoreError> {
        self.disk.phase(Phase::Take);
        let mut taking = store.begin(&NewSnapshot { sharing, ..new(name) })?;
        fill(&mut taking, runs)?;
        self.step(|held| with(held, name, pages.clone()), || taking.seal(&SealInfo::default()).map(|_| ()))
    }

    /// A take that is given up before it is sealed.
    pub fn abort(&mut self, store: &mut Store<Disk>, runs: &[Run]) -> Result<(), StoreError> {
        self.disk.phase(Phase::Take);
        let before = store.info().free_segments;
        let mut taking = store.begin(&new("gone@1"))?;
        fill(&mut taking, runs)?;
        taking.sync()?;
        taking.abort();
        let after = store.info().free_segments;
        if after != before {
            self.wrong.push(format!("an aborted take keeps segments: {before:?} free before, {after:?} after"));
        }
        Ok(())
    }

    /// Removes a snapshot.
    pub fn remove(&mut self, store: &mut Store<Disk>, name: &str) -> Result<(), StoreError> {
        self.disk.phase(Phase::Remove);
        if store.list()?.iter().all(|one| one.name != name) {
            return Err(StoreError::NotFound);
        }
        self.step(|held| without(held, name), || store.remove(name))
    }

    /// Cleans until the first snapshot was rewritten, and some more.
    pub fn clean_until_freed(&self, store: &mut Store<Disk>) -> Result<(), StoreError> {
        self.disk.phase(Phase::Clean);
        for _ in 0..CLEANING_STEPS {
            match store.clean_step()? {
                Cleaned::Working => {}
                Cleaned::Nothing => return Ok(()),
                Cleaned::Freed { .. } => {
                    store.clean_step()?;
                    return Ok(());
                }
            }
        }
        Err(StoreError::Misuse { what: "a cleaner that comes to no end" })
    }

    /// Cleans until there is nothing to gain; returns the segments freed. Nothing changes for who reads.
    pub fn clean(&self, store: &mut Store<Disk>) -> Result<u32, StoreError> {
        self.disk.phase(Phase::Clean);
        let mut freed = 0;
        for _ in 0..CLEANING_STEPS {
            match store.clean_step()? {
                Cleaned::Nothing => return Ok(freed),
                Cleaned::Working => {}
                Cleaned::Freed { segments, .. } => freed += segments,
            }
        }
        Err(StoreError::Misuse { what: "a cleaner that comes to no end" })
    }
}

fn sorted(names: impl Iterator<Item = String>) -> BTreeSet<String> {
    names.collect()
}

/// With one snapshot less.
fn without(held: &Held, name: &str) -> Held {
    let mut next = held.clone();
    next.iter_mut().for_each(|held| drop(held.remove(name)));
    next
}

/// With one snapshot more.
pub fn with(held: &Held, name: &str, pages: Pages) -> Held {
    let mut next = held.clone().unwrap_or_default();
    next.insert(name.to_owned(), Rc::new(pages));
    Some(next)
}

/// What a take of this name asks for.
pub fn new(name: &str) -> NewSnapshot<'_> {
    NewSnapshot {
        name,
        guest_name: "web01",
        guest_uuid: GUEST,
        mode: "live",
        created_unix: 1_700_000_001,
        max_gfn: Gfn::new(0xffff),
        reserve_bytes: 0,
        compression: Compression::Lz4,
        sharing: Sharing::Nothing,
        why_full: "",
    }
}

/// Puts runs into a take.
pub fn fill<D: BlockDevice>(taking: &mut Taking<'_, D>, runs: &[Run]) -> Result<(), StoreError> {
    for run in runs {
        taking.run_begin()?;
        for (gfn, content) in run {
            match content {
                Some(content) => taking.page(Gfn::new(*gfn), &page(*content))?,
                None => taking.hole(Gfn::new(*gfn))?,
            }
        }
        taking.run_end()?;
    }
    taking.attach(AttachmentKind::CONFIG_JSON, CONFIG)
}
