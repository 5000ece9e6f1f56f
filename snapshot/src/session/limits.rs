//! Every wait and every bound of a session, in one place. docs/protocol/failures.md has the same table; a test compares
//! the two.

/// From want-suspend to the suspend. The keeper allows 30 s for the ack and 30 s for the suspend after it.
pub const SUSPEND_WAIT_NS: u64 = 75_000_000_000;

/// Between two looks for the suspend. The pause is ours only from the first sight of it.
pub const SUSPEND_POLL_NS: u64 = 2_000_000;

/// After the release edge, between two looks whether the guest runs again.
pub const ASIDE_NS: u64 = 1_000_000;

/// So many looks; then the stub goes on, whether it runs or not.
pub const ASIDE_LOOKS_MAX: u32 = 20;

/// What a guest is likely to need from our wish to its suspend, if nothing is known of it: for predictions only.
pub const SUSPEND_LIKELY_NS: u64 = 500_000_000;

/// How often the guest is looked at while it is copied, in the pause as well.
pub const LOOK_NS: u64 = 100_000_000;

/// From the release to the verdict.
pub const VERDICT_WAIT_NS: u64 = 60_000_000_000;

/// Between two looks for the verdict, if no message wakes us.
pub const VERDICT_POLL_NS: u64 = 50_000_000;

/// Between two attempts to switch tracking off.
pub const OFF_RETRY_NS: u64 = 20_000_000;

/// Least time between two progress reports within a state.
pub const PROGRESS_NS: u64 = 250_000_000;

/// After the keeper was asked to throttle the guest, before the next round: it runs xl.
pub const THROTTLE_SETTLE_NS: u64 = 1_000_000_000;

/// Between two looks at the size of a guest that is being ballooned; the same twice is taken for rest.
pub const SETTLE_NS: u64 = 500_000_000;

/// Most such looks before a pass.
pub const SETTLE_LOOKS_MAX: u32 = 60;

/// Attempts to switch tracking off (Xen answers -EBUSY while another tool is in the middle of a call).
pub const OFF_ATTEMPTS: u32 = 5;

/// Full passes of a live take, the first included; more are wanted only by a guest whose memory changes.
pub const FULL_PASSES_MAX: u32 = 3;

/// Most messages of dom0 taken in at one go, so that a chatty peer cannot stop the copying.
pub const MESSAGES_MAX: usize = 16;
