//! `livesave store check`: proves the whole store and repairs nothing. Its flaws have an exit status of their own, so
//! that a script tells a store that is not as it must be from one that cannot be read at all.

use crate::args::Place;
use crate::exit::{Exit, Outcome};
use crate::{catalog, show};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use snapshot::store::{CheckReport, Flaw};
use std::collections::BTreeMap;

/// Names of the snapshots by their numbers.
type Names = BTreeMap<u64, String>;

/// Checks.
pub fn run(pages: bool, place: &Place) -> Outcome {
    let (mut store, doubt) = catalog::look(place)?;
    let trouble = |error| catalog::trouble("the store", error);
    let names: Names = store.list().map_err(trouble)?.into_iter().map(|one| (one.id, one.name)).collect();
    // Draws on a terminal only.
    let bar = ProgressBar::new(0);
    let report = store.check(pages, &mut |(number, snapshots), (done, total)| {
        bar.set_message(format!("snapshot {} of {snapshots}", number + 1));
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report.map_err(trouble)?;
    print(&report, &names, pages, place.json)?;
    match report.flaws {
        0 => doubt,
        n => {
            let what = if n == 1 { "1 flaw in the store".to_owned() } else { format!("{n} flaws in the store") };
            let hint = "`livesave verify --all` shows which snapshots are whole; nothing was repaired";
            Err(Exit::Inconsistent.fail(what).hint(hint))
        }
    }
}

fn print(report: &CheckReport, names: &Names, pages: bool, as_json: bool) -> Outcome {
    let of = |flaw: &Flaw| flaw.snapshot().and_then(|id| names.get(&id));
    let free = report.segments.saturating_sub(report.reached);
    if as_json {
        let flaws = report.first.iter().map(|flaw| json!({ "snapshot": of(flaw), "flaw": flaw.to_string() }));
        return show::print_json(&json!({
            "ok": report.is_clean(), "generation": report.generation, "snapshots": report.snapshots,
            "segments": report.segments, "reached": report.reached, "free": free, "stale": report.stale,
            "unsettled": report.unsettled, "pages": pages.then_some(report.pages), "flaws": report.flaws,
            "first": flaws.collect::<Value>(),
        }));
    }
    for flaw in &report.first {
        let name = of(flaw).map_or_else(String::new, |name| format!("{name}: "));
        show::print(&format!("FLAW: {name}{flaw}"))?;
    }
    if report.unsettled {
        show::print("a commit was cut off between its superblocks: safe, and ended by the next stub here")?;
    }
    let checked = if pages { format!(", {} pages", report.pages) } else { String::new() };
    show::print(&format!(
        "generation {}: {} snapshots{checked}; {} of {} segments reached, {free} free; {} flaws",
        report.generation, report.snapshots, report.reached, report.segments, report.flaws
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::sample;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_sound_store_passes_and_flaws_have_their_exit_status() {
        let path = sample("check");
        let place = Place { stub: String::new(), store: Some(path.clone()), json: true };
        run(true, &place).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let at = bytes.windows(64).position(|window| window == [3; 64]).unwrap();
        file.write_at(&[2], at as u64).unwrap();
        run(false, &place).unwrap();
        assert_eq!(run(true, &place).unwrap_err().exit, Exit::Inconsistent);
        file.write_at(&[3], at as u64).unwrap();
        // The last block is superblock B.
        file.write_at(&[0x55], bytes.len() as u64 - 100).unwrap();
        assert_eq!(run(false, &place).unwrap_err().exit, Exit::Inconsistent);
        std::fs::remove_file(path).unwrap();
    }
}
