//! When the power goes: a moment of a take, or of what comes after one, for each cut. Ten stages in turn, each time
//! further on and with another kind of take.

use crate::lab::DiskWork;

/// The states that a session goes through, in their order (docs/protocol/xenstore.md).
const STATES: [&str; 7] = ["preparing", "copying", "want-suspend", "capturing", "captured", "flushing", "sealed"];
/// Kinds of takes, as options.
pub const KINDS: [&str; 5] = ["--mode staged", "--mode live", "--mode save", "--incremental", "--diff"];
/// An incremental take that is one needs an incremental one before it, on the same boot.
pub const INCREMENTAL: usize = 3;
/// Flushes of a commit: of what it points at, of each superblock (docs/format/store-v1.md).
const COMMIT_FLUSHES: u64 = 3;

/// What the power cut is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// In this state of a take; the number is its place in the order.
    State(usize),
    /// The commit that seals: between two of its writes and flushes.
    Sealing,
    /// Old snapshots are removed, after a take.
    Removing,
    /// The stub moves what lives in sparse segments, after a removal.
    Cleaning,
}

impl Stage {
    /// Its name in the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::State(place) => STATES.get(place).copied().unwrap_or("?"),
            Self::Sealing => "sealing",
            Self::Removing => "removing",
            Self::Cleaning => "cleaning",
        }
    }
}

/// One cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What it is in the middle of.
    pub stage: Stage,
    /// Which of [`KINDS`].
    pub kind: usize,
    /// The stub dwells in the state, so that it is met.
    pub held: bool,
    /// So many flushes after the stage was first seen; for [`Stage::Sealing`], of the commit.
    pub flushes: u64,
    /// and then so many writes.
    pub writes: u64,
}

/// The place of the states that are named below.
const PREPARING: usize = 0;
const COPYING: usize = 1;
const WANT_SUSPEND: usize = 2;
const CAPTURING: usize = 3;
const CAPTURED: usize = 4;
const FLUSHING: usize = 5;
const SEALED: usize = 6;

/// The n-th cut, from 0.
pub fn moment(n: usize) -> Moment {
    let (turn, of_turn) = (n / 10, n % 10);
    let further = turn as u64;
    let at = |stage, held, flushes, writes| Moment { stage, kind: (n + turn) % KINDS.len(), held, flushes, writes };
    let state = |place, writes| at(Stage::State(place), writes == 0 && place < SEALED, 0, writes);
    match of_turn {
        0 => state(PREPARING, further / 2),
        1 => state(COPYING, 1 + 3 * further),
        2 => at(Stage::Sealing, false, further % COMMIT_FLUSHES, 1),
        3 => state(WANT_SUSPEND, further / 3),
        4 => state(CAPTURING, further / 2),
        5 => at(Stage::Sealing, false, (further + 1) % (COMMIT_FLUSHES + 1), 0),
        6 => state(COPYING, 8 + 9 * further),
        7 => state(FLUSHING, further),
        8 => state(CAPTURED, further / 2),
        _ => match turn % 3 {
            0 => at(Stage::Removing, false, further, 1),
            1 => at(Stage::Cleaning, false, further / 2, further),
            _ => state(SEALED, 0),
        },
    }
}

/// The stub's `state=` in a line of `probe follow`, as a place in the order. One that is not in it is an end.
fn place(line: &str) -> Option<usize> {
    let state = line.split_whitespace().find_map(|word| word.strip_prefix("state="))?;
    Some(STATES.iter().position(|known| *known == state).unwrap_or(STATES.len()))
}

/// What has been seen of the session and of the disk since it began.
#[derive(Debug, Default)]
pub struct Sight {
    /// The stub's last word.
    pub line: String,
    /// The disk's work since the beginning.
    pub work: DiskWork,
    /// and when the stage was first seen.
    pub reached: Option<DiskWork>,
}

impl Sight {
    /// Takes in what was seen; whether the moment has come. A whole take flushes so often.
    pub fn comes(&mut self, moment: &Moment, take_flushes: u64) -> bool {
        let since = match moment.stage {
            Stage::State(wanted) => {
                if place(&self.line).is_none_or(|place| place < wanted) {
                    return false;
                }
                self.since_reached()
            }
            Stage::Sealing => {
                let before = take_flushes.saturating_sub(COMMIT_FLUSHES) + moment.flushes;
                if self.work.flushes < before {
                    return false;
                }
                DiskWork { flushes: moment.flushes, ..self.since_reached() }
            }
            Stage::Removing | Stage::Cleaning => self.work,
        };
        since.flushes >= moment.flushes && since.writes >= moment.writes
    }

    fn since_reached(&mut self) -> DiskWork {
        let reached = *self.reached.get_or_insert(self.work);
        self.work.since(&reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const CUTS: usize = 50;

    #[test]
    fn every_state_is_cut_and_the_commit_most() {
        let cuts: Vec<Moment> = (0..CUTS).map(moment).collect();
        for (place, state) in STATES.iter().enumerate() {
            assert!(cuts.iter().any(|one| one.stage == Stage::State(place)), "{state}");
        }
        let sealing: Vec<_> = cuts.iter().filter(|one| one.stage == Stage::Sealing).collect();
        assert_eq!(sealing.len(), 10);
        let places: BTreeSet<_> = sealing.iter().map(|one| (one.flushes, one.writes)).collect();
        assert_eq!(places.len(), 7, "{places:?}");
        for stage in [Stage::Removing, Stage::Cleaning] {
            assert!(cuts.iter().any(|one| one.stage == stage), "{stage:?}");
        }
    }

    #[test]
    fn each_stage_is_cut_in_takes_of_all_kinds() {
        let kinds = |stage| {
            let of_stage = (0..CUTS).map(moment).filter(|one| one.stage == stage);
            of_stage.map(|one| one.kind).collect::<BTreeSet<_>>().len()
        };
        for (place, state) in STATES.iter().enumerate().take(FLUSHING + 1).skip(PREPARING) {
            assert_eq!(kinds(Stage::State(place)), KINDS.len(), "{state}");
        }
        assert_eq!(kinds(Stage::Sealing), KINDS.len());
    }

    #[test]
    fn no_moment_is_tried_twice_with_the_same_kind_of_take() {
        let all: Vec<String> = (0..CUTS).map(|n| format!("{:?}", moment(n))).collect();
        let different: BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), CUTS);
    }

    #[test]
    fn a_moment_in_a_state_is_counted_from_the_sight_of_it() {
        let cut = Moment { stage: Stage::State(COPYING), kind: 0, held: false, flushes: 0, writes: 2 };
        let mut sight = Sight { line: "state=preparing round=0 pages=0".into(), ..Sight::default() };
        sight.work.writes = 9;
        assert!(!sight.comes(&cut, 6));
        sight.line = "state=copying round=1 pages=17".into();
        assert!(!sight.comes(&cut, 6), "nothing was written since");
        sight.work.writes = 10;
        assert!(!sight.comes(&cut, 6));
        sight.work.writes = 11;
        assert!(sight.comes(&cut, 6));
        // A state that was too short to be seen is passed by.
        for later in ["state=flushing", "state=void"] {
            assert!(Sight { line: later.into(), ..Sight::default() }.comes(&Moment { writes: 0, ..cut }, 6), "{later}");
        }
    }

    #[test]
    fn a_moment_in_the_commit_is_counted_from_its_first_flush() {
        let cut = Moment { stage: Stage::Sealing, kind: 0, held: false, flushes: 1, writes: 1 };
        let mut sight = Sight { work: DiskWork { writes: 40, bytes: 0, flushes: 3 }, ..Sight::default() };
        assert!(!sight.comes(&cut, 6), "the one before");
        sight.work.flushes = 4;
        assert!(!sight.comes(&cut, 6), "the write after it is not there yet");
        sight.work.writes = 41;
        assert!(sight.comes(&cut, 6));
    }
}
