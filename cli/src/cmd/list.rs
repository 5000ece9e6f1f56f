//! `livesave ls` and `show`: what the store holds. A damaged snapshot is listed with its damage, never left out.

use super::rm::parse_name;
use super::trace;
use crate::args::Place;
use crate::config::Config;
use crate::exit::Outcome;
use crate::{catalog, image, show};
use serde_json::{Value, json};
use snapshot::store::{AttachmentKind, Listed, SnapshotInfo};
use std::collections::BTreeMap;
use xen_hypercall::types::DomHandle;

/// Lists the snapshots, of one guest or of all.
pub fn ls(guest: Option<&str>, place: &Place) -> Outcome {
    let (mut store, doubt) = catalog::look(place)?;
    let listed = store.list().map_err(|error| catalog::trouble("the store", error))?;
    let of_guest = |one: &&Listed| guest.is_none_or(|guest| one.name.split('@').next() == Some(guest));
    let listed: Vec<&Listed> = listed.iter().filter(of_guest).collect();
    if place.json {
        return show::print_json(&listed.iter().map(|one| listed_json(one)).collect()).and(doubt);
    }
    let headings = ["NAME", "TAKEN (UTC)", "MODE", ">MEMORY", ">STORED", ">EXCLUSIVE", ">PAUSE", ">TIME"];
    show::print(&show::table(&headings, listed.iter().map(|one| listed_row(one)))).and(doubt)
}

fn memory(info: &SnapshotInfo) -> u64 {
    info.data_pages.saturating_add(info.zero_pages).saturating_mul(4096)
}

fn listed_row(one: &Listed) -> Vec<String> {
    let mut row = vec![one.name.clone(), show::moment(one.created_unix)];
    match &one.snapshot {
        Ok(info) => row.extend([
            info.mode.clone(),
            show::size(memory(info)),
            show::size(info.stored_bytes),
            one.exclusive_bytes.map_or_else(|| "?".to_owned(), show::size),
            show::time(info.pause_us),
            show::time(info.elapsed_us),
        ]),
        Err(error) => row.push(format!("DAMAGED: {error}")),
    }
    row
}

fn listed_json(one: &Listed) -> Value {
    match &one.snapshot {
        Ok(info) => {
            let mut value = info_json(info);
            value["exclusive_bytes"] = json!(one.exclusive_bytes);
            value
        }
        Err(error) => json!({
            "name": one.name, "id": one.id, "created_unix": one.created_unix, "damaged": error.to_string(),
        }),
    }
}

fn info_json(info: &SnapshotInfo) -> Value {
    json!({
        "name": info.name, "id": info.id, "guest": info.guest_name,
        "uuid": DomHandle::new(info.guest_uuid).to_string(), "mode": info.mode, "created_unix": info.created_unix,
        "sealed_unix": info.sealed_unix, "generation": info.generation.0, "max_gfn": info.max_gfn.raw(),
        "data_pages": info.data_pages, "zero_pages": info.zero_pages, "memory_bytes": memory(info),
        "stored_bytes": info.stored_bytes, "runs": info.runs, "rounds": info.rounds,
        "pages_sent": info.pages_sent, "capture_us": info.pause_us, "elapsed_us": info.elapsed_us,
        "digest": info.root_digest.to_string(), "kind": kind(info), "base": info.lineage.base,
        "why_full": info.lineage.why_full, "shared_pages": info.lineage.shared_pages,
    })
}

/// What it was made as.
fn kind(info: &SnapshotInfo) -> &str {
    if info.lineage.kind.is_empty() { "full" } else { &info.lineage.kind }
}

/// What it was made beside.
fn lineage(info: &SnapshotInfo) -> String {
    let about = &info.lineage;
    let why = if about.why_full.is_empty() { String::new() } else { format!(", because {}", about.why_full) };
    if about.base.is_empty() {
        return format!("{}{why}", kind(info));
    }
    format!("{}{why}; {} pages were those of {}", kind(info), about.shared_pages, about.base)
}

/// Shows one snapshot.
pub fn show(text: &str, place: &Place) -> Outcome {
    let name = parse_name(text)?.to_string();
    let (mut store, doubt) = catalog::look(place)?;
    let mut reader = store.snapshot(&name).map_err(|error| catalog::trouble(&name, error))?;
    let config = reader.attachment(AttachmentKind::CONFIG_JSON).map_err(|error| catalog::trouble(&name, error))?;
    let disks = match config {
        Some(text) => Config::from_json(&text)?.disks()?,
        None => Vec::new(),
    };
    let kept = image::kept_disks(&mut reader)?;
    let kept: BTreeMap<&str, &str> = kept.split(';').filter_map(|disk| disk.split_once('=')).collect();
    let trace = trace::of(&mut reader);
    let counted = reader.attachment(AttachmentKind::STATS).map_err(|error| catalog::trouble(&name, error))?;
    let counted = counts(&counted.unwrap_or_default());
    let info = reader.info();
    if place.json {
        let disks = disks.iter().map(|disk| {
            let kept = kept.get(disk.vdev.as_str());
            json!({ "vdev": disk.vdev, "path": disk.path, "writable": disk.writable, "kept": kept })
        });
        let mut value = info_json(info);
        value["disks"] = disks.collect();
        value["trace"] = trace::to_json(trace.as_ref().ok());
        value["counted"] = json!(counted);
        return show::print_json(&value).and(doubt);
    }
    let mut rows = rows(info);
    if let Some(calls) = counted.get("pause-calls") {
        rows.push(vec!["hypercalls in it".to_owned(), calls.to_string()]);
    }
    for disk in &disks {
        let access = if disk.writable { "writable" } else { "read-only" };
        let kept = kept.get(disk.vdev.as_str()).map_or_else(String::new, |path| format!(", kept as {path}"));
        rows.push(vec![format!("disk {}", disk.vdev), format!("{} ({access}){kept}", disk.path)]);
    }
    let rounds = trace.map_or_else(|why| format!("no table of rounds: {why}"), |trace| trace::table(&trace));
    show::print(&format!("{}\n\n{rounds}", show::table(&["snapshot", &name], rows))).and(doubt)
}

/// What the session counted (docs/protocol/xenstore.md, status): whatever is `key=number`.
fn counts(text: &[u8]) -> BTreeMap<String, u64> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines.filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?))).collect()
}

fn rows(info: &SnapshotInfo) -> Vec<Vec<String>> {
    let row = |what: &str, value: String| vec![what.to_owned(), value];
    vec![
        row("guest", format!("{} ({})", info.guest_name, DomHandle::new(info.guest_uuid))),
        row("taken", format!("{} UTC, mode {}", show::moment(info.created_unix), info.mode)),
        row("sealed", format!("{} UTC, generation {}", show::moment(info.sealed_unix), info.generation)),
        row(
            "memory",
            format!("{} ({} pages with data, {} zero)", show::size(memory(info)), info.data_pages, info.zero_pages),
        ),
        row("stored", format!("{} in {} runs", show::size(info.stored_bytes), info.runs)),
        row("kind", lineage(info)),
        row("rounds", format!("{}, {} pages sent", info.rounds, info.pages_sent)),
        row("time", show::time(info.elapsed_us)),
        row("our part of the pause", show::time(info.pause_us)),
        row("digest", info.root_digest.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_numbers_and_nothing_else() {
        let counted = counts(b"round=3\npause-calls=17\nerror=\nrubbish\n\xff=1");
        assert_eq!(counted.get("pause-calls"), Some(&17));
        assert_eq!(counted.len(), 3, "{counted:?}");
    }
}
