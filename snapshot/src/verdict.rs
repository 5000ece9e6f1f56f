//! What dom0 writes while a session runs: the keeper's verdict and its `acked`, and a cancel. All name the session by
//! its token.
//!
//! A verdict is believed only with the running session's token; anything else is dropped by the receiver.

use alloc::boxed::Box;
use core::fmt;

use crate::fields::{Fields, Line, ParseError};
use crate::names::Token;

/// Most bytes of [`Disks`], checked where they are read.
pub const DISKS_MAX: usize = 1024;

/// Where the guest's disks were kept as they were at the pause: `VDEV=PATH` joined by `;`, as a hook in dom0 said it.
/// Nothing in the stub reads it; it is kept with the snapshot.
pub type Disks = Box<str>;

/// The keeper's word on a session after the stub's release edge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The session.
    pub token: Token,
    /// The resume was the keeper's own and came after *captured*: seal. Else the snapshot is void.
    pub resumed: bool,
    /// Why it is void; empty for a resume.
    pub reason: Line,
    /// Empty if no hook kept any.
    pub disks: Disks,
}

impl Verdict {
    /// Reads the node's value.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let fields = Fields::parse(bytes, &["token", "verdict", "reason", "disks"])?;
        let resumed = match fields.required("verdict")? {
            "resumed" => true,
            "void" => false,
            _ => return Err(ParseError::bad("verdict")),
        };
        let disks = fields.optional("disks").unwrap_or("");
        if disks.len() > DISKS_MAX {
            return Err(ParseError::bad("disks"));
        }
        Ok(Self { token: fields.typed("token")?, resumed, reason: fields.line("reason")?, disks: disks.into() })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.resumed { "resumed" } else { "void" };
        write!(out, "token={}\nverdict={verdict}\nreason={}\n", self.token, self.reason)?;
        if self.disks.is_empty() { Ok(()) } else { writeln!(out, "disks={}", self.disks) }
    }
}

/// A word that says no more than which session it is for: `cancel`, dom0's wish that it end, and `acked`, the keeper's
/// news that the guest took the suspend request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cancel {
    /// The session.
    pub token: Token,
}

/// See [`Cancel`].
pub type Acked = Cancel;

impl Cancel {
    /// Reads the node's value.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let fields = Fields::parse(bytes, &["token"])?;
        Ok(Self { token: fields.typed("token")? })
    }
}

impl fmt::Display for Cancel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "token={}", self.token)
    }
}
