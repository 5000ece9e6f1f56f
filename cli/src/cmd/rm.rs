//! `livesave rm`: asks the stub to remove a snapshot; only the stub writes to the store.

use super::{faults, follow, recover};
use crate::args::Place;
use crate::exit::{Exit, Outcome};
use crate::host::files;
use crate::host::tree::{self, XenStore};
use crate::stub::{self, Stub};
use crate::{show, waits};
use serde_json::json;
use snapshot::names::{SnapshotName, Token};
use snapshot::request::{Remove, Request};
use snapshot::status::Status;
use std::time::{Duration, Instant};
use xen_drivers::xenstore::Nodes;

/// Between two looks at the answer.
const LOOK: Duration = Duration::from_millis(200);

/// A name from the command line.
pub fn parse_name(text: &str) -> Outcome<SnapshotName> {
    text.parse().map_err(|error| {
        Exit::Usage.fail(format_args!("'{text}' is no snapshot: {error}")).hint("`livesave ls` shows the snapshots")
    })
}

/// Removes a snapshot.
pub fn run(text: &str, place: &Place) -> Outcome {
    let name = parse_name(text)?;
    remove(&name, place)?;
    if place.json {
        return show::print_json(&json!({ "removed": name.to_string() }));
    }
    show::print(&format!("removed {name}"))
}

/// Asks the stub to remove it, and waits for the answer.
pub fn remove(name: &SnapshotName, place: &Place) -> Outcome {
    let mut store = tree::connect()?;
    let stub = stub::trusted(&mut store, place)?;
    let request = Request::Remove(Remove { token: Token(files::random()?), name: name.clone() });
    let status = ask(&mut store, &stub, &request)?;
    if let Some(failure) = faults::judge(&status, &format!("the removal of {name}")) {
        return Err(failure);
    }
    stub::remember(&mut store, &stub.domain);
    recover::end_guards();
    Ok(())
}

/// Sends a request that needs no keeper, and waits for its final status.
pub fn ask(store: &mut XenStore, stub: &Stub, request: &Request) -> Outcome<Status> {
    let (token, base) = (request.token(), stub::base(&stub.domain));
    let text = request.to_string();
    let written = store.watch(&base, "livesave").and_then(|()| store.write(&format!("{base}/request"), text));
    written.map_err(|error| tree::trouble("the request", error))?;
    let (asked, mut last) = (Instant::now(), None);
    let mut heard = asked;
    loop {
        let status = follow::status_of(store, &base, token)?;
        if let Some(last) = status.clone().filter(|status| status.state.is_final()) {
            return Ok(last);
        }
        if status != last {
            (heard, last) = (Instant::now(), status);
        }
        if heard.elapsed() >= waits::STUB {
            return Err(Exit::StubDied.fail("the stub does not answer").hint("`xl console` shows its log"));
        }
        let until = store.now_ns().saturating_add(u64::try_from(LOOK.as_nanos()).unwrap_or(0));
        store.next_event(until).map_err(|error| tree::trouble("waiting for the stub", error))?;
    }
}
