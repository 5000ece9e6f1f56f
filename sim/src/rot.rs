//! Damage to what lies still in a large store: flips, swaps, stale and misdirected blocks.

use std::collections::HashMap;
use std::rc::Rc;

use anyhow::{Result, ensure};

use crate::content::{Held, Pages, Run};
use crate::disk::Disk;
use crate::history::History;
use crate::image::{Block, Image};
use crate::judge::honest;
use crate::replay;
use crate::rng::Rng;

/// Pages of one snapshot in the large store.
const LARGE_PAGES: u64 = 30_000;

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
