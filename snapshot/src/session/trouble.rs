//! Why a session ends early: the code for programs and the text for people, in one value.

use core::fmt;

use crate::fault::Fault;
use crate::fields::Line;
use crate::ports::{ControlLost, TargetError};

/// A cause, carried from where it was seen to the status node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// For programs.
    pub fault: Fault,
    /// For people.
    pub reason: Line,
}

impl Trouble {
    /// `fault`, explained by `reason`.
    pub fn new(fault: Fault, reason: impl fmt::Display) -> Self {
        Self { fault, reason: Line::of(reason) }
    }
}

impl From<TargetError> for Trouble {
    fn from(error: TargetError) -> Self {
        Self::new(error.into(), error)
    }
}

impl From<ControlLost> for Trouble {
    fn from(_: ControlLost) -> Self {
        Self::new(Fault::ControlLost, "the connection to xenstore is lost")
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.fault, self.reason)
    }
}
