//! Everybody who reads the small store, each with the blocks that he read while nothing was wrong.
//!
//! A reader is deterministic and has no input but what he believed of the store when he began and the blocks that he
//! reads. So a bit that flips in block B can change what he does only if he read B then; all others need not be asked
//! again. Opening the store is one of the readers: when what he believes afterwards is equal, field by field, to what
//! was believed of the sound store, then the others are as if they had begun with it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use snapshot::store::{Catalog, Heartbeat, Lease, Store, StoreError};

use super::disk::{Blocks, Flippable};
use super::small::{BLOCKS, Small};
use crate::content::Pages;
use crate::history::new;
use crate::judge::honest_one;

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reader {
    /// Opens the store for reading.
    Open,
    /// Lists the snapshots.
    List,
    /// Reads every page and the attachment of a snapshot, and compares every byte.
    Pages(usize),
    /// `verify` of a snapshot.
    Verify(usize),
    /// `store check` without pages.
    Structure,
    /// `store check` with all pages.
    Everything,
    /// Looks at heartbeat and leases.
    Notes,
    /// Opens the store for writing, and begins a take.
    Writer,
}

/// What is wrong with the store, in a sentence.
pub type Wrong = String;

/// What was seen of one bit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Seen {
    /// Somebody says that something is wrong.
    pub told: bool,
    /// Some page, attachment or snapshot is not handed out.
    pub harmed: bool,
    /// A writer takes nothing.
    pub stops: bool,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.told |= other.told;
        self.harmed |= other.harmed;
        self.stops |= other.stops;
    }
}

/// What writers and readers leave for each other.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Note {
    Beat(Heartbeat),
    Lease(Lease),
}

/// All of them, on one disk.
pub struct Readers {
    disk: Flippable,
    catalog: Catalog<Flippable>,
    snapshots: Vec<(String, Rc<Pages>)>,
    /// What a writer that finds nothing wrong leaves behind.
    settled: Blocks,
    notes: Vec<Option<Note>>,
    blocks: BTreeMap<Reader, BTreeSet<u64>>,
}

impl Readers {
    /// Lets everybody read the sound store once, twice, and notes what.
    pub fn new(small: &Small) -> Result<Self, Wrong> {
        let disk = Flippable::with(BLOCKS, &small.image);
        let (opened, blocks) = disk.watch(|| Catalog::open(disk.clone()));
        let catalog = opened.map_err(|failed| failed.error.to_string())?;
        let snapshots = small.held.iter().flatten().map(|(name, pages)| (name.clone(), pages.clone())).collect();
        let blocks = BTreeMap::from([(Reader::Open, blocks)]);
        let mut readers = Self { disk, catalog, snapshots, settled: Blocks::new(), notes: Vec::new(), blocks };
        readers.settled = readers.settle()?.1;
        let slots = [0, BLOCKS - 1].map(|at| (at, small.image.bytes(at)));
        if readers.settled != Blocks::from(slots) {
            return Err("a writer does not write both slots as they are".to_owned());
        }
        readers.notes = readers.read_notes().map_err(|error| error.to_string())?;
        for reader in readers.everybody() {
            let disk = readers.disk.clone();
            let (seen, read) = disk.watch(|| readers.ask(reader));
            if seen? != Seen::default() || disk.watch(|| readers.ask(reader)).1 != read {
                return Err(format!("{reader:?} finds something wrong with a sound store, or reads it in two ways"));
            }
            readers.blocks.insert(reader, read);
        }
        Ok(readers)
    }

    fn everybody(&self) -> Vec<Reader> {
        let each = 0..self.snapshots.len();
        let mut all = vec![Reader::Open, Reader::List];
        all.extend(each.clone().map(Reader::Pages).chain(each.map(Reader::Verify)));
        all.extend([Reader::Structure, Reader::Everything, Reader::Notes, Reader::Writer]);
        all
    }

    /// Blocks that anybody reads.
    pub fn reached(&self) -> BTreeSet<u64> {
        self.blocks.values().flatten().copied().collect()
    }

    /// Who reads this block, those who ask for least first.
    pub fn of(&self, at: u64) -> Vec<Reader> {
        self.blocks.iter().filter(|(_, blocks)| blocks.contains(&at)).map(|(reader, _)| *reader).collect()
    }

    /// Those who do not.
    pub fn others(&self, at: u64) -> Vec<Reader> {
        self.blocks.iter().filter(|(_, blocks)| !blocks.contains(&at)).map(|(reader, _)| *reader).collect()
    }

    /// Turns one bit while these readers are asked, in this order. Who can do no more than notice is asked only as long
    /// as nobody has noticed; who could hand out something wrong is asked always.
    pub fn flip(&mut self, at: u64, bit: usize, readers: &[Reader]) -> Result<Seen, Wrong> {
        self.disk.flip(at, bit);
        let mut seen = Seen::default();
        let mut wrong = None;
        for reader in readers {
            let notices = matches!(reader, Reader::Verify(_) | Reader::Structure | Reader::Everything);
            if notices && seen.told {
                continue;
            }
            match self.ask(*reader) {
                Ok(found) => seen.add(found),
                Err(error) => wrong = Some(format!("block {at}, bit {bit}, {reader:?}: {error}")),
            }
        }
        self.disk.flip(at, bit);
        wrong.map_or(Ok(seen), Err)
    }

    fn ask(&mut self, reader: Reader) -> Result<Seen, Wrong> {
        match reader {
            Reader::Open => self.open(),
            Reader::List => self.list(),
            Reader::Pages(number) => self.pages(number),
            Reader::Verify(number) => Ok(self.verify(number)),
            Reader::Structure => self.check(false),
            Reader::Everything => self.check(true),
            Reader::Notes => self.notes(),
            Reader::Writer => self.write(),
        }
    }

    /// No single bit may cost the store, nor change what is believed of it.
    fn open(&self) -> Result<Seen, Wrong> {
        let opened = Catalog::open(self.disk.clone()).map_err(|failed| format!("cannot open: {}", failed.error))?;
        if opened.believes_the_same(&self.catalog) { Ok(Seen::default()) } else { Err("another store".to_owned()) }
    }

    /// Is what is believed still what it was, after all that was asked?
    pub fn sound(&self) -> Result<(), Wrong> {
        self.open().map(|_| ())
    }

    fn list(&mut self) -> Result<Seen, Wrong> {
        let listed = self.catalog.list().map_err(|error| error.to_string())?;
        if !listed.iter().map(|one| &one.name).eq(self.snapshots.iter().map(|(name, _)| name)) {
            return Err("other snapshots are listed".to_owned());
        }
        let harmed = listed.iter().any(|one| one.snapshot.is_err());
        Ok(Seen { told: harmed || listed.iter().any(|one| one.exclusive_bytes.is_none()), harmed, ..Seen::default() })
    }

    fn pages(&mut self, number: usize) -> Result<Seen, Wrong> {
        let Some((name, pages)) = self.snapshots.get(number) else { return Ok(Seen::default()) };
        let given = honest_one(&mut self.catalog, name, pages).map_err(|error| format!("{name}: {error}"))?;
        Ok(Seen { told: given.refused > 0, harmed: given.refused > 0, ..Seen::default() })
    }

    fn verify(&mut self, number: usize) -> Seen {
        let Some((name, _)) = self.snapshots.get(number) else { return Seen::default() };
        let report = self.catalog.snapshot(name).and_then(|mut snapshot| snapshot.verify(&mut |_, _| {}));
        Seen { told: !report.is_ok_and(|report| report.is_clean()), ..Seen::default() }
    }

    fn check(&mut self, pages: bool) -> Result<Seen, Wrong> {
        let report = self.catalog.check(pages, &mut |_, _| {}).map_err(|error| error.to_string())?;
        Ok(Seen { told: !report.is_clean(), ..Seen::default() })
    }

    /// Heartbeat and leases are what they were, or absent.
    fn notes(&mut self) -> Result<Seen, Wrong> {
        let found = self.read_notes().map_err(|error| error.to_string())?;
        let mut pairs = found.iter().zip(&self.notes);
        if pairs.any(|(now, before)| now.is_some() && now != before) {
            return Err("a heartbeat or a lease that nobody wrote".to_owned());
        }
        Ok(Seen { told: found != self.notes, ..Seen::default() })
    }

    fn read_notes(&mut self) -> Result<Vec<Option<Note>>, StoreError> {
        let mut found = vec![self.catalog.heartbeat()?.map(Note::Beat)];
        let leases = Lease::all(&mut self.disk.clone(), self.catalog.info().id)?;
        found.extend(leases.map(|lease| lease.map(Note::Lease)));
        Ok(found)
    }

    /// A writer settles the store, so that whatever was wrong with a slot is set right; and it takes nothing while it
    /// does not know what some snapshot reaches.
    fn write(&self) -> Result<Seen, Wrong> {
        let (stops, written) = self.settle()?;
        if written != self.settled {
            return Err("a writer leaves something else behind than in a sound store".to_owned());
        }
        Ok(Seen { told: stops, stops, ..Seen::default() })
    }

    fn settle(&self) -> Result<(bool, Blocks), Wrong> {
        let opened = Store::open(self.disk.clone()).map_err(|failed| format!("cannot write: {}", failed.error));
        let begun = opened.and_then(|mut store| match store.begin(&new("next@1")) {
            Ok(_) => Ok(false),
            Err(StoreError::DamagedSnapshot { .. }) => Ok(true),
            Err(error) => Err(format!("cannot take: {error}")),
        });
        let written = self.disk.undo();
        Ok((begun?, written))
    }
}
