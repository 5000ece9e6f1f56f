//! What the machine says, and what it is told.

use super::trouble::Trouble;
use crate::policy::RoundStats;
use crate::verdict::Verdict;

/// Which pages a round sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// Every populated page; the first round, and again when pages of the guest came or went.
    Full,
    /// The pages dirty since the last round.
    Dirty,
}

/// What is read in the pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capture {
    /// Everything: mode `save`.
    Everything,
    /// What is dirty since the last round.
    LastSet,
}

/// What the engine does next. Each ends in one observation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Check the guest, get the memory, begin the snapshot in the store. `Done`.
    Prepare,
    /// Switch tracking on. `Done`.
    Enable,
    /// One round. `Round`.
    Round(Pass),
    /// Look for pages that came or went since the last full pass. `Rechecked`.
    Recheck,
    /// Say want-suspend, look at the guest, wait a little. `Suspended` or `Nothing`.
    AwaitSuspend,
    /// The guest freezes itself: one more CLEAN, and a copy to memory, until it stands. `Suspended` or `Nothing`.
    Chase,
    /// Read the platform state and the pages, check that nobody interfered. `Done`.
    Capture(Capture),
    /// Send the release edge, then say where the session stands. `Done`.
    Release,
    /// Switch tracking off. `Done`.
    TrackingOff,
    /// Tracking is to stay on: look that it is, and note what a foreign hand would change. `Done`.
    Arm,
    /// Make everything durable but the seal. `Done`.
    Flush,
    /// Wait a little for the verdict. `Verdict` or `Nothing`.
    AwaitVerdict,
    /// Make the snapshot exist. `Done`.
    Seal,
    /// Drop what was begun in the store; nothing may have been. `Done`.
    Discard,
    /// Publish the final status; no step follows.
    Finish,
}

/// What the engine saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Observation {
    /// The session begins.
    Begin,
    /// The action is done.
    Done,
    /// `Prepare` is done, and what is taken lies on top of an earlier snapshot, since which tracking is on.
    OnTop,
    /// A round is over; the second value tells that the guest's memory changed size.
    Round(RoundStats, bool),
    /// Whether pages of the guest came or went since the last full pass.
    Rechecked(bool),
    /// A wait ended without event.
    Nothing,
    /// The guest took the suspend request.
    Acked,
    /// The guest is suspended.
    Suspended,
    /// The keeper's word.
    Verdict(Verdict),
    /// The action failed, or the session must end: cancel, a guest that is gone, a foreign hand.
    Trouble(Trouble),
}
