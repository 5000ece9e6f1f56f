//! The backend's half of a ring, for the fake: indices, requests, responses, and the ways to spoil them.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a fake fails the test that misuses it")]

use super::{Seen, random};
use crate::ring::shared::{PAGE_SIZE, SharedPage};
use alloc::vec::Vec;
use xen_hypercall::abi::io::blkif as abi;
use xen_hypercall::abi::io::ring::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, SLOTS, ring_size};

/// A request, copied from the ring.
pub(super) struct Request {
    pub id: u64,
    /// The inner operation of an indirect request.
    pub operation: u8,
    pub sector: u64,
    pub pages: Vec<SharedPage>,
    pub indirect: bool,
}

impl Request {
    pub fn parse(words: &[u64; 14], mut map: impl FnMut(u32) -> SharedPage) -> Self {
        let head = words[0].to_le_bytes();
        let indirect = head[0] == abi::OP_INDIRECT;
        let (operation, count) = if indirect {
            (head[1], usize::from(u16::from_le_bytes([head[2], head[3]])))
        } else {
            (head[0], usize::from(head[1]))
        };
        assert!(matches!(operation, abi::OP_READ | abi::OP_WRITE | abi::OP_FLUSH_DISKCACHE), "operation {operation}");
        let segments: Vec<u64> = if indirect {
            let table = map((words[3] >> 32) as u32);
            (0..count).map(|index| table.load_u64(index * 8)).collect()
        } else {
            assert!(count <= abi::MAX_SEGMENTS_PER_REQUEST, "more segments than fit");
            words[3..3 + count].to_vec()
        };
        let page = |segment: u64| {
            assert_eq!(segment >> 32, 7 << 8, "a segment that is no whole page");
            map(segment as u32)
        };
        let pages = segments.into_iter().map(page).collect();
        Self { id: words[1], operation, sector: words[2], pages, indirect }
    }

    pub fn end(&self) -> usize {
        self.sector as usize + self.pages.len() * 8
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        (self.sector as usize) < other.end() && (other.sector as usize) < self.end()
    }

    pub fn seen(&self) -> Seen {
        let Self { operation, sector, pages, indirect, .. } = self;
        Seen { operation: *operation, sector: *sector, segments: pages.len(), indirect: *indirect }
    }
}

/// The mapped ring.
pub(super) struct BackRing {
    pages: Vec<SharedPage>,
    pub grefs: Vec<u32>,
    size: u32,
    req_cons: u32,
    rsp_prod: u32,
}

impl BackRing {
    pub fn new(pages: Vec<SharedPage>, grefs: Vec<u32>) -> Self {
        let size = ring_size(pages.len() * PAGE_SIZE, abi::SLOT_LEN) as u32;
        Self { pages, grefs, size, req_cons: 0, rsp_prod: 0 }
    }

    fn word(&self, at: usize) -> (&SharedPage, usize) {
        (&self.pages[at / PAGE_SIZE], at % PAGE_SIZE)
    }

    fn slot(&self, index: u32) -> usize {
        SLOTS + (index & (self.size - 1)) as usize * abi::SLOT_LEN
    }

    /// The next request; asks for an event when there is none.
    pub fn take(&mut self) -> Option<[u64; 14]> {
        let ready = self.pages[0].load_u32(REQ_PROD).wrapping_sub(self.req_cons);
        // A ring that was scribbled on holds nothing that the driver wrote.
        if ready == 0 || ready > self.size {
            self.pages[0].store_u32(REQ_EVENT, self.req_cons.wrapping_add(1));
            return None;
        }
        let at = self.slot(self.req_cons);
        self.req_cons = self.req_cons.wrapping_add(1);
        Some(core::array::from_fn(|word| {
            let (page, offset) = self.word(at + word * 8);
            page.load_u64(offset)
        }))
    }

    /// Writes a response; whether the frontend wants an event.
    pub fn respond(&mut self, id: u64, operation: u8, status: i16) -> bool {
        let at = self.slot(self.rsp_prod);
        let [low, high] = status.to_le_bytes();
        // The pad bytes are garbage, as a backend may leave them.
        let second = u64::from_le_bytes([operation, 0xee, low, high, 0xee, 0xee, 0xee, 0xee]);
        for (at, value) in [(at, id), (at + 8, second)] {
            let (page, offset) = self.word(at);
            page.store_u64(offset, value);
        }
        let old = self.rsp_prod;
        self.rsp_prod = old.wrapping_add(1);
        self.pages[0].store_u32(RSP_PROD, self.rsp_prod);
        let wanted = self.pages[0].load_u32(RSP_EVENT);
        self.rsp_prod.wrapping_sub(wanted) < 1
    }

    pub fn jump(&mut self, by: u32) {
        self.rsp_prod = self.rsp_prod.wrapping_add(by);
        self.pages[0].store_u32(RSP_PROD, self.rsp_prod);
    }

    pub fn scribble(&mut self, seed: u64) {
        let mut seed = seed | 1;
        for page in &self.pages {
            (0..PAGE_SIZE).step_by(8).for_each(|at| page.store_u64(at, random(&mut seed)));
        }
        // Half of the time the index itself is plausible, and only what it points at is garbage.
        if random(&mut seed) & 1 == 0 {
            self.pages[0].store_u32(RSP_PROD, self.rsp_prod.wrapping_add((random(&mut seed) % 4) as u32));
        }
    }
}
