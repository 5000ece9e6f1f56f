//! The frontend's half of a request/response ring (public/io/ring.h) over granted pages.
//!
//! Trusted are only the private indices. The shared producer of responses is read once per look and must lie between
//! what was consumed and what was published; anything else is [`BadIndex`] and the caller gives the ring up. Slots are
//! written and read in words of 8 bytes, so a slot may cross from one page to the next, whose addresses need not
//! follow.

use super::bytes::BadIndex;
use super::shared::{PAGE_SIZE, barrier_full, barrier_read, barrier_write};
use crate::grant::GrantedPages;
use crate::platform::Platform;
use xen_hypercall::abi::io::ring::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, SLOTS, ring_size};

/// A ring with slots of `WORDS` words.
#[derive(Debug)]
pub struct FrontRing<P: Platform, const WORDS: usize> {
    pages: GrantedPages<P>,
    size: u32,
    /// Requests written, whether or not the backend was told.
    req_prod: u32,
    /// Requests the backend was told of.
    published: u32,
    /// Responses taken.
    rsp_cons: u32,
}

impl<P: Platform, const WORDS: usize> FrontRing<P, WORDS> {
    /// An empty ring in fresh pages (SHARED_RING_INIT). A power of two of pages.
    pub fn new(pages: GrantedPages<P>) -> Self {
        let size = ring_size(pages.len() * PAGE_SIZE, WORDS * 8) as u32;
        let first = pages.page(0);
        first.store_u32(REQ_PROD, 0);
        first.store_u32(REQ_EVENT, 1);
        first.store_u32(RSP_PROD, 0);
        first.store_u32(RSP_EVENT, 1);
        Self { pages, size, req_prod: 0, published: 0, rsp_cons: 0 }
    }

    /// Slots, a power of two.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The pages: their grants are published to the backend.
    pub fn pages(&self) -> &GrantedPages<P> {
        &self.pages
    }

    /// Gives the pages back; returns how many the peer still maps.
    pub fn release(&mut self) -> usize {
        self.pages.release()
    }

    /// Requests without a response.
    pub fn outstanding(&self) -> u32 {
        self.req_prod.wrapping_sub(self.rsp_cons)
    }

    /// Writes a request; `false` if the ring is full. The backend sees it after [`Self::publish`].
    pub fn push(&mut self, request: &[u64; WORDS]) -> bool {
        if self.outstanding() >= self.size {
            return false;
        }
        let at = self.slot(self.req_prod);
        for (word, value) in request.iter().enumerate() {
            let (page, offset) = split(at + word * 8);
            self.pages.page(page).store_u64(offset, *value);
        }
        self.req_prod = self.req_prod.wrapping_add(1);
        true
    }

    /// Shows all requests to the backend; whether it wants an event (RING_PUSH_REQUESTS_AND_CHECK_NOTIFY).
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.req_prod);
        if old == new {
            return false;
        }
        let first = self.pages.page(0);
        barrier_write();
        first.store_u32(REQ_PROD, new);
        self.published = new;
        barrier_full();
        let wanted = first.load_u32(REQ_EVENT);
        new.wrapping_sub(wanted) < new.wrapping_sub(old)
    }

    /// How many responses can be taken now.
    pub fn ready(&self) -> Result<u32, BadIndex> {
        let theirs = self.pages.page(0).load_u32(RSP_PROD);
        let ready = theirs.wrapping_sub(self.rsp_cons);
        if ready > self.published.wrapping_sub(self.rsp_cons) {
            return Err(BadIndex { ours: self.published, theirs });
        }
        barrier_read();
        Ok(ready)
    }

    /// Takes the next response: the first two words of its slot, each read once. Only after [`Self::ready`] said so.
    pub fn pop(&mut self) -> [u64; 2] {
        let at = self.slot(self.rsp_cons);
        let response = [at, at + 8].map(|at| {
            let (page, offset) = split(at);
            self.pages.page(page).load_u64(offset)
        });
        self.rsp_cons = self.rsp_cons.wrapping_add(1);
        response
    }

    /// Asks for an event with the next response; whether one has come meanwhile (RING_FINAL_CHECK_FOR_RESPONSES).
    pub fn arm(&self) -> Result<bool, BadIndex> {
        self.pages.page(0).store_u32(RSP_EVENT, self.rsp_cons.wrapping_add(1));
        barrier_full();
        Ok(self.ready()? > 0)
    }

    /// Offset of a slot from the start of the first page.
    fn slot(&self, index: u32) -> usize {
        SLOTS + (index & (self.size - 1)) as usize * WORDS * 8
    }
}

/// Page and offset in it.
fn split(at: usize) -> (usize, usize) {
    (at / PAGE_SIZE, at % PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fake::{FakeHost, FakePlatform};
    use crate::types::DomId;

    fn ring(host: &FakeHost, pages: usize) -> FrontRing<FakePlatform, 14> {
        FrontRing::new(GrantedPages::new(FakePlatform::clone(host), DomId::new(0), pages).unwrap())
    }

    #[test]
    fn sizes_are_those_of_the_header() {
        let host = FakeHost::default();
        for (pages, size) in [(1, 32), (2, 64), (4, 128), (8, 256), (16, 512)] {
            assert_eq!(ring(&host, pages).size(), size);
        }
    }

    #[test]
    fn slots_do_not_overlap_across_pages() {
        let host = FakeHost::default();
        let mut ring = ring(&host, 2);
        for i in 0..64 {
            assert!(ring.push(&[i; 14]));
        }
        assert!(!ring.push(&[99; 14]));
        ring.publish();
        ring.pages.page(0).store_u32(RSP_PROD, 64);
        assert_eq!(ring.ready(), Ok(64));
        for i in 0..64 {
            assert_eq!(ring.pop(), [i; 2]);
        }
    }

    #[test]
    fn the_backend_is_told_only_when_it_asks() {
        let host = FakeHost::default();
        let mut ring = ring(&host, 1);
        ring.push(&[0; 14]);
        assert!(ring.publish());
        // The backend has not consumed: it knows.
        ring.push(&[0; 14]);
        assert!(!ring.publish());
        ring.pages.page(0).store_u32(REQ_EVENT, 3);
        ring.push(&[0; 14]);
        assert!(ring.publish());
        assert!(!ring.publish());
    }

    #[test]
    fn a_response_that_comes_before_the_wait_is_seen() {
        let host = FakeHost::default();
        let mut ring = ring(&host, 1);
        ring.push(&[0; 14]);
        ring.publish();
        assert_eq!(ring.arm(), Ok(false));
        assert_eq!(ring.pages.page(0).load_u32(RSP_EVENT), 1);
        ring.pages.page(0).store_u32(RSP_PROD, 1);
        assert_eq!(ring.arm(), Ok(true));
    }

    #[test]
    fn more_responses_than_published_requests_are_refused() {
        let host = FakeHost::default();
        let mut ring = ring(&host, 1);
        ring.push(&[0; 14]);
        ring.publish();
        ring.push(&[0; 14]);
        for theirs in [2, 33, 1 << 31, u32::MAX] {
            ring.pages.page(0).store_u32(RSP_PROD, theirs);
            assert_eq!(ring.ready(), Err(BadIndex { ours: 1, theirs }));
        }
    }

    /// The indices of the ring stand here: `rsp_cons`, then `req_prod`, of which all but `hidden` are published.
    fn stand(ring: &mut FrontRing<FakePlatform, 14>, cons: u32, prod: u32, hidden: u32) {
        (ring.rsp_cons, ring.req_prod, ring.published) = (cons, prod, prod.wrapping_sub(hidden));
    }

    /// Every fill of every ring, with the wrap of the index at every slot: the slots of a ring are its own, one more
    /// request is taken exactly if one is free, and of what the backend may claim only what was published is believed.
    #[test]
    fn every_fill_around_the_wrap() {
        let host = FakeHost::default();
        for (pages, size) in [(1, 32), (2, 64), (4, 128)] {
            let mut ring = ring(&host, pages);
            let end = pages * PAGE_SIZE;
            for cons in (0..2 * size + 2u32).map(|n| n.wrapping_sub(size + 1)) {
                let slots: std::vec::Vec<usize> = (0..size).map(|n| ring.slot(cons.wrapping_add(n))).collect();
                let mut sorted = slots.clone();
                sorted.sort_unstable();
                assert!(sorted.windows(2).all(|pair| pair[0] + 14 * 8 <= pair[1]) && sorted[0] == SLOTS);
                assert!(sorted.iter().all(|at| at + 14 * 8 <= end));
                assert_eq!(ring.slot(cons.wrapping_add(size)), slots[0]);
                for used in [0, 1, size / 2, size - 1, size] {
                    stand(&mut ring, cons, cons.wrapping_add(used), 0);
                    assert_eq!((ring.outstanding(), ring.push(&[7; 14])), (used, used < size));
                }
            }
        }
    }

    #[test]
    fn every_claim_of_the_backend_around_the_wrap() {
        let host = FakeHost::default();
        let mut ring = ring(&host, 1);
        let far = [1 << 15, 1 << 16, 1 << 31, (1 << 31) + 1, u32::MAX - 64, u32::MAX - 1, u32::MAX];
        for cons in (0..100u32).map(|n| n.wrapping_sub(66)) {
            for (used, hidden) in (0..=32).flat_map(|used| [0, 1, 5].map(|hidden| (used, hidden.min(used)))) {
                stand(&mut ring, cons, cons.wrapping_add(used), hidden);
                for distance in (0..68).chain(far) {
                    let theirs = cons.wrapping_add(distance);
                    ring.pages.page(0).store_u32(RSP_PROD, theirs);
                    let refused = Err(BadIndex { ours: ring.published, theirs });
                    let legal = distance <= used - hidden;
                    assert_eq!(ring.ready(), if legal { Ok(distance) } else { refused }, "{cons} {used} {distance}");
                }
            }
        }
    }

    /// An event is due exactly if the index that the backend asked for is among those published now.
    #[test]
    fn every_event_around_the_wrap() {
        let host = FakeHost::default();
        let mut ring = ring(&host, 1);
        for old in (0..70u32).map(|n| n.wrapping_sub(35)) {
            for (new, distance) in (0..=32u32).flat_map(|new| (0..70u32).map(move |distance| (new, distance))) {
                stand(&mut ring, old, old.wrapping_add(new), new);
                let wanted = old.wrapping_add(distance).wrapping_sub(33);
                ring.pages.page(0).store_u32(REQ_EVENT, wanted);
                let due = (1..=new).any(|n| old.wrapping_add(n) == wanted);
                assert_eq!(ring.publish(), due, "{old} + {new}, wanted {wanted}");
                assert_eq!(ring.published, ring.req_prod);
            }
        }
    }
}
