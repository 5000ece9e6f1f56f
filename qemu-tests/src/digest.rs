//! A digest for frames that is cheap under emulation: not cryptographic, but no chance collision is to be expected.
//!
//! Two lanes of 64 bits. Each step of a lane is a bijection of the lane for a given word and of the word for a given
//! lane, so two pages that differ in one word only never have the same digest, in either lane.

/// Lane starts and odd multipliers, from the digits of pi and of the golden ratio.
const LANES: [(u64, u64); 2] =
    [(0x243f_6a88_85a3_08d3, 0x9e37_79b9_7f4a_7c15), (0x1319_8a2e_0370_7344, 0xd6e8_feb8_6659_fd93)];

/// The digest of a page, or of any bytes that are a multiple of 8 long; what is beyond that does not count.
#[must_use]
pub fn digest(bytes: &[u8]) -> u128 {
    let [(mut a, by_a), (mut b, by_b)] = LANES;
    for word in bytes.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*word);
        a = (a ^ word).wrapping_mul(by_a).rotate_left(29);
        b = (b ^ word).wrapping_mul(by_b).rotate_left(37);
    }
    u128::from(a) << 64 | u128::from(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_changes_both_lanes() {
        let mut page: Vec<u8> = (0..4096_u32).map(|at| (at * 7 % 251) as u8).collect();
        let whole = digest(&page);
        for at in 0..page.len() * 8 {
            page[at / 8] ^= 1 << (at % 8);
            let other = digest(&page) ^ whole;
            assert!(other as u64 != 0 && (other >> 64) as u64 != 0, "bit {at}");
            page[at / 8] ^= 1 << (at % 8);
        }
    }

    #[test]
    fn the_order_of_words_counts() {
        let (mut one, mut two) = ([0; 4096], [0; 4096]);
        (one[0], two[8]) = (1, 1);
        assert_ne!(digest(&one), digest(&two));
        assert_ne!(digest(&[0; 4096]), digest(&[0; 4088]));
    }
}
