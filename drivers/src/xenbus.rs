//! The handshake of a device's two ends over their `state` nodes (public/io/xenbus.h), as a pure machine.
//!
//! It is fed with what the backend's `state` node holds and answers what the frontend shall do. It knows no device and
//! no xenstore. A value that is no state, or one that the protocol does not allow now, is a failure, never a guess.

use core::fmt;
use xen_hypercall::abi::io::xenbus as abi;

/// A state that one end announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(u32);

impl State {
    /// No state yet.
    pub const UNKNOWN: Self = Self(abi::STATE_UNKNOWN);
    /// The toolstack made the nodes.
    pub const INITIALISING: Self = Self(abi::STATE_INITIALISING);
    /// The backend has published its features.
    pub const INIT_WAIT: Self = Self(abi::STATE_INIT_WAIT);
    /// The frontend has published its ring.
    pub const INITIALISED: Self = Self(abi::STATE_INITIALISED);
    /// In use.
    pub const CONNECTED: Self = Self(abi::STATE_CONNECTED);
    /// Being closed.
    pub const CLOSING: Self = Self(abi::STATE_CLOSING);
    /// Closed.
    pub const CLOSED: Self = Self(abi::STATE_CLOSED);

    /// The state in a node; `None` for anything but a number from 0 to 8.
    pub fn parse(text: &str) -> Option<Self> {
        match text.as_bytes() {
            [digit @ b'0'..=b'8'] => Some(Self(u32::from(digit - b'0'))),
            _ => None,
        }
    }

    /// The text for a node.
    pub fn as_text(self) -> &'static str {
        const TEXTS: [&str; 9] = ["0", "1", "2", "3", "4", "5", "6", "7", "8"];
        TEXTS[self.0 as usize % TEXTS.len()]
    }
}

/// Why the handshake cannot go on. The operator looks at the backend, in dom0's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The node holds no state.
    NoState,
    /// The backend is gone: its node does not exist any more.
    Gone,
    /// The backend closed, or never left a former connection.
    Closed,
    /// The backend announces a state that does not follow from the last one.
    Unexpected(State),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoState => f.write_str("the backend's state is no state"),
            Self::Gone => f.write_str("the backend is gone"),
            Self::Closed => f.write_str("the backend has closed"),
            Self::Unexpected(state) => write!(f, "the backend went to state {} out of turn", state.0),
        }
    }
}

/// What the frontend does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until the backend's state changes.
    Wait,
    /// Write state Initialising: the backend remembers a former connection of this device.
    Reset,
    /// Read the features, publish ring and port, then write state Initialised.
    Publish,
    /// Read the geometry, then write state Connected.
    Connect,
    /// Write state Closed: the backend agreed to close.
    FinishClose,
    /// The backend has let everything go.
    Closed,
    /// Stop using the device.
    Fail(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for the backend's features; whether a reset was tried.
    Waiting {
        reset: bool,
    },
    Published,
    Connected,
    /// We want to close; whether our state is Closed by now.
    Closing {
        finished: bool,
    },
    Ended(Step),
}

/// The frontend's side.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    phase: Phase,
}

impl Default for Handshake {
    fn default() -> Self {
        Self { phase: Phase::Waiting { reset: false } }
    }
}

impl Handshake {
    /// Takes what the backend's `state` node holds (`None`: there is no such node) and says what to do. The machine
    /// assumes that the caller does it before it observes again.
    pub fn observe(&mut self, backend: Option<&str>) -> Step {
        let state = match backend.map(State::parse) {
            Some(Some(state)) => Some(state),
            None => None,
            Some(None) => return self.end(Step::Fail(Failure::NoState)),
        };
        match self.phase {
            Phase::Waiting { reset } => self.waiting(state, reset),
            Phase::Published => self.published(state),
            Phase::Connected => self.connected(state),
            Phase::Closing { finished } => self.closing(state, finished),
            Phase::Ended(step) => step,
        }
    }

    /// The frontend wants to close: it writes state Closing, then observes on. From any phase.
    pub fn begin_close(&mut self) {
        self.phase = Phase::Closing { finished: false };
    }

    /// Whether the device may be used.
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    /// Connected, closing or ended: a backend that is gone from here on is no error of xenstore.
    pub fn outlives_backend(&self) -> bool {
        !matches!(self.phase, Phase::Waiting { .. } | Phase::Published)
    }

    fn waiting(&mut self, state: Option<State>, reset: bool) -> Step {
        match state {
            Some(State::INIT_WAIT) => {
                self.phase = Phase::Published;
                Step::Publish
            }
            Some(State::CLOSING | State::CLOSED) if !reset => {
                self.phase = Phase::Waiting { reset: true };
                Step::Reset
            }
            // The backend's node may come later than ours; the caller's deadline bounds the wait.
            None | Some(State::UNKNOWN | State::INITIALISING | State::CLOSING | State::CLOSED) => Step::Wait,
            Some(other) => self.end(Step::Fail(Failure::Unexpected(other))),
        }
    }

    fn published(&mut self, state: Option<State>) -> Step {
        match state {
            Some(State::CONNECTED) => {
                self.phase = Phase::Connected;
                Step::Connect
            }
            Some(State::INIT_WAIT | State::INITIALISED) => Step::Wait,
            other => self.lost(other),
        }
    }

    fn connected(&mut self, state: Option<State>) -> Step {
        match state {
            Some(State::CONNECTED) => Step::Wait,
            other => self.lost(other),
        }
    }

    fn closing(&mut self, state: Option<State>, finished: bool) -> Step {
        match state {
            None => self.end(Step::Closed),
            Some(State::CLOSED) if finished => self.end(Step::Closed),
            Some(State::CLOSING | State::CLOSED) if !finished => {
                self.phase = Phase::Closing { finished: true };
                Step::FinishClose
            }
            // The backend still works its way towards us.
            Some(_) => Step::Wait,
        }
    }

    fn lost(&mut self, state: Option<State>) -> Step {
        self.end(Step::Fail(match state {
            None => Failure::Gone,
            Some(State::CLOSING | State::CLOSED) => Failure::Closed,
            Some(other) => Failure::Unexpected(other),
        }))
    }

    fn end(&mut self, step: Step) -> Step {
        self.phase = Phase::Ended(step);
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Step::*;

    fn run(script: &[(Option<&str>, Step)]) -> Handshake {
        let mut handshake = Handshake::default();
        for (at, (state, expected)) in script.iter().enumerate() {
            assert_eq!(handshake.observe(*state), *expected, "step {at} of {script:?}");
        }
        handshake
    }

    #[test]
    fn the_ordinary_way_to_connected_and_back() {
        let mut handshake = run(&[
            (None, Wait),
            (Some("1"), Wait),
            (Some("2"), Publish),
            (Some("2"), Wait),
            (Some("4"), Connect),
            (Some("4"), Wait),
        ]);
        assert!(handshake.is_connected());
        handshake.begin_close();
        for (state, step) in [("4", Wait), ("5", FinishClose), ("5", Wait), ("6", Closed), ("6", Closed)] {
            assert_eq!(handshake.observe(Some(state)), step);
        }
    }

    #[test]
    fn a_former_connection_is_reset_once() {
        run(&[(Some("6"), Reset), (Some("6"), Wait), (Some("1"), Wait), (Some("2"), Publish), (Some("4"), Connect)]);
    }

    #[test]
    fn a_backend_that_vanishes_while_closing_is_closed() {
        let mut handshake = run(&[(Some("2"), Publish), (Some("4"), Connect)]);
        handshake.begin_close();
        assert_eq!(handshake.observe(None), Closed);
    }

    #[test]
    fn no_text_but_a_state_is_a_state_and_failures_are_final() {
        for odd in ["", "9", "-1", "+2", " 2", "2 ", "02", "22", "two", "4294967298", "\u{662}"] {
            let mut handshake = run(&[(Some(odd), Fail(Failure::NoState))]);
            assert_eq!(handshake.observe(Some("2")), Fail(Failure::NoState), "{odd:?}");
        }
    }

    #[test]
    fn every_state_out_of_turn_is_a_failure() {
        let unexpected = |raw| Fail(Failure::Unexpected(State(raw)));
        for raw in [3, 4, 7, 8] {
            run(&[(Some(State(raw).as_text()), unexpected(raw))]);
        }
        for raw in [0, 1, 7, 8] {
            run(&[(Some("2"), Publish), (Some(State(raw).as_text()), unexpected(raw))]);
        }
        for raw in [0, 1, 2, 3, 7, 8] {
            run(&[(Some("2"), Publish), (Some("4"), Connect), (Some(State(raw).as_text()), unexpected(raw))]);
        }
        for end in ["5", "6"] {
            run(&[(Some("2"), Publish), (Some(end), Fail(Failure::Closed))]);
            run(&[(Some("2"), Publish), (Some("4"), Connect), (Some(end), Fail(Failure::Closed))]);
        }
        run(&[(Some("2"), Publish), (None, Fail(Failure::Gone))]);
        run(&[(Some("2"), Publish), (Some("4"), Connect), (None, Fail(Failure::Gone))]);
    }

    #[test]
    fn states_round_trip() {
        for raw in 0..=8 {
            assert_eq!(State::parse(State(raw).as_text()), Some(State(raw)));
        }
    }
}
