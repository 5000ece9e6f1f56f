//! When a guest ran and when it stood, as one observer outside of all mechanisms saw it: `probe standing` writes lines,
//! benchmarks read them. A guest that moves to another domain on the same host is the same guest by its handle.

/// A change, at Xen's system time in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When it was seen.
    pub at_ns: u64,
    /// It runs from here on, else it stands.
    pub runs: bool,
}

impl Change {
    /// As the probe writes it.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {}", self.at_ns, if self.runs { "runs" } else { "stands" })
    }

    /// Reads such a line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (at, what) = line.split_once(' ')?;
        let runs = match what {
            "runs" => true,
            "stands" => false,
            _ => return None,
        };
        Some(Self { at_ns: at.parse().ok()?, runs })
    }
}

/// How long it stood, all times added up, in nanoseconds; `None` if it never stood, or stands at the end.
#[must_use]
pub fn stood_ns(changes: &[Change]) -> Option<u64> {
    let (mut since, mut sum_ns) = (None, 0);
    for change in changes {
        match (since, change.runs) {
            (None, false) => since = Some(change.at_ns),
            (Some(from_ns), true) => {
                sum_ns += change.at_ns.saturating_sub(from_ns);
                since = None;
            }
            _ => {}
        }
    }
    (since.is_none() && sum_ns > 0).then_some(sum_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(at_ns: u64, runs: bool) -> Change {
        Change { at_ns, runs }
    }

    #[test]
    fn a_change_is_read_as_it_is_written() {
        for one in [change(7, true), change(8, false)] {
            assert_eq!(Change::parse(&one.line()), Some(one));
        }
        assert_eq!((Change::parse("7"), Change::parse("7 walks"), Change::parse("x runs")), (None, None, None));
    }

    #[test]
    fn standing_is_added_up_and_must_have_an_end() {
        let seen = [change(0, true), change(10, false), change(30, true), change(50, false), change(51, true)];
        assert_eq!(stood_ns(&seen), Some(21));
        assert_eq!(stood_ns(&seen[..4]), None, "it stands still");
        assert_eq!(stood_ns(&seen[..1]), None, "it never stood");
    }
}
