//! What follows from the size of the device (docs/format/store-v1.md, section 2), and nothing else.
//!
//! Invariant: a [`Geometry`] was computed here from a number of blocks within the limits, so arithmetic with its
//! values cannot overflow. A superblock is believed only as far as it repeats these values.

use crate::store::error::{Result, StoreError};
use crate::store::layout::{
    self as on_disk, BLOCK, DEVICE_BLOCKS_MAX, DEVICE_BLOCKS_MIN, META_FIRST, SEGMENT_BLOCKS, SEGMENTS_MAX,
    SEGMENTS_MIN, SNAPSHOTS_MAX, TABLE_LEAF_ENTRIES,
};
use crate::store::sabotage::{Safeguard, out};

/// Index of an entry of the segment table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SegmentId(pub u32);

/// Number of a segment on the device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Address(pub u32);

impl Address {
    /// Its first block.
    pub fn block(self) -> u64 {
        u64::from(self.0) * SEGMENT_BLOCKS
    }
}

/// Sizes and places of the areas of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Blocks of the device, as far as they are used.
    pub blocks: u64,
    /// Most snapshots.
    pub snapshots: u64,
    /// Blocks of the catalog.
    pub catalog_blocks: u64,
    /// Blocks of the directory.
    pub directory_blocks: u64,
    /// Leaves of the segment table.
    pub leaves: u64,
    /// Blocks of a meta area.
    pub meta_blocks: u64,
    /// First allocatable address.
    pub first_segment: u32,
    /// Number of ids, and of allocatable addresses.
    pub segments: u32,
}

impl Geometry {
    /// The geometry of a device of so many blocks.
    pub fn of(device_blocks: u64) -> Result<Self> {
        let blocks = device_blocks.min(DEVICE_BLOCKS_MAX);
        let upper = blocks / SEGMENT_BLOCKS;
        let leaves = upper.div_ceil(TABLE_LEAF_ENTRIES);
        let directory_bytes = on_disk::directory::SIZE as u64 + leaves * on_disk::directory_entry::SIZE as u64;
        let snapshots = upper.min(SNAPSHOTS_MAX);
        let catalog_bytes = on_disk::catalog::SIZE as u64 + snapshots * on_disk::catalog_entry::SIZE as u64;
        let (directory_blocks, catalog_blocks) =
            (on_disk::blocks_of(directory_bytes), on_disk::blocks_of(catalog_bytes));
        let meta_blocks = 2 * (catalog_blocks + directory_blocks + leaves);
        let first = (META_FIRST + meta_blocks).div_ceil(SEGMENT_BLOCKS);
        let end = blocks.saturating_sub(1 + meta_blocks) / SEGMENT_BLOCKS;
        let segments = end.saturating_sub(first).min(SEGMENTS_MAX);
        if segments < SEGMENTS_MIN {
            return Err(StoreError::TooSmall { blocks: device_blocks, need: DEVICE_BLOCKS_MIN });
        }
        let (first_segment, segments) = (narrow(first), narrow(segments));
        Ok(Self { blocks, snapshots, catalog_blocks, directory_blocks, leaves, meta_blocks, first_segment, segments })
    }

    /// The block of superblock slot A (0) or B (1).
    pub fn slot(&self, slot: Slot) -> u64 {
        match slot {
            Slot::A => 0,
            Slot::B => self.blocks - 1,
        }
    }

    /// The mirror of a block of the front meta area.
    pub fn mirror(&self, front: u64) -> u64 {
        front.saturating_sub(META_FIRST) + (self.blocks - 1 - self.meta_blocks)
    }

    /// The two homes of an object.
    pub fn homes(&self, object: MetaObject) -> Homes {
        let (offset, blocks) = match object {
            MetaObject::Catalog => (0, self.catalog_blocks),
            MetaObject::Directory => (2 * self.catalog_blocks, self.directory_blocks),
            MetaObject::Leaf(leaf) => (2 * (self.catalog_blocks + self.directory_blocks + u64::from(leaf)), 1),
        };
        let first = META_FIRST + offset;
        Homes { home: [first, first + blocks], blocks }
    }

    /// The address, if it may be allocated.
    pub fn address(&self, raw: u32) -> Option<Address> {
        let within = raw.checked_sub(self.first_segment).is_some_and(|n| n < self.segments);
        within.then_some(Address(raw))
    }

    /// The id, if it exists.
    pub fn id(&self, raw: u32) -> Option<SegmentId> {
        (raw < self.segments).then_some(SegmentId(raw))
    }

    /// Segments that no take may use: one in 64, at least 2 (1 in the tiniest), at most 64.
    pub fn slop(&self) -> u32 {
        (self.segments / 64).clamp(if self.segments < 8 { 1 } else { 2 }, 64)
    }
}

/// A superblock slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// In the first block.
    A,
    /// In the last block.
    B,
}

impl Slot {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What lies in the meta areas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetaObject {
    /// The list of snapshots.
    Catalog,
    /// The pointers to the leaves.
    Directory,
    /// A leaf of the segment table.
    Leaf(u32),
}

/// The two places where an object of the meta area may lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Homes {
    /// First blocks, in the front area.
    pub home: [u64; 2],
    /// Capacity in blocks.
    pub blocks: u64,
}

impl Homes {
    /// True if one of them starts at this block.
    pub fn contains(&self, block: u64) -> bool {
        self.home.contains(&block)
    }

    /// The home that is not at this block.
    pub fn other(&self, block: u64) -> u64 {
        let [first, second] = self.home;
        if (block == first) != out(Safeguard::OtherHome) { second } else { first }
    }

    /// Bytes that fit.
    pub fn capacity(&self) -> u64 {
        self.blocks * BLOCK as u64
    }
}

/// Values bounded by `SEGMENTS_MAX` and a little; the largest otherwise, which no device has.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_device_has_four_segments() {
        assert_eq!(Geometry::of(DEVICE_BLOCKS_MIN).map(|geometry| geometry.segments), Ok(4));
        let less = DEVICE_BLOCKS_MIN - 1;
        assert_eq!(Geometry::of(less), Err(StoreError::TooSmall { blocks: less, need: DEVICE_BLOCKS_MIN }));
    }

    #[test]
    fn areas_never_overlap() {
        for blocks in [DEVICE_BLOCKS_MIN, 5000, 16_384, 262_144, 3_000_001, 1 << 28, DEVICE_BLOCKS_MAX, u64::MAX] {
            let geometry = Geometry::of(blocks).unwrap();
            let first = Address(geometry.first_segment).block();
            let end = first + u64::from(geometry.segments) * SEGMENT_BLOCKS;
            assert!(META_FIRST + geometry.meta_blocks <= first, "{blocks}");
            assert!(end <= geometry.mirror(META_FIRST), "{blocks}");
            assert_eq!(geometry.mirror(META_FIRST) + geometry.meta_blocks, geometry.slot(Slot::B), "{blocks}");
            let last = MetaObject::Leaf(narrow(geometry.leaves - 1));
            assert_eq!(geometry.homes(last).home[1] + 1, META_FIRST + geometry.meta_blocks, "{blocks}");
            assert!(u64::from(geometry.segments) <= geometry.leaves * TABLE_LEAF_ENTRIES, "{blocks}");
        }
    }

    /// The table of section 2 of the document, once more and in another way: what it gives, or `None`.
    fn as_written(n: u64) -> Option<[u64; 8]> {
        let up = |a: u64, b: u64| a / b + u64::from(!a.is_multiple_of(b));
        let n = n.min(256 * 4_002_048);
        let upper = n / 256;
        let leaves = up(upper, 1020);
        let (directory, snapshots) = (up(16 + 24 * leaves, 4096), upper.min(2048));
        let catalog = up(32 + 200 * snapshots, 4096);
        let meta = 2 * (catalog + directory + leaves);
        let first = up(72 + meta, 256);
        let segments = (n.checked_sub(1 + meta)? / 256).checked_sub(first)?.min(4_000_000);
        (segments >= 4).then_some([n, snapshots, catalog, directory, leaves, meta, first, segments])
    }

    fn check(blocks: u64) {
        let found = Geometry::of(blocks).ok();
        let values = found.map(|g| {
            let (first, segments) = (u64::from(g.first_segment), u64::from(g.segments));
            [g.blocks, g.snapshots, g.catalog_blocks, g.directory_blocks, g.leaves, g.meta_blocks, first, segments]
        });
        assert_eq!(values, as_written(blocks), "{blocks}");
        let Some(geometry) = found else { return };
        let end = Address(geometry.first_segment + geometry.segments).block();
        assert!(META_FIRST + geometry.meta_blocks <= Address(geometry.first_segment).block(), "{blocks}");
        assert!(end <= geometry.mirror(META_FIRST), "{blocks}");
        assert_eq!(geometry.mirror(META_FIRST + geometry.meta_blocks), geometry.slot(Slot::B), "{blocks}");
        assert!(geometry.slop() > 0 && geometry.slop() < geometry.segments, "{blocks}");
    }

    /// Every device up to a GiB and more, and every number of leaves that a table may have, around its border.
    #[test]
    fn every_size_is_as_the_document_says() {
        (0..300_000).for_each(check);
        for leaf in 1..=3925 {
            let border = leaf * TABLE_LEAF_ENTRIES * SEGMENT_BLOCKS;
            (border - 3..border + 3).for_each(check);
        }
        (0..64).for_each(|bit| [u64::MAX << bit, (1 << bit) - 1, 1 << bit].into_iter().for_each(check));
    }

    /// Both homes of every object, one after the other, fill the meta area: no two of them meet.
    #[test]
    fn homes_fill_the_meta_area() {
        for blocks in [DEVICE_BLOCKS_MIN, 300_000, 3_000_001, 1 << 28, DEVICE_BLOCKS_MAX] {
            let geometry = Geometry::of(blocks).unwrap();
            let leaves = (0..narrow(geometry.leaves)).map(MetaObject::Leaf);
            let mut next = META_FIRST;
            for object in [MetaObject::Catalog, MetaObject::Directory].into_iter().chain(leaves) {
                let homes = geometry.homes(object);
                for (home, other) in [(0, 1), (1, 0)] {
                    assert_eq!(homes.home[home], next, "{blocks} {object:?}");
                    assert_eq!(homes.other(next), homes.home[other], "{blocks} {object:?}");
                    assert!(homes.contains(next) && !homes.contains(next + homes.blocks * 2));
                    next += homes.blocks;
                }
            }
            assert_eq!(next, META_FIRST + geometry.meta_blocks, "{blocks}");
        }
    }

    #[test]
    fn ids_and_addresses_end_where_the_segments_do() {
        for blocks in (DEVICE_BLOCKS_MIN..40_000).step_by(97) {
            let geometry = Geometry::of(blocks).unwrap();
            let Geometry { first_segment, segments, .. } = geometry;
            for raw in (0..first_segment + segments + 3).chain([u32::MAX - 1, u32::MAX]) {
                assert_eq!(geometry.id(raw).is_some(), raw < segments);
                let inside = (first_segment..first_segment + segments).contains(&raw);
                assert_eq!(geometry.address(raw).is_some(), inside, "{blocks} {raw}");
            }
        }
    }

    #[test]
    fn one_segment_in_64_is_kept_and_so_many_at_least_and_at_most() {
        let slop = |segments: u64| {
            let blocks = (1..)
                .map(|extra| segments * 256 + extra * 64)
                .find(|blocks| Geometry::of(*blocks).is_ok_and(|geometry| u64::from(geometry.segments) == segments));
            Geometry::of(blocks.unwrap()).unwrap().slop()
        };
        assert_eq!([4, 7, 8, 9, 128, 192, 4096, 8192].map(slop), [1, 1, 2, 2, 2, 3, 64, 64]);
    }

    #[test]
    fn a_home_has_room_for_whole_blocks() {
        assert_eq!(Homes { home: [10, 20], blocks: 3 }.capacity(), 3 * 4096);
    }
}
