//! In what order a snapshot is read for an export: how many blocks for each page, in how many requests, with how many
//! jumps. A disk turns jumps into time; `dd` has none.

use std::collections::{BTreeMap, BTreeSet};

use snapshot::store::{BatchSize, Catalog, Compression, NewSnapshot, SealInfo, Sharing, StoreError};

use crate::disk::{Disk, Rng};
use crate::space::clean;
use crate::world::{Run, fill, formatted, new, open, page};

/// Pages of the guest: 32 MiB.
const PAGES: u64 = 8192;

/// What reading all pages of a snapshot cost.
#[derive(Debug)]
struct Cost {
    pages: u64,
    blocks: u64,
    requests: u64,
    /// Requests that were announced; the others are for indexes.
    announced: u64,
    /// Requests that do not begin where the one before ended, and back.
    jumps: u64,
    back: u64,
}

fn read_all(disk: &Disk, name: &str, size: BatchSize) -> Cost {
    let mut catalog = Catalog::open(disk.clone()).map_err(|failed| failed.error).unwrap();
    catalog.read_together(size);
    let mut reader = catalog.snapshot(name).unwrap();
    let (before, announced) = {
        let mut state = disk.0.borrow_mut();
        state.read_blocks.clear();
        (state.reads, state.announced_reads)
    };
    let mut pages = reader.pages().unwrap();
    let mut count = 0;
    while pages.next_page().unwrap().is_some() {
        count += 1;
    }
    let state = disk.0.borrow();
    assert!(state.announced.is_empty(), "announced and not read: {:?}", state.announced);
    let pairs = || state.read_blocks.windows(2).map(|pair| (pair[0], pair[1]));
    Cost {
        pages: count,
        blocks: state.read_blocks.len() as u64,
        requests: state.reads - before,
        announced: state.announced_reads - announced,
        jumps: pairs().filter(|(one, next)| *next != one + 1).count() as u64,
        back: pairs().filter(|(one, next)| next <= one).count() as u64,
    }
}

/// A disk after 51 takes of which each but the first changes one page in `one_in`; the last one is `a@50`, and holds
/// these pages.
fn chain(one_in: u64, sharing: fn(u64) -> Sharing, cleaned: bool) -> (Disk, Run) {
    let disk = formatted(131_072);
    let mut store = open(&disk);
    let (mut rng, mut base, mut state) = (Rng(3), None, Run::new());
    for number in 0..51u64 {
        let dirty = (0..PAGES).filter(|_| number == 0 || rng.below(one_in) == 0);
        let dirty: Run = dirty.map(|gfn| (gfn, Some(number << 20 | (gfn + 1)))).collect();
        state.extend(&dirty);
        let sharing = base.map_or(Sharing::Nothing, sharing);
        let runs = if matches!(sharing, Sharing::Since(_)) { dirty } else { state.clone() };
        let name = format!("a@{number}");
        let taken = NewSnapshot { sharing, compression: Compression::None, ..new(&name, 0) };
        let mut taking = store.begin(&taken).unwrap();
        fill(&mut taking, &[runs]).unwrap();
        base = Some(taking.seal(&SealInfo::default()).unwrap().id);
        if number > 6 {
            store.remove(&format!("a@{}", number - 7)).unwrap();
        }
        if cleaned {
            clean(&mut store);
        }
    }
    (disk, state)
}

/// Reads the snapshot with batches of both sizes; says what that cost, and checks what holds for any snapshot.
fn both(what: &str, disk: &Disk, name: &str) -> [Cost; 2] {
    [BatchSize::SMALL, BatchSize::LARGE].map(|size| {
        let cost = read_all(disk, name, size);
        let each = cost.blocks * 1000 / PAGES;
        println!("{what}, {size:?}: {}.{:03} blocks for a page, {cost:?}", each / 1000, each % 1000);
        assert_eq!(cost.pages, PAGES);
        assert!(cost.jumps < cost.requests, "{cost:?}");
        // Pages are announced; what is not is index.
        assert!(cost.requests - cost.announced <= PAGES / 128, "{cost:?}");
        cost
    })
}

#[test]
fn a_fresh_snapshot_is_read_almost_as_it_lies() {
    let disk = formatted(131_072);
    let mut store = open(&disk);
    let mut taking = store.begin(&NewSnapshot { compression: Compression::None, ..new("a@1", 0) }).unwrap();
    fill(&mut taking, &[(0..PAGES).map(|gfn| (gfn, Some(gfn + 1))).collect()]).unwrap();
    taking.seal(&SealInfo::default()).unwrap();
    for cost in both("fresh", &disk, "a@1") {
        assert!(cost.blocks * 100 <= PAGES * 102, "{cost:?}");
        assert!(cost.requests * 64 <= PAGES, "{cost:?}");
    }
}

#[test]
fn a_snapshot_at_the_end_of_a_chain_is_read_in_the_order_of_the_device_within_a_batch() {
    for (one_in, sharing, cleaned) in [
        (8, Sharing::Since as fn(u64) -> Sharing, false),
        (8, Sharing::Since, true),
        (8, Sharing::Equal, true),
        (50, Sharing::Since, false),
        (50, Sharing::Since, true),
    ] {
        let (disk, _) = chain(one_in, sharing, cleaned);
        let [small, large] = both(&format!("1/{one_in}, {:?}, cleaned {cleaned}", sharing(1)), &disk, "a@50");
        // Indexes of 16 runs and no page twice; with large batches a fifth more, and fewer requests for it.
        assert!(small.blocks * 100 <= PAGES * 106, "{small:?}");
        assert!(large.blocks * 100 <= PAGES * 126, "{large:?}");
        // Where takes changed pages at random, hardly two follow each other.
        assert!(small.requests * 8 <= PAGES * 5, "{small:?}");
        assert!(large.requests * 4 < small.requests * 3, "{large:?}");
        // Once back for each batch, and for each block of an index.
        assert!(small.back <= PAGES / 64 && large.back <= PAGES / 64, "{small:?} {large:?}");
    }
}

/// The gfns whose pages cannot be read.
fn damaged(disk: &Disk, size: BatchSize) -> BTreeSet<u64> {
    let mut catalog = Catalog::open(disk.clone()).map_err(|failed| failed.error).unwrap();
    catalog.read_together(size);
    let mut reader = catalog.snapshot("a@50").unwrap();
    let mut pages = reader.pages().unwrap();
    let mut damaged = BTreeSet::new();
    loop {
        match pages.next_page() {
            Ok(Some(_)) => {}
            Ok(None) => return damaged,
            Err(StoreError::DamagedPage { gfn, .. }) => assert!(damaged.insert(gfn.raw())),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_block_that_cannot_be_read_costs_its_own_page_and_none_that_is_read_with_it() {
    let (disk, state) = chain(8, Sharing::Since, false);
    let blocks_of = |size| {
        read_all(&disk, "a@50", size);
        disk.0.borrow().read_blocks.iter().copied().collect::<BTreeSet<u64>>()
    };
    let (wanted, all) = (blocks_of(BatchSize::SMALL), blocks_of(BatchSize::LARGE));
    let mut bad: BTreeSet<u64> = all.difference(&wanted).copied().step_by(5).collect();
    assert!(bad.len() > 100, "hardly any gap is read through: {}", bad.len());
    let image = disk.image();
    let places: BTreeMap<_, _> = image.iter().map(|(block, content)| (**content, *block)).collect();
    let lost = [0, 100, 101, 4096, PAGES - 1];
    bad.extend(lost.iter().map(|gfn| places[&page(state[gfn].unwrap())]));
    disk.0.borrow_mut().bad = bad;
    for size in [BatchSize::SMALL, BatchSize::LARGE] {
        assert_eq!(damaged(&disk, size), BTreeSet::from(lost), "{size:?}");
    }
}
