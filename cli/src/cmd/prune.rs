//! `livesave prune`: removes the snapshots of a guest that no rule keeps, oldest first, each by a request of its own.
//!
//! A damaged snapshot is neither counted nor removed: that is for `rm`, by name. What would leave nothing asks for
//! `--force`.

use super::rm;
use crate::args::{self, Place};
use crate::exit::{Exit, Outcome};
use crate::{catalog, show};
use serde_json::{Value, json};
use snapshot::prune::{Rules, kept};
use snapshot::store::Listed;

/// A snapshot, and whether it is kept.
type Judged = (String, u64, bool);

/// Prunes.
pub fn run(prune: &args::Prune, place: &Place) -> Outcome {
    let rules =
        Rules { last: prune.keep_last, hourly: prune.keep_hourly, daily: prune.keep_daily, weekly: prune.keep_weekly };
    let listed = catalog::open(place)?.list().map_err(|error| catalog::trouble("the store", error))?;
    let judged = judge(&listed, &prune.guest, &rules);
    if judged.is_empty() {
        let what = format!("no snapshot of '{}'", prune.guest);
        return Err(Exit::NoSnapshot.fail(what).hint("`livesave ls` shows the snapshots"));
    }
    if judged.iter().all(|(_, _, keep)| !keep) && !prune.force && !prune.dry_run {
        let what = format!("these rules keep none of the {} snapshots of '{}'", judged.len(), prune.guest);
        return Err(Exit::Usage.fail(what).hint("give a rule that keeps some, or --force to remove them all"));
    }
    if !prune.dry_run {
        for (name, ..) in judged.iter().filter(|(_, _, keep)| !keep) {
            rm::remove(&rm::parse_name(name)?, place)?;
        }
    }
    print(&judged, prune.dry_run, place.json)
}

/// The whole snapshots of the guest in the order of the store, oldest first.
fn judge(listed: &[Listed], guest: &str, rules: &Rules) -> Vec<Judged> {
    let of_guest = |one: &&Listed| one.snapshot.is_ok() && one.name.split('@').next() == Some(guest);
    let whole: Vec<&Listed> = listed.iter().filter(of_guest).collect();
    let times: Vec<u64> = whole.iter().map(|one| one.created_unix).collect();
    let keep = kept(&times, rules);
    whole.iter().zip(keep).map(|(one, keep)| (one.name.clone(), one.created_unix, keep)).collect()
}

fn print(judged: &[Judged], dry_run: bool, as_json: bool) -> Outcome {
    let word = |keep: bool| match (keep, dry_run) {
        (true, _) => "keep",
        (false, true) => "would remove",
        (false, false) => "removed",
    };
    if as_json {
        let rows = judged.iter().map(|(name, created, keep)| {
            json!({ "name": name, "created_unix": created, "kept": keep, "removed": !keep && !dry_run })
        });
        return show::print_json(&rows.collect::<Value>());
    }
    let rows = judged.iter().map(|(name, at, keep)| vec![name.clone(), show::moment(*at), word(*keep).to_owned()]);
    show::print(&show::table(&["NAME", "TAKEN (UTC)", ""], rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use crate::catalog::tests::sample;
    use clap::Parser;
    use snapshot::store::StoreError;

    fn prune(line: &str) -> args::Prune {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Prune(prune) => prune,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_would_leave_nothing_asks_for_force_and_a_dry_run_changes_nothing() {
        let path = sample("prune");
        let place = Place { stub: String::new(), store: Some(path.clone()), json: true };
        for line in ["livesave prune web01", "livesave prune web01 --keep-last 0"] {
            let failure = run(&prune(line), &place).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{line}");
            assert!(failure.what.contains("keep none of the 1 snapshots of 'web01'"), "{}", failure.what);
            assert!(failure.way_out().contains("--force"), "{}", failure.way_out());
        }
        run(&prune("livesave prune web01 --dry-run"), &place).unwrap();
        run(&prune("livesave prune web01 --keep-daily 1"), &place).unwrap();
        assert_eq!(run(&prune("livesave prune db --keep-last 1"), &place).unwrap_err().exit, Exit::NoSnapshot);
        assert_eq!(catalog::open(&place).unwrap().list().unwrap().len(), 1);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn damaged_snapshots_are_not_counted() {
        let path = sample("prune-damaged");
        let place = Place { stub: String::new(), store: Some(path.clone()), json: true };
        let mut listed = catalog::open(&place).unwrap().list().unwrap();
        std::fs::remove_file(path).unwrap();
        let mut newer = listed[0].clone();
        (newer.name, newer.created_unix) = ("web01@two".to_owned(), listed[0].created_unix + 1);
        newer.snapshot = Err(StoreError::NotFound);
        listed.push(newer);
        let judged = judge(&listed, "web01", &Rules { last: 1, ..Rules::default() });
        assert_eq!(judged.len(), 1);
        assert!(judged[0].2, "the one that can be restored stays");
    }
}
