//! Ours: stop as soon as what is dirty fits the staging memory and the target pause; and what to do when it never will.
//!
//! Bounded by rounds and by the space that was reserved. A pause that is predicted to pass its limit is refused here,
//! before the guest is asked to suspend.

use super::rules::{Decision, Refusal, RoundStats, Settings};

/// Rounds without throttling: rounds 2 to 4 cost a CLEAN each, the copy while the guest freezes one more.
pub const STAGED_ROUNDS_MAX: u32 = 4;

/// A round that leaves more than this many tenths of what the one before it left is no progress.
const PROGRESS_TENTHS: u64 = 8;

/// What is taken from the guest's processor time, step by step, in percent: first 20, then 10 more, at last 99, as
/// QEMU's auto-converge does (migration/options.c, cpu-throttle-initial and -increment, max-cpu-throttle).
pub const THROTTLE_STEPS: [u8; 9] = [20, 30, 40, 50, 60, 70, 80, 90, 99];

/// What to do with a guest that dirties more than fits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Busy {
    /// Suspend all the same; what does not fit goes to disk in the pause.
    #[default]
    Accept,
    /// Have the guest's processor time cut until it fits.
    Throttle,
    /// Give up.
    Abort,
}

impl Busy {
    /// All of them, with the word in requests.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Accept, "accept"), (Self::Throttle, "throttle"), (Self::Abort, "abort")];

    /// The word in requests.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(busy, _)| *busy == self).map_or("", |(_, word)| word)
    }
}

impl core::str::FromStr for Busy {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|(_, word)| *word == text).map(|(busy, _)| busy).ok_or(())
    }
}

/// What `staged` remembers between rounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Memory {
    /// What the last round left to copy.
    need_before: u64,
    /// Steps of [`THROTTLE_STEPS`] that were taken.
    steps: usize,
}

impl Memory {
    pub(super) const fn new() -> Self {
        Self { need_before: u64::MAX, steps: 0 }
    }

    /// The next step. Each costs a round, so those are passed over that would help too little if what is dirty fell no
    /// faster than what is taken away.
    fn throttle(&mut self, need: u64, fitting: u64) -> u8 {
        let wanted = |step: u8| u128::from(need) * (100 - u128::from(step)) <= u128::from(fitting) * 100;
        let last = THROTTLE_STEPS.len() - 1;
        let at = (self.steps..last).find(|at| wanted(THROTTLE_STEPS[*at])).unwrap_or(last);
        self.steps = at + 1;
        THROTTLE_STEPS[at]
    }
}

/// After a round.
pub(super) fn decide(stats: &RoundStats, settings: &Settings, memory: &mut Memory) -> Decision {
    let need = stats.need();
    if stats.outlook.fits(need, settings.target_us) {
        return Decision::StopAndCopy;
    }
    let progress = u128::from(need) * 10 <= u128::from(memory.need_before) * u128::from(PROGRESS_TENTHS);
    memory.need_before = need;
    // A round sends what is dirty now, and as much may be dirty at its end: never more than was set aside.
    let room = need.saturating_mul(2) <= stats.space_left;
    if progress && room && stats.round < STAGED_ROUNDS_MAX {
        return Decision::Continue;
    }
    match settings.busy {
        Busy::Abort => Decision::Abort(Refusal::Busy),
        Busy::Throttle if room && memory.steps < THROTTLE_STEPS.len() => {
            Decision::Throttle(memory.throttle(need, stats.outlook.most(settings.target_us)))
        }
        Busy::Accept | Busy::Throttle => accept(stats, settings),
    }
}

fn accept(stats: &RoundStats, settings: &Settings) -> Decision {
    let predicted_us = stats.outlook.pause_us(stats.need_at_most());
    let too_long = settings.max_pause_us.is_some_and(|limit_us| predicted_us > limit_us);
    if too_long { Decision::Abort(Refusal::PauseTooLong) } else { Decision::StopAndCopy }
}
