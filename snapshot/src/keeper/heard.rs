//! What came to the keeper, and what it makes of it: the one translation from a peer's word to an [`Observation`].
//!
//! Pure. Invariants: a stub that was seen dead stays dead, whatever word of it comes late; a caller that has gone does
//! not come back, and only one that is there can cancel; each status changes the stamp.

use super::words::{Cli, Completion, Control, Hook, Observation, Stub, Target};
use crate::status::State;

/// Something that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The stub's status, of our session.
    Status(State),
    /// `control/shutdown`, read after our request was written.
    Control(Control),
    /// The release port fired.
    Edge,
    /// The caller cancels, or is gone.
    Cli(Cli),
    /// A command ended.
    Done(Completion),
}

impl Observation {
    /// Nothing seen yet.
    pub const fn nothing() -> Self {
        Self {
            target: Target::Running,
            stub: Stub::Working,
            stub_stamp: 0,
            control: Control::Unknown,
            released: false,
            cli: Cli::Present,
            saver: false,
            hook: Hook::Idle,
            done: None,
        }
    }

    /// Notes what came. True: a command ended, and the machine has to see that before anything else is noted.
    pub fn note(&mut self, heard: Heard) -> bool {
        match heard {
            Heard::Status(state) => {
                // Zero is kept for a stub that has said nothing at all.
                self.stub_stamp = self.stub_stamp.wrapping_add(1).max(1);
                if self.stub != Stub::Gone {
                    self.stub = Stub::from(state);
                }
            }
            Heard::Control(control) => self.control = control,
            Heard::Edge => self.released = true,
            Heard::Cli(cli) => self.cli = later(self.cli, cli),
            Heard::Done(completion) => self.done = Some(completion),
        }
        matches!(heard, Heard::Done(_))
    }

    /// The stub has begun, and has not said yet that its tracking is off: by a last word, or by *captured*.
    pub fn stub_tracks(&self) -> bool {
        self.stub_stamp != 0 && matches!(self.stub, Stub::Working | Stub::WantsSuspend)
    }
}

/// Present, then cancelling, then gone: it never goes back.
fn later(before: Cli, now: Cli) -> Cli {
    match (before, now) {
        (Cli::Gone, _) | (_, Cli::Gone) => Cli::Gone,
        (Cli::Cancels, _) | (_, Cli::Cancels) => Cli::Cancels,
        (Cli::Present, Cli::Present) => Cli::Present,
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::Outcome;
    use super::*;

    const STATES: [State; 11] = [
        State::Preparing,
        State::Copying,
        State::WantSuspend,
        State::Capturing,
        State::Captured,
        State::Flushing,
        State::Refused,
        State::Sealed,
        State::Void,
        State::Failed,
        State::Done,
    ];

    fn after(heard: &[Heard]) -> Observation {
        let mut seen = Observation::nothing();
        for one in heard {
            seen.note(*one);
        }
        seen
    }

    #[test]
    fn each_state_of_the_stub_is_one_word_for_the_machine() {
        use Stub::{Captured, GaveUp, WantsSuspend, Working};
        let words = [Working, Working, WantsSuspend, WantsSuspend, Captured, Captured];
        let words = words.into_iter().chain([GaveUp; 5]);
        for (state, word) in STATES.into_iter().zip(words) {
            let seen = after(&[Heard::Status(state)]);
            assert_eq!(seen, Observation { stub: word, stub_stamp: 1, ..Observation::nothing() }, "{state:?}");
        }
    }

    #[test]
    fn a_dead_stub_says_nothing_more_but_its_stamp_moves() {
        for state in STATES {
            let mut seen = Observation { stub: Stub::Gone, ..Observation::nothing() };
            assert!(!seen.note(Heard::Status(state)));
            assert_eq!(seen, Observation { stub: Stub::Gone, stub_stamp: 1, ..Observation::nothing() });
            assert!(!seen.stub_tracks());
        }
    }

    #[test]
    fn the_same_word_again_is_heard_and_the_stamp_never_says_that_nothing_was() {
        let twice = after(&[Heard::Status(State::Copying), Heard::Status(State::Copying)]);
        assert_eq!(twice.stub_stamp, 2);
        let mut last = Observation { stub_stamp: u32::MAX, ..twice };
        last.note(Heard::Status(State::Copying));
        assert_eq!((last.stub_stamp, last.stub_tracks()), (1, true));
    }

    #[test]
    fn a_stub_tracks_from_its_first_word_to_captured() {
        assert!(!Observation::nothing().stub_tracks());
        for (number, state) in STATES.into_iter().enumerate() {
            assert_eq!(after(&[Heard::Status(state)]).stub_tracks(), number < 4, "{state:?}");
        }
    }

    #[test]
    fn a_caller_never_comes_back() {
        let all = [Cli::Present, Cli::Cancels, Cli::Gone];
        for (before, first) in all.into_iter().enumerate() {
            for (now, second) in all.into_iter().enumerate() {
                let seen = after(&[Heard::Cli(first), Heard::Cli(second)]);
                assert_eq!(seen.cli, all[before.max(now)]);
            }
        }
    }

    #[test]
    fn the_rest_is_noted_as_it_is_and_only_an_end_calls_for_the_machine() {
        let done = Completion { seq: 3, outcome: Outcome::Busy };
        let mut seen = Observation::nothing();
        assert!(!seen.note(Heard::Control(Control::Other)) && !seen.note(Heard::Edge));
        assert!(!seen.note(Heard::Cli(Cli::Present)) && seen.note(Heard::Done(done)));
        let wanted =
            Observation { control: Control::Other, released: true, done: Some(done), ..Observation::nothing() };
        assert_eq!(seen, wanted);
    }
}
