//! How large a device must be: for so many snapshots of a guest, and for a take beside them.
//!
//! Invariant: the same numbers as the store's own reservation, so a device of this size never refuses the take.

use crate::store::admit::reserved_bytes;
use crate::store::geometry::Geometry;
use crate::store::layout::{DEVICE_BLOCKS_MAX, DEVICE_BLOCKS_MIN, SEGMENT_BYTES};

/// The cleaner leaves at most an eighth of a snapshot's segments to be gained.
const SPARSE_SHARE: u64 = 8;

/// The least number of blocks of a device that holds `keep` snapshots of a guest of so many bytes, none of whose pages
/// pack, and the upper bound of a take that may write `factor` times the memory. None if no device is that large.
pub fn device_blocks(memory_bytes: u64, keep: u64, factor: u64) -> Option<u64> {
    let segments = |bytes: u64| bytes.div_ceil(SEGMENT_BYTES);
    let one = segments(reserved_bytes(memory_bytes));
    let kept = keep.checked_mul(one.checked_add(one.div_ceil(SPARSE_SHARE))?)?;
    let need = kept.checked_add(segments(reserved_bytes(memory_bytes.checked_mul(factor)?)))?;
    let fits =
        |blocks: u64| Geometry::of(blocks).is_ok_and(|geometry| u64::from(geometry.segments - geometry.slop()) >= need);
    let (mut low, mut high) = (DEVICE_BLOCKS_MIN, DEVICE_BLOCKS_MAX);
    if !fits(high) {
        return None;
    }
    while low < high {
        let middle = low.midpoint(high);
        (low, high) = if fits(middle) { (low, middle) } else { (middle + 1, high) };
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_with_what_is_asked() {
        let gib = 1 << 30;
        let blocks = device_blocks(gib, 7, 5).unwrap();
        // 7 times 1.125 GiB and 5 GiB, and some percent of indexes.
        assert!((13 << 18..15 << 18).contains(&blocks), "{blocks}");
        assert!(device_blocks(gib, 8, 5).unwrap() > blocks + (1 << 18));
        assert_eq!(device_blocks(1 << 50, 1, 1), None);
        assert_eq!(device_blocks(u64::MAX, u64::MAX, 5), None);
    }

    #[test]
    fn the_least_device_that_fits_is_found() {
        for (memory, keep, factor) in [(64 << 20, 1, 1), (300 << 20, 3, 5), (5 << 30, 10, 5)] {
            let blocks = device_blocks(memory, keep, factor).unwrap();
            let usable = |blocks| Geometry::of(blocks).map_or(0, |geometry| geometry.segments - geometry.slop());
            assert!(usable(blocks) > usable(blocks - 1), "{blocks}");
        }
    }
}
