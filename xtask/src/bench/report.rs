//! The report in Markdown, and the plots.

use std::fmt::Write as _;

use super::cells::{Cells, Spread};
use super::goals;
use super::plan::Mechanism;
use super::raw::Versions;
use super::sample::{Numbers, Sample};
use crate::simulate::plot::{Line, Plot, Point};

/// Fewer completed runs than this say nothing about a spread.
pub const RUNS_LEAST: usize = 5;

/// A column of the report's tables: head, value, divisor.
type Column = (&'static str, fn(&Numbers) -> Option<u64>, f64);

const SHOWN: [Column; 11] = [
    ("pause, ms", |numbers| numbers.pause_us, 1e3),
    ("our part, ms", |numbers| numbers.stub_us, 1e3),
    ("total, s", |numbers| numbers.total_us, 1e6),
    ("pages sent", |numbers| numbers.pages_sent, 1.0),
    ("rounds", |numbers| numbers.rounds, 1.0),
    ("MiB", |numbers| numbers.bytes, 1_048_576.0),
    ("pages in the pause", |numbers| numbers.pause_pages, 1.0),
    ("calls in the pause", |numbers| numbers.pause_calls, 1.0),
    ("CLEAN", |numbers| numbers.cleans, 1.0),
    ("written, MiB", |numbers| numbers.blkif_kib, 1024.0),
    ("blkif requests", |numbers| numbers.blkif_requests, 1.0),
];

/// The report.
pub fn markdown(samples: &[Sample], versions: &Versions) -> String {
    let cells = Cells::of(samples);
    let failed = samples.iter().filter(|sample| sample.outcome.is_err()).count();
    let mut out =
        "# Benchmark\n\nMade by `cargo xtask bench`. Times are of an emulated machine: only ratios within this report \
         mean anything, and each ratio below is of two runs of one pass on one machine. Each value is a median, with \
         least and most behind it; `n` is the number of completed runs.\n\n"
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
    let head = "| goal | limit | measured | |\n|---|---|---|---|";
    let _ = writeln!(out, "\n## Goals, the stub's start\n\n{head}");
    for goal in goals::boot(number(versions, "requests of the stub"), number(versions, "bytes of the stub's image")) {
        let _ = writeln!(out, "{}", goal.row());
    }
    for kind in kinds(samples) {
        let _ = writeln!(out, "\n## Goals, {kind}\n\n{head}");
        for goal in goals::goals(&cells, kind) {
            let _ = writeln!(out, "{}", goal.row());
        }
    }
    out
}

/// The largest number among the rows whose name has these words.
fn number(versions: &Versions, words: &str) -> Option<u64> {
    versions.iter().filter(|(what, _)| what.contains(words)).filter_map(|(_, value)| value.parse().ok()).max()
}

fn table(cells: &Cells<'_>, kind: &str, cap: u32) -> String {
    let heads = SHOWN.map(|(head, ..)| head).join(" | ");
    let mut out = format!("| mechanism | n | {heads} |\n|---|---{}|\n", "|---".repeat(SHOWN.len()));
    for mechanism in Mechanism::ALL.map(Mechanism::name) {
        let of = |value: fn(&Numbers) -> Option<u64>| {
            cells.each((kind, cap, mechanism), |numbers| value(numbers).map(|value| value as f64))
        };
        let runs = of(|numbers| numbers.pause_us).map_or(0, |spread| spread.runs());
        let few = if runs < RUNS_LEAST { " (too few)" } else { "" };
        let shown = |(_, value, unit): Column| {
            of(value).map_or_else(|| "-".to_owned(), |spread| spread.shown(unit, usize::from(unit > 1.0)))
        };
        let _ = writeln!(out, "| {mechanism} | {runs}{few} | {} |", SHOWN.map(shown).join(" | "));
    }
    out
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
        let plot = |file: &str, title: &str, unit: &'static str, value: Column, log: bool| {
            let lines = Mechanism::ALL.map(|mechanism| line(&cells, samples, (kind, mechanism.name()), value));
            let lines = lines.into_iter().filter(|line| !line.points.is_empty()).collect();
            (format!("{file}-{kind}.svg"), Plot { title: format!("{title}, {kind}"), unit, log, lines }.svg())
        };
        [
            plot("pause", "The guest stands", "s", ("", |numbers| numbers.pause_us, 1e6), true),
            plot("total", "Total time", "s", ("", |numbers| numbers.total_us, 1e6), false),
            plot("pages", "Pages sent", "pages", ("", |numbers| numbers.pages_sent, 1.0), false),
            plot("rounds", "Rounds", "rounds", ("", |numbers| numbers.rounds, 1.0), false),
        ]
    };
    kinds(samples).into_iter().flat_map(of).collect()
}

fn line(
    cells: &Cells<'_>,
    samples: &[Sample],
    (kind, mechanism): (&'static str, &str),
    (_, value, unit): Column,
) -> Line {
    let caps = places(samples).into_iter().filter(|(of, _)| *of == kind).map(|(_, cap)| cap);
    let at = |cap| cells.each((kind, cap, mechanism), |numbers| value(numbers).map(|value| value as f64 / unit));
    let point = |spread: Spread| {
        let (low, high) = spread.ends();
        Point { value: spread.median(), low, high }
    };
    Line { name: mechanism.to_owned(), points: caps.filter_map(|cap| Some((cap, point(at(cap)?)))).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::plot::are_told_apart;

    fn sample(mechanism: &'static str, cap: u32, pause_us: Option<u64>) -> Sample {
        let numbers = |pause_us| Numbers { pause_us: Some(pause_us), ..Numbers::default() };
        let outcome = pause_us.map(numbers).ok_or_else(|| "it broke".to_owned());
        Sample { kind: "pvh", cap, mechanism, run: 1, outcome }
    }

    #[test]
    fn a_failed_run_is_counted_nowhere() {
        let samples = [sample("live", 0, Some(3000)), sample("live", 0, None), sample("live", 0, Some(5000))];
        let fact = |what: &str, value: &str| (what.to_owned(), value.to_owned());
        let facts = [fact("pv: Xen", "4.17"), fact("pv: requests of the stub to xenstore until it is ready", "26")];
        let text = markdown(&samples, &facts.to_vec());
        assert!(text.contains("3 runs, 1 of them failed") && text.contains("| pv: Xen | 4.17 |"), "{text}");
        assert!(text.contains("| live | 2 (too few) | 4.0 (3.0..5.0) |"), "{text}");
        assert!(text.contains("| requests to xenstore until the stub is ready | 40 | 26 | met |"), "{text}");
    }

    #[test]
    fn a_plot_has_a_line_for_each_mechanism_that_ran() {
        let samples = [sample("live", 0, Some(3000)), sample("live", 100, Some(9000)), sample("staged", 0, None)];
        let plots = plots(&samples);
        assert_eq!(plots.len(), 4);
        let (name, pause) = &plots[0];
        assert!(are_told_apart(&Mechanism::ALL.map(Mechanism::name)));
        assert!(name == "pause-pvh.svg" && pause.contains(">live<") && !pause.contains(">staged<"));
    }
}
