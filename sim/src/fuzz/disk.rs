//! The store's structures, changed at random, with every digest above made right again by somebody who has the key; and
//! pages whose bytes are damaged. Nothing may panic, loop, or read outside the device (the disk asserts it).
//!
//! An input is a list of changes: two bytes of offset, one of length, and as many bytes.

use std::rc::Rc;

use snapshot::ports::Page;
use snapshot::store::Catalog;

use super::driver::{Answer, Target};
use crate::content::{Held, packed_run, run};
use crate::disk::Disk;
use crate::forge::Map;
use crate::history::{History, SMALL};
use crate::image::{Block, Image};
use crate::judge::honest;

/// Magics and numbers that mean something here.
const WORDS: &str = include_str!("../../corpus/disk.txt");
/// Using a store costs as much as so many parsed lines of text.
const COST: u64 = 100;

/// A target over one structure.
const fn target(name: &'static str, run: fn(&[u8]) -> Answer) -> Target {
    Target { name, seeds, words: WORDS, run, cost: COST }
}

pub const SUPERBLOCK: Target = target("superblock", |bytes| forge(bytes, |map| [map.slot; 1]));
pub const CATALOG: Target = target("catalog", |bytes| forge(bytes, |map| [map.catalog; 1]));
pub const TABLE: Target = target("table", |bytes| forge(bytes, |map| [map.directory, map.table]));
pub const ROOT: Target = target("root", |bytes| forge(bytes, |map| [map.root; 1]));
pub const RUN: Target = target("run", |bytes| forge(bytes, |map| [map.leaf, map.set]));
pub const PAGES: Target = target("pages", pages);

/// Changes at the places where fields lie.
fn seeds() -> Vec<Vec<u8>> {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap_or(0);
    let one = |at: u16, bytes: &[u8]| [&at.to_le_bytes()[..], &[length(bytes)], bytes].concat();
    let mut all: Vec<Vec<u8>> = (0..400).step_by(8).map(|at| one(at, &[0xff])).collect();
    all.extend((0..400).step_by(16).map(|at| one(at, &[1, 0, 0, 0, 0, 0, 0, 0])));
    all.push(Vec::new());
    all
}

thread_local! {
    /// A store with one snapshot, its map, and what it holds.
    static STORE: Rc<(Image, Map, Held)> = {
        let history = History::with(SMALL, &[("a@1", vec![packed_run(0, 6, 1), run(6, 4, 2)])]);
        let image = history.disk.image();
        let map = Map::of(&image, SMALL, 0);
        Rc::new((image, map, history.possible.last().cloned().flatten()))
    };
}

/// Applies the changes to a block.
fn change(page: &mut Page, mut changes: &[u8]) {
    while let [low, high, length, rest @ ..] = changes {
        let at = usize::from(u16::from_le_bytes([*low, *high])) % page.len();
        let length = usize::from(*length).min(rest.len()).min(page.len() - at);
        let (bytes, others) = rest.split_at(length);
        page[at..at + length].copy_from_slice(bytes);
        changes = others;
    }
}

/// Changes structures, signs, and uses the store in every way.
fn forge<const N: usize>(bytes: &[u8], blocks: fn(&Map) -> [u64; N]) -> Answer {
    let store = STORE.with(Rc::clone);
    let (image, map, _) = &*store;
    let mut forged = image.clone();
    let which = bytes.first().copied().unwrap_or(0);
    let blocks = blocks(map);
    let at = blocks[usize::from(which) % blocks.len()];
    let mut page = forged.bytes(at);
    change(&mut page, bytes.get(usize::from(N > 1)..).unwrap_or(&[]));
    forged.put(at, Block::new(page));
    map.sign_run(&mut forged);
    map.sign(&mut forged);
    Ok(format!("{} {}", read(&forged), write(forged)))
}

fn read(image: &Image) -> String {
    let mut catalog = match Catalog::open(Disk::with(SMALL, image.clone())) {
        Ok(catalog) => catalog,
        Err(failed) => return format!("{:?}", failed.error),
    };
    let checked = catalog.check(true, &mut |_, _| {}).map(|report| report.flaws);
    let listed = catalog.list().map(|all| all.iter().map(|one| one.snapshot.is_ok()).collect::<Vec<_>>());
    let verified = catalog.snapshot("a@1").and_then(|mut one| one.verify(&mut |_, _| {})).map(|one| one.damaged);
    format!("{checked:?} {listed:?} {verified:?}")
}

fn write(image: Image) -> String {
    let mut history = History::new(Disk::with(SMALL, image), vec![None]);
    let mut store = match history.open() {
        Ok(store) => store,
        Err(error) => return format!("{error:?}"),
    };
    let first = history.take(&mut store, "a@2", &[run(0, 4, 2)]);
    let cleaned = history.clean(&mut store);
    let removed = store.remove("a@1");
    format!("{first:?} {cleaned:?} {removed:?}")
}

/// Damaged pages, as they are and packed: right, or refused.
fn pages(bytes: &[u8]) -> Answer {
    let store = STORE.with(Rc::clone);
    let (image, map, held) = &*store;
    // The pages come first in the segment of the snapshot.
    let segment = map.leaf / 256 * 256;
    let mut damaged = image.clone();
    let at = segment + u64::from(bytes.first().copied().unwrap_or(0) % 6);
    let mut page = damaged.bytes(at);
    change(&mut page, bytes.get(1..).unwrap_or(&[]));
    damaged.put(at, Block::new(page));
    let given = honest(Disk::with(SMALL, damaged), std::slice::from_ref(held))?;
    Ok(format!("{} right, {} refused", given.right, given.refused))
}
