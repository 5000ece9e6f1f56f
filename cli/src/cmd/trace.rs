//! The trace of a take, for programs and for people: one round a line (docs/format/store-v1.md, section 9.1).
//!
//! A snapshot without a trace, or with one of another version, is as good as any other: this only ever describes.

use crate::args::Place;
use crate::exit::Outcome;
use crate::{catalog, show};
use serde_json::{Value, json};
use snapshot::ports::BlockDevice;
use snapshot::store::{AttachmentKind, SnapshotReader};
use snapshot::trace::{Round, Trace};

/// The trace of a snapshot, or why there is none.
pub fn of<D: BlockDevice>(reader: &mut SnapshotReader<'_, D>) -> Result<Trace, String> {
    let bytes = reader.attachment(AttachmentKind::TRACE).map_err(|error| error.to_string())?;
    let bytes = bytes.ok_or("the snapshot has no trace")?;
    Trace::decode(&bytes).map_err(|error| error.to_string())
}

/// The trace of a snapshot that was just sealed.
pub fn of_new(name: &str, place: &Place) -> Outcome<Result<Trace, String>> {
    let mut store = catalog::open(place)?;
    let mut reader = store.snapshot(name).map_err(|error| catalog::trouble(name, error))?;
    Ok(of(&mut reader))
}

/// For `--json`; null without a trace.
pub fn to_json(trace: Option<&Trace>) -> Value {
    let Some(trace) = trace else { return Value::Null };
    json!({
        "began_ns": trace.began_ns, "lost_rounds": trace.lost,
        "rounds": trace.rounds.iter().map(round_json).collect::<Vec<_>>(),
    })
}

fn round_json(round: &Round) -> Value {
    json!({
        "kind": round.kind.word(), "began_ns": round.began_ns, "ended_ns": round.ended_ns, "fetch_ns": round.fetch_ns,
        "enable_ns": round.enable_ns, "off_ns": round.off_ns,
        "memory_pages": round.memory, "given_pages": round.given, "pages": round.pages, "zero_pages": round.zero,
        "skipped_pages": round.skipped, "dirty_pages": round.dirty, "bytes": round.bytes, "peeks": round.peeks,
        "unsent_pages": round.unsent, "growth_pages": round.growth, "space_left_pages": round.space_left,
        "prices": {
            "staging_pages": round.staging, "fixed_ns": round.fixed_ns, "stage_ns": round.stage_ns,
            "pack_ns": round.pack_ns, "stored_bytes": round.stored_bytes, "store_ns": round.store_ns,
            "mib_ns": round.mib_ns, "depth_bytes": round.depth_bytes, "step_bytes": round.step_bytes,
            "piece_bytes": round.piece_bytes, "gathered_bytes": round.gathered_bytes,
        },
    })
}

/// For people: one line a round, and one for what Xen may have stopped the guest for.
pub fn table(trace: &Trace) -> String {
    let headings = ["ROUND", "SENDS", ">TIME", ">GIVEN", ">PAGES", ">ZERO", ">SKIPPED", ">DIRTY AFTER"];
    let table = show::table(&headings, trace.rounds.iter().zip(1_u32..).map(|(round, number)| row(round, number)));
    stalls(trace).map_or_else(|| table.clone(), |stalls| format!("{table}\n{stalls}"))
}

/// Of a take without tracking, or of a trace that has no such times, there is nothing to say.
fn stalls(trace: &Trace) -> Option<String> {
    let (enable, off) = (trace.rounds.first()?.enable_ns, trace.rounds.last()?.off_ns);
    let running = trace.rounds.iter().filter(|round| !round.kind.in_pause());
    let clean = running.map(|round| round.fetch_ns).max().unwrap_or(0);
    let [enable, clean, off] = [enable, clean, off].map(|ns| show::time(ns / 1000));
    trace
        .rounds
        .iter()
        .any(|round| round.enable_ns > 0 || round.off_ns > 0)
        .then(|| format!("Xen switched tracking on in {enable}, off in {off}; the longest CLEAN took {clean}"))
}

fn row(round: &Round, number: u32) -> Vec<String> {
    let us = round.ended_ns.saturating_sub(round.began_ns) / 1000;
    let dirty = if round.kind.in_pause() { "-".to_owned() } else { round.dirty.to_string() };
    let mut row = vec![number.to_string(), round.kind.word().to_owned(), show::time(us)];
    row.extend([round.given, round.pages, round.zero, round.skipped].map(|count| count.to_string()));
    row.push(dirty);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapshot::trace::RoundKind;

    fn trace() -> Trace {
        let full = Round {
            peeks: 1,
            began_ns: 1_000_000,
            ended_ns: 13_300_000,
            fetch_ns: 5,
            memory: 100,
            given: 90,
            pages: 50,
            zero: 30,
            skipped: 10,
            bytes: 204_800,
            dirty: 7,
            enable_ns: 2_100_000,
            ..Round::empty(RoundKind::FULL)
        };
        let last = Round { kind: RoundKind::LAST_SET, dirty: 0, enable_ns: 0, off_ns: 3_400_000, ..full };
        Trace { began_ns: 900_000, lost: 0, rounds: vec![full, last] }
    }

    #[test]
    fn each_round_is_a_line() {
        let text = table(&trace());
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["1", "full", "12.3", "ms", "90", "50", "30", "10", "7"]);
        assert_eq!(lines[2], ["2", "last-set", "12.3", "ms", "90", "50", "30", "10", "-"]);
        assert!(text.contains("on in 2.1 ms, off in 3.4 ms"), "{text}");
        let old = |round: &Round| Round { enable_ns: 0, off_ns: 0, ..*round };
        let before = Trace { rounds: trace().rounds.iter().map(old).collect(), ..trace() };
        assert!(!table(&before).contains("tracking"));
    }

    #[test]
    fn a_program_gets_every_field_by_name() {
        let value = to_json(Some(&trace()));
        assert_eq!(value["began_ns"], 900_000);
        let first = &value["rounds"][0];
        assert_eq!(
            (&first["kind"], &first["began_ns"], &first["ended_ns"]),
            (&"full".into(), &1_000_000.into(), &13_300_000.into())
        );
        assert_eq!(
            (&first["given_pages"], &first["dirty_pages"], &first["memory_pages"]),
            (&90.into(), &7.into(), &100.into())
        );
        assert_eq!((&first["enable_ns"], &value["rounds"][1]["off_ns"]), (&2_100_000.into(), &3_400_000.into()));
        assert_eq!(to_json(None), Value::Null);
    }
}
