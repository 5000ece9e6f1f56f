//! The command line: `store=VDEV loglevel=0..4 heap=MIB hold=STATE:MILLISECONDS holds=TAKES`, all optional, in any
//! order, once.
//!
//! An operator writes it in the domain's xl.cfg (`extra=`). What is not understood is refused with its own text in the
//! message: a mistyped `store=` must not silently fall back to the first disk.

use heapless::String;
use snapshot::take::Hold;

/// Longest virtual device name that `store=` takes ("xvdaaa15" has room).
pub const MAX_VDEV: usize = 16;
/// Longest dwell that `hold=` takes: ten minutes.
const MAX_HOLD_MS: u32 = 600_000;
/// Most takes that dwell.
const MAX_HOLDS: u32 = 1000;
/// Bounds of `heap=` in MiB.
const HEAP_MIB: core::ops::RangeInclusive<u32> = 2..=65_536;

/// Which virtual disk holds the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StoreDisk {
    /// The disk with the lowest number.
    #[default]
    First,
    /// The disk whose `dev` or number is this, as xl.cfg's `vdev=` names it.
    Named(String<MAX_VDEV>),
}

/// The parsed command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandLine {
    /// Where the store is.
    pub store: StoreDisk,
    /// Most detailed level that is logged; `None` leaves the default.
    pub log_level: Option<u8>,
    /// Heap in MiB; `None` derives it from the domain's memory.
    pub heap_mib: Option<u32>,
    /// The test aid.
    pub hold: Option<Hold>,
    /// How many takes dwell; `None` is one.
    pub holds: Option<u32>,
}

/// Which word was refused, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandLineError<'a> {
    /// The word as it was written.
    pub word: &'a str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl core::fmt::Display for CommandLineError<'_> {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "command line: `{}`: {}", self.word.escape_debug(), self.problem)
    }
}

impl CommandLine {
    /// Parses words separated by blanks.
    pub fn parse(line: &str) -> Result<Self, CommandLineError<'_>> {
        let mut parsed = Self::default();
        for word in line.split_ascii_whitespace() {
            parsed.word(word).map_err(|problem| CommandLineError { word, problem })?;
        }
        Ok(parsed)
    }

    fn word(&mut self, word: &str) -> Result<(), &'static str> {
        let (key, value) = word.split_once('=').ok_or("want key=value")?;
        match key {
            "store" if self.store != StoreDisk::First => Err("given twice"),
            "store" => vdev(value).map(|name| self.store = StoreDisk::Named(name)),
            "loglevel" => once(&mut self.log_level, level(value)?),
            "heap" => once(&mut self.heap_mib, heap(value)?),
            "hold" => once(&mut self.hold, hold(value)?),
            "holds" => once(&mut self.holds, holds(value)?),
            _ => Err("unknown key; known are store, loglevel, heap, hold, holds"),
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), &'static str> {
    if slot.replace(value).is_some() { Err("given twice") } else { Ok(()) }
}

fn vdev(value: &str) -> Result<String<MAX_VDEV>, &'static str> {
    const WANT: &str = "want a virtual device such as xvdb or 51728";
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(WANT);
    }
    String::try_from(value).map_err(|_| WANT)
}

fn level(value: &str) -> Result<u8, &'static str> {
    value.parse().ok().filter(|level| *level <= 4).ok_or("want 0 (errors) to 4 (everything)")
}

fn heap(value: &str) -> Result<u32, &'static str> {
    value.parse().ok().filter(|mib| HEAP_MIB.contains(mib)).ok_or("want MiB, at least 2")
}

fn hold(value: &str) -> Result<Hold, &'static str> {
    const WANT: &str = "want STATE:MILLISECONDS, a state of the status node, at most 600000";
    value.parse().ok().filter(|hold: &Hold| hold.ms <= MAX_HOLD_MS).ok_or(WANT)
}

fn holds(value: &str) -> Result<u32, &'static str> {
    value.parse().ok().filter(|takes| *takes <= MAX_HOLDS).ok_or("want a number of takes, at most 1000")
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapshot::status::State;

    #[test]
    fn takes_every_key_in_any_order() {
        let parsed = CommandLine::parse("  hold=copying:1500 holds=3 heap=32\tloglevel=4 store=xvdb ").unwrap();
        assert_eq!(parsed.store, StoreDisk::Named(String::try_from("xvdb").unwrap()));
        assert_eq!((parsed.log_level, parsed.heap_mib), (Some(4), Some(32)));
        assert_eq!(parsed.hold, Some(Hold { state: State::Copying, ms: 1500 }));
        assert_eq!(parsed.holds, Some(3));
    }

    #[test]
    fn empty_is_all_defaults() {
        assert_eq!(CommandLine::parse(""), Ok(CommandLine::default()));
    }

    #[test]
    fn refuses_and_names_the_word() {
        for word in [
            "store",
            "store=",
            "store=../x",
            "store=xvdbxvdbxvdbxvdbx",
            "loglevel=5",
            "loglevel=",
            "heap=1",
            "heap=99999999",
            "hold=copying",
            "hold=copying:600001",
            "hold=sleeping:1",
            "holds=1001",
            "root=/dev/xvda",
            "=",
        ] {
            let line = ["heap=4 ", word].concat();
            assert_eq!(CommandLine::parse(&line).unwrap_err().word, word);
        }
        for twice in ["store=a store=b", "heap=4 heap=4", "loglevel=1 loglevel=1", "hold=captured:1 hold=copying:1"] {
            assert_eq!(CommandLine::parse(twice).unwrap_err().problem, "given twice");
        }
    }
}
