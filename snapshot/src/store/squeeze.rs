//! Pages made smaller: LZ4 for each page alone, and the pages of a take that are equal (docs/format/store-v1.md,
//! section 10).
//!
//! Invariants: what does not pay is stored raw; a page is taken for equal only if its whole keyed digest is equal,
//! which no guest can bring about. Unpacking writes at most one page and reads only what it is given, whatever the
//! bytes are. Memory: fixed, whatever the guest's size.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::ports::Page;
use crate::store::digest::Digest;
use crate::store::entry::Place;
use crate::store::layout::BLOCK;

/// A page that does not become smaller than this is stored raw: an eighth saved is the least that pays for unpacking,
/// and for the second block that a page between two blocks touches.
pub const PACKED_MAX: usize = BLOCK - BLOCK / 8;
/// After so many pages in a row that did not pay ...
const MISSES: u32 = 16;
/// ... only one in so many is tried, until one pays again.
const TRY_EVERY: u32 = 8;
/// Pages that are remembered to find equal ones: 112 KiB.
const WINDOW: usize = 4096;

/// How pages are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// As they are.
    None,
    /// LZ4, each page alone, where it pays.
    #[default]
    Lz4,
}

impl FromStr for Compression {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
        })
    }
}

/// Packs pages.
pub struct Packer {
    table: CompressTable,
    buffer: Vec<u8>,
    misses: u32,
}

impl Packer {
    /// A packer, or none if pages are to stay as they are.
    pub fn new(compression: Compression) -> Option<Self> {
        let buffer = || vec![0; get_maximum_output_size(BLOCK)];
        (compression == Compression::Lz4).then(|| Self { table: CompressTable::small(), buffer: buffer(), misses: 0 })
    }

    /// The page packed, if that pays.
    pub fn pack(&mut self, page: &Page) -> Option<&[u8]> {
        if self.misses >= MISSES && !self.misses.is_multiple_of(TRY_EVERY) {
            self.misses = self.misses.wrapping_add(1).max(MISSES);
            return None;
        }
        let length = compress_into_with_table(page, &mut self.buffer, &mut self.table);
        match length.ok().filter(|length| *length <= PACKED_MAX) {
            Some(length) => {
                self.misses = 0;
                self.buffer.get(..length)
            }
            None => {
                self.misses = self.misses.wrapping_add(1).max(1);
                None
            }
        }
    }
}

/// Unpacks a page. None unless the bytes are exactly one page.
pub fn unpack(packed: &[u8], page: &mut Page) -> Option<()> {
    let length = decompress_into(packed, page).ok()?;
    (length == BLOCK).then_some(())
}

/// The pages stored lately: one in each of [`WINDOW`] classes of digests.
pub struct Recent(Vec<Option<(Digest, Place)>>);

impl Recent {
    /// Without any.
    pub fn new() -> Self {
        Self(vec![None; WINDOW])
    }

    fn class(digest: &Digest) -> usize {
        let [first, second, ..] = digest.0;
        usize::from(u16::from_le_bytes([first, second])) % WINDOW
    }

    /// Where a page of this content lies.
    pub fn find(&self, digest: &Digest) -> Option<Place> {
        let (found, place) = self.0.get(Self::class(digest)).copied().flatten()?;
        (found == *digest).then_some(place)
    }

    /// Remembers a page, in place of an older one of its class.
    pub fn add(&mut self, digest: Digest, place: Place) {
        if let Some(one) = self.0.get_mut(Self::class(&digest)) {
            *one = Some((digest, place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(seed: u64) -> Page {
        let mut page = [0; BLOCK];
        let mut state = seed | 1;
        for byte in &mut page {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state as u8;
        }
        page
    }

    #[test]
    fn a_page_with_a_pattern_pays_and_noise_does_not() {
        let mut packer = Packer::new(Compression::Lz4).unwrap();
        let mut page = [7; BLOCK];
        page[100] = 1;
        let packed = packer.pack(&page).unwrap().to_vec();
        assert!(packed.len() < 100);
        let mut back = [0; BLOCK];
        unpack(&packed, &mut back).unwrap();
        assert_eq!(back, page);
        assert!(packer.pack(&noise(1)).is_none());
        assert!(Packer::new(Compression::None).is_none());
    }

    #[test]
    fn a_page_that_saves_less_than_an_eighth_is_left_as_it_is() {
        for (bytes, pays) in [(3400, true), (3700, false)] {
            let mut page = noise(5);
            page[bytes..].fill(0);
            assert_eq!(Packer::new(Compression::Lz4).unwrap().pack(&page).is_some(), pays, "{bytes}");
        }
    }

    #[test]
    fn after_many_misses_few_pages_are_tried_until_one_pays() {
        let mut packer = Packer::new(Compression::Lz4).unwrap();
        (0..100).for_each(|seed| assert!(packer.pack(&noise(seed)).is_none()));
        let tried = (0..u64::from(TRY_EVERY)).filter(|_| packer.pack(&[7; BLOCK]).is_some()).count();
        assert!(tried >= 1, "it looks again");
        assert!(packer.pack(&[8; BLOCK]).is_some(), "and goes on once one has paid");
    }

    #[test]
    fn a_packed_page_that_is_cut_or_longer_is_none() {
        let mut packer = Packer::new(Compression::Lz4).unwrap();
        let packed = packer.pack(&[7; BLOCK]).unwrap().to_vec();
        let mut page = [0; BLOCK];
        for end in 0..packed.len() {
            assert_eq!(unpack(&packed[..end], &mut page), None, "{end}");
        }
        let mut longer = vec![0; get_maximum_output_size(2 * BLOCK)];
        let length = compress_into_with_table(&[7; 2 * BLOCK], &mut longer, &mut CompressTable::small()).unwrap();
        assert_eq!(unpack(&longer[..length], &mut page), None);
    }

    proptest! {
        #[test]
        fn any_bytes_at_all_unpack_to_a_page_or_to_nothing(bytes in prop::collection::vec(any::<u8>(), 0..PACKED_MAX)) {
            let _ = unpack(&bytes, &mut [0; BLOCK]);
        }

        #[test]
        fn damaged_bytes_unpack_to_a_page_or_to_nothing(at in 0..60usize, byte: u8) {
            let mut packer = Packer::new(Compression::Lz4).unwrap();
            let mut page = [7; BLOCK];
            page[..400].copy_from_slice(&noise(3)[..400]);
            let mut packed = packer.pack(&page).unwrap().to_vec();
            let at = packed.len() - 1 - at;
            packed[at] = byte;
            let _ = unpack(&packed, &mut page);
        }
    }

    #[test]
    fn recent_pages_are_found_by_their_whole_digest() {
        let mut recent = Recent::new();
        let (mut one, mut other) = (Digest([3; 16]), Digest([3; 16]));
        (one.0[15], other.0[15]) = (1, 2);
        let place = Place::raw(crate::store::geometry::SegmentId(1), 2);
        recent.add(one, place);
        assert_eq!((recent.find(&one), recent.find(&other)), (Some(place), None));
        recent.add(other, place);
        assert_eq!(recent.find(&one), None, "one of a class");
    }
}
