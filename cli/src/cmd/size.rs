//! `livesave store size`: how large a device to make for so many snapshots of a guest.

use crate::args::{Mode, Place};
use crate::exit::{Exit, Outcome};
use crate::host::tree;
use crate::host::xen::{self, Xen};
use crate::{domain, show};
use serde_json::json;
use snapshot::policy::{Policy, Settings};
use snapshot::store::device_blocks;

/// Says it.
pub fn run(guest: Option<&str>, memory_mib: Option<u64>, keep: u64, mode: Mode, place: &Place) -> Outcome {
    let memory = match (guest, memory_mib) {
        (_, Some(mib)) => mib.saturating_mul(1 << 20),
        (Some(guest), None) => memory_of(guest)?,
        (None, None) => return Err(Exit::Usage.fail("neither --guest nor --memory was given")),
    };
    let factor = Policy::new(super::choices::mode(mode), Settings::default()).reserve_factor();
    let Some(blocks) = device_blocks(memory, keep, factor) else {
        return Err(Exit::NoSpace.fail("no store can be that large").hint("keep fewer, or use several stores"));
    };
    let bytes = blocks.saturating_mul(4096);
    if place.json {
        return show::print_json(&json!({
            "bytes": bytes, "memory_bytes": memory, "keep": keep, "take_bytes": memory.saturating_mul(factor),
        }));
    }
    let mib = bytes.div_ceil(1 << 20);
    show::print(&format!(
        "{mib} MiB ({}) hold {keep} snapshots of {} of memory, and a take that may write {} beside them\n\
         for example: lvcreate -L {mib}m -n livesave VG",
        show::size(bytes),
        show::size(memory),
        show::size(memory.saturating_mul(factor)),
    ))
}

/// What the guest may have at most.
fn memory_of(guest: &str) -> Outcome<u64> {
    let mut store = tree::connect()?;
    let found = domain::resolve_guest(&mut store, guest)?;
    let info = Xen::open()?.info(found.domid, None).map_err(|error| xen::trouble("getdomaininfo", error))?;
    let info = info.ok_or_else(|| Exit::NoDomain.fail(format_args!("'{guest}' has gone")))?;
    Ok(info.max_pages.max(info.tot_pages).saturating_mul(4096))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_said_for_memory_and_refused_without_any() {
        let place = Place { stub: String::new(), store: None, json: true };
        run(None, Some(1024), 7, Mode::Live, &place).unwrap();
        assert_eq!(run(None, None, 7, Mode::Live, &place).unwrap_err().exit, Exit::Usage);
        assert_eq!(run(None, Some(u64::MAX), 7, Mode::Live, &place).unwrap_err().exit, Exit::NoSpace);
    }
}
