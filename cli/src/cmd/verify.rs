//! `livesave verify`: reads every byte of a snapshot, or of all, and compares every digest.

use super::rm::parse_name;
use crate::args::Place;
use crate::catalog::{self, Open};
use crate::exit::{Exit, Outcome};
use crate::show;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use snapshot::store::{StoreError, VerifyReport};

/// Verifies.
pub fn run(name: Option<&str>, place: &Place) -> Outcome {
    let (mut store, doubt) = catalog::look(place)?;
    let names = match name {
        Some(text) => vec![parse_name(text)?.to_string()],
        None => {
            let listed = store.list().map_err(|error| catalog::trouble("the store", error))?;
            listed.into_iter().map(|one| one.name).collect()
        }
    };
    let count = names.len();
    let verify = |(number, name): (usize, String)| {
        let found = verify(&mut store, &name, &format!("{name} ({} of {count})", number + 1));
        (name, found)
    };
    let results: Vec<(String, Result<VerifyReport, StoreError>)> = names.into_iter().enumerate().map(verify).collect();
    if let [(name, Err(error @ StoreError::NotFound))] = results.as_slice() {
        return Err(catalog::trouble(name, *error));
    }
    if place.json {
        show::print_json(&results.iter().map(|(name, result)| as_json(name, result)).collect())?;
    } else {
        let rows = results.iter().map(|(name, result)| vec![name.clone(), word(result)]);
        show::print(&show::table(&["NAME", "RESULT"], rows))?;
    }
    let bad = results.iter().filter(|(_, result)| !result.as_ref().is_ok_and(VerifyReport::is_clean)).count();
    match bad {
        0 => doubt,
        n => Err(Exit::BadStore
            .fail(format_args!("{n} of {} snapshots are damaged", results.len()))
            .hint("the others can be restored; look at the disk")),
    }
}

fn verify(store: &mut Open, name: &str, shown: &str) -> Result<VerifyReport, StoreError> {
    let mut reader = store.snapshot(name)?;
    // Draws on a terminal only.
    let bar = ProgressBar::new(0).with_message(shown.to_owned());
    let report = reader.verify(&mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    report
}

fn word(result: &Result<VerifyReport, StoreError>) -> String {
    match result {
        Ok(report) if report.is_clean() => format!(
            "ok: {} pages with data, {} zero, {} read, digest {}",
            report.data_pages,
            report.zero_pages,
            show::size(report.bytes_read),
            report.root_digest.map(|digest| digest.to_string()).unwrap_or_default()
        ),
        Ok(report) => {
            let first = report.first_damaged.first().map(|(_, error)| format!(", first: {error}")).unwrap_or_default();
            format!("DAMAGED: {} pages{first}", report.damaged)
        }
        Err(error) => format!("DAMAGED: {error}"),
    }
}

fn as_json(name: &str, result: &Result<VerifyReport, StoreError>) -> Value {
    match result {
        Ok(report) => json!({
            "name": name, "ok": report.is_clean(), "data_pages": report.data_pages, "zero_pages": report.zero_pages,
            "bytes_read": report.bytes_read, "damaged_pages": report.damaged,
            "digest": report.root_digest.map(|digest| digest.to_string()),
            "first_damaged_gfns": report.first_damaged.iter().map(|(gfn, _)| gfn.raw()).collect::<Vec<_>>(),
        }),
        Err(error) => json!({ "name": name, "ok": false, "error": error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::sample;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_flipped_bit_in_a_page_is_found_and_a_whole_store_passes() {
        let path = sample("verify");
        let place = Place { stub: String::new(), store: Some(path.clone()), json: true };
        run(None, &place).unwrap();
        assert_eq!(run(Some("web01@two"), &place).unwrap_err().exit, Exit::NoSnapshot);
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(64).position(|window| window == [3; 64]).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().write_at(&[2], at as u64).unwrap();
        assert_eq!(run(Some("web01@one"), &place).unwrap_err().exit, Exit::BadStore);
        std::fs::remove_file(path).unwrap();
    }
}
