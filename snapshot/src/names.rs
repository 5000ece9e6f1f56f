//! Names of guests, of takes, and of snapshots (`GUEST@NAME`), and the token of a session.
//!
//! A name that exists as a value is legal: it is checked once, where it comes in, and can then go into xenstore text,
//! a file name or a table without a second look. It never holds `/`, `@`, whitespace or a control character.

use core::fmt;
use core::str::FromStr;

use heapless::String;

use crate::fields::hex;

/// Most bytes in either half of a snapshot's name.
pub const NAME_MAX: usize = 64;

/// Why a name is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameError {
    /// No character at all.
    Empty,
    /// More than [`NAME_MAX`] bytes in one half.
    TooLong,
    /// A character other than ASCII letters, digits and `. _ + : -`.
    BadCharacter,
    /// The first character is not a letter, a digit or `_`.
    BadStart,
    /// Not exactly one `@` between guest and name.
    NotGuestAtName,
}

impl fmt::Display for NameError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => out.write_str("a name is empty"),
            Self::TooLong => write!(out, "a name is longer than {NAME_MAX} bytes"),
            Self::BadCharacter => out.write_str("a name may hold ASCII letters, digits and . _ + : - only"),
            Self::BadStart => out.write_str("a name starts with a letter, a digit or _"),
            Self::NotGuestAtName => out.write_str("a snapshot is named GUEST@NAME"),
        }
    }
}

/// One half of a snapshot's name: the guest's name, or the name of the take.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(String<NAME_MAX>);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let first = text.bytes().next().ok_or(NameError::Empty)?;
        if text.len() > NAME_MAX {
            return Err(NameError::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+:-".contains(&byte)) {
            return Err(NameError::BadCharacter);
        }
        if !first.is_ascii_alphanumeric() && first != b'_' {
            return Err(NameError::BadStart);
        }
        String::try_from(text).map(Self).map_err(|_| NameError::TooLong)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The full name of a snapshot, `GUEST@NAME`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SnapshotName {
    /// The guest's name when the snapshot was taken.
    pub guest: Name,
    /// The name of the take, unique within the guest.
    pub name: Name,
}

impl FromStr for SnapshotName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (guest, name) = text.split_once('@').ok_or(NameError::NotGuestAtName)?;
        if name.contains('@') {
            return Err(NameError::NotGuestAtName);
        }
        Ok(Self { guest: guest.parse()?, name: name.parse()? })
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}", self.guest, self.name)
    }
}

/// Tells one session from every other: 128 random bits that dom0 chose, 32 lower-case hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token(pub [u8; 16]);

/// The text is not 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadToken;

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        hex(text).map(Self).ok_or(BadToken)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}
