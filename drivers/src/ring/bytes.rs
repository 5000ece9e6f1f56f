//! Byte rings in a shared page: xenstore's two directions and the console's output.
//!
//! Each side keeps its own index privately and reads only the peer's, once per call. The distance between the two must
//! never exceed the ring's size; a peer that claims otherwise is broken, and nothing is copied on its word. Indices run
//! freely over u32 and are masked on access (public/io/xs_wire.h, public/io/console.h).

use crate::ring::shared::{SharedPage, barrier_full, barrier_read, barrier_write};

/// The peer's index is impossible: more bytes than the ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadIndex {
    /// The index that we own.
    pub ours: u32,
    /// What the peer wrote.
    pub theirs: u32,
}

/// Where a ring lies in its page.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Offset of the first data byte.
    pub data: usize,
    /// Bytes of data, a power of two.
    pub size: u32,
    /// Offset of the consumer's index (u32).
    pub cons: usize,
    /// Offset of the producer's index (u32).
    pub prod: usize,
}

impl Layout {
    /// Where index `index` lies, and how many bytes follow without wrapping.
    fn run(&self, index: u32) -> (usize, usize) {
        let masked = index & (self.size - 1);
        (self.data + masked as usize, (self.size - masked) as usize)
    }
}

/// The writing side of a ring.
#[derive(Debug)]
pub struct Producer {
    layout: Layout,
    prod: u32,
}

impl Producer {
    /// Goes on where the page's producer index stands: it is ours, and the domain builder set it.
    pub fn attach(layout: Layout, page: &SharedPage) -> Self {
        Self { layout, prod: page.load_u32(layout.prod) }
    }

    /// Puts as much of `bytes` into the ring as fits now; the count may be 0. The caller notifies the peer.
    pub fn push(&mut self, page: &SharedPage, bytes: &[u8]) -> Result<usize, BadIndex> {
        let cons = page.load_u32(self.layout.cons);
        let used = self.prod.wrapping_sub(cons);
        if used > self.layout.size {
            return Err(BadIndex { ours: self.prod, theirs: cons });
        }
        // The peer's reads of the old bytes come before our writes over them.
        barrier_full();
        let count = bytes.len().min((self.layout.size - used) as usize);
        self.copy_in(page, &bytes[..count]);
        barrier_write();
        self.prod = self.prod.wrapping_add(count as u32);
        page.store_u32(self.layout.prod, self.prod);
        barrier_full();
        Ok(count)
    }

    /// Copies into the ring behind the producer index, in at most two runs.
    fn copy_in(&self, page: &SharedPage, bytes: &[u8]) {
        let (at, room) = self.layout.run(self.prod);
        let (first, second) = bytes.split_at(bytes.len().min(room));
        page.write_bytes(at, first);
        page.write_bytes(self.layout.data, second);
    }
}

/// The reading side of a ring.
#[derive(Debug)]
pub struct Consumer {
    layout: Layout,
    cons: u32,
}

impl Consumer {
    /// Goes on where the page's consumer index stands: it is ours.
    pub fn attach(layout: Layout, page: &SharedPage) -> Self {
        Self { layout, cons: page.load_u32(layout.cons) }
    }

    /// Copies out as much as there is and `into` holds; the count may be 0. The caller notifies the peer.
    pub fn pull(&mut self, page: &SharedPage, into: &mut [u8]) -> Result<usize, BadIndex> {
        let prod = page.load_u32(self.layout.prod);
        let ready = prod.wrapping_sub(self.cons);
        if ready > self.layout.size {
            return Err(BadIndex { ours: self.cons, theirs: prod });
        }
        barrier_read();
        let count = into.len().min(ready as usize);
        self.copy_out(page, &mut into[..count]);
        // Our reads come before the peer may overwrite the bytes.
        barrier_full();
        self.cons = self.cons.wrapping_add(count as u32);
        page.store_u32(self.layout.cons, self.cons);
        barrier_full();
        Ok(count)
    }

    /// Copies from the ring at the consumer index, in at most two runs.
    fn copy_out(&self, page: &SharedPage, into: &mut [u8]) {
        let (at, room) = self.layout.run(self.cons);
        let first_len = into.len().min(room);
        let (first, second) = into.split_at_mut(first_len);
        page.read_bytes(at, first);
        page.read_bytes(self.layout.data, second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::shared::heap;

    const LAYOUT: Layout = Layout { data: 64, size: 16, cons: 0, prod: 4 };

    #[test]
    fn bytes_pass_in_order_across_both_wraps() {
        let page = heap::alloc_page();
        page.store_u32(0, u32::MAX - 20);
        page.store_u32(4, u32::MAX - 20);
        let (mut producer, mut consumer) = (Producer::attach(LAYOUT, &page), Consumer::attach(LAYOUT, &page));
        let (mut sent, mut received) = (0u32, 0u32);
        for step in 0..500u32 {
            let chunk: [u8; 7] = core::array::from_fn(|i| (sent as usize + i) as u8);
            sent += producer.push(&page, &chunk[..(step % 8) as usize]).unwrap() as u32;
            let mut out = [0u8; 5];
            let count = consumer.pull(&page, &mut out[..(step % 6) as usize]).unwrap();
            for byte in &out[..count] {
                assert_eq!(*byte, received as u8);
                received += 1;
            }
        }
        assert!(received > 1000, "{received}");
        heap::free_page(page);
    }

    #[test]
    fn a_full_ring_takes_nothing_and_an_empty_one_gives_nothing() {
        let page = heap::alloc_page();
        let (mut producer, mut consumer) = (Producer::attach(LAYOUT, &page), Consumer::attach(LAYOUT, &page));
        assert_eq!(consumer.pull(&page, &mut [0; 4]), Ok(0));
        assert_eq!(producer.push(&page, &[1; 20]), Ok(16));
        assert_eq!(producer.push(&page, &[2; 1]), Ok(0));
        heap::free_page(page);
    }

    #[test]
    fn an_index_that_claims_more_than_the_ring_is_refused_and_nothing_moves() {
        let page = heap::alloc_page();
        let (mut producer, mut consumer) = (Producer::attach(LAYOUT, &page), Consumer::attach(LAYOUT, &page));
        for theirs in [17, 1 << 31, u32::MAX] {
            page.store_u32(4, theirs);
            assert_eq!(consumer.pull(&page, &mut [0; 4]), Err(BadIndex { ours: 0, theirs }));
            assert_eq!(page.load_u32(0), 0);
        }
        for theirs in [1, 1 << 31, u32::MAX - 16] {
            page.store_u32(0, theirs);
            assert_eq!(producer.push(&page, &[0; 4]), Err(BadIndex { ours: 0, theirs }));
        }
        heap::free_page(page);
    }

    fn sized(size: u32) -> Layout {
        Layout { size, ..LAYOUT }
    }

    /// Where both indices may stand: everywhere around the wrap of the index, at every place of the ring.
    fn starts(size: u32) -> impl Iterator<Item = u32> {
        (0..4 * size + 2).map(move |n| n.wrapping_sub(2 * size + 1))
    }

    /// A page that holds nothing but a pattern where the ring and what follows it lie.
    fn patterned(size: u32, cons: u32, prod: u32) -> SharedPage {
        let page = heap::alloc_page();
        let pattern: std::vec::Vec<u8> = (0..size as u8 + 8).map(|at| 100 + at).collect();
        page.write_bytes(LAYOUT.data, &pattern);
        page.store_u32(LAYOUT.cons, cons);
        page.store_u32(LAYOUT.prod, prod);
        page
    }

    fn byte(page: &SharedPage, index: u32, size: u32) -> u8 {
        let mut one = [0];
        page.read_bytes(LAYOUT.data + (index & (size - 1)) as usize, &mut one);
        one[0]
    }

    /// Every size, every position around the wrap, every fill, every length: what fits is written where the peer reads
    /// it, and nothing else changes.
    #[test]
    fn every_push_around_the_wrap() {
        for (size, cons) in [1, 2, 4, 8, 16].into_iter().flat_map(|size| starts(size).map(move |cons| (size, cons))) {
            for (used, length) in (0..=size).flat_map(|used| (0..=size + 1).map(move |length| (used, length))) {
                let prod = cons.wrapping_add(used);
                let page = patterned(size, cons, prod);
                let bytes: std::vec::Vec<u8> = (0..length as u8).collect();
                let mut producer = Producer::attach(sized(size), &page);
                let count = length.min(size - used);
                assert_eq!(producer.push(&page, &bytes), Ok(count as usize), "{size} {cons} {used} {length}");
                assert_eq!(page.load_u32(LAYOUT.prod), prod.wrapping_add(count));
                assert_eq!(page.load_u32(LAYOUT.cons), cons);
                for at in 0..size {
                    let index = prod.wrapping_add(at);
                    let old = 100 + (index & (size - 1)) as u8;
                    assert_eq!(byte(&page, index, size), if at < count { at as u8 } else { old });
                }
                let mut behind = [0; 8];
                page.read_bytes(LAYOUT.data + size as usize, &mut behind);
                assert_eq!(behind, core::array::from_fn(|at| 100 + size as u8 + at as u8));
                heap::free_page(page);
            }
        }
    }

    #[test]
    fn every_pull_around_the_wrap() {
        for (size, cons) in [1, 2, 4, 8, 16].into_iter().flat_map(|size| starts(size).map(move |cons| (size, cons))) {
            for (ready, length) in (0..=size).flat_map(|ready| (0..=size + 1).map(move |length| (ready, length))) {
                let page = patterned(size, cons, cons.wrapping_add(ready));
                let mut into = [0; 20];
                let mut consumer = Consumer::attach(sized(size), &page);
                let count = length.min(ready);
                let pulled = consumer.pull(&page, &mut into[..length as usize]);
                assert_eq!(pulled, Ok(count as usize), "{size} {cons} {ready} {length}");
                assert_eq!(page.load_u32(LAYOUT.cons), cons.wrapping_add(count));
                assert_eq!(page.load_u32(LAYOUT.prod), cons.wrapping_add(ready));
                for (at, found) in (0..).zip(into) {
                    let there = 100 + (cons.wrapping_add(at) & (size - 1)) as u8;
                    assert_eq!(found, if at < count { there } else { 0 });
                }
                heap::free_page(page);
            }
        }
    }

    /// Every distance up to some rings, and around each power of two: legal up to the size, refused beyond.
    #[test]
    fn every_distance_is_legal_or_refused() {
        let page = heap::alloc_page();
        let powers = (0..32).flat_map(|bit| (0..5).map(move |n| (1u32 << bit).wrapping_add(n).wrapping_sub(2)));
        let distances: std::vec::Vec<u32> = (0..200).chain(powers).collect();
        for (size, ours) in
            [1, 16, 64, 1024, 2048].into_iter().flat_map(|size| [0u32, 7, !0, !0 - 9].map(|at| (size, at)))
        {
            for distance in &distances {
                let (before, behind) = (ours.wrapping_sub(*distance), ours.wrapping_add(*distance));
                page.store_u32(LAYOUT.prod, ours);
                let mut producer = Producer::attach(sized(size), &page);
                page.store_u32(LAYOUT.cons, before);
                let refused = Err(BadIndex { ours, theirs: before });
                assert_eq!(producer.push(&page, &[]), if *distance <= size { Ok(0) } else { refused });
                page.store_u32(LAYOUT.cons, ours);
                let mut consumer = Consumer::attach(sized(size), &page);
                page.store_u32(LAYOUT.prod, behind);
                let refused = Err(BadIndex { ours, theirs: behind });
                assert_eq!(consumer.pull(&page, &mut []), if *distance <= size { Ok(0) } else { refused });
            }
        }
        heap::free_page(page);
    }
}
