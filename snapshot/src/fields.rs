//! The text form that all xenstore values of the protocol share: UTF-8 lines `key=value`.
//!
//! Parsing is strict, because the bytes come from another domain: size, encoding, control characters, unknown and
//! doubled keys are each an error of their own, with a reason that is written back. Nothing here allocates.
//! docs/protocol/xenstore.md is the normative text.

use core::fmt;
use core::str::FromStr;

use heapless::{String, Vec};

/// Most bytes in a node's value (xenstored's quota for a node is 2048, path included).
pub const NODE_MAX: usize = 1900;

/// Most lines in a node.
pub const LINES_MAX: usize = 32;

/// Most bytes in a text for people.
pub const LINE_MAX: usize = 104;

/// Longest key, for the copy that an error carries.
pub const KEY_MAX: usize = 32;

/// A key as an error names it, cut at [`KEY_MAX`].
pub type Key = String<KEY_MAX>;

/// What is wrong with a node's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ParseError {
    /// More than [`NODE_MAX`] bytes.
    TooLong,
    /// Not UTF-8.
    NotUtf8,
    /// A control character inside a line.
    ControlCharacter,
    /// More than [`LINES_MAX`] lines.
    TooManyLines,
    /// A line without `=`, or an empty line.
    NotKeyValue,
    /// A key that this node does not have.
    UnknownKey(Key),
    /// The same key twice.
    DuplicateKey(Key),
    /// A key that must be there.
    MissingKey(Key),
    /// A key whose value is outside what it may hold.
    BadValue(Key),
    /// The protocol version is another than ours.
    WrongVersion,
}

impl ParseError {
    /// `BadValue` of `key`.
    pub fn bad(key: &str) -> Self {
        Self::BadValue(cut(key))
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(out, "longer than {NODE_MAX} bytes"),
            Self::NotUtf8 => out.write_str("not UTF-8"),
            Self::ControlCharacter => out.write_str("control character in a line"),
            Self::TooManyLines => write!(out, "more than {LINES_MAX} lines"),
            Self::NotKeyValue => out.write_str("a line is not key=value"),
            Self::UnknownKey(key) => write!(out, "unknown key {key}"),
            Self::DuplicateKey(key) => write!(out, "key {key} is there twice"),
            Self::MissingKey(key) => write!(out, "key {key} is missing"),
            Self::BadValue(key) => write!(out, "bad value for {key}"),
            Self::WrongVersion => write!(out, "protocol version is not {}", crate::request::PROTOCOL),
        }
    }
}

/// The prefix of `text` that fits `N` bytes, whole characters only, control characters replaced by `?`.
pub fn cut<const N: usize>(text: &str) -> String<N> {
    let mut kept = String::new();
    for character in text.chars() {
        let shown = if character.is_control() { '?' } else { character };
        if kept.push(shown).is_err() {
            break;
        }
    }
    kept
}

/// A bounded one-line text made from anything that displays itself; what does not fit is cut.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Line(String<LINE_MAX>);

impl Line {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Renders `shown`, cut to [`LINE_MAX`] bytes, control characters replaced.
    pub fn of(shown: impl fmt::Display) -> Self {
        let mut line = Self::default();
        // Running out of room is the cut; nothing else can fail.
        let _ = fmt::write(&mut Cutter(&mut line.0), format_args!("{shown}"));
        line
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

struct Cutter<'a>(&'a mut String<LINE_MAX>);

impl fmt::Write for Cutter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let shown = if character.is_control() { '?' } else { character };
            self.0.push(shown).map_err(|_| fmt::Error)?;
        }
        Ok(())
    }
}

/// The lines of one node, split and checked, values still text.
#[derive(Debug)]
pub struct Fields<'a>(Vec<(&'a str, &'a str), LINES_MAX>);

impl<'a> Fields<'a> {
    /// Splits `bytes`; every key must be in `known`. One newline at the end is allowed.
    pub fn parse(bytes: &'a [u8], known: &[&str]) -> Result<Self, ParseError> {
        if bytes.len() > NODE_MAX {
            return Err(ParseError::TooLong);
        }
        let text = core::str::from_utf8(bytes).map_err(|_| ParseError::NotUtf8)?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let mut fields = Self(Vec::new());
        for line in text.split('\n') {
            fields.add(line, known)?;
        }
        Ok(fields)
    }

    fn add(&mut self, line: &'a str, known: &[&str]) -> Result<(), ParseError> {
        if line.chars().any(char::is_control) {
            return Err(ParseError::ControlCharacter);
        }
        let (key, value) = line.split_once('=').ok_or(ParseError::NotKeyValue)?;
        if !known.contains(&key) {
            return Err(ParseError::UnknownKey(cut(key)));
        }
        if self.optional(key).is_some() {
            return Err(ParseError::DuplicateKey(cut(key)));
        }
        self.0.push((key, value)).map_err(|_| ParseError::TooManyLines)
    }

    /// The value of `key`, if it is there.
    pub fn optional(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    /// The value of `key`.
    pub fn required(&self, key: &str) -> Result<&'a str, ParseError> {
        self.optional(key).ok_or_else(|| ParseError::MissingKey(cut(key)))
    }

    /// The value of `key`, parsed by its type's `FromStr`.
    pub fn typed<T: FromStr>(&self, key: &str) -> Result<T, ParseError> {
        self.required(key)?.parse().map_err(|_| ParseError::bad(key))
    }

    /// The value of `key` as a plain decimal number that fits `T`: no sign, no leading zero.
    pub fn number<T: TryFrom<u64>>(&self, key: &str) -> Result<T, ParseError> {
        let value = decimal(self.required(key)?).ok_or_else(|| ParseError::bad(key))?;
        T::try_from(value).map_err(|_| ParseError::bad(key))
    }

    /// As `number`; an absent key is 0.
    pub fn number_or_zero(&self, key: &str) -> Result<u64, ParseError> {
        if self.optional(key).is_none() { Ok(0) } else { self.number(key) }
    }

    /// The value of `key`, which must be `0` or `1`.
    pub fn flag(&self, key: &str) -> Result<bool, ParseError> {
        match self.required(key)? {
            "0" => Ok(false),
            "1" => Ok(true),
            _ => Err(ParseError::bad(key)),
        }
    }

    /// The value of `key` as a bounded line; absent is empty, too long is refused.
    pub fn line(&self, key: &str) -> Result<Line, ParseError> {
        let text = self.optional(key).unwrap_or("");
        let line = Line::of(text);
        if line.as_str() == text { Ok(line) } else { Err(ParseError::bad(key)) }
    }

    /// Refuses any protocol version but ours, before other keys are looked at.
    pub fn check_version(&self) -> Result<(), ParseError> {
        let ours = decimal(self.required("protocol")?) == Some(u64::from(crate::request::PROTOCOL));
        if ours { Ok(()) } else { Err(ParseError::WrongVersion) }
    }
}

/// A canonical decimal number: digits only, no leading zero but for `0` itself.
pub fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if canonical && digits { text.parse().ok() } else { None }
}

/// `2 N` lower-case hex digits as bytes.
pub fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (hex_digit(pair[0])? << 4) | hex_digit(pair[1])?;
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
