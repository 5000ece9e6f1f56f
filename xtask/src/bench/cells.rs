//! The completed runs by cell: medians, spread, and ratios of runs that belong together. A run that failed is nowhere.

use super::sample::{Numbers, Sample};

/// A number of a run.
pub type Column = fn(&Numbers) -> Option<u64>;

/// The runs of a benchmark that were completed.
pub struct Cells<'a>(Vec<(&'a Sample, &'a Numbers)>);

/// What some runs gave, ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread(Vec<f64>);

impl Spread {
    /// Of such values; `None` if there is none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        if values.is_empty() { None } else { Some(Self(values)) }
    }

    /// The value in the middle.
    pub fn median(&self) -> f64 {
        let at = |index: usize| self.0.get(index).copied().unwrap_or_default();
        let half = self.0.len() / 2;
        if self.0.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half.saturating_sub(1)), at(half)) }
    }

    /// The ends.
    pub fn ends(&self) -> (f64, f64) {
        (self.0.first().copied().unwrap_or_default(), self.0.last().copied().unwrap_or_default())
    }

    /// How many.
    pub fn runs(&self) -> usize {
        self.0.len()
    }

    /// Median, and the ends if there are more than one.
    pub fn shown(&self, unit: f64, digits: usize) -> String {
        let number = |value: f64| format!("{:.digits$}", value / unit);
        let (least, most) = self.ends();
        let ends = format!(" ({}..{})", number(least), number(most));
        format!("{}{}", number(self.median()), if self.runs() > 1 { &ends } else { "" })
    }
}

impl<'a> Cells<'a> {
    /// Sorts out those that failed.
    pub fn of(samples: &'a [Sample]) -> Self {
        Self(samples.iter().filter_map(|sample| Some((sample, sample.outcome.as_ref().ok()?))).collect())
    }

    fn runs(&self, kind: &str, cap: u32, mechanism: &str) -> impl Iterator<Item = (u32, &'a Numbers)> {
        let is_there = move |(sample, _): &&(&'a Sample, &'a Numbers)| {
            sample.kind == kind && sample.cap == cap && sample.mechanism == mechanism
        };
        self.0.iter().filter(is_there).map(|(sample, numbers)| (sample.run, *numbers))
    }

    /// What each run of a cell gave.
    pub fn each(
        &self,
        (kind, cap, mechanism): (&str, u32, &str),
        value: impl Fn(&Numbers) -> Option<f64>,
    ) -> Option<Spread> {
        Spread::of(self.runs(kind, cap, mechanism).filter_map(|(_, numbers)| value(numbers)).collect())
    }

    /// `ours` of a run by `theirs` of the run of the same number, in the same boot of the same machine.
    pub fn ratio(
        &self,
        (kind, cap): (&str, u32),
        (mechanism, ours): (&str, Column),
        (other, theirs): (&str, Column),
    ) -> Option<Spread> {
        let of = |(run, numbers): (u32, &Numbers)| {
            let is_beside = |(number, other): &(u32, &Numbers)| *number == run && other.boot == numbers.boot;
            let (_, beside) = self.runs(kind, cap, other).find(is_beside)?;
            let (ours, theirs) = (ours(numbers)?, theirs(beside)?);
            Some(ours as f64 / (theirs as f64).max(1.0))
        };
        Spread::of(self.runs(kind, cap, mechanism).filter_map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(mechanism: &'static str, run: u32, boot: u64, pause_us: Option<u64>) -> Sample {
        let numbers = |pause_us| Numbers { pause_us: Some(pause_us), boot: Some(boot), ..Numbers::default() };
        let outcome = pause_us.map(numbers).ok_or_else(|| "it broke".to_owned());
        Sample { kind: "pvh", cap: 0, mechanism, run, outcome }
    }

    #[test]
    fn medians_are_in_the_middle() {
        let of = |values: &[f64]| Spread::of(values.to_vec()).unwrap();
        assert_eq!((of(&[1.0]).median(), of(&[9.0, 1.0]).median(), of(&[9.0, 1.0, 2.0]).median()), (1.0, 5.0, 2.0));
        assert_eq!((of(&[1500.0]).shown(1e3, 1), of(&[3.0, 1.0]).shown(1.0, 0)), ("1.5".into(), "2 (1..3)".into()));
        assert_eq!(Spread::of(vec![]), None);
    }

    #[test]
    fn a_ratio_is_of_runs_beside_each_other() {
        let samples = [
            sample("staged", 1, 1, Some(10)),
            sample("xl-save", 1, 1, Some(100)),
            sample("staged", 2, 1, Some(30)),
            sample("xl-save", 2, 1, Some(100)),
            // Another boot, a run that failed, one without a counterpart.
            sample("staged", 3, 1, Some(99)),
            sample("xl-save", 3, 2, Some(100)),
            sample("staged", 4, 1, Some(99)),
            sample("xl-save", 4, 1, None),
        ];
        let cells = Cells::of(&samples);
        let pause: Column = |numbers| numbers.pause_us;
        let ratio = cells.ratio(("pvh", 0), ("staged", pause), ("xl-save", pause)).unwrap();
        assert_eq!((ratio.runs(), ratio.median(), ratio.ends()), (2, 0.2, (0.1, 0.3)));
        assert_eq!(cells.ratio(("pv", 0), ("staged", pause), ("xl-save", pause)), None);
        let each = cells.each(("pvh", 0, "xl-save"), |numbers| numbers.pause_us.map(|us| us as f64)).unwrap();
        assert_eq!(each.runs(), 3, "one failed");
    }
}
