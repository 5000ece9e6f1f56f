//! What the store gives to the device is counted: in pieces, and as much as it says.

use snapshot::store::layout::SEGMENT_BYTES;
use xen_hypercall::types::Gfn;

use crate::world::{formatted, new, open, page};

/// 32 MiB.
const BLOCKS: u64 = 8192;
const PIECE_BYTES: u64 = 512 << 10;

#[test]
fn pages_are_gathered_until_they_are_a_piece() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    let mut taking = store.begin(&new("a@1", 0)).unwrap();
    taking.run_begin().unwrap();
    for number in 1..=600 {
        taking.page(Gfn::new(number), &page(number)).unwrap();
        let (pace, written) = (taking.pace(), taking.bytes_written());
        assert_eq!((pace.piece_bytes, written % PIECE_BYTES), (PIECE_BYTES, 0), "{number}");
        assert!(pace.gathered_bytes < PIECE_BYTES, "{number}");
        // A leaf of the index for each hundred pages and more.
        let least = number * 4096;
        assert!((least..=least + number / 100 * 4096).contains(&(written + pace.gathered_bytes)), "{number}");
    }
    taking.sync().unwrap();
    assert_eq!(taking.pace().gathered_bytes, 0);
}

#[test]
fn the_space_that_is_left_goes_down_by_segments_and_keeps_what_sealing_needs() {
    let disk = formatted(BLOCKS);
    let mut store = open(&disk);
    let mut taking = store.begin(&new("a@1", 0)).unwrap();
    taking.run_begin().unwrap();
    let mut before = taking.space_left();
    for number in 1..=1000 {
        taking.page(Gfn::new(number), &page(number)).unwrap();
        let left = taking.space_left();
        assert!(left == before || left == before - SEGMENT_BYTES, "{number}: {before}, then {left}");
        before = left;
    }
    let at_first = taking.space_left();
    taking.run_end().unwrap();
    // A second run has to be merged with the first: room for both indexes, and more of it.
    assert!(taking.space_left() < at_first, "{at_first}");
}
