//! All modes under one roof: what a policy sees, what it answers, and which rule a mode is.

use super::outlook::Outlook;
use super::paper::{self, LIVE_ROUNDS_MAX, LIVE_SENT_FACTOR, XEN_ROUNDS_MAX};
use super::staged::{self, Busy, STAGED_ROUNDS_MAX, THROTTLE_STEPS};
use crate::request::{Mode, TARGET_PAUSE_MS, Take};

/// Pages that a Linux guest writes to only because it suspends (scenario `staged`: 230 to 240 more in the last set than
/// at the end of any round), and the share of a small set that they are taken for at most.
const SUSPEND_PAGES: u64 = 240;
const SUSPEND_SHARE: u64 = 16;

/// What a round counted, and the sums so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RoundStats {
    /// This round, from 1.
    pub round: u32,
    /// Populated pages of the guest.
    pub memory: u64,
    /// Pages that this round was given: all in round 1, the dirty ones of the round before it later.
    pub dirty_previous: u64,
    /// Pages that became dirty during this round.
    pub dirty_current: u64,
    /// Pages sent in this round, zero pages included.
    pub sent_round: u64,
    /// The same, all rounds added up.
    pub sent_total: u64,
    /// Pages that the round was given and left to the last set, because the policy ended it.
    pub unsent: u64,
    /// Pages that are likely to become dirty until the guest stands.
    pub growth: u64,
    /// The most that were dirty at the end of any round: what a guest comes to that is left to itself for a while.
    pub dirty_max: u64,
    /// Pages with content that still fit the space that was set aside.
    pub space_left: u64,
    /// What a pause would cost now.
    pub outlook: Outlook,
}

impl RoundStats {
    /// Pages that the last set would have, were the guest asked to suspend now.
    pub fn need(&self) -> u64 {
        self.dirty_current.saturating_add(self.unsent).saturating_add(self.growth)
    }

    /// The same of a guest that does not come to rest: how long it takes to suspend is not known, so all that it writes
    /// to may be dirty by then, and what it writes to only because it suspends.
    pub fn need_at_most(&self) -> u64 {
        let suspending = SUSPEND_PAGES.min(self.dirty_max / SUSPEND_SHARE);
        self.need().max(self.dirty_max.saturating_add(suspending))
    }
}

/// What to do after a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Another round.
    Continue,
    /// Another round, with this much of the guest's processor time taken away, in percent.
    Throttle(u8),
    /// Suspend the guest and copy the rest.
    StopAndCopy,
    /// Give up: no good can come of it.
    Abort(Refusal),
}

/// Why a policy gives up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The guest dirties more than fits, and the operator wants nothing less.
    Busy,
    /// The pause would be longer than allowed.
    PauseTooLong,
}

/// When the dirty frequency counts as high.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum High {
    /// More pages became dirty than so many thousandths of the pages sent.
    Sent {
        /// Thousandths.
        milli: u32,
    },
    /// No fewer pages became dirty than in the round before.
    NoLess,
}

/// The numbers of a mode that the operator may choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `live`, `improved`: round 1 leaves out what is dirty again, as Xen 4.5.1 did.
    pub round1_skip: bool,
    /// `improved`.
    pub high: High,
    /// `improved`: compare the rounds with their limit first and change it then. Table 3 is printed the other way
    /// round; this is what its figure 5 needs.
    pub compare_first: bool,
    /// `staged`: the pause that is good enough.
    pub target_us: u64,
    /// `staged`: the pause that is too long to begin.
    pub max_pause_us: Option<u64>,
    /// `staged`.
    pub busy: Busy,
}

impl Default for Settings {
    fn default() -> Self {
        let high = High::Sent { milli: paper::HIGH_DEFAULT_MILLI };
        let target_us = u64::from(TARGET_PAUSE_MS) * 1000;
        Self { round1_skip: false, high, compare_first: false, target_us, max_pause_us: None, busy: Busy::Accept }
    }
}

impl From<&Take> for Settings {
    fn from(take: &Take) -> Self {
        Self {
            round1_skip: take.round1_skip,
            compare_first: false,
            high: if take.h_milli == 0 { High::NoLess } else { High::Sent { milli: take.h_milli } },
            target_us: u64::from(take.target_pause_ms) * 1000,
            max_pause_us: take.max_pause_ms.map(|ms| u64::from(ms) * 1000),
            busy: take.on_busy,
        }
    }
}

/// The rules of a mode, and what it remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    mode: Mode,
    settings: Settings,
    /// MAX_iterations of `improved`, without the last set.
    rounds_max: u32,
    memory: staged::Memory,
}

impl From<&Take> for Policy {
    fn from(take: &Take) -> Self {
        Self::new(take.mode, Settings::from(take))
    }
}

impl Policy {
    /// The rules of `mode`, nothing decided yet.
    pub fn new(mode: Mode, settings: Settings) -> Self {
        Self { mode, settings, rounds_max: LIVE_ROUNDS_MAX, memory: staged::Memory::new() }
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Most rounds, the last set in the pause included.
    pub fn rounds(&self) -> u32 {
        let throttled = if self.settings.busy == Busy::Throttle { THROTTLE_STEPS.len() as u32 } else { 0 };
        match self.mode {
            Mode::Save => 1,
            Mode::Live | Mode::Improved => LIVE_ROUNDS_MAX + 1,
            Mode::Xen => XEN_ROUNDS_MAX + 1,
            Mode::Staged => STAGED_ROUNDS_MAX + throttled + 1,
        }
    }

    /// Does the guest run while it is copied?
    pub fn is_live(&self) -> bool {
        self.mode != Mode::Save
    }

    /// Does the last set go to memory first?
    pub fn is_staged(&self) -> bool {
        self.mode == Mode::Staged
    }

    /// Does this round leave out what is dirty again already?
    pub fn skips(&self, round: u32) -> bool {
        match self.mode {
            Mode::Save | Mode::Xen => false,
            Mode::Live | Mode::Improved => round > 1 || self.settings.round1_skip,
            Mode::Staged => true,
        }
    }

    /// Does this round leave what lies among dirty pages for later, too? What is sent before the guest writes to it is
    /// sent in vain; a page that is left and not written to fits staging as well as any, or goes with the next round.
    pub fn puts_off(&self, round: u32) -> bool {
        self.is_staged() && round == 1
    }

    /// Space to reserve, in units of the guest's memory. `live`: three times, one round beyond, and the last set;
    /// `xen`: each round and the last set; `staged`: the first round and the last set, further rounds only if they fit.
    pub fn reserve_factor(&self) -> u64 {
        match self.mode {
            Mode::Save => 1,
            Mode::Live | Mode::Improved => LIVE_SENT_FACTOR + 2,
            Mode::Xen => u64::from(XEN_ROUNDS_MAX) + 1,
            Mode::Staged => 2,
        }
    }

    /// After a round.
    pub fn decide(&mut self, stats: &RoundStats) -> Decision {
        let stops = match self.mode {
            Mode::Save => true,
            Mode::Live => paper::live_stops(stats, LIVE_ROUNDS_MAX),
            Mode::Improved => self.improved_stops(stats),
            Mode::Xen => paper::xen_stops(stats),
            Mode::Staged => return staged::decide(stats, &self.settings, &mut self.memory),
        };
        if stops { Decision::StopAndCopy } else { Decision::Continue }
    }

    /// Table 3 stands at the end of the loop of table 2: first the number changes, then it is compared.
    fn improved_stops(&mut self, stats: &RoundStats) -> bool {
        let adapted = paper::adapted(self.rounds_max, paper::is_high(stats, self.settings.high));
        let before = core::mem::replace(&mut self.rounds_max, adapted);
        paper::live_stops(stats, if self.settings.compare_first { before } else { adapted })
    }

    /// In the middle of a round, `need` pages unsent or dirty: is this the moment? Not in round 1, in which all of
    /// the rest would be copied in the pause.
    pub fn ends_round(&self, round: u32, need: u64, outlook: &Outlook) -> bool {
        self.is_staged() && round > 1 && outlook.fits(need, self.settings.target_us)
    }

    /// Our part of the pause, in microseconds, as far as it can be told now.
    pub fn predicted_us(&self, stats: &RoundStats) -> u64 {
        let fits = stats.outlook.fits(stats.need(), self.settings.target_us);
        stats.outlook.pause_us(if fits { stats.need() } else { stats.need_at_most() })
    }

    /// The guest stands and the last set is known: would copying it pass the limit?
    pub fn is_too_long(&self, last_set: u64, outlook: &Outlook) -> bool {
        let limit_us = self.settings.max_pause_us.filter(|_| self.is_staged());
        limit_us.is_some_and(|limit_us| outlook.pause_us(last_set) > limit_us)
    }

    /// The operator's limits against what a pause costs without any page.
    pub fn can_be_met(&self, outlook: &Outlook) -> bool {
        let least_us = outlook.pause_us(0);
        let limit_us = self.settings.max_pause_us.unwrap_or(u64::MAX).min(self.settings.target_us);
        !self.is_staged() || least_us <= limit_us
    }
}

#[cfg(test)]
mod tests;
