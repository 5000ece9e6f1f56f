//! The pattern that the test guest keeps in its memory: every page says who wrote it, where it belongs and how old it
//! is, so that a lost, stale or misplaced page is noticed after a restore.
//!
//! Words of a page: seed, page index, generation, then a sequence that follows from those three; from word `noise` on
//! one value of it again and again, so that a page can be packed as far as is wanted.

/// 64-bit words in a page.
pub const WORDS: usize = 512;

/// One step of splitmix64: spreads a counter over 64 bits.
#[must_use]
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Writes the page's pattern.
pub fn fill(page: &mut [u64], seed: u64, index: u64, generation: u64, noise: usize) {
    let words = words(seed, index, generation, noise);
    page.iter_mut().zip(words).for_each(|(word, wanted)| *word = wanted);
}

/// Whether the page holds exactly what [`fill`] wrote.
#[must_use]
pub fn holds(page: &[u64], seed: u64, index: u64, generation: u64, noise: usize) -> bool {
    page.iter().zip(words(seed, index, generation, noise)).all(|(word, wanted)| *word == wanted)
}

fn words(seed: u64, index: u64, generation: u64, noise: usize) -> impl Iterator<Item = u64> {
    let base = mix(seed ^ mix(index ^ mix(generation)));
    (0_u64..).map(move |at| match at {
        0 => seed,
        1 => index,
        2 => generation,
        _ if at >= noise as u64 => base,
        _ => base.wrapping_mul(at | 1).rotate_left(17) ^ at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_recognised_and_any_other_is_not() {
        let mut page = [0; WORDS];
        for noise in [WORDS, WORDS / 2, 3] {
            fill(&mut page, 7, 3, 1, noise);
            assert!(holds(&page, 7, 3, 1, noise));
            for (seed, index, generation) in [(8, 3, 1), (7, 4, 1), (7, 3, 0)] {
                assert!(!holds(&page, seed, index, generation, noise));
            }
        }
    }

    #[test]
    fn every_single_flipped_word_is_noticed() {
        let mut page = [0; WORDS];
        fill(&mut page, 1, 2, 3, 300);
        for at in 0..WORDS {
            page[at] ^= 1 << (at % 64);
            assert!(!holds(&page, 1, 2, 3, 300), "word {at}");
            page[at] ^= 1 << (at % 64);
        }
    }
}
