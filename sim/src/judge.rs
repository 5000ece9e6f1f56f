//! Looks at what is left on a disk, and says whether it is what was promised.
//!
//! Two measures. *Whole*: one of the promised states, entire, byte for byte, with a clean `store check`, no segment
//! leaked, and a store that goes on working. *Honest*, where the disk itself lost or changed data: every page that is
//! handed out is right, whatever else fails.

use std::collections::BTreeSet;

use snapshot::ports::BlockDevice;
use snapshot::store::{AttachmentKind, Catalog, Flaw, PageRef, SealInfo, Store, StoreError};

use crate::content::{Held, Pages, flatten, run};
use crate::disk::{Disk, Op};
use crate::history::{CONFIG, fill, new, with};
use crate::image::Image;

/// A verdict; what is wrong is a sentence.
pub type Verdict = Result<(), String>;

/// Opens a store that a power cut left. `deep`: goes on with it too, and reads it before a writer has settled it.
pub fn whole(blocks: u64, image: &Image, allowed: &[Held], deep: bool) -> Verdict {
    let disk = Disk::with(blocks, image.clone());
    if deep {
        readable_at_once(&disk, allowed)?;
    }
    let mut store = match Store::open(disk.clone()) {
        Ok(store) => store,
        Err(failed) => return unformatted(failed.error, allowed),
    };
    let reached = sound(&disk, allowed, deep, |_| false)?;
    let (free, segments) = (store.info().free_segments, store.info().segments);
    if free != Some(segments - reached) {
        return Err(format!("leaked: {free:?} free and {reached} reached of {segments}"));
    }
    if deep { goes_on(&mut store, &disk, allowed) } else { Ok(()) }
}

/// As [`whole`], but one copy of something in the meta areas is damaged, and may be found to be.
pub fn but_for_copies(blocks: u64, image: &Image, allowed: &[Held]) -> Verdict {
    let disk = Disk::with(blocks, image.clone());
    let _store = Store::open(disk.clone()).map_err(|failed| failed.error.to_string())?;
    sound(&disk, allowed, false, |flaw| matches!(flaw, Flaw::Copy { .. })).map(|_| ())
}

/// What a reader sees before any writer came.
fn readable_at_once(disk: &Disk, allowed: &[Held]) -> Verdict {
    match Catalog::open(disk.clone()) {
        Ok(mut catalog) => holds_one_of(&mut catalog, allowed),
        Err(failed) => unformatted(failed.error, allowed),
    }
}

fn unformatted(error: StoreError, allowed: &[Held]) -> Verdict {
    let nothing = matches!(error, StoreError::NotFormatted | StoreError::Corrupt { what: "superblock", .. });
    if nothing && allowed.contains(&None) { Ok(()) } else { Err(format!("cannot open: {error}")) }
}

/// The store is clean and holds one of the states. Returns the segments that it reaches.
fn sound(disk: &Disk, allowed: &[Held], pages: bool, tolerated: fn(&Flaw) -> bool) -> Result<u32, String> {
    let mut catalog = Catalog::open(disk.clone()).map_err(|failed| failed.error.to_string())?;
    let report = catalog.check(pages, &mut |_, _| {}).map_err(|error| error.to_string())?;
    if !report.first.iter().all(tolerated) {
        return Err(format!("store check: {:?}", report.first));
    }
    holds_one_of(&mut catalog, allowed)?;
    Ok(report.reached)
}

fn holds_one_of(catalog: &mut Catalog<Disk>, allowed: &[Held]) -> Verdict {
    let listed = catalog.list().map_err(|error| error.to_string())?;
    let found: BTreeSet<&str> = listed.iter().map(|one| one.name.as_str()).collect();
    let same = |held: &&std::collections::BTreeMap<_, _>| {
        held.len() == found.len() && held.keys().all(|name: &String| found.contains(name.as_str()))
    };
    let Some(held) = allowed.iter().flatten().find(same) else {
        let wanted: Vec<_> = allowed.iter().map(|held| held.as_ref().map(|held| held.keys())).collect();
        return Err(format!("found {found:?}, not one of {wanted:?}"));
    };
    held.iter().try_for_each(|(name, pages)| equal(catalog, name, pages).map_err(|error| format!("{name}: {error}")))
}

/// Reads a snapshot to its end and compares every byte.
fn equal(catalog: &mut Catalog<Disk>, name: &str, expected: &Pages) -> Verdict {
    let said = |error: StoreError| error.to_string();
    let mut snapshot = catalog.snapshot(name).map_err(said)?;
    let config = snapshot.attachment(AttachmentKind::CONFIG_JSON).map_err(said)?;
    if config.as_deref() != Some(CONFIG) {
        return Err("a wrong attachment".to_owned());
    }
    let mut pages = snapshot.pages().map_err(said)?;
    let mut wanted = expected.iter();
    while let Some((gfn, found)) = pages.next_page().map_err(said)? {
        let Some((at, page)) = wanted.next() else { return Err(format!("gfn {gfn} too many")) };
        if *at != gfn.raw() || page.bytes != *found.bytes() {
            return Err(format!("wrong page at gfn {gfn}"));
        }
        if (page.bytes == [0; 4096]) != (found == PageRef::Zero) {
            return Err(format!("gfn {gfn}: zero pages are ranges, and only they"));
        }
    }
    wanted.next().map_or(Ok(()), |(gfn, _)| Err(format!("gfn {gfn:#x} is missing")))
}

/// Another take fits or is refused; everything can be removed, and then everything is free.
fn goes_on(store: &mut Store<Disk>, disk: &Disk, allowed: &[Held]) -> Verdict {
    let (name, runs) = ("after@cut", [run(3, 6, 77)]);
    let taken = store.begin(&new(name)).and_then(|mut taking| {
        fill(&mut taking, &runs)?;
        taking.seal(&SealInfo::default())
    });
    let next = match taken {
        Ok(_) => allowed.iter().map(|held| held.as_ref().and_then(|_| with(held, name, flatten(&runs)))).collect(),
        Err(StoreError::Full { .. }) => allowed.to_vec(),
        Err(error) => return Err(format!("cannot go on: {error}")),
    };
    sound(disk, &next, true, |_| false)?;
    let listed = store.list().map_err(|error| error.to_string())?;
    for one in listed {
        store.remove(&one.name).map_err(|error| format!("cannot remove {}: {error}", one.name))?;
    }
    let (free, segments) = (store.info().free_segments, store.info().segments);
    if free != Some(segments) {
        return Err(format!("leaked: {free:?} free of {segments} after all was removed"));
    }
    sound(disk, &[Some(Default::default())], true, |_| false).map(|_| ())
}

/// What an open for writing does to a disk, so that it can be cut too.
pub fn opening(blocks: u64, image: &Image) -> Vec<Op> {
    let disk = Disk::with(blocks, image.clone());
    drop(Store::open(disk.clone()));
    let state = disk.0.borrow();
    state.log.clone()
}

/// What an honest store gave.
#[derive(Clone, Copy, Default)]
pub struct Given {
    /// Pages that were right.
    pub right: u64,
    /// Snapshots, or pages of them, that were reported as damaged, and stores that were refused.
    pub refused: u64,
}

/// Reads everything that can be read. `Err` is a page that is wrong; damage that was noticed is counted.
pub fn honest<D: BlockDevice>(device: D, known: &[Held]) -> Result<Given, String> {
    let mut given = Given::default();
    let Ok(mut catalog) = Catalog::open(device) else { return Ok(Given { refused: 1, ..given }) };
    let Ok(listed) = catalog.list() else { return Ok(Given { refused: 1, ..given }) };
    for name in listed.iter().map(|one| one.name.as_str()) {
        let candidates: Vec<&Pages> =
            known.iter().flatten().filter_map(|held| held.get(name)).map(|it| &**it).collect();
        if candidates.is_empty() {
            return Err(format!("{name} was never there"));
        }
        match candidates.iter().map(|pages| honest_one(&mut catalog, name, pages)).find(Result::is_ok) {
            Some(Ok(one)) => (given.right, given.refused) = (given.right + one.right, given.refused + one.refused),
            _ => return Err(format!("{name}: a wrong page")),
        }
    }
    Ok(given)
}

/// Reads one snapshot. `Err` is something that is wrong; damage that was noticed is counted.
pub fn honest_one<D: BlockDevice>(catalog: &mut Catalog<D>, name: &str, expected: &Pages) -> Result<Given, String> {
    let mut given = Given::default();
    let Ok(mut snapshot) = catalog.snapshot(name) else { return Ok(Given { refused: 1, ..given }) };
    match snapshot.attachment(AttachmentKind::CONFIG_JSON) {
        Ok(Some(bytes)) if bytes == CONFIG => {}
        Ok(_) => return Err("a wrong attachment".to_owned()),
        Err(_) => given.refused += 1,
    }
    let Ok(mut pages) = snapshot.pages() else { return Ok(Given { refused: 1, ..given }) };
    loop {
        match pages.next_page() {
            Ok(Some((gfn, page))) => match expected.get(&gfn.raw()) {
                Some(wanted) if wanted.bytes == *page.bytes() => given.right += 1,
                _ => return Err(format!("wrong page at gfn {gfn}")),
            },
            Ok(None) => break,
            Err(StoreError::DamagedPage { .. }) => given.refused += 1,
            Err(_) => {
                given.refused += 1;
                break;
            }
        }
    }
    if given.refused == 0 && given.right != expected.len() as u64 {
        return Err("pages are missing, and nothing was said".to_owned());
    }
    Ok(given)
}
