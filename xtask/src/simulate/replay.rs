//! A take that was recorded, put before the policy again: does it decide as the stub did, round by round?
//!
//! The record is what `livesave take --json` printed: the mode, the settings, and the trace with what the policy was
//! told after each round. One that `livesave show --json` printed has no settings; those of the program are taken then.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use snapshot::policy::{Decision, Disk, High, Outlook, Policy, RoundStats, Settings};
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
    ensure!(mode != Mode::Save, "mode {mode} decides nothing");
    let rounds = record.pointer("/trace/rounds").and_then(Value::as_array).context("no trace in the record")?;
    let (last, running) = rounds.split_last().context("a trace without rounds")?;
    ensure!(text(last, "kind")? == "last-set", "the trace does not end in a pause");
    let mut policy = Policy::new(mode, settings(record)?);
    let (mut sent_total, mut dirty_max) = (0, 0);
    for (number, round) in (1_u32..).zip(running) {
        let stats = stats(round, number, (sent_total, dirty_max))?;
        (sent_total, dirty_max) = (stats.sent_total, stats.dirty_max);
        let decided = policy.decide(&stats);
        let ends = number as usize == running.len();
        let agrees = match decided {
            Decision::StopAndCopy => ends,
            Decision::Continue | Decision::Throttle(_) => !ends,
            Decision::Abort(_) => false,
        };
        let did = if ends { "stopped" } else { "went on" };
        ensure!(agrees, "round {number}: the stub {did}, the policy says {decided:?}: {stats:?}");
    }
    let pages = sent_total + sent(last)?;
    let told = count(record, "pages").ok().zip(count(record, "zero_pages").ok()).map(|(data, zero)| data + zero);
    ensure!(told.is_none_or(|told| told == pages), "the rounds have {pages} pages, the take says {told:?}");
    Ok(Replayed { rounds: rounds.len() as u64, pages })
}

fn settings(record: &Value) -> Result<Settings> {
    let Some(said) = record.get("settings") else { return Ok(Settings::default()) };
    let h_milli = u32::try_from(count(said, "h_milli")?).context("h_milli")?;
    Ok(Settings {
        round1_skip: said.get("round1_skip").and_then(Value::as_bool).context("no `round1_skip`")?,
        high: if h_milli == 0 { High::NoLess } else { High::Sent { milli: h_milli } },
        target_us: count(said, "target_pause_ms")? * 1000,
        max_pause_us: said.get("max_pause_ms").and_then(Value::as_u64).map(|ms| ms * 1000),
        busy: text(said, "on_busy")?.parse().map_err(|()| anyhow::anyhow!("a way that there is not"))?,
        ..Settings::default()
    })
}

/// What the policy was told after a round, with what was sent and the most that was dirty before it.
fn stats(round: &Value, number: u32, (sent_before, dirty_before): (u64, u64)) -> Result<RoundStats> {
    let (sent_round, dirty_current) = (sent(round)?, count(round, "dirty_pages")?);
    // Traces of earlier versions do not have them, nor do the rules of the other modes need them.
    let told = |key: &str| count(round, key).unwrap_or(0);
    Ok(RoundStats {
        round: number,
        memory: count(round, "memory_pages")?,
        dirty_previous: count(round, "given_pages")?,
        dirty_current,
        sent_round,
        sent_total: sent_before + sent_round,
        unsent: told("unsent_pages"),
        growth: told("growth_pages"),
        dirty_max: dirty_before.max(dirty_current),
        space_left: told("space_left_pages"),
        outlook: round.get("prices").map_or_else(Outlook::default, outlook),
    })
}

fn outlook(prices: &Value) -> Outlook {
    let of = |key: &str| count(prices, key).unwrap_or(0);
    Outlook {
        staging_pages: of("staging_pages"),
        fixed_ns: of("fixed_ns"),
        stage_ns: of("stage_ns"),
        pack_ns: of("pack_ns"),
        stored_bytes: of("stored_bytes"),
        store_ns: of("store_ns"),
        disk: Disk {
            mib_ns: of("mib_ns"),
            depth_bytes: of("depth_bytes"),
            step_bytes: of("step_bytes"),
            piece_bytes: of("piece_bytes"),
            gathered_bytes: of("gathered_bytes"),
        },
    }
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
        assert!(parts(&record("live", [40, 10])).starts_with("round 2: the stub stopped"));
        assert!(parts(&record("xen", [49, 10])).starts_with("round 1: the stub went on"));
        assert!(parts(&record("save", [9, 9])).contains("decides nothing"));
        let mut wrong = record("live", [39, 10]);
        wrong["pages"] = 5.into();
        assert!(parts(&wrong).contains("1032 pages"));
    }

    /// In mode `staged` the prices decide, and the settings.
    #[test]
    fn prices_and_settings_are_those_of_the_take() {
        let prices = |staging: u64| json!({"staging_pages": staging, "fixed_ns": 1000, "stage_ns": 1000});
        let staged = |first: u64, second: u64, busy: &str| {
            let mut record = record("staged", [39, 10]);
            record["settings"] = json!({"target_pause_ms": 10, "max_pause_ms": null, "on_busy": busy, "h_milli": 5100,
                                        "round1_skip": false});
            for (number, staging) in [(0, first), (1, second)] {
                record["trace"]["rounds"][number]["prices"] = prices(staging);
                record["trace"]["rounds"][number]["space_left_pages"] = 500.into();
            }
            record
        };
        assert_eq!(run(&staged(38, 10, "accept")).unwrap(), Replayed { rounds: 3, pages: 1032 });
        let parts = |record: &Value| run(record).unwrap_err().to_string();
        assert!(parts(&staged(39, 10, "accept")).starts_with("round 1: the stub went on, the policy says StopAndCopy"));
        assert!(parts(&staged(38, 9, "accept")).contains("round 2: the stub stopped, the policy says Continue"));
        let mut short = staged(38, 10, "throttle");
        short["settings"]["target_pause_ms"] = 0.into();
        assert!(parts(&short).starts_with("round 2: the stub stopped"), "nothing fits a target of 0");
    }
}
