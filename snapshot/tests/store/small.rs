//! What makes a snapshot small: packed pages, equal pages, zero pages; and that what does not pay is left alone.

use std::rc::Rc;

use snapshot::store::{Catalog, Compression, NewSnapshot, SealInfo, SnapshotSummary, StoreError, layout};
use xen_hypercall::types::Gfn;

use crate::disk::{Disk, Rng};
use crate::world::{PACKS, Run, catalog, compare, fill, flatten, formatted, new, open, packed_run, page, run, take};

/// 32 MiB.
const MEDIUM: u64 = 8192;

fn sealed(disk: &Disk, compression: Compression, runs: &[Run]) -> SnapshotSummary {
    let mut store = open(disk);
    let mut taking = store.begin(&NewSnapshot { compression, ..new("a@1", 0) }).unwrap();
    fill(&mut taking, runs).unwrap();
    taking.seal(&SealInfo::default()).unwrap()
}

fn comes_back(disk: &Disk, runs: &[Run]) {
    let mut reader = catalog(MEDIUM, &disk.image()).unwrap();
    compare(&mut reader, "a@1", &flatten(runs)).unwrap();
    assert!(reader.check(true, &mut |_, _| {}).unwrap().is_clean());
}

fn incompat(disk: &Disk) -> u64 {
    layout::superblock::INCOMPAT.u64(&disk.image()[&0][..])
}

#[test]
fn packed_pages_come_back_and_take_less_room() {
    let runs = [packed_run(0, 700, 1), packed_run(90, 200, 2), run(300, 40, 3)];
    let sizes = [Compression::Lz4, Compression::None].map(|compression| {
        let disk = formatted(MEDIUM);
        let summary = sealed(&disk, compression, &runs);
        comes_back(&disk, &runs);
        assert_eq!(incompat(&disk), u64::from(compression == Compression::Lz4));
        (summary.stored_bytes, summary.bytes_written)
    });
    assert!(sizes[0].0 * 10 < sizes[1].0 * 7 && sizes[0].1 * 10 < sizes[1].1 * 8, "{sizes:?}");
}

#[test]
fn what_does_not_pack_sets_no_flag_and_is_as_large_as_without() {
    let sizes = [Compression::Lz4, Compression::None].map(|compression| {
        let disk = formatted(MEDIUM);
        let summary = sealed(&disk, compression, &[run(0, 700, 1)]);
        assert_eq!(incompat(&disk), 0);
        (summary.stored_bytes, summary.bytes_written)
    });
    assert_eq!(sizes[0], sizes[1]);
}

#[test]
fn equal_pages_are_stored_once_across_rounds() {
    for compression in [Compression::Lz4, Compression::None] {
        let disk = formatted(MEDIUM);
        let equal: Run = (0..2000).map(|gfn| (gfn, Some(77 + gfn % 3))).collect();
        let runs = [equal.clone(), equal];
        let summary = sealed(&disk, compression, &runs);
        // Three pages; indexes and attachments are the rest.
        assert!(summary.stored_bytes < 3 * 4096 + 2000 * 32 + 3 * 4096, "{}", summary.stored_bytes);
        assert_eq!(summary.data_pages, 2000);
        comes_back(&disk, &runs);
    }
}

#[test]
fn nothing_is_shared_with_another_snapshot() {
    let disk = formatted(MEDIUM);
    let mut store = open(&disk);
    take(&mut store, "a@0", &[run(0, 100, 1)]).unwrap();
    take(&mut store, "a@1", &[run(0, 100, 1)]).unwrap();
    store.remove("a@0").unwrap();
    drop(store);
    comes_back(&disk, &[run(0, 100, 1)]);
}

/// Packed and raw pages in every order: places stay inside segments and never overlap.
#[test]
fn pages_of_every_size_fill_segments_without_overlap() {
    let mut rng = Rng(11);
    for _ in 0..4 {
        let disk = formatted(MEDIUM);
        let mixed = |rng: &mut Rng, salt: u64| -> Run {
            (0..900).map(|gfn| (gfn, Some(if rng.below(3) == 0 { salt + gfn } else { PACKS | (salt + gfn) }))).collect()
        };
        let runs = [mixed(&mut rng, 10_000), mixed(&mut rng, 20_000)];
        sealed(&disk, Compression::Lz4, &runs);
        comes_back(&disk, &runs);
    }
}

/// A reservation is an upper bound, whatever the pages are.
#[test]
fn a_reserved_take_never_runs_full() {
    let mut rng = Rng(3);
    for kind in 0..3 {
        let disk = formatted(MEDIUM);
        let mut store = open(&disk);
        let usable = store.begin(&new("a@1", u64::MAX / 2)).err();
        let Some(StoreError::Full { available, .. }) = usable else { panic!("{usable:?}") };
        let most = (0..available / 4096).rev().find(|pages| store.begin(&new("a@1", pages * 4096)).is_ok()).unwrap();
        let mut taking = store.begin(&new("a@1", most * 4096)).unwrap();
        for round in 0..4 {
            taking.run_begin().unwrap();
            for gfn in 0..most / 4 {
                let packs = [0, PACKS, PACKS * rng.below(2)][kind];
                taking.page(Gfn::new(gfn), &page(packs | (round * 100_000 + gfn + 1))).unwrap();
            }
            taking.run_end().unwrap();
        }
        taking.seal(&SealInfo::default()).unwrap();
    }
}

#[test]
fn a_damaged_packed_page_costs_itself_and_what_shares_its_block() {
    let disk = formatted(MEDIUM);
    let pages: Run = (0..60).map(|gfn| (gfn, Some(PACKS | (gfn + 1)))).collect();
    sealed(&disk, Compression::Lz4, std::slice::from_ref(&pages));
    let image = disk.image();
    let data: Vec<u64> = image.keys().copied().filter(|block| (256..MEDIUM - 300).contains(block)).collect();
    let mut damaged_pages = 0;
    for block in data {
        let mut broken = image.clone();
        let mut page = *broken[&block];
        page.iter_mut().for_each(|byte| *byte ^= 0x55);
        broken.insert(block, Rc::new(page));
        let mut reader = Catalog::open(Disk::with(MEDIUM, broken)).map_err(|failed| failed.error).unwrap();
        let Ok(mut one) = reader.snapshot("a@1") else { continue };
        let Ok(report) = one.verify(&mut |_, _| {}) else { continue };
        assert_eq!(report.data_pages + report.damaged, 60);
        assert!(report.damaged < 22, "{} in one block", report.damaged);
        damaged_pages += report.damaged;
    }
    assert!(damaged_pages >= 60, "each page is noticed");
}
