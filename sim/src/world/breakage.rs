//! Breakages of the hands that the simulator holds itself, and the search for who notices a breakage. Those of the
//! production code are safeguards of `snapshot`.

use std::sync::atomic::{AtomicU8, Ordering};

use super::command;

/// Something that the keeper's process or `recover` forgets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Slip {
    /// The guest's CPU cap stays lowered.
    CapStays = 1,
    /// `recover` forgets it.
    RecoverCap,
    /// The record is not brought up to date before the guest is asked.
    NoRecord,
    /// A resume that does nothing and says that it was done.
    NoResume,
    /// The keeper leaves while the stub's tracking is on still.
    LeavesStub,
}

impl Slip {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::CapStays, Self::RecoverCap, Self::NoRecord, Self::NoResume, Self::LeavesStub];

    /// From now on, or none.
    pub fn make(which: Option<Self>) {
        SLIP.store(which.map_or(0, |which| which as u8), Ordering::Relaxed);
    }
}

static SLIP: AtomicU8 = AtomicU8::new(0);

/// Is it made?
pub fn slip(which: Slip) -> bool {
    SLIP.load(Ordering::Relaxed) == which as u8
}

/// Seeds that are searched.
const SEEDS: u64 = 3000;

/// The first run that is wrong: its seed, and how.
pub fn found() -> Option<(u64, String)> {
    (1..=SEEDS).find_map(|seed| Some((seed, command::one(seed, false).wrong.into_iter().next()?)))
}
