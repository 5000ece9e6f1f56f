//! Medians and their spread, the report in Markdown, the plots.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::goals;
use super::plan::Mechanism;
use super::sample::{Numbers, Sample};
use crate::simulate::plot::{Line, Mean, Plot};

/// Fewer completed runs than this say nothing about a spread.
pub const RUNS_LEAST: usize = 5;

/// Where it was measured, in rows of a table.
pub type Versions = Vec<(&'static str, String)>;

/// The completed runs, by cell and number.
pub struct Cells(BTreeMap<(String, u32, String, String), Vec<u64>>);

impl Cells {
    /// Sorts them; failed runs are left out.
    pub fn of(samples: &[Sample]) -> Self {
        let mut cells: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        for (sample, numbers) in samples.iter().filter_map(|sample| Some((sample, sample.outcome.as_ref().ok()?))) {
            for (name, value) in Numbers::NAMES.iter().zip(numbers.values()) {
                let key = (sample.kind.to_owned(), sample.cap, sample.mechanism.to_owned(), (*name).to_owned());
                cells.entry(key).or_default().extend(value);
            }
        }
        cells.values_mut().for_each(|values| values.sort_unstable());
        Self(cells)
    }

    /// What the runs of a cell gave, ascending.
    pub fn values(&self, kind: &str, cap: u32, mechanism: &str, name: &str) -> &[u64] {
        let key = (kind.to_owned(), cap, mechanism.to_owned(), name.to_owned());
        self.0.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Their median.
    pub fn median(&self, kind: &str, cap: u32, mechanism: &str, name: &str) -> Option<f64> {
        median(self.values(kind, cap, mechanism, name))
    }
}

fn median(ascending: &[u64]) -> Option<f64> {
    let at = |index: usize| ascending.get(index).map(|value| *value as f64);
    let half = ascending.len() / 2;
    if ascending.len() % 2 == 1 { at(half) } else { Some(f64::midpoint(at(half.checked_sub(1)?)?, at(half)?)) }
}

/// The columns of the report's tables: name, number, divisor.
const SHOWN: [(&str, &str, f64); 9] = [
    ("pause, ms", "pause_us", 1e3),
    ("our part, ms", "stub_us", 1e3),
    ("total, s", "total_us", 1e6),
    ("pages sent", "pages_sent", 1.0),
    ("rounds", "rounds", 1.0),
    ("MiB", "bytes", 1_048_576.0),
    ("calls in the pause", "pause_calls", 1.0),
    ("CLEAN", "cleans", 1.0),
    ("blkif requests", "blkif_requests", 1.0),
];

/// The report.
pub fn markdown(samples: &[Sample], versions: &Versions, dd_kib_per_s: Option<f64>) -> String {
    let cells = Cells::of(samples);
    let failed = samples.iter().filter(|sample| sample.outcome.is_err()).count();
    let mut out =
        "# Benchmark\n\nMade by `cargo xtask bench`. Times are of an emulated machine: only ratios within this \
                   report mean anything. Each value is a median, with least and most behind it; `n` is the number of \
                   completed runs.\n\n"
            .to_owned();
    let _ = writeln!(out, "{} runs, {failed} of them failed and counted nowhere.\n", samples.len());
    out += "| | |\n|---|---|\n";
    for (what, value) in versions {
        let _ = writeln!(out, "| {what} | {value} |");
    }
    for (kind, cap) in places(samples) {
        let load = if cap == 0 { "idle".to_owned() } else { format!("writing, cap {cap} %") };
        let _ = writeln!(out, "\n## {kind}, {load}\n\n{}", table(&cells, kind, cap));
    }
    for kind in kinds(samples) {
        let _ = writeln!(out, "\n## Goals, {kind}\n\n| goal | limit | measured | |\n|---|---|---|---|");
        for goal in goals::goals(&cells, kind, dd_kib_per_s) {
            let _ = writeln!(out, "{}", goal.row());
        }
    }
    out
}

fn table(cells: &Cells, kind: &str, cap: u32) -> String {
    let heads = SHOWN.map(|(head, ..)| head).join(" | ");
    let mut out = format!("| mechanism | n | {heads} |\n|---|---{}|\n", "|---".repeat(SHOWN.len()));
    for mechanism in Mechanism::ALL.map(Mechanism::name) {
        let runs = cells.values(kind, cap, mechanism, "pause_us").len();
        let few = if runs < RUNS_LEAST { " (too few)" } else { "" };
        let values = SHOWN.map(|(_, name, unit)| shown(cells.values(kind, cap, mechanism, name), unit)).join(" | ");
        let _ = writeln!(out, "| {mechanism} | {runs}{few} | {values} |");
    }
    out
}

fn shown(values: &[u64], unit: f64) -> String {
    let Some(median) = median(values) else { return "-".to_owned() };
    let digits = usize::from(unit > 1.0);
    let number = |value: f64| format!("{:.digits$}", value / unit);
    match values {
        [least, .., most] => format!("{} ({}..{})", number(median), number(*least as f64), number(*most as f64)),
        _ => number(median),
    }
}

fn kinds(samples: &[Sample]) -> Vec<&'static str> {
    let mut kinds: Vec<_> = samples.iter().map(|sample| sample.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

fn places(samples: &[Sample]) -> Vec<(&'static str, u32)> {
    let mut places: Vec<_> = samples.iter().map(|sample| (sample.kind, sample.cap)).collect();
    places.sort_unstable();
    places.dedup();
    places
}

/// Name and content of each plot.
pub fn plots(samples: &[Sample]) -> Vec<(String, String)> {
    let cells = Cells::of(samples);
    let of = |kind: &'static str| {
        let plot = |file: &str, title: &str, unit: &'static str, name: &str, scale: f64, log: bool| {
            let lines = Mechanism::ALL.map(|mechanism| line(&cells, samples, kind, mechanism.name(), name, scale));
            let lines = lines.into_iter().filter(|line| !line.points.is_empty()).collect();
            (format!("{file}-{kind}.svg"), Plot { title: format!("{title}, {kind}"), unit, log, lines }.svg())
        };
        [
            plot("pause", "The guest stands", "s", "pause_us", 1e6, true),
            plot("total", "Total time", "s", "total_us", 1e6, false),
            plot("pages", "Pages sent", "pages", "pages_sent", 1.0, false),
            plot("rounds", "Rounds", "rounds", "rounds", 1.0, false),
        ]
    };
    kinds(samples).into_iter().flat_map(of).collect()
}

fn line(cells: &Cells, samples: &[Sample], kind: &str, mechanism: &str, name: &str, scale: f64) -> Line {
    let mut points = Vec::new();
    for (_, cap) in places(samples).into_iter().filter(|(of, _)| *of == kind) {
        let values = cells.values(kind, cap, mechanism, name);
        if let (Some(median), [least, .., most] | [least @ most]) = (median(values), values) {
            let half = (*most - *least) as f64 / 2.0 / scale;
            points.push((cap, Mean { value: median / scale, half }));
        }
    }
    Line { name: mechanism.to_owned(), points }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(mechanism: &'static str, cap: u32, pause_us: Option<u64>) -> Sample {
        let numbers = |pause_us| Numbers { pause_us: Some(pause_us), ..Numbers::default() };
        let outcome = pause_us.map(numbers).ok_or_else(|| "it broke".to_owned());
        Sample { kind: "pvh", cap, mechanism, run: 1, outcome }
    }

    #[test]
    fn a_failed_run_is_counted_nowhere() {
        let samples = [sample("live", 0, Some(3000)), sample("live", 0, None), sample("live", 0, Some(5000))];
        let cells = Cells::of(&samples);
        assert_eq!(
            (cells.median("pvh", 0, "live", "pause_us"), cells.median("pvh", 0, "xen", "pause_us")),
            (Some(4000.0), None)
        );
        let text = markdown(&samples, &vec![("Xen", "4.17".to_owned())], None);
        assert!(text.contains("3 runs, 1 of them failed") && text.contains("| Xen | 4.17 |"), "{text}");
        assert!(text.contains("| live | 2 (too few) | 4.0 (3.0..5.0) |"), "{text}");
    }

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(
            (median(&[]), median(&[1]), median(&[1, 9]), median(&[1, 2, 9])),
            (None, Some(1.0), Some(5.0), Some(2.0))
        );
        assert_eq!(
            (shown(&[], 1.0), shown(&[1500], 1e3), shown(&[1, 3], 1.0)),
            ("-".into(), "1.5".into(), "2 (1..3)".into())
        );
    }

    #[test]
    fn a_plot_has_a_line_for_each_mechanism_that_ran() {
        let samples = [sample("live", 0, Some(3000)), sample("live", 100, Some(9000)), sample("staged", 0, None)];
        let plots = plots(&samples);
        assert_eq!(plots.len(), 4);
        let (name, pause) = &plots[0];
        assert!(name == "pause-pvh.svg" && pause.contains(">live<") && !pause.contains(">staged<"));
    }
}
