//! Runs the study, checks the shapes, writes data, plots and the written comparison.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::plot::{Line, Plot};
use super::shapes::{self, Shape};
use super::study::{SEEDS, Study};
use super::{replay, report};
use crate::paths;
use crate::sh::heading;

/// Arguments of `cargo xtask simulate`.
#[derive(clap::Args)]
pub struct Args {
    /// Runs at each point
    #[arg(long, default_value_t = SEEDS)]
    seeds: u64,
    /// Instead: put a take that was recorded (`livesave take --json`) before its policy again
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Where data, plots and report go [target/simulate]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Name of a plot, title, metric, unit, logarithmic, mechanisms.
type Figure = (&'static str, &'static str, &'static str, &'static str, bool, &'static [&'static str]);

const PAPERS: &[&str] = &["save", "migration", "vnsnap", "live-skip", "improved-skip"];
const LIVE: &[&str] = &["migration", "vnsnap", "live-skip", "improved-skip"];
const READINGS: &[&str] = &["live-skip", "live", "improved-skip", "improved", "improved-literal-h", "xen"];
const OURS: &[&str] =
    &["save", "live", "improved", "xen", "staged-32M", "staged-128M", "staged-half", "staged-32M-throttle"];

const FIGURES: [Figure; 12] = [
    ("fig3a", "Figure 3 (a): dirty frequency", "dirty_frequency_pages_s", "pages/s", false, LIVE),
    ("fig3bc", "Figure 3 (b, c): dirty pages in a round", "dirty_pages_per_round", "pages", false, LIVE),
    ("fig4", "Figure 4: mean time of a round", "mean_round_s", "s", false, LIVE),
    ("fig5", "Figure 5: rounds", "rounds", "rounds", false, LIVE),
    ("fig6", "Figure 6: downtime", "downtime_s", "s", false, PAPERS),
    ("fig7", "Figure 7: total time", "total_s", "s", false, PAPERS),
    ("fig8", "Figure 8: pages sent", "pages_sent", "pages", false, PAPERS),
    ("readings-rounds", "Readings of the rules: rounds", "rounds", "rounds", false, READINGS),
    ("readings-pages", "Readings of the rules: pages sent", "pages_sent", "pages", false, READINGS),
    ("ours-downtime", "Downtime, all modes", "downtime_s", "s", true, OURS),
    ("ours-total", "Total time, all modes", "total_s", "s", false, OURS),
    ("ours-pages", "Pages sent, all modes", "pages_sent", "pages", false, OURS),
];

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.seeds > 0, "--seeds: at least one run");
    heading("simulate");
    if let Some(path) = &args.trace {
        return again(path);
    }
    let start = Instant::now();
    let study = Study::run(args.seeds);
    let shapes = shapes::all(&study);
    let dir = args.output.clone().unwrap_or_else(|| paths::root().join("target/simulate"));
    write(&study, &shapes, &dir)?;
    for shape in &shapes {
        println!("   {}", report::line(shape));
    }
    println!(
        "   {} points of {} runs in {:.1} s: {}",
        study.points().len(),
        args.seeds,
        start.elapsed().as_secs_f64(),
        dir.display()
    );
    let wrong = shapes.iter().filter(|shape| shape.holds != shape.expected).count();
    ensure!(wrong == 0, "{wrong} statements are not as they must be");
    Ok(())
}

fn again(path: &Path) -> Result<()> {
    let record = fs::read(path).with_context(|| path.display().to_string())?;
    let replayed = replay::run(&serde_json::from_slice(&record)?)?;
    println!("   the policy decides as the stub did: {} rounds, {} pages", replayed.rounds, replayed.pages);
    Ok(())
}

fn write(study: &Study, shapes: &[Shape], dir: &Path) -> Result<()> {
    let figures = dir.join("figures");
    fs::create_dir_all(&figures).with_context(|| figures.display().to_string())?;
    for (name, title, metric, unit, log, mechanisms) in FIGURES {
        for gib in [1, 2] {
            let points = |name| study.series(name, gib, metric).into_iter().map(|(cap, mean)| (cap, mean.into()));
            let lines = mechanisms.iter().map(|name| Line { name: (*name).to_owned(), points: points(name).collect() });
            let plot = Plot { title: format!("{title}, {gib} GiB"), unit, log, lines: lines.collect() };
            let path = figures.join(format!("{name}-{gib}g.svg"));
            fs::write(&path, plot.svg()).with_context(|| path.display().to_string())?;
        }
    }
    for (name, text) in [("simulation.csv", study.csv()), ("tables.md", report::tables(study, shapes))] {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::plot::are_told_apart;
    use super::*;

    #[test]
    fn the_lines_of_each_figure_are_told_apart() {
        assert!(FIGURES.iter().all(|(.., mechanisms)| are_told_apart(mechanisms)));
        assert!(!are_told_apart(&["live", "live"]) && !are_told_apart(&["unheard-of"]));
    }
}
