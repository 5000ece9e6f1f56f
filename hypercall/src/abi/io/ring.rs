//! io/ring.h: where things stand in a shared ring page of requests and responses, and how many fit.

/// Offset of the producer index of requests (`u32`, by the frontend).
pub const REQ_PROD: usize = 0;
/// Offset of the index at which the backend wants to be notified (`u32`, by the backend).
pub const REQ_EVENT: usize = 4;
/// Offset of the producer index of responses (`u32`, by the backend).
pub const RSP_PROD: usize = 8;
/// Offset of the index at which the frontend wants to be notified (`u32`, by the frontend).
pub const RSP_EVENT: usize = 12;
/// Offset of the first slot.
pub const SLOTS: usize = 64;

/// Slots of a ring of `bytes` bytes with slots of `slot` bytes: the largest power of two that fits
/// (`__CONST_RING_SIZE`). 0 if not even one fits.
#[must_use]
pub const fn ring_size(bytes: usize, slot: usize) -> usize {
    if slot == 0 || bytes < SLOTS + slot {
        return 0;
    }
    let fits = (bytes - SLOTS) / slot;
    1 << fits.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_holds_a_power_of_two() {
        assert_eq!(ring_size(4096, 112), 32);
        assert_eq!(ring_size(8192, 112), 64);
        assert_eq!(ring_size(65536, 112), 512);
        assert_eq!(ring_size(SLOTS + 112, 112), 1);
        assert_eq!(ring_size(SLOTS + 111, 112), 0);
        assert_eq!(ring_size(4096, 0), 0);
    }
}
