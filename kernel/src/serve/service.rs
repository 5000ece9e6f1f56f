//! The service itself: one store, one line to dom0, one request at a time.
//!
//! It has no state but the open store: whatever a session used is given back before the next request is read, and the
//! counts of pages, grants, ports and mappings prove it.

use alloc::format;
use alloc::string::{String, ToString};

use snapshot::fault::Fault;
use snapshot::fields::{self, ParseError};
use snapshot::names::Token;
use snapshot::request::Request;
use snapshot::status::{StubNode, StubState};
use snapshot::store;
use snapshot::take::Hold;
use xen_drivers::xenstore::{Nodes, XsError};

use super::beat::Beat;
use super::line::{Line, Stop, Store};
use super::{disk, session};
use crate::boot::CommandLine;
use crate::mm::{self, Budget};
use crate::platform::Held;
use crate::ports::Disk;
use crate::{error, hv, info, warn};

/// Where the stub says how it is.
const STUB: &str = "data/livesave/stub";

/// The whole of it: start, prepare, serve; returns when dom0 wants the domain to end.
pub fn live(store: Store, budget: &Budget, options: Result<CommandLine, String>) -> Result<Stop, XsError> {
    let mut service = Service::start(store, budget)?;
    service.prepare(options)?;
    let stop = service.run()?;
    service.close();
    Ok(stop)
}

/// The service.
pub struct Service {
    line: Line,
    node: StubNode,
    store: Option<store::Store<Disk>>,
    hold: Option<Hold>,
    /// Takes that will still dwell.
    holds: u32,
    vdev: u32,
}

impl Service {
    /// A service that starts: it says so, and listens.
    pub fn start(store: Store, budget: &Budget) -> Result<Self, XsError> {
        let node = StubNode {
            version: fields::Line::of(env!("CARGO_PKG_VERSION")),
            state: StubState::Starting,
            reason: fields::Line::default(),
            memory_total: budget.total * 1024,
            memory_free: 0,
            xenstore_requests: 0,
            store_id: None,
            generation: 0,
            device: fields::Line::default(),
            blocks: 0,
        };
        let mut service = Self { line: Line::new(store), node, store: None, hold: None, holds: 0, vdev: 0 };
        service.say(StubState::Starting)?;
        service.line.listen()?;
        Ok(service)
    }

    /// Connects the disk and opens the store; a failure is said and the service goes on without.
    pub fn prepare(&mut self, options: Result<CommandLine, String>) -> Result<(), XsError> {
        let opened = options.and_then(|options| self.open_store(&options));
        match opened {
            Ok(()) => self.say(StubState::Idle),
            Err(reason) => {
                error!("{reason}");
                self.node.reason = fields::Line::of(reason);
                self.say(StubState::Failed)
            }
        }
    }

    fn open_store(&mut self, options: &CommandLine) -> Result<(), String> {
        (self.hold, self.holds) = (options.hold, options.holds.unwrap_or(1));
        let (vdev, disk) = disk::open(self.line.store(), &options.store).map_err(|error| error.to_string())?;
        self.vdev = vdev;
        self.node.device = fields::Line::of(vdev);
        self.node.blocks = disk.geometry().blocks();
        info!("disk {vdev}: {:?}", disk.geometry());
        let reason = |error: &dyn core::fmt::Display| format!("block device {vdev}: {error}");
        match Beat::claim(disk.clone()) {
            Ok(beat) => _ = self.line.set_beat(beat),
            Err(error) => {
                disk::close(disk, vdev, self.line.store());
                return Err(reason(&error));
            }
        }
        match store::Store::open(disk) {
            Ok(store) => {
                info!("store: {:?}", store.info());
                self.store = Some(store);
                Ok(())
            }
            Err(failed) => {
                self.release(failed.device);
                Err(reason(&failed.error))
            }
        }
    }

    /// Serves until dom0 wants the domain to end.
    pub fn run(&mut self) -> Result<Stop, XsError> {
        info!("serving; {} xenstore requests so far; held: {}", self.line.store().stats().requests, Held::now());
        loop {
            match self.line.wait_request()? {
                Ok(text) => self.request(&text)?,
                Err(stop) => return Ok(stop),
            }
        }
    }

    fn request(&mut self, text: &[u8]) -> Result<(), XsError> {
        self.line.request_done()?;
        let request = match Request::parse(text) {
            Ok(request) => request,
            Err(error) => {
                let token = Request::token_of(text).unwrap_or(Token([0; 16]));
                return self.line.refuse(token, fault_of(&error), error);
            }
        };
        let Some(mut store) = self.store.take() else {
            return self.line.refuse(request.token(), Fault::Store, self.node.reason.clone());
        };
        self.say(StubState::Busy)?;
        let before = Held::now();
        let answer = match &request {
            Request::Take(take) => {
                let hold = if self.holds > 0 { self.hold } else { None };
                self.holds = self.holds.saturating_sub(1);
                session::take(&mut self.line, &mut store, take, hold)
            }
            Request::Remove(remove) => session::remove(&mut self.line, &mut store, remove),
        };
        let after = Held::now();
        if before != after {
            error!("the session left something behind: before {before}, after {after}");
        }
        self.after(store)?;
        answer
    }

    /// The store is whole, or the stub has none any more: what is on a device that failed is known at the next start.
    fn after(&mut self, store: store::Store<Disk>) -> Result<(), XsError> {
        if !store.poisoned() {
            self.store = Some(store);
            return self.say(StubState::Idle);
        }
        self.release(store.into_device());
        self.node.reason = fields::Line::of("the store's device failed: look at the disk, then start the stub again");
        error!("{}", self.node.reason);
        self.say(StubState::Failed)
    }

    /// Gives the disk back before the domain ends.
    fn close(&mut self) {
        if let Some(store) = self.store.take() {
            self.release(store.into_device());
        }
        info!("held at the end: {}", Held::now());
    }

    fn release(&mut self, disk: Disk) {
        self.line.set_beat(None).into_iter().for_each(Beat::close);
        disk::close(disk, self.vdev, self.line.store());
    }

    /// Writes the stub's node.
    fn say(&mut self, state: StubState) -> Result<(), XsError> {
        self.node.state = state;
        self.node.memory_free = mm::heap::free() as u64;
        if let Some(info) = self.store.as_ref().map(store::Store::info) {
            self.node.store_id = Some(Token(info.id.0));
            self.node.generation = info.generation.0;
        }
        self.node.xenstore_requests = self.line.store().stats().requests + 1;
        self.line.store().write(STUB, format!("{}", self.node))
    }
}

fn fault_of(error: &ParseError) -> Fault {
    if *error == ParseError::WrongVersion { Fault::WrongVersion } else { Fault::BadRequest }
}

/// The end of the domain, in good order.
pub fn end(stop: Stop) -> ! {
    warn!("the domain ends: {stop:?}");
    match stop {
        Stop::PowerOff => hv::power_off(),
        Stop::Reboot => hv::reboot(),
    }
}
