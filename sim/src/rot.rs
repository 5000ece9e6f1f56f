//! Damage to what lies still: every bit of a small store; flips, swaps, stale and misdirected blocks in a large one.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use anyhow::{Result, ensure};
use snapshot::store::{Geometry, layout};

use crate::content::{Held, Pages, Run, packed_run, run};
use crate::disk::Disk;
use crate::history::{History, SMALL};
use crate::image::{Block, Image};
use crate::judge::{honest, told};
use crate::replay;
use crate::rng::Rng;

/// Bytes at the start and the end of a block in which every bit is tried; of the rest one bit in `STRIDE`.
const DENSE: usize = 384;
const TAIL: usize = 16;
const STRIDE: usize = 11;
/// Pages of one snapshot in the large store.
const LARGE_PAGES: u64 = 30_000;

/// Every bit of a small store; with `every` really all, otherwise all where structures lie and some of the rest.
pub fn bits(every: bool) -> Result<()> {
    replay::note("rot-bits", 0);
    let (image, held) = small();
    let flips = Flips { image: &image, held: &held };
    let mut sums: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for at in image.used() {
        let kind = flips.kind(at);
        for bit in (0..4096 * 8).filter(|bit| every || chosen(*bit)) {
            let sum = sums.entry(kind).or_default();
            sum[0] += 1;
            let (noticed, harmless) = flips.one(at, bit)?;
            sum[1] += u64::from(noticed);
            sum[2] += u64::from(harmless);
        }
    }
    println!(
        "     bits   noticed  harmless  (noticed: by a reader or by store check; harmless: every page is read right)"
    );
    for (kind, [tried, noticed, harmless]) in &sums {
        println!("{tried:>9} {noticed:>9} {harmless:>9}  {kind}");
        ensure!(!kind.starts_with("one copy") || *noticed == *tried, "{kind}: flips that nobody noticed");
        ensure!(!kind.starts_with("two copies") || *harmless == *tried, "{kind}: flips that did harm");
    }
    Ok(())
}

fn chosen(bit: usize) -> bool {
    let byte = bit / 8;
    !(DENSE..4096 - TAIL).contains(&byte) || bit.is_multiple_of(STRIDE)
}

/// Pages as they are, packed, equal and zero, in two snapshots.
fn small() -> (Image, Held) {
    let snapshots = [("a@1", vec![run(0, 4, 1)]), ("a@2", vec![packed_run(0, 6, 2)])];
    let history = History::with(SMALL, &snapshots);
    (history.disk.image(), history.possible.last().cloned().flatten())
}

struct Flips<'a> {
    image: &'a Image,
    held: &'a Held,
}

impl Flips<'_> {
    /// What lies in a block, as far as it decides what a flip may do.
    fn kind(&self, at: u64) -> &'static str {
        let magic = self.image.bytes(at);
        let Ok(geometry) = Geometry::of(SMALL) else { return "" };
        let first = u64::from(geometry.first_segment) * layout::SEGMENT_BLOCKS;
        if at < first || at >= geometry.mirror(layout::META_FIRST) {
            return if at == 0 || at == SMALL - 1 { "two copies: superblock" } else { "two copies: meta area" };
        }
        let pages = self.held.iter().flat_map(|held| held.values()).flat_map(|pages| pages.values());
        match magic {
            bytes if bytes.starts_with(b"LSRO") => "one copy: root",
            bytes if bytes.starts_with(b"LSRL") => "one copy: leaf of a run",
            bytes if bytes.starts_with(b"LSSS") => "one copy: set of segments",
            bytes if bytes.starts_with(b"{}") => "one copy: attachment",
            bytes if pages.clone().any(|page| page.bytes == bytes) => "one copy: page",
            _ => "packed pages and the room beside them",
        }
    }

    /// Flips one bit: whether it is noticed, and whether it is harmless. One that is neither is an error.
    fn one(&self, at: u64, bit: usize) -> Result<(bool, bool)> {
        let mut image = self.image.clone();
        image.flip(at, bit);
        let disk = Disk::with(SMALL, image);
        let given = honest(disk.clone(), std::slice::from_ref(self.held));
        match given {
            Ok(given) => Ok((given.refused > 0 || told(disk), given.refused == 0)),
            Err(error) => anyhow::bail!("block {at}, bit {bit}: {error}"),
        }
    }
}

/// Random damage in a store of so many MiB of pages: batches of events, after each of which everything is read.
pub fn random(mib: u64, events: u64, batch: u64, seed: u64) -> Result<()> {
    replay::note("rot-random", seed);
    let large = Large::new(mib);
    let mut rng = Rng(seed);
    let (mut done, mut noticed, mut right, mut kinds) = (0, 0, 0, [0u64; 4]);
    while done < events {
        let count = batch.min(events - done);
        let (image, changed) = large.damage(&mut rng, count, &mut kinds);
        let given = honest(Disk::with(large.blocks, image), &large.known)
            .map_err(|error| anyhow::anyhow!("seed {seed}, after {done} events: {error}"))?;
        ensure!(given.refused >= changed, "seed {seed}, after {done}: {} of {changed} noticed", given.refused);
        ensure!(given.right + given.refused >= large.pages, "seed {seed}, after {done}: pages are missing");
        (done, noticed, right) = (done + count, noticed + changed, right + given.right);
    }
    println!(
        "{done} events in {mib} MiB ({} flips, {} swaps, {} misdirected, {} stale): {noticed} damaged pages, all \
         noticed; {right} pages read right, none wrong",
        kinds[0], kinds[1], kinds[2], kinds[3]
    );
    Ok(())
}

/// A store that is full of noise.
struct Large {
    blocks: u64,
    image: Image,
    known: Vec<Held>,
    /// Blocks that hold a page.
    held: Vec<u64>,
    pages: u64,
    /// What stood in them before they were used again.
    older: HashMap<u64, Rc<Block>>,
}

impl Large {
    fn new(mib: u64) -> Self {
        let blocks = mib * 256 + mib * 8 + 4096;
        let mut history = History::empty(blocks);
        let total = mib * 256;
        let mut older = Image::default();
        if let Ok(mut store) = history.open() {
            let names = (0..).map(|number| format!("a@{number}"));
            let sizes = (0..total.div_ceil(LARGE_PAGES)).map(|n| LARGE_PAGES.min(total - n * LARGE_PAGES));
            // The first one lies where another one lay.
            let _ = history.take(&mut store, "old@1", &[noise(LARGE_PAGES.min(total), 999)]);
            older = history.disk.image();
            let _ = history.remove(&mut store, "old@1");
            drop(store);
            if let Ok(mut store) = history.open() {
                for (salt, (name, pages)) in (1..).zip(names.zip(sizes)) {
                    let _ = history.take(&mut store, &name, &[noise(pages, salt)]);
                    history = history.afresh();
                }
            }
        }
        Self::of(history, blocks, &older)
    }

    fn of(history: History, blocks: u64, older: &Image) -> Self {
        let (image, known) = (history.disk.image(), history.possible);
        let all: Vec<&Pages> = known.iter().flatten().flat_map(|held| held.values()).map(|pages| &**pages).collect();
        let contents: HashMap<&[u8], ()> =
            all.iter().flat_map(|pages| pages.values()).map(|block| (&block.bytes[..], ())).collect();
        let held: Vec<u64> = image.used().filter(|at| contents.contains_key(&image.bytes(*at)[..])).collect();
        let older = held.iter().filter_map(|at| Some((*at, older.get(*at)?.clone()))).collect();
        let pages = all.iter().map(|pages| pages.len() as u64).sum();
        Self { blocks, image, held, pages, older, known: known.clone() }
    }

    /// Damages so many blocks. Returns the pages that are not what they were.
    fn damage(&self, rng: &mut Rng, count: u64, kinds: &mut [u64; 4]) -> (Image, u64) {
        let mut image = self.image.clone();
        let mut touched: HashMap<u64, ()> = HashMap::new();
        let pick = |rng: &mut Rng| self.held[usize::try_from(rng.below(self.held.len() as u64)).unwrap_or(0)];
        for _ in 0..count {
            let (at, other) = (pick(rng), pick(rng));
            let (mine, theirs) = (Block::new(image.bytes(at)), Block::new(image.bytes(other)));
            touched.insert(at, ());
            match (rng.below(4), self.older.get(&at)) {
                (0, Some(old)) => {
                    image.put(at, old.clone());
                    kinds[3] += 1;
                }
                (1, _) => {
                    image.put(at, theirs);
                    image.put(other, mine);
                    touched.insert(other, ());
                    kinds[1] += 1;
                }
                (2, _) => {
                    image.put(at, theirs);
                    kinds[2] += 1;
                }
                _ => {
                    image.flip(at, usize::try_from(rng.below(4096 * 8)).unwrap_or(0));
                    kinds[0] += 1;
                }
            }
        }
        let changed = touched.keys().filter(|at| image.bytes(**at) != self.image.bytes(**at)).count() as u64;
        (image, changed)
    }
}

/// Pages of which no two are equal.
fn noise(pages: u64, salt: u64) -> Run {
    (0..pages).map(|gfn| (gfn, Some((salt << 33) | (gfn + 1)))).collect()
}
