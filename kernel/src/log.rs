//! The log: one line at a time to the console, with the time since boot and a level.
//!
//! Lines are built in a fixed buffer on the stack, so that logging neither allocates nor fails; what is longer is cut.
//! Text that comes from outside is to be logged with `{:?}` or `escape_debug`, never raw.

use core::fmt::Write;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::{console, time};

/// Longest line, time and level included.
const MAX_LINE: usize = 400;

/// How much a line matters. `loglevel=` takes the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Somebody must act.
    Error = 0,
    /// Odd, but handled.
    Warn = 1,
    /// What an operator wants to see: one line for each phase.
    Info = 2,
    /// What a developer wants to see.
    Debug = 3,
    /// Everything.
    Trace = 4,
}

static LIMIT: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Sets the most detailed level that is written.
pub fn set_limit(level: u8) {
    LIMIT.store(level, Ordering::Relaxed);
}

/// Whether lines of this level are written.
pub fn enabled(level: Level) -> bool {
    level as u8 <= LIMIT.load(Ordering::Relaxed)
}

/// Writes one line; use the macros.
pub fn line(level: Level, text: core::fmt::Arguments<'_>) {
    if !enabled(level) {
        return;
    }
    let mut buffer = Line(heapless::String::new());
    let micros = time::now_ns() / 1000;
    let letter = ["E", "W", "I", "D", "T"][level as usize];
    _ = write!(buffer, "[{:5}.{:06}] {letter} {text}", micros / 1_000_000, micros % 1_000_000);
    console::write(buffer.0.as_bytes());
    console::write(b"\r\n");
}

/// A line that takes what fits.
struct Line(heapless::String<MAX_LINE>);

impl Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for character in text.chars() {
            let visible = if character.is_control() { '?' } else { character };
            self.0.push(visible).map_err(|_| core::fmt::Error)?;
        }
        Ok(())
    }
}

/// Logs at [`Level::Error`].
#[macro_export]
macro_rules! error {
    ($($text:tt)*) => { $crate::log::line($crate::log::Level::Error, format_args!($($text)*)) };
}
/// Logs at [`Level::Warn`].
#[macro_export]
macro_rules! warn {
    ($($text:tt)*) => { $crate::log::line($crate::log::Level::Warn, format_args!($($text)*)) };
}
/// Logs at [`Level::Info`].
#[macro_export]
macro_rules! info {
    ($($text:tt)*) => { $crate::log::line($crate::log::Level::Info, format_args!($($text)*)) };
}
/// Logs at [`Level::Debug`].
#[macro_export]
macro_rules! debug {
    ($($text:tt)*) => { $crate::log::line($crate::log::Level::Debug, format_args!($($text)*)) };
}
