//! The whole study: every mechanism at every cap, several runs each, with means and confidence intervals.

use super::mechanism::{MECHANISMS, Mechanism, Run};

/// The caps of the paper: idle as 0, then 1, 4, 7 .. 97, and uncapped as 100.
pub fn caps() -> Vec<u32> {
    std::iter::once(0).chain((1..=100).step_by(3)).collect()
}

/// Guests, in GiB.
pub const GUESTS_GIB: [u32; 2] = [1, 2];

/// Runs of the paper at each point.
pub const SEEDS: u64 = 20;

/// A mean and the half-width of its 95 % confidence interval.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Mean {
    /// The mean.
    pub value: f64,
    /// Half of the interval's width.
    pub half: f64,
}

/// A name, and how to get it from a run.
type Metric = (&'static str, fn(&Run) -> f64);

/// What is measured at a point, under the name it has in the data.
const METRICS: [Metric; 7] = [
    ("rounds", |run| run.rounds),
    ("dirty_frequency_pages_s", |run| run.frequency),
    ("dirty_pages_per_round", |run| run.dirty),
    ("mean_round_s", |run| run.round_s),
    ("downtime_s", |run| run.downtime_s),
    ("total_s", |run| run.total_s),
    ("pages_sent", |run| run.pages),
];

/// One mechanism at one cap with one guest.
#[derive(Clone, Debug)]
pub struct Point {
    /// The mechanism.
    pub mechanism: &'static Mechanism,
    /// The guest's memory.
    pub gib: u32,
    /// The cap.
    pub cap: u32,
    means: [Mean; METRICS.len()],
}

impl Point {
    fn of(mechanism: &'static Mechanism, gib: u32, cap: u32, seeds: u64) -> Self {
        let runs: Vec<Run> = (0..seeds)
            .map(|seed| {
                let seed = (seed << 32) | (u64::from(gib) << 16) | u64::from(cap);
                mechanism.run(f64::from(gib), f64::from(cap), Some(seed))
            })
            .collect();
        let means = METRICS.map(|(_, metric)| mean(&runs.iter().map(metric).collect::<Vec<_>>()));
        Self { mechanism, gib, cap, means }
    }

    /// A metric by its name; a name that there is not is a mistake of the program and shows as NaN.
    pub fn mean(&self, metric: &str) -> Mean {
        let at = METRICS.iter().position(|(name, _)| *name == metric);
        at.map_or(Mean { value: f64::NAN, half: f64::NAN }, |at| self.means[at])
    }
}

/// Student's t for 95 % by degrees of freedom; the last one holds for all that follow.
const STUDENT_T: [f64; 20] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 1.96,
];

fn mean(values: &[f64]) -> Mean {
    let count = values.len() as f64;
    let value = values.iter().sum::<f64>() / count;
    if values.len() < 2 {
        return Mean { value, half: 0.0 };
    }
    let variance = values.iter().map(|sample| (sample - value).powi(2)).sum::<f64>() / (count - 1.0);
    let t = STUDENT_T[(values.len() - 2).min(STUDENT_T.len() - 1)];
    Mean { value, half: t * (variance / count).sqrt() }
}

/// All points.
pub struct Study {
    points: Vec<Point>,
    /// Runs at each.
    pub seeds: u64,
}

impl Study {
    /// Runs everything.
    pub fn run(seeds: u64) -> Self {
        let mut points = Vec::new();
        for gib in GUESTS_GIB {
            for mechanism in &MECHANISMS {
                points.extend(caps().into_iter().map(|cap| Point::of(mechanism, gib, cap, seeds)));
            }
        }
        Self { points, seeds }
    }

    /// Every point.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// A metric of a mechanism over the caps.
    pub fn series(&self, name: &str, gib: u32, metric: &str) -> Vec<(u32, Mean)> {
        let ours = self.points.iter().filter(|point| point.mechanism.name == name && point.gib == gib);
        ours.map(|point| (point.cap, point.mean(metric))).collect()
    }

    /// One value.
    pub fn at(&self, name: &str, gib: u32, cap: u32, metric: &str) -> f64 {
        let found = self.series(name, gib, metric).into_iter().find(|(at, _)| *at == cap);
        found.map_or(f64::NAN, |(_, mean)| mean.value)
    }

    /// Rounds of a mechanism when all is as expected, over the caps.
    pub fn expected_rounds(name: &str, gib: u32) -> Vec<(u32, f64)> {
        let found = MECHANISMS.iter().filter(|mechanism| mechanism.name == name);
        let rounds = |mechanism: &Mechanism, cap| mechanism.run(f64::from(gib), f64::from(cap), None).rounds;
        found.flat_map(|mechanism| caps().into_iter().map(move |cap| (cap, rounds(mechanism, cap)))).collect()
    }

    /// The data as CSV.
    pub fn csv(&self) -> String {
        let mut text = String::from("mechanism,memory_gib,cap,runs");
        METRICS.iter().for_each(|(name, _)| text += &format!(",{name},{name}_ci95"));
        text.push('\n');
        for point in &self.points {
            text += &format!("{},{},{},{}", point.mechanism.name, point.gib, point.cap, self.seeds);
            point.means.iter().for_each(|mean| text += &format!(",{:.6},{:.6}", mean.value, mean.half));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_student() {
        let mean = mean(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(mean.value, 2.5);
        assert!((mean.half - 3.182 * (5.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn the_data_has_a_line_for_each_point_and_nothing_that_is_no_number() {
        let study = Study::run(2);
        let csv = study.csv();
        assert_eq!(csv.lines().count(), 1 + GUESTS_GIB.len() * MECHANISMS.len() * caps().len());
        assert!(!csv.contains("NaN") && !csv.contains("inf"));
        assert_eq!(caps().len(), 35);
        assert!(study.at("live", 1, 2, "rounds").is_nan(), "no such cap");
    }
}
