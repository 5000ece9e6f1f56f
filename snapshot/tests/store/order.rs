//! In what order a snapshot is read for an export: how many blocks for each page, in how many requests, with how many
//! jumps. A disk turns jumps into time; `dd` has none.

use snapshot::store::{Catalog, Compression, NewSnapshot, SealInfo, Sharing};

use crate::disk::{Disk, Rng};
use crate::space::clean;
use crate::world::{Run, fill, formatted, new, open};

/// Pages of the guest: 32 MiB.
const PAGES: u64 = 8192;

/// What reading all pages of a snapshot cost.
#[derive(Debug)]
struct Cost {
    pages: u64,
    blocks: u64,
    requests: u64,
    /// Requests that do not begin where the one before ended, and back.
    jumps: u64,
    back: u64,
}

fn read_all(disk: &Disk, name: &str) -> Cost {
    let mut catalog = Catalog::open(disk.clone()).map_err(|failed| failed.error).unwrap();
    let mut reader = catalog.snapshot(name).unwrap();
    let before = {
        let mut state = disk.0.borrow_mut();
        state.read_blocks.clear();
        state.reads
    };
    let mut pages = reader.pages().unwrap();
    let mut count = 0;
    while pages.next_page().unwrap().is_some() {
        count += 1;
    }
    let state = disk.0.borrow();
    let pairs = || state.read_blocks.windows(2).map(|pair| (pair[0], pair[1]));
    Cost {
        pages: count,
        blocks: state.read_blocks.len() as u64,
        requests: state.reads - before,
        jumps: pairs().filter(|(one, next)| *next != one + 1).count() as u64,
        back: pairs().filter(|(one, next)| next <= one).count() as u64,
    }
}

/// The same, 51 takes of which each but the first changes one page in `one_in`; the last one.
fn chain(one_in: u64, sharing: fn(u64) -> Sharing, cleaned: bool) -> Cost {
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
    read_all(&disk, "a@50")
}

#[test]
fn a_fresh_snapshot_is_read_almost_as_it_lies() {
    let disk = formatted(131_072);
    let mut store = open(&disk);
    let mut taking = store.begin(&NewSnapshot { compression: Compression::None, ..new("a@1", 0) }).unwrap();
    fill(&mut taking, &[(0..PAGES).map(|gfn| (gfn, Some(gfn + 1))).collect()]).unwrap();
    taking.seal(&SealInfo::default()).unwrap();
    let cost = read_all(&disk, "a@1");
    println!("fresh: {cost:?}");
    assert_eq!(cost.pages, PAGES);
    assert!(cost.blocks * 100 <= PAGES * 102, "{cost:?}");
    assert!(cost.requests * 64 <= PAGES, "{cost:?}");
}

#[test]
fn a_snapshot_at_the_end_of_a_chain_is_read_in_the_order_of_the_device_within_a_batch() {
    for (one_in, sharing, cleaned) in
        [(8, Sharing::Since as fn(u64) -> Sharing, true), (8, Sharing::Equal, true), (50, Sharing::Since, false)]
    {
        let cost = chain(one_in, sharing, cleaned);
        println!("1/{one_in}, cleaned {cleaned}: {cost:?}");
        assert_eq!(cost.pages, PAGES);
        // Indexes of 16 runs and no page twice.
        assert!(cost.blocks * 100 <= PAGES * 106, "{cost:?}");
        // Where takes changed pages at random, hardly two follow each other.
        assert!(cost.requests * 8 <= PAGES * 5 && cost.jumps < cost.requests, "{cost:?}");
        // Once back for each batch, and for each block of an index.
        assert!(cost.back <= PAGES / 64, "{cost:?}");
    }
}
