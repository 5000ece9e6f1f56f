//! A take that was recorded, put before the policy again: does it decide as the stub did, round by round?
//!
//! The record is what `livesave take --json` or `livesave show --json` printed: the mode and the trace. Modes whose
//! rules use counts alone can be replayed; `staged` also uses prices, which the trace does not have.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use snapshot::policy::{Decision, Policy, RoundStats, Settings};
use snapshot::request::Mode;

/// What the policy made of the trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replayed {
    /// Rounds, the last set included.
    pub rounds: u64,
    /// Pages of all of them.
    pub pages: u64,
}

/// Replays a record; an error names the round in which the decisions part.
pub fn run(record: &Value) -> Result<Replayed> {
    let mode: Mode = text(record, "mode")?.parse().map_err(|()| anyhow::anyhow!("a mode that there is not"))?;
    ensure!(!matches!(mode, Mode::Staged | Mode::Save), "mode {mode} cannot be replayed from counts");
    let rounds = record.pointer("/trace/rounds").and_then(Value::as_array).context("no trace in the record")?;
    let (last, running) = rounds.split_last().context("a trace without rounds")?;
    ensure!(text(last, "kind")? == "last-set", "the trace does not end in a pause");
    let mut policy = Policy::new(mode, Settings::default());
    let mut sent_total = 0;
    for (number, round) in (1_u32..).zip(running) {
        let sent_round = sent(round)?;
        sent_total += sent_round;
        let stats = RoundStats {
            round: number,
            memory: count(round, "memory_pages")?,
            dirty_previous: count(round, "given_pages")?,
            dirty_current: count(round, "dirty_pages")?,
            sent_round,
            sent_total,
            ..RoundStats::default()
        };
        let wanted = if number as usize == running.len() { Decision::StopAndCopy } else { Decision::Continue };
        let decided = policy.decide(&stats);
        ensure!(decided == wanted, "round {number}: the stub did {wanted:?}, the policy says {decided:?}: {stats:?}");
    }
    let pages = sent_total + sent(last)?;
    let told = count(record, "pages").ok().zip(count(record, "zero_pages").ok()).map(|(data, zero)| data + zero);
    ensure!(told.is_none_or(|told| told == pages), "the rounds have {pages} pages, the take says {told:?}");
    Ok(Replayed { rounds: rounds.len() as u64, pages })
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value.get(key).and_then(Value::as_str).with_context(|| format!("no `{key}`"))
}

fn count(value: &Value, key: &str) -> Result<u64> {
    value.get(key).and_then(Value::as_u64).with_context(|| format!("no number `{key}`"))
}

fn sent(round: &Value) -> Result<u64> {
    Ok(count(round, "pages")? + count(round, "zero_pages")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn round(kind: &str, given: u64, pages: u64, dirty: u64) -> Value {
        json!({"kind": kind, "memory_pages": 1000, "given_pages": given, "pages": pages, "zero_pages": 1,
               "dirty_pages": dirty})
    }

    fn record(mode: &str, dirty: [u64; 2]) -> Value {
        let rounds = [
            round("full", 1000, 999, dirty[0]),
            round("dirty", dirty[0], 20, dirty[1]),
            round("last-set", dirty[1], 10, 0),
        ];
        json!({"mode": mode, "pages": 1029, "zero_pages": 3, "trace": {"rounds": rounds}})
    }

    #[test]
    fn a_record_that_follows_the_rule_is_agreed_with() {
        assert_eq!(run(&record("live", [39, 10])).unwrap(), Replayed { rounds: 3, pages: 1032 });
        assert_eq!(run(&record("xen", [50, 49])).unwrap().rounds, 3);
    }

    #[test]
    fn a_record_that_does_not_is_refused_with_its_round() {
        let parts = |record: &Value| run(record).unwrap_err().to_string();
        assert!(parts(&record("live", [40, 10])).starts_with("round 2: the stub did StopAndCopy"));
        assert!(parts(&record("xen", [49, 10])).starts_with("round 1: the stub did Continue"));
        assert!(parts(&record("staged", [9, 9])).contains("cannot be replayed"));
        let mut wrong = record("live", [39, 10]);
        wrong["pages"] = 5.into();
        assert!(parts(&wrong).contains("1032 pages"));
    }
}
