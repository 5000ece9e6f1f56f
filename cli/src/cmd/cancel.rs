//! `livesave cancel`: ends the session under way. The keeper and the stub each hear it, whichever comes first.

use crate::args::Place;
use crate::exit::{Exit, Outcome};
use crate::host::tree;
use crate::{show, stub};
use serde_json::json;
use snapshot::status::Status;
use snapshot::verdict::Cancel;
use xen_drivers::xenstore::Nodes;

/// Cancels.
pub fn run(place: &Place) -> Outcome {
    let mut store = tree::connect()?;
    let stub = stub::read(&mut store, place)?;
    let base = stub::base(&stub.domain);
    let trouble = |error| tree::trouble("the session", error);
    let text = store.find_text(&format!("{base}/status")).map_err(trouble)?;
    let status = text.and_then(|text| Status::parse(text.as_bytes()).ok());
    let Some(status) = status.filter(|status| !status.state.is_final()) else {
        return Err(Exit::NoSnapshot.fail("no session is under way").hint("`livesave status` shows the last one"));
    };
    let word = Cancel { token: status.token }.to_string();
    store.write(&format!("{base}/cancel"), word).map_err(trouble)?;
    if place.json {
        return show::print_json(&json!({ "cancelled": status.token.to_string() }));
    }
    show::print("the session was asked to end; `livesave status` shows its end")
}
