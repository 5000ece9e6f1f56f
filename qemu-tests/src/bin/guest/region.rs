//! The memory that the guest dirties and checks.
//!
//! The generation of each page is kept beside it, and the sum of all generations in a register-sized counter: a table
//! page that came back stale disagrees with the sum, and a data page that came back stale disagrees with the table.

use qemu_tests::pattern::{self, WORDS};

use crate::settings::Settings;

/// A region of whole pages, filled at creation.
pub struct Region {
    words: Vec<u64>,
    generations: Vec<u32>,
    writes: u64,
    seed: u64,
    set: usize,
    noise: usize,
    /// The state of the generator that chooses pages; `None`: they come in turn.
    random: Option<u64>,
    next_dirty: usize,
    next_verify: usize,
    passes: u64,
}

impl Region {
    /// Allocates and fills it.
    pub fn new(settings: &Settings) -> Self {
        let pages = settings.mem_mib * 256;
        // One page more than needed, so that the first page boundary inside is a whole page of the machine.
        let words = vec![0_u64; (pages + 1) * WORDS];
        let set = if settings.set == 0 { pages } else { settings.set.min(pages) };
        let mut region = Self {
            words,
            generations: vec![0; pages],
            writes: 0,
            seed: settings.seed,
            set,
            noise: settings.noise,
            random: settings.random.then_some(settings.seed | 1),
            next_dirty: 0,
            next_verify: 0,
            passes: 0,
        };
        for index in 0..pages {
            region.write(index);
        }
        region
    }

    /// Pages in the region.
    pub fn pages(&self) -> usize {
        self.generations.len()
    }

    /// Times that the whole region was checked.
    pub fn passes(&self) -> u64 {
        self.passes
    }

    /// Rewrites the next `count` pages of the working set with their next generation.
    pub fn dirty(&mut self, count: usize) {
        for _ in 0..count {
            self.write(self.next_dirty);
            self.next_dirty = self.following() % self.set;
        }
    }

    /// The next page, or any (Marsaglia's xorshift64).
    fn following(&mut self) -> usize {
        let Some(state) = &mut self.random else { return self.next_dirty + 1 };
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 16) as usize
    }

    /// Checks the next `count` pages, and the table at the end of each pass; returns how many were wrong.
    pub fn verify(&mut self, count: usize) -> u64 {
        let mut errors = 0;
        for _ in 0..count {
            errors += u64::from(!self.is_right(self.next_verify));
            self.next_verify += 1;
            if self.next_verify == self.pages() {
                self.next_verify = 0;
                self.passes += 1;
                errors += u64::from(!self.is_table_right());
            }
        }
        errors
    }

    fn is_table_right(&self) -> bool {
        let sum: u64 = self.generations.iter().map(|&generation| u64::from(generation)).sum();
        if sum != self.writes {
            println!("WRONG table: its sum is {sum}, written {}", self.writes);
        }
        sum == self.writes
    }

    fn write(&mut self, index: usize) {
        let (seed, noise, range) = (self.seed, self.noise, self.range(index));
        let Some(generation) = self.generations.get_mut(index) else { return };
        *generation += 1;
        let generation = u64::from(*generation);
        self.writes += 1;
        if let Some(page) = self.words.get_mut(range) {
            pattern::fill(page, seed, index as u64, generation, noise);
        }
    }

    fn is_right(&self, index: usize) -> bool {
        let generation = self.generations.get(index).copied().map_or(0, u64::from);
        let page = self.words.get(self.range(index));
        let right = page.is_some_and(|page| pattern::holds(page, self.seed, index as u64, generation, self.noise));
        if !right {
            let head = page.and_then(|page| page.get(..3));
            println!("WRONG page {index}: expected generation {generation}, head {head:?}");
        }
        right
    }

    /// The page's words, counted from the first page boundary.
    fn range(&self, index: usize) -> std::ops::Range<usize> {
        let skew = self.words.as_ptr().align_offset(4096).min(WORDS - 1);
        let start = skew + index * WORDS;
        start..start + WORDS
    }
}
