//! Which page frames are free: one bit a frame, set = free, first fit from a rotating start.
//!
//! A pure model over memory that the caller lends, so that it is tested on the host; `mm` wraps it in the one lock.
//! Invariant: a frame that was handed out is not handed out again before it came back, and coming back twice is told
//! to the caller instead of being believed.

use xen_hypercall::types::Pfn;

/// The allocator. `bits` covers `[0, bits.len() * 64)` frames.
pub struct Frames<'a> {
    bits: &'a mut [u64],
    free: u64,
    /// Where the next search starts, in words.
    from: usize,
}

impl<'a> Frames<'a> {
    /// An allocator in which nothing is free yet.
    pub fn new(bits: &'a mut [u64]) -> Self {
        bits.fill(0);
        Self { bits, free: 0, from: 0 }
    }

    /// Frames that are free now.
    pub fn free_count(&self) -> u64 {
        self.free
    }

    /// Takes one frame.
    pub fn take(&mut self) -> Option<Pfn> {
        let words = self.bits.len();
        let word = (0..words).map(|step| (self.from + step) % words).find(|&word| self.bits[word] != 0)?;
        let bit = self.bits[word].trailing_zeros();
        self.bits[word] &= !(1 << bit);
        self.free -= 1;
        self.from = word;
        Some(Pfn::new(word as u64 * 64 + u64::from(bit)))
    }

    /// Gives a frame back (or in, at boot). False, and nothing changes, if it is free already or out of range.
    pub fn give(&mut self, pfn: Pfn) -> bool {
        if pfn.raw() >= self.bits.len() as u64 * 64 || self.is_free(pfn.raw()) {
            return false;
        }
        self.bits[(pfn.raw() / 64) as usize] |= 1 << (pfn.raw() % 64);
        self.free += 1;
        true
    }

    fn is_free(&self, pfn: u64) -> bool {
        self.bits[(pfn / 64) as usize] >> (pfn % 64) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn hands_out_each_frame_once() {
        let mut bits = [0; 4];
        let mut frames = Frames::new(&mut bits);
        assert_eq!(frames.take(), None);
        (10..200).for_each(|pfn| assert!(frames.give(Pfn::new(pfn))));
        let seen: BTreeSet<u64> = core::iter::from_fn(|| frames.take()).map(|pfn| pfn.raw()).collect();
        assert_eq!(seen, (10..200).collect());
        assert_eq!((frames.free_count(), frames.take()), (0, None));
    }

    #[test]
    fn refuses_a_second_return() {
        let mut bits = [0; 1];
        let mut frames = Frames::new(&mut bits);
        assert!(frames.give(Pfn::new(5)));
        assert!(!frames.give(Pfn::new(5)));
        assert!(!frames.give(Pfn::new(64)));
        assert_eq!(frames.free_count(), 1);
    }
}
