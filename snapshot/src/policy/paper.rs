//! The rules of others: Live Save and Improved Live Save as the paper prints them, and Xen's own for migration.

use super::rules::{High, RoundStats};

/// Rounds before stop-and-copy. Xen 4.5.1 (tools/libxc/xc_domain_save.c, DEF_MAX_ITERS) counts 29 and the last set
/// makes 30, which is the paper's number.
pub const LIVE_ROUNDS_MAX: u32 = 29;

/// Stop when fewer pages became dirty in the previous and the current round together.
pub const LIVE_DIRTY_MIN: u64 = 50;

/// Stop when more than this many times the memory was sent.
pub const LIVE_SENT_FACTOR: u64 = 3;

/// Rounds before stop-and-copy in Xen since 4.6 (tools/libs/guest/xg_sr_save.c, SPP_MAX_ITERATIONS).
pub const XEN_ROUNDS_MAX: u32 = 5;

/// Stop when fewer pages are dirty (SPP_TARGET_DIRTY_COUNT there).
pub const XEN_DIRTY_MIN: u64 = 50;

/// A round is "high" when more than this many thousandths of the pages that it sent became dirty. The paper gives no
/// number; its figure 5(a) bends at cap 28, which takes 4.89 < h < 5.36 in the model of its experiment.
pub const HIGH_DEFAULT_MILLI: u32 = 5100;

/// Table 2: does one of the three stop conditions hold? `rounds_max` is MAX_iterations without the last set.
pub(super) fn live_stops(stats: &RoundStats, rounds_max: u32) -> bool {
    let rounds_spent = stats.round >= rounds_max;
    let at_rest = stats.dirty_previous.saturating_add(stats.dirty_current) < LIVE_DIRTY_MIN;
    let sent_too_much = stats.sent_total > stats.memory.saturating_mul(LIVE_SENT_FACTOR);
    rounds_spent || at_rest || sent_too_much
}

/// Is the dirty frequency of this round above H?
///
/// The frequency is D/T and the limit is what the disk takes, S/T pages at the rate of this very round, so the times
/// cancel: D > h S. The text of section 3.2.2 also says "no less dirty pages than the previous iteration".
pub(super) fn is_high(stats: &RoundStats, high: High) -> bool {
    match high {
        High::Sent { milli } => {
            u128::from(stats.dirty_current) * 1000 > u128::from(milli) * u128::from(stats.sent_round)
        }
        High::NoLess => stats.dirty_current >= stats.dirty_previous,
    }
}

/// Table 3: MAX_iterations after a round.
pub(super) fn adapted(rounds_max: u32, high: bool) -> u32 {
    if high { rounds_max.saturating_sub(1) } else { (rounds_max + 1).min(LIVE_ROUNDS_MAX) }
}

/// Xen's simple_precopy_policy.
pub(super) fn xen_stops(stats: &RoundStats) -> bool {
    stats.round >= XEN_ROUNDS_MAX || stats.dirty_current < XEN_DIRTY_MIN
}
