//! One entry of a run: a page, a range of zero pages, or a range of holes (docs/format/store-v1.md, section 10).
//!
//! Invariants: a parsed entry covers at least one gfn and ends below `GFN_LIMIT`; its page lies inside an existing
//! segment. An encoding that this version does not know is damage, never a page.

use crate::store::digest::Digest;
use crate::store::geometry::{Geometry, SegmentId};
use crate::store::layout::{BLOCK, GFN_LIMIT, PLACE_UNIT, SEGMENT_BLOCKS, SEGMENT_BYTES, blocks_of, entry as field};

const ENCODING_HOLE: u16 = 0;
const ENCODING_ZERO: u16 = 1;
const ENCODING_RAW: u16 = 2;
const ENCODING_LZ4: u16 = 3;
const STORED_BITS: u32 = 13;
const STORED_MASK: u16 = (1 << STORED_BITS) - 1;
/// A raw page's stored bytes.
const RAW_BYTES: u16 = 4096;
/// Units of a place in a block.
const UNITS_PER_BLOCK: u16 = 256;

/// Where the bytes of a page lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// In which segment.
    pub segment: SegmentId,
    /// Offset in the segment, in units of 16 bytes.
    pub unit: u16,
    /// Stored bytes: 4096 is a raw page, fewer are a packed one.
    pub stored: u16,
}

impl Place {
    /// A raw page in a block of the segment.
    pub fn raw(segment: SegmentId, slot: u8) -> Self {
        Self { segment, unit: u16::from(slot) * UNITS_PER_BLOCK, stored: RAW_BYTES }
    }

    /// Is it packed?
    pub fn packed(&self) -> bool {
        self.stored != RAW_BYTES
    }

    /// The first block in the segment that it touches.
    pub fn slot(&self) -> u64 {
        u64::from(self.unit / UNITS_PER_BLOCK)
    }

    /// The blocks that it touches: 1 or 2.
    pub fn blocks(&self) -> u64 {
        blocks_of((self.within() + usize::from(self.stored)) as u64)
    }

    /// Offset in its first block.
    pub fn within(&self) -> usize {
        usize::from(self.unit % UNITS_PER_BLOCK) * PLACE_UNIT as usize
    }
}

/// What an entry says about its gfns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Not populated.
    Hole,
    /// All zero.
    Zero,
    /// One page.
    Data {
        /// Where its bytes are.
        place: Place,
        /// Of its content.
        digest: Digest,
    },
}

/// An entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// First gfn.
    pub gfn: u64,
    /// One more than the last gfn.
    pub end: u64,
    /// What is there.
    pub what: What,
}

impl Entry {
    /// As it is written.
    pub fn encode(&self) -> [u8; field::SIZE] {
        let mut raw = [0; field::SIZE];
        field::GFN.put(&mut raw, &self.gfn.to_le_bytes());
        let shape = match self.what {
            What::Hole => ENCODING_HOLE << STORED_BITS,
            What::Zero => ENCODING_ZERO << STORED_BITS,
            What::Data { place, .. } if place.packed() => ENCODING_LZ4 << STORED_BITS | place.stored,
            What::Data { .. } => ENCODING_RAW << STORED_BITS | RAW_BYTES,
        };
        field::SHAPE.put(&mut raw, &shape.to_le_bytes());
        match self.what {
            What::Hole | What::Zero => field::DIGEST.put(&mut raw, &self.end.saturating_sub(self.gfn).to_le_bytes()),
            What::Data { place, digest } => {
                field::SEGMENT.put(&mut raw, &place.segment.0.to_le_bytes());
                field::PLACE.put(&mut raw, &place.unit.to_le_bytes());
                field::DIGEST.put(&mut raw, &digest.0);
            }
        }
        raw
    }

    /// Checked.
    pub fn parse(raw: &[u8], geometry: &Geometry) -> Option<Self> {
        let gfn = field::GFN.u64(raw);
        let shape = field::SHAPE.u16(raw);
        let (what, count) = match (shape >> STORED_BITS, shape & STORED_MASK) {
            (ENCODING_HOLE, 0) => (What::Hole, range(raw)?),
            (ENCODING_ZERO, 0) => (What::Zero, range(raw)?),
            (ENCODING_RAW, RAW_BYTES) => (data(raw, RAW_BYTES, geometry)?, 1),
            (ENCODING_LZ4, stored @ 1..RAW_BYTES) => (data(raw, stored, geometry)?, 1),
            _ => return None,
        };
        let end = gfn.checked_add(count).filter(|end| count != 0 && *end <= GFN_LIMIT)?;
        Some(Self { gfn, end, what })
    }

    /// The part of it in `from..end`, which lies inside it.
    pub fn part(&self, from: u64, end: u64) -> Self {
        Self { gfn: from, end, what: self.what }
    }

    /// Pages in it.
    pub fn count(&self) -> u64 {
        self.end.saturating_sub(self.gfn)
    }
}

/// The length of a range; its other bytes are zero.
fn range(raw: &[u8]) -> Option<u64> {
    let zero = |field: &super::layout::Field| field.of(raw).iter().all(|byte| *byte == 0);
    let tail = field::DIGEST.of(raw).get(8..)?.iter().all(|byte| *byte == 0);
    (zero(&field::SEGMENT) && zero(&field::PLACE) && tail).then(|| field::DIGEST.u64(raw))
}

fn data(raw: &[u8], stored: u16, geometry: &Geometry) -> Option<What> {
    const _: () = assert!(UNITS_PER_BLOCK as u64 * PLACE_UNIT == BLOCK as u64 && SEGMENT_BYTES == 256 * BLOCK as u64);
    let place = Place { segment: geometry.id(field::SEGMENT.u32(raw))?, unit: field::PLACE.u16(raw), stored };
    let inside = place.slot() + place.blocks() <= SEGMENT_BLOCKS;
    (inside && (place.packed() || place.within() == 0))
        .then_some(What::Data { place, digest: Digest(field::DIGEST.array(raw)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        Geometry::of(16_384).unwrap()
    }

    #[test]
    fn golden_bytes_of_a_page_and_a_range() {
        let what = What::Data { place: Place::raw(SegmentId(7), 3), digest: Digest([0xab; 16]) };
        let page = Entry { gfn: 0x1234, end: 0x1235, what };
        let mut golden = [0xab; 32];
        golden[..16].copy_from_slice(&[0x34, 0x12, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0x00, 0x03, 0x00, 0x50]);
        assert_eq!(page.encode(), golden);
        assert_eq!(Entry::parse(&golden, &geometry()), Some(page));
        let place = Place { segment: SegmentId(7), unit: 0x3fe, stored: 0x123 };
        let packed = Entry { gfn: 0x1234, end: 0x1235, what: What::Data { place, digest: Digest([0xab; 16]) } };
        golden[12..16].copy_from_slice(&[0xfe, 0x03, 0x23, 0x61]);
        assert_eq!(packed.encode(), golden);
        assert_eq!(Entry::parse(&golden, &geometry()), Some(packed));
        assert_eq!((place.slot(), place.blocks(), place.within()), (3, 2, 0xfe0));
        let zero = Entry { gfn: 2, end: 12, what: What::Zero };
        let mut golden = [0; 32];
        (golden[0], golden[15], golden[16]) = (2, 0x20, 10);
        assert_eq!(zero.encode(), golden);
        assert_eq!(Entry::parse(&golden, &geometry()), Some(zero));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let zero = Entry { gfn: 2, end: 12, what: What::Zero }.encode();
        let with = |at: usize, byte: u8| {
            let mut raw = zero;
            raw[at] = byte;
            Entry::parse(&raw, &geometry())
        };
        assert_eq!(with(16, 0), None, "an empty range");
        assert_eq!(with(7, 1), None, "beyond the last gfn");
        assert_eq!(with(23, 255), None, "a range that wraps around");
        assert_eq!(with(31, 1), None, "bytes behind the range's length");
        assert_eq!(with(15, 0x40), None, "raw, but without its 4096 bytes");
        assert_eq!(with(15, 0x60), None, "packed, but without any byte");
        assert_eq!(with(15, 0x80), None, "an encoding of a later version");
        let what = What::Data { place: Place::raw(SegmentId(9999), 3), digest: Digest::default() };
        let beyond = Entry { gfn: 0, end: 1, what };
        assert_eq!(Entry::parse(&beyond.encode(), &geometry()), None, "no such segment");
        let place = Place { segment: SegmentId(7), unit: u16::MAX, stored: 17 };
        let crossing = Entry { gfn: 0, end: 1, what: What::Data { place, digest: Digest::default() } };
        assert_eq!(Entry::parse(&crossing.encode(), &geometry()), None, "across the end of its segment");
    }

    fn raw(shape: u16, unit: u16) -> [u8; field::SIZE] {
        let mut raw = [0; field::SIZE];
        field::PLACE.put(&mut raw, &unit.to_le_bytes());
        field::SHAPE.put(&mut raw, &shape.to_le_bytes());
        raw
    }

    /// Every shape at every offset of the first and the last block of a segment: what is believed lies inside the
    /// segment, covers as many blocks as its bytes do, and is written as it was read.
    #[test]
    fn every_shape_at_every_offset() {
        let geometry = geometry();
        for unit in (0..UNITS_PER_BLOCK).chain(u16::MAX - (UNITS_PER_BLOCK - 1)..=u16::MAX) {
            let from = u32::from(unit) * 16;
            for shape in 2 << STORED_BITS..=u16::MAX {
                let (encoding, stored) = (shape >> 13, u32::from(shape & 0x1fff));
                let inside = from + stored <= 1 << 20;
                let legal = match encoding {
                    2 => stored == 4096 && from % 4096 == 0,
                    3 => (1..4096).contains(&stored) && inside,
                    _ => false,
                };
                let bytes = raw(shape, unit);
                let found = Entry::parse(&bytes, &geometry);
                assert_eq!(found.is_some(), legal, "shape {shape:#x}, unit {unit:#x}");
                let Some(Entry { what: What::Data { place, .. }, .. }) = found else { continue };
                let (first, last) = (from / 4096, (from + stored - 1) / 4096);
                assert_eq!(place.slot(), u64::from(first));
                assert_eq!(place.blocks(), u64::from(last - first + 1));
                assert_eq!((place.within() as u32, place.packed()), (from % 4096, encoding == 3));
                assert_eq!(found.map(|entry| entry.encode()), Some(bytes));
            }
        }
    }

    /// Every place of a raw page, and every length of a packed one in every block.
    #[test]
    fn every_place_is_written_and_read() {
        let geometry = geometry();
        let read = |place| {
            let entry = Entry { gfn: 5, end: 6, what: What::Data { place, digest: Digest([3; 16]) } };
            Entry::parse(&entry.encode(), &geometry) == Some(entry)
        };
        for slot in 0..=u8::MAX {
            assert!(read(Place::raw(SegmentId(9), slot)));
            let unit = u16::from(slot) * UNITS_PER_BLOCK;
            assert!((1..RAW_BYTES).all(|stored| read(Place { segment: SegmentId(9), unit, stored })));
        }
        let known = |id| read(Place::raw(SegmentId(id), 0));
        assert!((0..200).chain([u32::MAX]).all(|id| known(id) == (id < geometry.segments)));
    }

    #[test]
    fn a_range_that_says_more_than_its_length_is_refused() {
        let entry = Entry { gfn: 5, end: 9, what: What::Zero };
        let raw = entry.encode();
        assert_eq!(Entry::parse(&raw, &geometry()), Some(entry));
        for (field, at) in [(field::SEGMENT, 0), (field::PLACE, 0), (field::DIGEST, 8), (field::DIGEST, 15)] {
            let mut raw = raw;
            raw[field.offset + at] = 1;
            assert_eq!(Entry::parse(&raw, &geometry()), None, "{} {at}", field.name);
        }
    }
}
