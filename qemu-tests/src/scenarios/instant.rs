//! A take's trace beside what the guest counted: what it did in each round, and where it stood in the pause. Both have
//! their times from Xen's one clock.

use std::fmt;

use anyhow::{Context, Result};
use serde_json::Value;

use super::words::number;
use crate::counter::{Count, Sample};
use crate::verdict::check;

/// When a round was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its begin, Xen's system time in nanoseconds.
    pub began_ns: u64,
    /// Its end.
    pub ended_ns: u64,
}

impl Span {
    /// What was seen from begin to end.
    #[must_use]
    pub fn of<'a>(&self, samples: &'a [Sample]) -> Vec<&'a Sample> {
        samples.iter().filter(|one| one.from_ns >= self.began_ns && one.to_ns <= self.ended_ns).collect()
    }

    /// How long it was.
    #[must_use]
    pub fn length_ns(&self) -> u64 {
        self.ended_ns.saturating_sub(self.began_ns)
    }
}

/// The rounds of `livesave take --json` or `livesave show --json`; the last one is the pause's.
pub fn rounds(of: &Value) -> Result<Vec<Span>> {
    let rounds = of.pointer("/trace/rounds").and_then(Value::as_array).context("no trace")?;
    let span =
        |round: &Value| Ok(Span { began_ns: number(round, "/began_ns")?, ended_ns: number(round, "/ended_ns")? });
    rounds.iter().map(span).collect()
}

/// The counter at the instant of a snapshot: between these two, which are one if somebody looked during the pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// At least.
    pub least: Count,
    /// At most.
    pub most: Count,
}

impl fmt::Display for Instant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.least)?;
        if self.most == self.least { Ok(()) } else { write!(out, " to {}", self.most) }
    }
}

impl Instant {
    /// From the pause of a take, and what was seen of the guest's counter before, during and after.
    pub fn of(pause: Span, samples: &[Sample]) -> Result<Self> {
        if let [first, rest @ ..] = pause.of(samples).as_slice() {
            let moved = rest.iter().find(|one| one.count != first.count);
            check(moved.is_none(), || format!("the counter moved in the pause, from {first:?} to {moved:?}"))?;
            return Ok(Self { least: first.count, most: first.count });
        }
        let before = samples.iter().rev().find(|one| one.to_ns <= pause.began_ns);
        let after = samples.iter().find(|one| one.from_ns >= pause.ended_ns);
        let (before, after) = before.zip(after).context("nobody looked before and after the pause")?;
        Ok(Self { least: before.count, most: after.count })
    }

    /// A guest that was restored and has not run yet stands there.
    pub fn is_of(&self, restored: Count) -> Result<()> {
        let (ticks, steps) = (self.least.ticks..=self.most.ticks, self.least.steps..=self.most.steps);
        check(ticks.contains(&restored.ticks) && steps.contains(&restored.steps), || {
            format!("restored at {restored:?}, but the pause was at {self:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, steps: u64) -> Sample {
        Sample { from_ns: at, to_ns: at + 1, count: Count { ticks: steps / 10, steps } }
    }

    const PAUSE: Span = Span { began_ns: 100, ended_ns: 200 };

    #[test]
    fn one_look_in_the_pause_is_exact() {
        let seen = [sample(98, 50), sample(110, 60), sample(190, 60), sample(201, 90)];
        let instant = Instant::of(PAUSE, &seen).unwrap();
        assert!(instant.is_of(Count { ticks: 6, steps: 60 }).is_ok());
        for steps in [59, 61] {
            assert!(instant.is_of(Count { ticks: 6, steps }).is_err());
        }
        assert!(instant.is_of(Count { ticks: 5, steps: 60 }).is_err());
    }

    #[test]
    fn a_counter_that_moves_in_the_pause_is_noticed() {
        assert!(Instant::of(PAUSE, &[sample(110, 60), sample(120, 61)]).is_err());
    }

    #[test]
    fn without_a_look_in_the_pause_its_neighbours_bound_it() {
        let seen = [sample(90, 40), sample(98, 50), sample(201, 90), sample(210, 99)];
        let instant = Instant::of(PAUSE, &seen).unwrap();
        assert_eq!((instant.least.steps, instant.most.steps), (50, 90));
        assert!(Instant::of(PAUSE, &seen[..2]).is_err());
    }

    #[test]
    fn rounds_come_from_the_trace() {
        let take = serde_json::json!({"trace": {"rounds": [{"began_ns": 5, "ended_ns": 9}]}});
        assert_eq!(rounds(&take).unwrap(), [Span { began_ns: 5, ended_ns: 9 }]);
        assert!(rounds(&serde_json::json!({"trace": null})).is_err());
    }
}
