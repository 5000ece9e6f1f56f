//! Runs operations on a store and writes down what a power cut may leave at each moment; then cuts everywhere.

use std::collections::HashSet;

use snapshot::store::{Catalog, CheckReport, SealInfo, Store, StoreError};

use crate::disk::{Cut, Disk, Image, Rng, cuts, tear};
use crate::world::{Expected, Run, compare, fill, flatten, format_disk, names, new, open, run, take};

/// What a store holds; None before it was formatted.
pub type State = Option<Expected>;

/// Most pending writes of which every subset is tried.
const ALL_SUBSETS: usize = 5;
/// Random subsets, with tears and another order, for each cut.
const RANDOM: usize = 3;
/// Tears of the last pending write.
const TEARS: [u8; 6] = [0x01, 0x0f, 0x7f, 0x80, 0xfe, 0xaa];

/// A disk, and what is promised of it.
pub struct History {
    pub disk: Disk,
    pub start: Image,
    pub now: State,
    /// What may be found after a cut, by mark.
    pub allowed: Vec<Vec<State>>,
}

impl History {
    /// From what is on the disk now.
    pub fn new(disk: Disk, now: State) -> Self {
        disk.0.borrow_mut().log.clear();
        let start = disk.image();
        Self { disk, start, allowed: vec![vec![now.clone()]], now }
    }

    /// On a small store that holds one snapshot.
    pub fn with_one_snapshot(blocks: u64) -> Self {
        let mut disk = Disk::new(blocks);
        format_disk(&mut disk, 1);
        let runs = [run(0, 9, 1)];
        take(&mut open(&disk), "old@1", &runs).unwrap();
        Self::new(disk, Some(Expected::from([("old@1".into(), flatten(&runs))])))
    }

    fn promise(&mut self, states: Vec<State>) {
        self.disk.mark(self.allowed.len());
        self.allowed.push(states);
    }

    /// While it runs either state may be found; after it only the second, unless it failed.
    fn step<T>(&mut self, next: State, action: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.promise(vec![self.now.clone(), next.clone()]);
        let result = action()?;
        self.promise(vec![next.clone()]);
        self.now = next;
        Ok(result)
    }

    pub fn format(&mut self, id: u8) {
        self.promise(vec![self.now.clone(), None, Some(Expected::new())]);
        format_disk(&mut self.disk.clone(), id);
        self.now = Some(Expected::new());
        self.promise(vec![self.now.clone()]);
    }

    pub fn take(&mut self, store: &mut Store<Disk>, name: &str, runs: &[Run]) -> Result<(), StoreError> {
        let mut taking = store.begin(&new(name, 0))?;
        fill(&mut taking, runs)?;
        let mut next = self.now.clone();
        next.as_mut().unwrap().insert(name.into(), flatten(runs));
        self.step(next, || taking.seal(&SealInfo::default()).map(|_| ()))
    }

    pub fn abort(&mut self, store: &mut Store<Disk>, runs: &[Run]) -> Result<(), StoreError> {
        let mut taking = store.begin(&new("gone@1", 0))?;
        fill(&mut taking, runs)?;
        taking.sync()?;
        taking.abort();
        Ok(())
    }

    pub fn remove(&mut self, store: &mut Store<Disk>, name: &str) -> Result<(), StoreError> {
        let mut next = self.now.clone();
        next.as_mut().unwrap().remove(name);
        self.step(next, || store.remove(name))
    }

    /// Cuts after every operation, with several subsets of survivors; returns the cuts tried and what went wrong.
    /// Stops after so many wrong ones.
    pub fn explore(&self, seed: u64, enough: usize) -> (usize, Vec<String>) {
        let blocks = self.disk.0.borrow().blocks;
        let mut explorer = Explorer { blocks, enough, seen: HashSet::new(), tried: 0, wrong: Vec::new() };
        let mut rng = Rng(seed);
        let log = self.disk.0.borrow().log.clone();
        cuts(&self.start, &log, |cut| explorer.cut(cut, &self.allowed[cut.mark], &mut rng));
        (explorer.tried, explorer.wrong)
    }
}

struct Explorer {
    blocks: u64,
    enough: usize,
    seen: HashSet<Vec<(u64, usize)>>,
    tried: usize,
    wrong: Vec<String>,
}

impl Explorer {
    fn cut(&mut self, cut: &Cut, allowed: &[State], rng: &mut Rng) {
        let last = cut.pending.len().wrapping_sub(1);
        if cut.pending.len() <= ALL_SUBSETS {
            for subset in 0..1u32 << cut.pending.len() {
                self.whole(cut, cut.survivors(|number| subset >> number & 1 == 1), allowed);
            }
        } else {
            self.whole(cut, cut.survivors(|_| true), allowed);
            self.whole(cut, cut.survivors(|number| number != last), allowed);
            self.whole(cut, cut.survivors(|number| number == last), allowed);
            self.whole(cut, cut.survivors(|number| number % 2 == 0), allowed);
            for lost in [1, 2, cut.pending.len() / 2] {
                self.whole(cut, cut.survivors(|number| number >= lost), allowed);
            }
        }
        for mask in TEARS {
            let mut image = cut.durable.clone();
            cut.pending.iter().for_each(|(block, page)| tear(&mut image, *block, page, mask));
            self.check(cut, image, allowed, "all torn");
        }
        for _ in 0..RANDOM {
            self.check(cut, cut.random(rng), allowed, "random");
        }
        if let Some((block, page)) = cut.pending.last() {
            for mask in TEARS {
                let mut image = cut.survivors(|number| number != last);
                tear(&mut image, *block, page, mask);
                self.check(cut, image, allowed, "torn");
            }
        }
    }

    /// Whole writes only: then one damaged slot must not matter either, whichever it is.
    fn whole(&mut self, cut: &Cut, image: Image, allowed: &[State]) {
        if !allowed.contains(&None) {
            for slot in [0, self.blocks - 1] {
                let mut damaged = image.clone();
                if let Some(page) = damaged.get(&slot) {
                    let mut page = **page;
                    page[4090] ^= 4;
                    damaged.insert(slot, page.into());
                }
                self.check(cut, damaged, allowed, "slot damaged");
            }
        }
        self.check(cut, image, allowed, "whole");
    }

    fn check(&mut self, cut: &Cut, image: Image, allowed: &[State], how: &str) {
        let mut key: Vec<_> = image.iter().map(|(block, page)| (*block, page.as_ptr() as usize)).collect();
        key.push((u64::MAX, cut.mark));
        if self.wrong.len() >= self.enough || !self.seen.insert(key) {
            return;
        }
        self.tried += 1;
        let every = self.tried.is_multiple_of(5);
        if let Err(error) = outcome(self.blocks, image, allowed, every) {
            self.wrong.push(format!("cut {}, mark {}, {how}: {error}", self.tried, cut.mark));
        }
    }
}

/// Opens what a cut left; it must be one of the allowed states, entire, and go on working.
pub fn outcome(blocks: u64, image: Image, allowed: &[State], go_on: bool) -> Result<(), String> {
    let disk = Disk::with(blocks, image);
    let mut store = match Store::open(disk.clone()) {
        Ok(store) => store,
        Err(failed) => return unformatted(failed.error, allowed),
    };
    matches(&disk, allowed)?;
    sound(&disk, go_on)?;
    if go_on {
        let mut next: Vec<State> = allowed.to_vec();
        let runs = [run(3, 6, 77)];
        let name = "after@cut";
        match take(&mut store, name, &runs) {
            Ok(()) => next.iter_mut().flatten().for_each(|state| drop(state.insert(name.into(), flatten(&runs)))),
            Err(StoreError::Full { .. }) => {}
            Err(error) => return Err(format!("cannot go on: {error}")),
        }
        matches(&disk, &next)?;
        let all: Vec<_> = store.list().map_err(|error| error.to_string())?.into_iter().map(|one| one.name).collect();
        all.iter().try_for_each(|name| store.remove(name)).map_err(|error| format!("cannot remove: {error}"))?;
        let info = store.info();
        if info.free_segments != Some(info.segments) {
            return Err(format!("leaked: {:?} of {} free", info.free_segments, info.segments));
        }
        let report = sound(&disk, true)?;
        if (report.reached, report.stale) != (0, 0) {
            return Err(format!("left over: {report:?}"));
        }
    }
    Ok(())
}

fn unformatted(error: StoreError, allowed: &[State]) -> Result<(), String> {
    let nothing = matches!(error, StoreError::NotFormatted | StoreError::Corrupt { what: "superblock", .. });
    if nothing && allowed.contains(&None) { Ok(()) } else { Err(format!("cannot open: {error}")) }
}

/// Every segment is free or reachable, and everything else that a check proves.
fn sound(disk: &Disk, pages: bool) -> Result<CheckReport, String> {
    let mut catalog = Catalog::open(disk.clone()).map_err(|failed| failed.error.to_string())?;
    let report = catalog.check(pages, &mut |_, _| {}).map_err(|error| error.to_string())?;
    if report.is_clean() { Ok(report) } else { Err(format!("check: {:?}", report.first)) }
}

/// The store on the disk equals one of the states.
fn matches(disk: &Disk, allowed: &[State]) -> Result<(), String> {
    let mut catalog = Catalog::open(disk.clone()).map_err(|failed| failed.error.to_string())?;
    let found = names(&mut catalog);
    let same = |state: &&Expected| state.keys().collect::<HashSet<_>>() == found.iter().collect();
    let Some(state) = allowed.iter().flatten().find(same) else {
        let wanted: Vec<_> = allowed.iter().map(|state| state.as_ref().map(|state| state.keys())).collect();
        return Err(format!("found {found:?}, not one of {wanted:?}"));
    };
    for (name, pages) in state {
        compare(&mut catalog, name, pages).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}
