//! Room: what a take reserves before it begins, what it leaves while it runs, and what it does not waste.

use snapshot::store::layout::{GFN_LIMIT, SEGMENT_BYTES};
use snapshot::store::{AttachmentKind, Compression, NewSnapshot, SealInfo, Sharing, StoreError, layout};
use xen_hypercall::types::Gfn;

use crate::disk::Disk;
use crate::world::{PACKS, Run, fill, formatted, new, open, take};

/// 32 MiB.
const BLOCKS: u64 = 8192;

/// The most bytes that a take can reserve.
fn most(disk: &Disk, sharing: Sharing) -> u64 {
    let mut store = open(disk);
    let (mut fits, mut too_much) = (0, BLOCKS * 4096);
    while too_much - fits > 1 {
        let middle = fits + (too_much - fits) / 2;
        match store.begin(&NewSnapshot { sharing, ..new("b@1", middle) }).map(drop) {
            Ok(()) => fits = middle,
            Err(StoreError::Full { wanted, available }) => {
                assert!(wanted > available && available.is_multiple_of(SEGMENT_BYTES), "{wanted} {available}");
                too_much = middle;
            }
            Err(error) => panic!("{error}"),
        }
    }
    fits
}

#[test]
fn a_take_on_top_of_another_reserves_its_index_as_well() {
    let disk = formatted(BLOCKS);
    let pages = 3000;
    take(&mut open(&disk), "a@1", &[(0..pages).map(|gfn| (gfn, Some(gfn + 1))).collect()]).unwrap();
    let alone = most(&disk, Sharing::Nothing);
    // Pages, twice an entry of 32 bytes for each, a 64th, and two segments for sealing.
    let free = open(&disk).info();
    let usable = u64::from(free.free_segments.unwrap() - free.slop_segments) * SEGMENT_BYTES;
    let needs = |bytes: u64| bytes + bytes.div_ceil(4096) * 64;
    let all = |bytes: u64| needs(bytes) + needs(bytes) / 64 + 2 * SEGMENT_BYTES;
    assert!(all(alone) <= usable && all(alone + 1) > usable, "{alone} of {usable}");
    let index = pages * layout::entry::SIZE as u64;
    let less = all(alone) - all(most(&disk, Sharing::Since(1)));
    assert!((index - 4200..=index + 4200).contains(&less), "{less}, {index}");
    assert_eq!(most(&disk, Sharing::Equal(1)), alone, "every page is handed in");
}

#[test]
fn a_guest_that_is_too_large_is_refused() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    let refused = store.begin(&NewSnapshot { max_gfn: Gfn::new(GFN_LIMIT), ..new("a@1", 0) }).map(drop);
    assert_eq!(refused, Err(StoreError::OutOfOrder { gfn: Gfn::new(GFN_LIMIT) }));
    store.begin(&NewSnapshot { max_gfn: Gfn::new(GFN_LIMIT - 1), ..new("a@1", 0) }).unwrap();
}

/// An index of ranges takes room that nothing but their number tells of: when the run is merged, it is written again.
#[test]
fn room_for_the_index_is_kept_as_it_grows() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    let mut taking = store.begin(&new("a@1", 0)).unwrap();
    let before = taking.space_left();
    let entries = 70_000_u64;
    for run in 0..2 {
        taking.run_begin().unwrap();
        for number in 0..entries / 2 {
            let gfn = Gfn::new(run * entries + number);
            if number % 2 == 0 { taking.hole(gfn).unwrap() } else { taking.zero(gfn).unwrap() }
        }
        if run == 0 {
            taking.run_end().unwrap();
        }
    }
    let spent = (before - taking.space_left()) / SEGMENT_BYTES;
    // 35000 entries of 32 bytes were written twice, and twice their 64 bytes are kept; and one more to seal two runs.
    assert_eq!(spent, (2 * entries / 2 * 32).div_ceil(SEGMENT_BYTES) + entries * 64 / SEGMENT_BYTES + 1);
    taking.run_end().unwrap();
    taking.seal(&SealInfo::default()).unwrap();
}

#[test]
fn ranges_that_touch_are_one_entry() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    let mut taking = store.begin(&new("a@1", 0)).unwrap();
    taking.run_begin().unwrap();
    for gfn in 0..20_000 {
        if gfn / 5000 % 2 == 0 { taking.zero(Gfn::new(gfn)).unwrap() } else { taking.hole(Gfn::new(gfn)).unwrap() }
    }
    taking.run_end().unwrap();
    let summary = taking.seal(&SealInfo::default()).unwrap();
    assert_eq!(summary.zero_pages, 10_000);
    // A leaf, a set of segments, a root.
    assert!(summary.stored_bytes <= 3 * 4096, "{}", summary.stored_bytes);
}

/// A page that does not pack begins a block; what packs goes into the room before it.
#[test]
fn the_room_beside_raw_pages_is_used_by_packed_ones() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    let mut taking = store.begin(&NewSnapshot { compression: Compression::Lz4, ..new("a@1", 0) }).unwrap();
    let mixed: Run = (0..400).map(|gfn| (gfn, Some(if gfn % 2 == 0 { PACKS | (gfn + 1) } else { gfn + 1 }))).collect();
    fill(&mut taking, &[mixed]).unwrap();
    let summary = taking.seal(&SealInfo::default()).unwrap();
    let raw = 200 * 4096;
    let packed = summary.bytes_written - raw;
    assert!(packed < 200 * 4096 * 3 / 4, "{packed} bytes for 200 pages that pack to half or more");
}

#[test]
fn what_is_attached_below_is_not_written_again() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    let bytes: Vec<u8> = (0..900_000_u32).map(|at| (at / 7) as u8).collect();
    let written = [Sharing::Nothing, Sharing::Since(1)].map(|sharing| {
        let name = format!("a@{}", u8::from(sharing != Sharing::Nothing));
        let mut taking = store.begin(&NewSnapshot { sharing, ..new(&name, 0) }).unwrap();
        taking.attach(AttachmentKind::CONFIG_JSON, &bytes).unwrap();
        taking.seal(&SealInfo::default()).unwrap().bytes_written
    });
    assert!(written[0] > 900_000 && written[1] < 100_000, "{written:?}");
}
