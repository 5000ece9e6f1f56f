//! Bytes of requests and responses, as words for the ring. Offsets are those of public/io/blkif.h on x86_64.

use super::error::Op;
use crate::ring::shared::SharedPage;
use crate::types::GrantRef;
use xen_hypercall::abi::io::blkif as abi;

/// Words of a ring slot.
pub const SLOT_WORDS: usize = abi::SLOT_LEN / 8;
/// A request as the ring takes it.
pub type Slot = [u64; SLOT_WORDS];
/// Sectors of a page, in the protocol's units of 512 bytes.
pub const SECTORS_PER_PAGE: u64 = 8;
/// Segments that fit into a direct request.
pub const DIRECT_MAX: usize = abi::MAX_SEGMENTS_PER_REQUEST;

/// What all requests have in common.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Read, write or flush.
    pub op: Op,
    /// Our name for the request.
    pub id: u64,
    /// The device's virtual number; the backend ignores it.
    pub handle: u16,
    /// First block of 4096 bytes.
    pub at: u64,
}

impl Head {
    fn sector(&self) -> u64 {
        self.at * SECTORS_PER_PAGE
    }
}

/// `BLKIF_OP_*`.
pub fn code(op: Op) -> u8 {
    match op {
        Op::Read => abi::OP_READ,
        Op::Write => abi::OP_WRITE,
        Op::Flush => abi::OP_FLUSH_DISKCACHE,
    }
}

/// A whole page as a segment: `{ gref u32, first_sect u8, last_sect u8, pad u16 }`.
pub fn segment(gref: GrantRef) -> u64 {
    u64::from(gref.raw()) | (SECTORS_PER_PAGE - 1) << 40
}

/// A request whose segments stand in it: at most [`DIRECT_MAX`]; a flush has none.
pub fn direct(head: &Head, segments: impl ExactSizeIterator<Item = u64>) -> Slot {
    let mut slot = [0; SLOT_WORDS];
    slot[0] = u64::from(code(head.op)) | (segments.len() as u64) << 8 | u64::from(head.handle) << 16;
    slot[1] = head.id;
    slot[2] = head.sector();
    slot[3..].iter_mut().zip(segments).for_each(|(word, segment)| *word = segment);
    slot
}

/// A request whose segments stand in the granted page `table`.
pub fn indirect(head: &Head, table: &SharedPage, gref: GrantRef, segments: impl ExactSizeIterator<Item = u64>) -> Slot {
    let mut slot = [0; SLOT_WORDS];
    slot[0] = u64::from(abi::OP_INDIRECT) | u64::from(code(head.op)) << 8 | (segments.len() as u64) << 16;
    slot[1] = head.id;
    slot[2] = head.sector();
    // handle u16 at 24, indirect_grefs[0] u32 at 28.
    slot[3] = u64::from(head.handle) | u64::from(gref.raw()) << 32;
    for (index, segment) in segments.enumerate() {
        table.store_u64(index * 8, segment);
    }
    slot
}

/// A response, as private values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's name, as the backend says.
    pub id: u64,
    /// The operation, as the backend says.
    pub operation: u8,
    /// `BLKIF_RSP_*`, unchecked.
    pub status: i16,
}

impl Response {
    /// From the first two words of a slot.
    pub fn parse(words: [u64; 2]) -> Self {
        let [operation, _, low, high, ..] = words[1].to_le_bytes();
        Self { id: words[0], operation, status: i16::from_le_bytes([low, high]) }
    }

    /// Whether the operation is that of a request of ours. To an indirect request Linux' blkback answers with the inner
    /// operation, others repeat the outer one.
    pub fn fits(&self, op: Op, indirect: bool) -> bool {
        self.operation == code(op) || (indirect && self.operation == abi::OP_INDIRECT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::shared::heap;
    use alloc::vec::Vec;

    fn bytes(slot: Slot) -> Vec<u8> {
        slot.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    const HEAD: Head = Head { op: Op::Write, id: 0x0102_0304_0506_0708, handle: 0xca10, at: 2 };

    #[test]
    fn a_direct_write_is_these_bytes() {
        let grefs = [GrantRef::new(9), GrantRef::new(0x0a0b_0c0d)];
        let bytes = bytes(direct(&HEAD, grefs.into_iter().map(segment)));
        assert_eq!(bytes[..8], *b"\x01\x02\x10\xca\0\0\0\0");
        assert_eq!(bytes[8..16], *b"\x08\x07\x06\x05\x04\x03\x02\x01");
        assert_eq!(bytes[16..24], *b"\x10\0\0\0\0\0\0\0");
        assert_eq!(bytes[24..32], *b"\x09\0\0\0\0\x07\0\0");
        assert_eq!(bytes[32..40], *b"\x0d\x0c\x0b\x0a\0\x07\0\0");
        assert!(bytes[40..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn an_indirect_read_is_these_bytes() {
        let table = heap::alloc_page();
        let head = Head { op: Op::Read, ..HEAD };
        let slot = indirect(&head, &table, GrantRef::new(0x55), (0..256).map(|i| segment(GrantRef::new(i))));
        let bytes = bytes(slot);
        assert_eq!(bytes[..8], *b"\x06\0\0\x01\0\0\0\0");
        assert_eq!(bytes[16..32], *b"\x10\0\0\0\0\0\0\0\x10\xca\0\0\x55\0\0\0");
        assert_eq!(table.load_u64(255 * 8), 255 | 7 << 40);
        assert_eq!(table.load_u64(256 * 8), 0);
        heap::free_page(table);
    }

    #[test]
    fn a_flush_has_no_segments() {
        let head = Head { op: Op::Flush, at: 0, ..HEAD };
        assert_eq!(bytes(direct(&head, core::iter::empty()))[..8], *b"\x03\0\x10\xca\0\0\0\0");
    }

    #[test]
    fn a_response_is_read_from_these_bytes() {
        let words = [7, u64::from_le_bytes(*b"\x01\xee\xfe\xff\xee\xee\xee\xee")];
        assert_eq!(Response::parse(words), Response { id: 7, operation: 1, status: -2 });
        let response = Response { id: 0, operation: 6, status: 0 };
        assert!(response.fits(Op::Write, true) && !response.fits(Op::Write, false));
        assert!(!Response { operation: 0, ..response }.fits(Op::Write, true));
    }
}
