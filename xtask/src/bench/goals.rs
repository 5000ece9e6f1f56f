//! The goals, each beside what was measured. A goal for which the runs say nothing is said to be open, not met.

use super::cells::{Cells, Column, Spread};
use super::report::RUNS_LEAST;
use super::sample::Numbers;

/// A goal: what, the limit in words, the measured value, and whether it is met (`None`: only reported).
pub struct Goal {
    what: String,
    limit: String,
    found: Option<(String, Option<bool>)>,
}

impl Goal {
    /// A row of the table.
    pub fn row(&self) -> String {
        let (value, verdict) = match &self.found {
            Some((value, Some(true))) => (value.as_str(), "met"),
            Some((value, Some(false))) => (value.as_str(), "**not met**"),
            Some((value, None)) => (value.as_str(), "reported"),
            None => ("not measured", "open"),
        };
        format!("| {} | {} | {value} | {verdict} |", self.what, self.limit)
    }
}

/// Idle, and the caps of the guest that writes; without one it writes faster than the disk takes it.
const LOADS: [(u32, &str); 4] = [(0, "idle"), (10, "cap 10 %"), (40, "cap 40 %"), (100, "no cap")];
const HIGH: u32 = 100;

/// The runs on one kind of guest.
struct Kind<'a> {
    cells: &'a Cells<'a>,
    kind: &'a str,
}

/// All goals for which this benchmark has an observer.
pub fn goals(cells: &Cells<'_>, kind: &str) -> Vec<Goal> {
    let of = Kind { cells, kind };
    let mut goals = of.pauses();
    for (cap, load) in LOADS {
        goals.extend(of.at(cap, load));
    }
    goals.extend(of.disk());
    goals
}

/// The goals of a stub's start: `requests` to xenstore, bytes of its image.
pub fn boot(requests: Option<u64>, image: Option<u64>) -> [Goal; 2] {
    let at_most = |value: Option<u64>, limit: u64| value.map(|value| (value.to_string(), Some(value <= limit)));
    let goal = |what: &str, limit: &str, found| Goal { what: what.to_owned(), limit: limit.to_owned(), found };
    [
        goal("requests to xenstore until the stub is ready", "40", at_most(requests, 40)),
        goal("image, stripped, bytes", "524288", at_most(image, 512 * 1024)),
    ]
}

impl Kind<'_> {
    fn staged(&self, cap: u32, value: impl Fn(&Numbers) -> Option<f64>) -> Option<Spread> {
        self.cells.each((self.kind, cap, "staged"), value)
    }

    /// A goal on the median of `found`, which may be at most `limit`.
    fn at_most(what: String, words: &str, found: Option<Spread>, limit: f64) -> Goal {
        let digits = if limit > 0.0 && limit < 1.0 { 4 } else { 2 };
        let found = found.map(|found| (counted(&found, digits), Some(found.median() <= limit)));
        Goal { what, limit: words.to_owned(), found }
    }

    /// Pauses beside those of other mechanisms.
    fn pauses(&self) -> Vec<Goal> {
        let (whole, part): (Column, Column) = (|numbers| numbers.pause_us, |numbers| numbers.stub_us);
        let ratio = |cap, ours, theirs| self.cells.ratio((self.kind, cap), ("staged", ours), theirs);
        let mut goals = Vec::new();
        for (cap, load, words, limit) in
            [(0, "idle", "1/200", 0.005), (40, "cap 40 %", "1/20", 0.05), (HIGH, "no cap", "1/10", 0.1)]
        {
            let what = format!("our share of the pause by `xl save -c`'s, {load}");
            goals.push(Self::at_most(what, words, ratio(cap, part, ("xl-save", whole)), limit));
        }
        for (cap, load) in LOADS {
            let what = format!("whole pause by `xl save -c`'s, {load}");
            goals.push(Self::at_most(what, "1/10", ratio(cap, whole, ("xl-save", whole)), 0.1));
        }
        for (what, ours, theirs) in [
            ("whole pause by `live`'s, no cap", whole, ("live", whole)),
            ("our share of it by `live`'s share, no cap", part, ("live", part)),
            ("whole pause by `improved`'s, no cap", whole, ("improved", whole)),
        ] {
            goals.push(Self::at_most(what.to_owned(), "1/10", ratio(HIGH, ours, theirs), 0.1));
        }
        goals
    }

    /// What `staged` counts at a load.
    fn at(&self, cap: u32, load: &str) -> Vec<Goal> {
        let count = |what: &str, words: &str, limit: f64, value: fn(&Numbers) -> Option<f64>| {
            Self::at_most(format!("{what}, {load}"), words, self.staged(cap, value), limit)
        };
        let stalls = self.staged(cap, |numbers| float(numbers.stall_max_us)).zip(
            self.staged(cap, |numbers| float(numbers.stalls_us))
                .zip(self.staged(cap, |numbers| float(numbers.stub_us))),
        );
        let stalls = stalls.map(|(longest, (sum, part))| {
            let [longest, sum, part] = [longest, sum, part].map(|spread| spread.shown(1e3, 1));
            (format!("{longest}; {sum}; {part}"), None)
        });
        let stalls = Goal {
            what: format!("longest stall outside the pause; their sum; our share of the pause, ms, {load}"),
            limit: "-".to_owned(),
            found: stalls,
        };
        vec![
            count("pages that went to disk in the pause", "0", 0.0, |numbers| {
                float(numbers.pause_pages).zip(float(numbers.staged_pages)).map(|(all, staged)| (all - staged).max(0.0))
            }),
            count("pages sent by pages of memory", "1.15", 1.15, |numbers| {
                by(numbers.pages_sent, numbers.memory_pages)
            }),
            count("rounds", "5", 5.0, |numbers| float(numbers.rounds)),
            count("CLEANs", "4", 4.0, |numbers| float(numbers.cleans)),
            self.calls(cap, load),
            self.told(cap, load),
            count("our share by the work as rehearsed in that boot, 5 ms taken off", "1.5", 1.5, |numbers| {
                Some((float(numbers.stub_us)? - 5000.0).max(0.0) / float(numbers.renewed_us)?.max(1.0))
            }),
            stalls,
        ]
    }

    fn calls(&self, cap: u32, load: &str) -> Goal {
        // One vCPU.
        let (fixed, tables, words) = match self.kind {
            "pv" => (12.0, 1.0 / 1024.0, "8 + 4 + dirty/512 + dirty/1024"),
            _ => (8.0, 0.0, "8 + dirty/512"),
        };
        let calls = self.staged(cap, |numbers| float(numbers.pause_calls));
        let beyond = self.staged(cap, |numbers| {
            let (calls, pages) = (float(numbers.pause_calls)?, float(numbers.pause_pages)?);
            Some(calls - (fixed + pages / 512.0 + pages * tables))
        });
        let found = calls.zip(beyond).map(|(calls, beyond)| {
            let value = format!("{}, beyond it {:.1}", counted(&calls, 0), beyond.median());
            (value, Some(beyond.median() <= 0.0))
        });
        Goal { what: format!("hypercalls in the pause, {load}"), limit: words.to_owned(), found }
    }

    fn told(&self, cap: u32, load: &str) -> Goal {
        let was = self.staged(cap, |numbers| by(numbers.stub_us, numbers.renewed_us));
        let is_near = |numbers: &Numbers| {
            let (was, said) = (float(numbers.stub_us)?, float(numbers.renewed_us)?);
            Some(f64::from(u8::from((was - said).abs() <= (said / 10.0).max(5_000.0))))
        };
        let found = was.zip(self.staged(cap, is_near)).map(|(was, near)| (counted(&was, 2), Some(near.median() > 0.5)));
        let limit = "0.9 to 1.1, or 5 ms".to_owned();
        Goal { what: format!("captured by what was told when the guest stood, {load}"), limit, found }
    }

    /// What the disk did for `staged`.
    fn disk(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        for (cap, load) in LOADS {
            let time = self.staged(cap, |numbers| {
                let disk_s = by(numbers.blkif_kib, numbers.dd_kib_per_s)?;
                Some(float(numbers.total_us)? / 1e6 / disk_s.max(1e-9))
            });
            goals.push(Self::at_most(format!("time by (bytes written / dd), {load}"), "1.10", time, 1.1));
        }
        let saved = self.staged(0, |numbers| {
            let kib_per_s = float(numbers.memory_pages)? * 4.0 / (float(numbers.total_us)? / 1e6);
            Some(kib_per_s / float(numbers.dd_kib_per_s)?)
        });
        let zeros = self.staged(0, |numbers| by(numbers.zero_pages, numbers.memory_pages)).map(|zeros| zeros.median());
        let what = format!("guest memory saved by dd's rate, idle, {:.0} % zero pages", zeros.unwrap_or(0.0) * 100.0);
        let found = saved.map(|saved| (counted(&saved, 2), Some(saved.median() >= 1.5)));
        goals.push(Goal { what, limit: "at least 1.5".to_owned(), found });
        let requests = |cap| {
            self.staged(cap, |numbers| Some(float(numbers.blkif_requests)? / (float(numbers.blkif_kib)? / 1024.0)))
        };
        goals.push(Self::at_most("blkif requests per MiB, idle".to_owned(), "2", requests(0), 2.0));
        goals.push(Self::at_most("blkif requests per MiB, no cap".to_owned(), "2", requests(HIGH), 2.0));
        let grants = self.staged(HIGH, |numbers| float(numbers.grant_calls));
        goals.push(Self::at_most("calls in dom0 that map or unmap grants, no cap".to_owned(), "0", grants, 0.0));
        goals
    }
}

fn float(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn by(value: Option<u64>, unit: Option<u64>) -> Option<f64> {
    Some(float(value)? / float(unit)?.max(1.0))
}

/// The value with its ends, and a word if that says nothing of a spread.
fn counted(spread: &Spread, digits: usize) -> String {
    let few = if spread.runs() < RUNS_LEAST { format!(", n {}", spread.runs()) } else { String::new() };
    spread.shown(1.0, digits) + &few
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Numbers, Sample};
    use super::*;

    fn sample(mechanism: &'static str, cap: u32, numbers: Numbers) -> Sample {
        Sample { kind: "pvh", cap, mechanism, run: 1, outcome: Ok(numbers) }
    }

    #[test]
    fn a_goal_is_met_missed_or_open() {
        let save = Numbers { pause_us: Some(1_000_000), ..Numbers::default() };
        let ours = Numbers {
            pause_us: Some(200_000),
            stub_us: Some(50_000),
            renewed_us: Some(25_000),
            rounds: Some(2),
            pause_calls: Some(9),
            pause_pages: Some(512),
            staged_pages: Some(500),
            total_us: Some(22_000_000),
            blkif_kib: Some(20_000),
            dd_kib_per_s: Some(1000),
            grant_calls: Some(0),
            ..Numbers::default()
        };
        let samples = [
            sample("xl-save", 100, save.clone()),
            sample("staged", 100, ours.clone()),
            sample("xl-save", 40, save),
            sample("staged", 40, Numbers { pause_calls: Some(10), ..ours }),
        ];
        let rows: Vec<String> = goals(&Cells::of(&samples), "pvh").iter().map(Goal::row).collect();
        let row = |what: &str| rows.iter().find(|row| row.contains(what)).cloned().unwrap_or_default();
        for (what, end) in [
            ("our share of the pause by `xl save -c`'s, no cap", "| 1/10 | 0.0500, n 1 | met |"),
            ("our share of the pause by `xl save -c`'s, cap 40 %", "| 1/20 | 0.0500, n 1 | met |"),
            ("our share of the pause by `xl save -c`'s, idle", "| not measured | open |"),
            ("whole pause by `xl save -c`'s, no cap", "| 1/10 | 0.2000, n 1 | **not met** |"),
            ("whole pause by `live`'s", "| not measured | open |"),
            ("rounds, no cap", "| 2.00, n 1 | met |"),
            ("hypercalls in the pause, no cap", "| 9, n 1, beyond it 0.0 | met |"),
            ("hypercalls in the pause, cap 40 %", "| 10, n 1, beyond it 1.0 | **not met** |"),
            ("pages that went to disk in the pause, no cap", "| 12.00, n 1 | **not met** |"),
            ("told when the guest stood, no cap", "| 2.00, n 1 | **not met** |"),
            ("5 ms taken off, no cap", "| 1.5 | 1.80, n 1 | **not met** |"),
            ("(bytes written / dd), no cap", "| 1.10 | 1.10, n 1 | met |"),
            ("map or unmap grants", "| 0.00, n 1 | met |"),
        ] {
            assert!(row(what).ends_with(end), "{what}: {}", row(what));
        }
    }

    #[test]
    fn a_start_has_its_goals() {
        let rows = |requests, image| boot(requests, image).map(|goal| goal.row());
        let [requests, image] = rows(Some(41), Some(524_288));
        assert!(requests.ends_with("| 40 | 41 | **not met** |") && image.ends_with("| 524288 | met |"));
        assert!(rows(None, None).iter().all(|row| row.ends_with("| not measured | open |")));
    }
}
