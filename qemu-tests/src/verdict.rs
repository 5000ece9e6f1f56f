//! Verdicts, as XTF has them: the worst of a run wins, and silence is a crash.

use std::fmt;

/// How a scenario ended, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All that it claims was seen.
    Success,
    /// It does not apply here. Never counted as passed.
    Skip,
    /// The subject did what it must not.
    Failure,
    /// The test or its environment is broken.
    Error,
    /// A wait ran out of time.
    Timeout,
    /// The machine died or fell silent.
    Crash,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Success => "SUCCESS",
            Self::Skip => "SKIP",
            Self::Failure => "FAILURE",
            Self::Error => "ERROR",
            Self::Timeout => "TIMEOUT",
            Self::Crash => "CRASH",
        })
    }
}

/// Why a scenario stopped early. Any other error in an `anyhow::Error` counts as [`Verdict::Error`].
#[derive(Debug)]
pub struct Stop {
    /// The verdict.
    pub verdict: Verdict,
    /// What was seen and what was expected.
    pub why: String,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.verdict, self.why)
    }
}

impl std::error::Error for Stop {}

/// An error that ends the scenario with this verdict.
#[must_use]
pub fn stop(verdict: Verdict, why: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Stop { verdict, why: why.into() })
}

/// `Ok` if the subject behaved, a FAILURE that says why otherwise.
pub fn check(behaved: bool, why: impl FnOnce() -> String) -> anyhow::Result<()> {
    if behaved { Ok(()) } else { Err(stop(Verdict::Failure, why())) }
}

/// Whether the error is a FAILURE: the subject's fault, not the test's.
#[must_use]
pub fn is_failure(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Stop>().is_some_and(|stop| stop.verdict == Verdict::Failure)
}

/// The verdict that a scenario's result stands for.
#[must_use]
pub fn of(result: &anyhow::Result<()>) -> Verdict {
    match result {
        Ok(()) => Verdict::Success,
        Err(error) => error.downcast_ref::<Stop>().map_or(Verdict::Error, |stop| stop.verdict),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_verdict_survives_context_and_anything_else_is_an_error() {
        let failed = check(false, || "3 is not 4".into()).context("while counting");
        assert_eq!(of(&failed), Verdict::Failure);
        assert_eq!(of(&Err(anyhow::anyhow!("no such file"))), Verdict::Error);
        assert_eq!(of(&Ok(())), Verdict::Success);
        assert!(Verdict::Crash > Verdict::Failure && Verdict::Failure > Verdict::Skip);
    }
}
