//! A live take does not stop the guest: its counter advances in every round, and the pause is at most a quarter of that
//! of mode `save` on the same guest, which rewrites a tenth of its memory in every round.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use super::words::{self, TAKE_WAIT, json, number};
use crate::lab::{Guest, Lab, STUB};
use crate::verdict::check;

const LOG: &str = "/run/rounds.log";
/// 25 MiB of 256 MiB are rewritten over and over, fast enough that each round finds them all dirty.
const MEMORY_MIB: u32 = 256;
const PARAMETERS: &str = "ls.mem=48 ls.set=6553 ls.dirty=1600 ls.verify=32 ls.tick=20 ls.publish=1";
/// What a tenth may be, in percent of the guest's pages: the pause's set on top has what the suspend itself touches.
const TENTH: std::ops::RangeInclusive<u64> = 5..=25;
/// The rest of the memory holds contents, not zeros, or `save` would have an easy time.
const SHARE: u64 = 4;

/// Both modes on one boot.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let guest = lab.create_guest(&words::target("rounds", MEMORY_MIB, PARAMETERS))?;
    let (live, log) = watched(lab, &guest)?;
    let rounds = number(&live, "/rounds")?;
    let lines = advances(&log, rounds)?;
    let save = json(lab, &format!("livesave take {} --name save --mode save", guest.name))?;
    println!("{lines}");
    for (mode, take) in [("live", &live), ("save", &save)] {
        println!("   {mode}: {take}");
    }
    compare(&live, &save)?;
    words::tracking_is_off(lab, &guest)?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("pages are wrong after the takes: {whole:?}"))?;
    lab.sh(&format!("xl destroy {}", guest.name))?;
    lab.stop_stub()
}

/// A live take, and what `probe rounds` saw meanwhile.
fn watched(lab: &Lab, guest: &Guest) -> Result<(Value, String)> {
    let stub = lab.sh(&format!("xl domid {STUB}"))?;
    let watch = format!("probe rounds {} {stub} > {LOG} & echo $! > {LOG}.pid", guest.domid(lab)?);
    lab.sh(&format!("{{ {watch}; }} 2>/dev/null </dev/null"))?;
    let take = json(lab, &format!("livesave take {} --name live --mode live --max-pause none", guest.name));
    lab.sh(&format!("kill $(cat {LOG}.pid)"))?;
    let log = lab.run_for(&format!("cat {LOG}"), TAKE_WAIT)?.text();
    Ok((take?, log))
}

/// A round must last this long before a counter that stands says anything: the guest's tick under a take is about half.
const TELLING_US: u64 = 600_000;

/// Every round but the last, which is the pause, saw the counter advance. Returns a table.
fn advances(log: &str, rounds: u64) -> Result<String> {
    let mut seen: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
    for line in log.lines() {
        let value = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key));
        if value("state=") == Some("copying") {
            let number = |key: &str| value(key).and_then(|text| text.parse().ok()).context(line.to_owned());
            seen.entry(number("round=")?).or_default().push((number("us=")?, number("ticks=")?));
        }
    }
    let mut table = String::new();
    for round in 1..rounds {
        let samples = seen.get(&round).map_or(&[][..], Vec::as_slice);
        let (Some((from_us, first)), Some((to_us, last))) = (samples.first(), samples.last()) else {
            check(false, || format!("round {round} of {rounds} was not seen:\n{log}"))?;
            continue;
        };
        table += &format!("   round {round:2}: counter {first} to {last} in {} ms\n", (to_us - from_us) / 1000);
        let stood = last == first && to_us - from_us >= TELLING_US;
        check(!stood, || format!("the counter stood at {first} during round {round}:\n{table}{log}"))?;
    }
    check(rounds > 2, || format!("{rounds} rounds are too few to say anything"))?;
    Ok(table)
}

/// A tenth was dirty, and the live pause is at most a quarter.
fn compare(live: &Value, save: &Value) -> Result<()> {
    let (memory, dirty) = (number(live, "/memory_pages")?, number(live, "/pause/pages")?);
    let percent = dirty * 100 / memory.max(1);
    let (short, long) = (number(live, "/pause/total_us")?, number(save, "/pause/total_us")?);
    println!(
        "   pause: live {short} us for {dirty} pages ({percent} % of {memory}), save {long} us for {} pages; \
         ratio 1:{}.{}",
        number(save, "/pause/pages")?,
        long / short.max(1),
        long * 10 / short.max(1) % 10
    );
    check(TENTH.contains(&percent), || format!("{percent} % of memory was dirty, not about a tenth"))?;
    check(short * SHARE <= long, || format!("the live pause of {short} us is more than a quarter of {long} us"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "us=1 state=preparing round=0 ticks=1\nus=2 state=copying round=1 ticks=1\n\
                       us=3 state=copying round=1 ticks=2\nus=4 state=copying round=2 ticks=3\n\
                       us=700004 state=copying round=2 ticks=5\nus=700006 state=sealed round=3 ticks=9\n";

    #[test]
    fn a_round_without_progress_or_unseen_is_noticed() {
        assert!(advances(LOG, 3).is_ok());
        assert!(advances(LOG, 4).is_err());
        assert!(advances(LOG, 1).is_err());
        assert!(advances(&LOG.replace("ticks=5", "ticks=3"), 3).is_err());
    }

    #[test]
    fn a_pause_above_a_quarter_is_noticed() {
        let take =
            |us: u64, pages: u64| serde_json::json!({"memory_pages": 100, "pause": {"pages": pages, "total_us": us}});
        assert!(compare(&take(25, 10), &take(100, 100)).is_ok());
        assert!(compare(&take(26, 10), &take(100, 100)).is_err());
        assert!(compare(&take(25, 1), &take(100, 100)).is_err());
    }
}
