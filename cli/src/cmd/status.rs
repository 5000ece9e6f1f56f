//! `livesave status`: the stub, the session under way or the last one, and the keepers of this host.

use crate::args::Place;
use crate::exit::{Exit, Outcome};
use crate::host::{files, tree};
use crate::keeper::record::{self, Record, Stage};
use crate::stub::{self, Stub};
use crate::{queue, show};
use serde_json::{Value, json};
use snapshot::status::{Status, StubState};
use xen_drivers::xenstore::Nodes;

/// Shows it.
pub fn run(place: &Place) -> Outcome {
    let mut store = tree::connect()?;
    let keepers = keepers()?;
    let stub = stub::read(&mut store, place);
    let (stub, session) = match stub {
        Ok(stub) => {
            let text = store.find_text(&format!("{}/status", stub::base(&stub.domain)));
            let text = text.map_err(|error| tree::trouble("the session", error))?;
            (Ok(stub), text.and_then(|text| Status::parse(text.as_bytes()).ok()))
        }
        Err(failure) if keepers.is_empty() => return Err(failure),
        Err(failure) => (Err(failure), None),
    };
    let waiting = stub.as_ref().map_or_else(|_| Vec::new(), |stub| in_queue(&stub.domain.name));
    if place.json {
        let stub = stub.as_ref().map_or_else(|failure| json!({ "error": failure.exit.word() }), stub_json);
        let session = session.as_ref().map(session_json);
        let keepers: Vec<Value> = keepers.iter().map(keeper_json).collect();
        let queue: Vec<&str> = waiting.iter().map(|one| one.guest.as_str()).collect();
        return show::print_json(&json!({ "stub": stub, "session": session, "keepers": keepers, "queue": queue }));
    }
    let mut lines = vec![stub.as_ref().map_or_else(ToString::to_string, stub_line)];
    lines.push(session.as_ref().map_or_else(|| "no session yet".to_owned(), session_line));
    lines.extend(keepers.iter().map(keeper_line));
    lines.extend(waiting.iter().map(|one| format!("in the queue: a take of '{}'", one.guest)));
    show::print(&lines.join("\n"))
}

/// Whose takes wait for this stub, or run; for people, so an unreadable queue is an empty one.
fn in_queue(stub: &str) -> Vec<queue::Waiting> {
    queue::waiting(&files::run_dir(), stub).unwrap_or_default()
}

/// A record, and whether its keeper lives.
type Kept = (Record, bool);

/// Every keeper that left a record. A keeper lives as long as it holds its guest's lock.
pub fn keepers() -> Outcome<Vec<Kept>> {
    let dir = files::make_run_dir()?;
    let records = record::all(&dir).map_err(|error| Exit::Internal.fail(format_args!("{}: {error}", dir.display())))?;
    let records = records.into_iter().filter_map(|(_, record)| record.ok());
    records.map(|record| lives(&record).map(|lives| (record, lives))).collect()
}

/// Whether the keeper of a record lives.
pub fn lives(record: &Record) -> Outcome<bool> {
    Ok(files::lock(&format!("guest-{}", record.job.handle))?.is_none())
}

fn state_word(state: StubState) -> &'static str {
    match state {
        StubState::Starting => "starting",
        StubState::Idle => "idle",
        StubState::Busy => "busy",
        StubState::Failed => "failed",
    }
}

fn stub_json(stub: &Stub) -> Value {
    let node = &stub.node;
    json!({
        "domid": stub.domain.domid.raw(), "name": stub.domain.name, "state": state_word(node.state),
        "reason": node.reason.as_str(), "version": node.version.as_str(), "memory_total": node.memory_total,
        "memory_free": node.memory_free, "xenstore_requests": node.xenstore_requests,
        "store_id": node.store_id.map(|id| id.to_string()), "generation": node.generation, "blocks": node.blocks,
        "armed": node.armed.as_str().split(' ').filter_map(|domid| domid.parse::<u16>().ok()).collect::<Vec<_>>(),
    })
}

fn stub_line(stub: &Stub) -> String {
    let node = &stub.node;
    let reason = if node.reason.is_empty() { String::new() } else { format!(" ({})", node.reason) };
    let armed = &node.armed;
    let tracked = if armed.is_empty() { String::new() } else { format!("; stays tracked: domain {armed}") };
    format!(
        "stub {} (domain {}): {}{reason}; {} of {} memory free; store of {}, generation {}{tracked}",
        stub.domain.name,
        stub.domain.domid,
        state_word(node.state),
        show::size(node.memory_free),
        show::size(node.memory_total),
        show::size(node.blocks.saturating_mul(4096)),
        node.generation
    )
}

fn session_json(status: &Status) -> Value {
    let c = status.counters;
    json!({
        "token": status.token.to_string(), "state": status.state.word(), "final": status.state.is_final(),
        "error": status.fault.map(snapshot::fault::Fault::word), "reason": status.reason.as_str(),
        "round": c.round, "rounds": c.rounds, "pages": c.pages, "zero_pages": c.zero, "dirty": c.dirty,
        "bytes": c.bytes, "elapsed_us": c.elapsed_us,
    })
}

fn session_line(status: &Status) -> String {
    let c = status.counters;
    let which = if status.state.is_final() { "last session" } else { "session under way" };
    let reason = if status.reason.is_empty() { String::new() } else { format!(" ({})", status.reason) };
    format!(
        "{which}: {}{reason}; round {}/{}, {} pages, {}, {}",
        status.state,
        c.round,
        c.rounds,
        c.pages,
        show::size(c.bytes),
        show::time(c.elapsed_us)
    )
}

fn keeper_json((record, lives): &Kept) -> Value {
    let job = &record.job;
    json!({ "pid": record.pid, "alive": lives, "guest": job.guest, "domid": job.domid, "stage": record.stage })
}

fn keeper_line((record, lives): &Kept) -> String {
    let stage = match record.stage {
        Stage::Watching => "the guest is untouched",
        Stage::Silenced => "about to suspend the guest",
        Stage::Asked => "the guest was asked to suspend",
        Stage::Standing => "the guest stands",
        Stage::Resumed => "the guest was resumed",
        Stage::Tracking => "dirty tracking may be on",
        Stage::Done => "over",
    };
    let pid = record.pid;
    let life = if *lives { format!("keeper {pid}") } else { format!("DEAD keeper {pid} (`livesave recover`)") };
    format!("{life} of '{}' (domain {}): {stage}", record.job.guest, record.job.domid)
}
