//! Pages, runs of them, and what snapshots must therefore hold.

use std::collections::BTreeMap;
use std::rc::Rc;

use snapshot::ports::Page;

use crate::image::Block;
use crate::rng::Rng;

/// Contents with this bit pack well; the others are noise.
pub const PACKS: u64 = 1 << 32;

/// Content of a page, made from a number; 0 is the zero page.
pub fn page(content: u64) -> Page {
    let mut page = [0; 4096];
    let mut rng = Rng(content);
    if content & PACKS != 0 {
        let tail = 200 + rng.below(3000) as usize;
        page.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 16) as u8 ^ content as u8);
        page.iter_mut().take(tail / 4 * 3).for_each(|byte| *byte = rng.next() as u8);
    } else if content != 0 {
        page.as_chunks_mut().0.iter_mut().for_each(|word| *word = rng.next().to_le_bytes());
    }
    page
}

/// One round: what it says of each gfn; None is a hole.
pub type Run = BTreeMap<u64, Option<u64>>;

/// The pages of one snapshot.
pub type Pages = BTreeMap<u64, Rc<Block>>;

/// What a store holds, by name; None before it was formatted.
pub type Held = Option<BTreeMap<String, Rc<Pages>>>;

/// The pages of several rounds, oldest first.
pub fn flatten(runs: &[Run]) -> Pages {
    let mut all = Run::new();
    runs.iter().for_each(|run| all.extend(run));
    let pages = all.into_iter().filter_map(|(gfn, content)| content.map(|content| (gfn, Block::new(page(content)))));
    pages.collect()
}

/// So many pages from a gfn on; every fifth is zero.
pub fn run(from: u64, count: u64, salt: u64) -> Run {
    (from..from + count).map(|gfn| (gfn, Some(if gfn % 5 == 3 { 0 } else { salt * 1_000_000 + gfn + 1 }))).collect()
}

/// As [`run`], of pages that pack, some of them equal to others, and noise between them.
pub fn packed_run(from: u64, count: u64, salt: u64) -> Run {
    let content = |gfn: u64| match gfn % 7 {
        3 => 0,
        5 => salt * 1_000_000 + gfn + 1,
        1 => PACKS | salt << 8,
        _ => PACKS | salt << 8 | (gfn + 1),
    };
    (from..from + count).map(|gfn| (gfn, Some(content(gfn)))).collect()
}

/// Rounds as a guest makes them: of the pages dirtied, some become zero, some go, some pack.
pub fn random_runs(rng: &mut Rng) -> Vec<Run> {
    let pages = 1 + rng.below(14);
    let mut runs = vec![random_run(rng, pages, 1)];
    for _ in 0..rng.below(4) {
        let one_in = 1 + rng.below(4);
        runs.push(random_run(rng, pages + 2, one_in));
    }
    runs
}

fn random_run(rng: &mut Rng, pages: u64, one_in: u64) -> Run {
    let mut run = Run::new();
    for gfn in 0..pages {
        if rng.once_in(one_in) {
            let content = match rng.below(8) {
                0 => None,
                1 => Some(0),
                2 => Some(7),
                3 | 4 => Some(PACKS | rng.below(1 << 20)),
                _ => Some(1 + (rng.next() >> 34)),
            };
            run.insert(gfn * (1 + rng.below(2)), content);
        }
    }
    run
}
