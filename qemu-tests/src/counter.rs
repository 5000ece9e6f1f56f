//! The page in which the test guest counts: it writes there with every step, dom0 reads there without asking anybody.
//! A test that puts the reading beside a time knows what the guest did at that time.

use std::fmt;

use crate::pattern::WORDS;

/// The first word: a frame that does not hold it is no counter.
pub const MAGIC: u64 = u64::from_le_bytes(*b"LSCOUNT1");
/// Word of the ticks.
pub const TICKS: usize = 1;
/// Word of the steps: pages written, pages checked, turns of a loop that waits. It never stands while the guest runs
/// on a processor with `ls.busy=1`.
pub const STEPS: usize = 2;

/// What the page said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    /// Ticks of the guest.
    pub ticks: u64,
    /// Steps of the guest.
    pub steps: u64,
}

impl fmt::Display for Count {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "tick {} step {}", self.ticks, self.steps)
    }
}

impl Count {
    /// Reads the page; `None` if it is no counter.
    #[must_use]
    pub fn of(page: &[u8; WORDS * 8]) -> Option<Self> {
        let word =
            |at: usize| page.get(at * 8..).and_then(|bytes| bytes.first_chunk()).map(|raw| u64::from_le_bytes(*raw));
        (word(0)? == MAGIC).then_some(())?;
        Some(Self { ticks: word(TICKS)?, steps: word(STEPS)? })
    }
}

/// The counter, and the span of Xen's system time in which it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Just before, nanoseconds.
    pub from_ns: u64,
    /// Just after.
    pub to_ns: u64,
    /// What it was.
    pub count: Count,
}

impl Sample {
    /// As `probe rounds` writes it.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {} {} {}", self.from_ns, self.to_ns, self.count.ticks, self.count.steps)
    }

    /// Reads such a line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
        let [from_ns, to_ns, ticks, steps] = *words.as_slice() else { return None };
        Some(Self { from_ns, to_ns, count: Count { ticks, steps } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_without_the_magic_is_no_counter() {
        let mut page = [0; WORDS * 8];
        assert_eq!(Count::of(&page), None);
        page[..8].copy_from_slice(b"LSCOUNT1");
        (page[8], page[16]) = (3, 4);
        assert_eq!(Count::of(&page), Some(Count { ticks: 3, steps: 4 }));
    }

    #[test]
    fn a_sample_is_read_as_it_is_written_and_half_a_line_is_none() {
        let sample = Sample { from_ns: 1, to_ns: 2, count: Count { ticks: 3, steps: 4 } };
        assert_eq!(Sample::parse(&sample.line()), Some(sample));
        assert_eq!(Sample::parse("1 2 3"), None);
        assert_eq!(Sample::parse("1 2 3 x"), None);
    }
}
