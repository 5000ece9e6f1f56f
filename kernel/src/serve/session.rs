//! One request, from its text to its last word; whatever it used is given back before the next one is read.

use alloc::format;
use alloc::vec::Vec;

use snapshot::fault::Fault;
use snapshot::pv::AnyTarget;
use snapshot::request::{Disarm, Remove, Take};
use snapshot::session::Trouble;
use snapshot::status::{State, Status};
use snapshot::store;
use snapshot::take::{Engine, Hold, Options, StoreRecorder};
use xen_drivers::platform::Platform;
use xen_drivers::xenstore::{Nodes, XsError};
use xen_hypercall::{DomId, EvtchnPort};

use super::line::Line;
use crate::platform::Xen;
use crate::ports::{Disk, XenTarget};
use crate::{info, mm, warn};

/// Bytes of the heap that a take leaves alone: the store's and xenstore's own working memory.
const HEAP_RESERVE: usize = 2 << 20;

/// Takes a snapshot. The status node has the outcome; an error here is the end of xenstore.
pub fn take(line: &mut Line, store: &mut store::Store<Disk>, take: &Take, hold: Option<Hold>) -> Result<(), XsError> {
    let config = match config(line, take)? {
        Ok(config) => config,
        Err(trouble) => return line.refuse(take.token, trouble.fault, trouble.reason),
    };
    let port = match Xen.bind_interdomain(DomId::DOM0, take.release_port) {
        Ok(port) => port,
        Err(error) => return line.refuse(take.token, Fault::ReleasePort, error),
    };
    let answer = with_port(line, store, take, &config, port, hold);
    line.end();
    Xen.close_port(port);
    answer
}

fn with_port(
    line: &mut Line,
    store: &mut store::Store<Disk>,
    take: &Take,
    config: &[u8],
    port: EvtchnPort,
    hold: Option<Hold>,
) -> Result<(), XsError> {
    let mut target = match XenTarget::new(take.domid, take.handle).and_then(AnyTarget::open) {
        Ok(target) => target,
        Err(error) => {
            let trouble = Trouble::from(error);
            return line.refuse(take.token, trouble.fault, trouble.reason);
        }
    };
    line.begin(take.token, port)?;
    info!("take {} of domain {} ({}), mode {}", take.name, take.domid, take.handle, take.mode.as_str());
    let mut recorder = StoreRecorder::new(store);
    let before = line.vigil().before(take.domid, take.handle);
    let options = Options { memory_bytes: mm::heap::free().saturating_sub(HEAP_RESERVE), hold };
    let engine = Engine::new(&mut target, line, &mut recorder, take, config, options);
    let (status, after) = engine.run_after(before);
    line.vigil().keep(take.handle, after);
    match &status.fault {
        None => info!("{}: {:?}", status.state, status.counters),
        Some(fault) => warn!("{}: {fault}: {} {:?}", status.state, status.reason, status.counters),
    }
    Ok(())
}

/// Puts the configuration's slices together.
fn config(line: &mut Line, take: &Take) -> Result<Result<Vec<u8>, Trouble>, XsError> {
    let mut config = Vec::new();
    for index in 0..take.config_chunks {
        match line.store().read(&format!("data/livesave/config/{index}")) {
            Ok(slice) if slice.len() <= snapshot::request::CONFIG_CHUNK_BYTES => config.extend_from_slice(&slice),
            Ok(_) => return Ok(Err(Trouble::new(Fault::BadConfig, format_args!("config/{index} is too long")))),
            Err(error) if error.is_missing() => {
                return Ok(Err(Trouble::new(Fault::BadConfig, format_args!("config/{index} is missing"))));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Ok(config))
}

/// Removes a snapshot.
pub fn remove(line: &mut Line, store: &mut store::Store<Disk>, remove: &Remove) -> Result<(), XsError> {
    let name = format!("{}", remove.name);
    let status = match store.remove(&name) {
        Ok(()) => {
            info!("removed {name}");
            line.vigil().removed(store);
            Status::new(remove.token, State::Done)
        }
        Err(error) => {
            warn!("removing {name}: {error}");
            let trouble = Trouble::from(error);
            Status { state: State::Failed, ..Status::refused(remove.token, trouble.fault, trouble.reason) }
        }
    };
    line.report(&status)
}

/// Ends the tracking of a guest.
pub fn disarm(line: &mut Line, disarm: &Disarm) -> Result<(), XsError> {
    let status = match line.vigil().disarm(disarm.domid, disarm.handle) {
        Ok(true) => Status::new(disarm.token, State::Done),
        Ok(false) => Status {
            state: State::Failed,
            ..Status::refused(disarm.token, Fault::NotArmed, "the stub does not track this guest")
        },
        Err(error) => {
            let trouble = Trouble::from(error);
            Status { state: State::Failed, ..Status::refused(disarm.token, trouble.fault, trouble.reason) }
        }
    };
    line.report(&status)
}
