//! `livesave disarm`: ends the tracking of a guest that stays tracked between its incremental snapshots.
//!
//! The stub does it if it knows of it. Tracking that a stub left on when it died is switched off from here. While
//! somebody saves or migrates the guest nothing is done: the tracking may be theirs by now.

use super::{faults, recover, rm};
use crate::args::Place;
use crate::domain;
use crate::exit::{Exit, Outcome};
use crate::host::xen::{self, Xen};
use crate::host::{files, tree, xl};
use crate::{marks, show, stub};
use serde_json::json;
use snapshot::fault::Fault;
use snapshot::names::Token;
use snapshot::request::{Disarm, Request};

/// Disarms.
pub fn run(guest: &str, place: &Place) -> Outcome {
    let (mut store, xen) = (tree::connect()?, Xen::open()?);
    let found = domain::resolve_guest(&mut store, guest)?;
    let (domid, name) = (found.domid, &found.name);
    let info = xen.info(domid, None).map_err(|error| xen::trouble("getdomaininfo", error))?;
    let info = info.ok_or_else(|| Exit::NoDomain.fail(format_args!("the guest '{name}' is gone")))?;
    if let Some(saver) = xl::saver_of(domid.raw(), name) {
        let failure = Exit::LogDirtyOn.fail(format_args!("the guest '{name}' is being saved or migrated: {saver}"));
        return Err(failure.hint("its tracking belongs to that: wait for its end"));
    }
    let stub = stub::ready(&mut store, place)?;
    let request = Request::Disarm(Disarm { token: Token(files::random()?), domid, handle: info.handle });
    let status = rm::ask(&mut store, &stub, &request)?;
    let by = if status.fault == Some(Fault::NotArmed) {
        let answer = marks::switch_off(&xen, domid);
        let failed = |error| Exit::Stuck.fail(format_args!("the tracking of '{name}': {error}")).hint("see `xl dmesg`");
        if answer.map_err(failed)? { "switched off from dom0: the stub did not know of it" } else { "was not tracked" }
    } else if let Some(failure) = faults::judge(&status, "the disarming") {
        return Err(failure);
    } else {
        "tracked no more: its next incremental snapshot is a full one"
    };
    marks::forget(&info.handle.to_string())?;
    recover::guard_ended();
    if place.json {
        return show::print_json(&json!({ "guest": name, "outcome": by }));
    }
    show::print(&format!("'{name}': {by}"))
}
