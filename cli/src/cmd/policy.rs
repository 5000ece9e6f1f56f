//! `livesave policy`: shows, gives or takes away what a guest's takes are when nobody says it.

use crate::args;
use crate::args::Place;
use crate::domain;
use crate::exit::{Exit, Outcome};
use crate::host::tree;
use crate::host::xen::{self, Xen};
use crate::policy::{self, Policy};
use crate::show;
use serde_json::json;
use snapshot::request::parse_uuid;

/// Shows it, or changes it.
pub fn run(args: &args::Policy, place: &Place) -> Outcome {
    let (handle, pv) = whose(&args.guest)?;
    let said = if args.none {
        if policy::remove(&handle)? { "has no policy any more" } else { "had no policy" }
    } else if args.incremental {
        refuse_untracked(args, pv)?;
        policy::write(&handle, Policy::incremental(args.pv_tracking, args.guard))?;
        "has a new policy"
    } else {
        "has this policy"
    };
    let now = policy::read(&handle)?;
    let options = now.map(Policy::options);
    if place.json {
        return show::print_json(&json!({ "guest": args.guest, "uuid": handle, "policy": options }));
    }
    let takes = options.map_or_else(
        || "its takes are full ones unless it is said".to_owned(),
        |words| format!("`livesave take` means {words}"),
    );
    let said = if now.is_none() && !args.none { "has no policy" } else { said };
    show::print(&format!("'{}' {said}: {takes}", args.guest))
}

/// The guest's uuid, and whether it is a PV guest if it runs. One that does not run is named by its uuid.
fn whose(word: &str) -> Outcome<(String, Option<bool>)> {
    if let Some(handle) = parse_uuid(word) {
        return Ok((handle.to_string(), None));
    }
    let found = domain::resolve_guest(&mut tree::connect()?, word)?;
    let info = Xen::open()?.info(found.domid, None).map_err(|error| xen::trouble("getdomaininfo", error))?;
    let info = info.ok_or_else(|| Exit::NoDomain.fail(format_args!("the guest '{}' is gone", found.name)))?;
    Ok((info.handle.to_string(), Some(!info.is_hvm())))
}

/// A policy that every take of the guest would be refused for.
fn refuse_untracked(args: &args::Policy, pv: Option<bool>) -> Outcome {
    if pv == Some(true) && !args.pv_tracking {
        return Err(super::choices::pv_is_asked_for(&args.guest));
    }
    Ok(())
}
