//! A live take does not stop the guest: its counter advances in every round, and the pause is at most a quarter of that
//! of mode `save` on the same guest, which rewrites a tenth of its memory in every round.

use anyhow::{Context, Result};
use serde_json::Value;

use super::instant::{self, Instant, Span};
use super::words::{self, json, number};
use crate::counter::Sample;
use crate::lab::{Guest, Lab};
use crate::say;
use crate::verdict::check;

/// 4000 of 40960 pages are rewritten in turn, and 21504 hold contents, not zeros: the time that the guest needs to
/// freeze itself is the same in both modes, and must not be most of either pause. A round of so few pages is not worth
/// a PEEK (tracking/rounds.rs): the stub skips none of them.
const MEMORY_MIB: u32 = 160;
const PARAMETERS: &str = "ls.mem=84 ls.set=4000 ls.dirty=4000 ls.verify=64 ls.tick=200 ls.publish=5 ls.busy=1";
/// On the one processor that they share, a page that is written costs the guest a fault, which is as much as the stub's
/// copy of it. With equal shares each round finds fewer pages dirty than the one before; with three times the stub's
/// the guest comes round its whole set in every round.
const WEIGHT: &str = "cpu_weight = 768";
/// What a tenth may be, in percent of the guest's pages: on top of it the guest's kernel and the suspend write.
const TENTH: std::ops::RangeInclusive<u64> = 8..=25;
/// The pause of `save` is at least so many times as long.
const SHARE: u64 = 4;
/// Dom0, stub and guest share one processor, and Xen's scheduler lets each run for up to 10 ms at a time (credit2.c,
/// CSCHED2_MAX_TIMER). In a round shorter than three turns of each there need not be two looks with the guest between.
const TELLING_NS: u64 = 90_000_000;
/// Rounds that may be shorter, of a hundred.
const SHORT_ROUNDS: u64 = 10;

/// Both modes on one boot.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let mut spec = words::target("rounds", MEMORY_MIB, PARAMETERS);
    spec.extra.push(WEIGHT.to_owned());
    let guest = lab.create_guest(&spec)?;
    let (live, samples) = watched(lab, &guest, "live")?;
    say!("{}", advances(&live, &samples)?);
    let (save, _) = watched(lab, &guest, "save")?;
    say!("   live: {}\n   save: {}", without_trace(&live), without_trace(&save));
    compare(&live, &save)?;
    same_trace(lab, &guest, &live)?;
    words::tracking_is_off(lab, &guest)?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("pages are wrong after the takes: {whole:?}"))?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    lab.stop_stub()
}

/// A take, and how the guest counted meanwhile.
fn watched(lab: &Lab, guest: &Guest, mode: &str) -> Result<(Value, Vec<Sample>)> {
    let watch = guest.watch(lab)?;
    let take = json(lab, &format!("livesave take {} --name {mode} --mode {mode} --max-pause none", guest.name));
    let samples = watch.end(lab)?;
    let take = take?;
    let pause = *instant::rounds(&take)?.last().context("no round")?;
    // In the pause it stands, whoever looks.
    Instant::of(pause, &samples)?;
    Ok((take, samples))
}

/// Every round but the last, which is the pause, saw the counter advance. Returns a table.
fn advances(live: &Value, samples: &[Sample]) -> Result<String> {
    let rounds = instant::rounds(live)?;
    let (_, running) = rounds.split_last().context("no round")?;
    let (mut table, mut short) = (String::new(), 0);
    for (number, round) in (1..).zip(running) {
        table += &format!("   round {number:2}, {:5} ms: ", round.length_ns() / 1_000_000);
        match steps_in(*round, samples) {
            Some((seen, steps)) if steps > 0 => table += &format!("{steps} steps in {seen} looks\n"),
            _ if round.length_ns() < TELLING_NS => {
                short += 1;
                table += "too short to tell\n";
            }
            other => check(false, || format!("the guest stood in round {number}: {other:?}, {round:?}\n{table}"))?,
        }
    }
    let all = running.len() as u64;
    check(short * 100 <= all * SHORT_ROUNDS, || format!("{short} of {all} rounds are too short to tell\n{table}"))?;
    check(all > 2, || format!("{all} rounds are too few to say anything\n{table}"))?;
    Ok(table)
}

/// Looks within the round, and how far the counter went from the first to the last of them.
fn steps_in(round: Span, samples: &[Sample]) -> Option<(usize, u64)> {
    let seen = round.of(samples);
    let (first, last) = (seen.first()?, seen.last()?);
    Some((seen.len(), last.count.steps.saturating_sub(first.count.steps)))
}

fn without_trace(take: &Value) -> Value {
    let mut take = take.clone();
    take.as_object_mut().map(|fields| fields.remove("trace"));
    take
}

/// A tenth was dirty after every round, and the live pause is at most a quarter.
fn compare(live: &Value, save: &Value) -> Result<()> {
    let (memory, pages) = (number(live, "/memory_pages")?, number(live, "/pause/pages")?);
    let percent = |pages: u64| pages * 100 / memory.max(1);
    for round in live.pointer("/trace/rounds").and_then(Value::as_array).context("no trace")?.iter().rev().skip(1) {
        let dirty = number(round, "/dirty_pages")?;
        check(TENTH.contains(&percent(dirty)), || format!("{dirty} of {memory} pages were dirty, not about a tenth"))?;
    }
    let (short, long) = (number(live, "/pause/total_us")?, number(save, "/pause/total_us")?);
    say!(
        "   pause: live {short} us for {pages} pages ({} % of {memory}), save {long} us for {} pages; ratio 1:{}.{}",
        percent(pages),
        number(save, "/pause/pages")?,
        long / short.max(1),
        long * 10 / short.max(1) % 10
    );
    check(TENTH.contains(&percent(pages)), || format!("{pages} of {memory} pages were sent in the pause"))?;
    check(short * SHARE <= long, || format!("the live pause of {short} us is more than a quarter of {long} us"))
}

/// `show` gives the trace that `take` gave.
fn same_trace(lab: &Lab, guest: &Guest, live: &Value) -> Result<()> {
    let name = format!("livesave show {}@live", guest.name);
    let shown = json(lab, &name)?;
    check(shown.get("trace") == live.get("trace"), || format!("take gave {live}, show gives {shown}"))?;
    say!("{}", words::succeed(lab, &name)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::Count;

    fn take(rounds: &[(u64, u64)]) -> Value {
        let round = |(from, to): &(u64, u64)| {
            let (began_ns, ended_ns) = (from * 1_000_000, to * 1_000_000);
            serde_json::json!({"began_ns": began_ns, "ended_ns": ended_ns, "dirty_pages": 10})
        };
        let rounds: Vec<Value> = rounds.iter().map(round).collect();
        serde_json::json!({"trace": {"rounds": rounds}})
    }

    fn seen(samples: &[(u64, u64)]) -> Vec<Sample> {
        let one = |(ms, steps): &(u64, u64)| {
            let at = ms * 1_000_000;
            Sample { from_ns: at, to_ns: at + 1, count: Count { ticks: 0, steps: *steps } }
        };
        samples.iter().map(one).collect()
    }

    const LOOKS: [(u64, u64); 6] = [(10, 1), (90, 2), (110, 2), (190, 3), (210, 3), (290, 4)];

    #[test]
    fn a_round_without_progress_or_unseen_is_noticed() {
        let rounds = take(&[(0, 100), (100, 200), (200, 300), (300, 400)]);
        assert!(advances(&rounds, &seen(&LOOKS)).is_ok());
        assert!(advances(&rounds, &seen(&LOOKS[..5])).is_err(), "one look is none");
        let mut stands = LOOKS;
        stands[3].1 = 2;
        assert!(advances(&rounds, &seen(&stands)).is_err());
        assert!(advances(&take(&[(0, 100), (100, 200), (200, 300)]), &seen(&LOOKS)).is_err(), "too few");
    }

    #[test]
    fn rounds_too_short_to_tell_must_be_few() {
        let mut spans: Vec<(u64, u64)> = (0..10).map(|n| (n * 100, n * 100 + 95)).collect();
        let looks: Vec<(u64, u64)> = (0..100).map(|n| (n * 10, n)).collect();
        spans.push((1000, 1001));
        spans.push((1001, 1100));
        assert!(advances(&take(&spans), &seen(&looks)).is_ok());
        spans.push((1100, 1101));
        spans.push((1101, 1200));
        assert!(advances(&take(&spans), &seen(&looks)).is_err());
    }

    #[test]
    fn a_pause_above_a_quarter_is_noticed() {
        let take = |us: u64, pages: u64, dirty: u64| {
            let round = serde_json::json!({"dirty_pages": dirty});
            let rounds = serde_json::json!([round, round]);
            serde_json::json!({
                "memory_pages": 100, "pause": {"pages": pages, "total_us": us}, "trace": {"rounds": rounds}
            })
        };
        assert!(compare(&take(25, 10, 10), &take(100, 100, 0)).is_ok());
        assert!(compare(&take(26, 10, 10), &take(100, 100, 0)).is_err());
        assert!(compare(&take(25, 1, 10), &take(100, 100, 0)).is_err());
        assert!(compare(&take(25, 10, 1), &take(100, 100, 0)).is_err());
    }
}
