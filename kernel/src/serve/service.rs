//! The service itself: one store, one line to dom0, one request at a time.
//!
//! It has no state but the open store: whatever a session used is given back before the next request is read, and the
//! counts of pages, grants, ports and mappings prove it. A store that is lost (its disk detached, a write failed) is
//! dropped with its connection and opened anew as at a start, a bounded number of times.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use snapshot::fault::Fault;
use snapshot::fields::{self, ParseError};
use snapshot::names::Token;
use snapshot::request::Request;
use snapshot::status::{StubNode, StubState};
use snapshot::store::{self, Cleaned};
use snapshot::take::Hold;
use xen_drivers::platform::Platform;
use xen_drivers::xenstore::{Nodes, XsError};

use super::beat::Beat;
use super::line::{Line, Stop, Store, Wake};
use super::reopen::{ATTEMPTS_MAX, Reopen};
use super::{disk, session};
use crate::boot::{CommandLine, StoreDisk};
use crate::mm::{self, Budget};
use crate::platform::{Held, Xen};
use crate::ports::Disk;
use crate::{error, hv, info, warn};

/// After a request, before the store is cleaned: the next one may come at once.
const QUIET_NS: u64 = 2_000_000_000;
/// Between two steps of cleaning.
const STEP_NS: u64 = 1_000_000;
/// Between two looks at a store that has nothing to be cleaned.
const REST_NS: u64 = 10_000_000_000;

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

/// Why the store is not open.
struct Lost {
    why: String,
    /// Nothing is left of a connection to the disk.
    clean: bool,
}

impl Lost {
    fn clean(why: String) -> Self {
        Self { why, clean: true }
    }
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
    /// Which disk holds the store; None if the command line does not say it well.
    wanted: Option<StoreDisk>,
    /// The backend of that disk when it was last tried.
    tried: Option<String>,
    reopen: Reopen,
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
            armed: fields::Line::default(),
        };
        let line = Line::new(store);
        let reopen = Reopen::default();
        let (hold, holds) = (None, 0);
        let mut service = Self { line, node, store: None, hold, holds, vdev: 0, wanted: None, tried: None, reopen };
        service.say(StubState::Starting)?;
        service.line.listen()?;
        Ok(service)
    }

    /// Connects the disk and opens the store; a failure is said and the service goes on without.
    pub fn prepare(&mut self, options: Result<CommandLine, String>) -> Result<(), XsError> {
        let opened = options.map_err(Lost::clean).and_then(|options| {
            (self.hold, self.holds) = (options.hold, options.holds.unwrap_or(1));
            let wanted = self.wanted.insert(options.store).clone();
            self.open_store(&wanted)
        });
        match opened {
            Ok(()) => self.serve(),
            // What fails at boot is a matter of the configuration: no attempts but after an attach.
            Err(lost) => self.fail(&lost.why),
        }
    }

    /// The store is open.
    fn serve(&mut self) -> Result<(), XsError> {
        self.reopen.opened(Xen.now_ns());
        self.node.reason = fields::Line::default();
        self.say(StubState::Idle)
    }

    /// There is no store; says why, and what is done about it.
    fn fail(&mut self, why: &str) -> Result<(), XsError> {
        error!("{why}");
        self.tried = self.wanted.as_ref().and_then(|wanted| disk::backend(self.line.store(), wanted));
        self.node.reason = match self.reopen.upcoming() {
            Some(attempt) => fields::Line::of(format_args!("{why}; trying again ({attempt} of {ATTEMPTS_MAX})")),
            None => fields::Line::of(format_args!("{why}{}", self.reopen.way_out())),
        };
        self.say(StubState::Failed)
    }

    fn open_store(&mut self, wanted: &StoreDisk) -> Result<(), Lost> {
        let (vdev, disk) = disk::open(self.line.store(), wanted).map_err(|error| Lost::clean(error.to_string()))?;
        self.vdev = vdev;
        self.node.device = fields::Line::of(vdev);
        self.node.blocks = disk.geometry().blocks();
        info!("disk {vdev}: {:?}", disk.geometry());
        let reason = |error: &dyn core::fmt::Display| format!("block device {vdev}: {error}");
        match Beat::claim(disk.clone()) {
            Ok(beat) => _ = self.line.set_beat(beat),
            Err(error) => {
                let clean = disk::close(disk, vdev, self.line.store());
                return Err(Lost { why: reason(&error), clean });
            }
        }
        match store::Store::open(disk) {
            Ok(store) => {
                info!("store: {:?}", store.info());
                self.store = Some(store);
                Ok(())
            }
            Err(failed) => {
                let clean = self.release(failed.device);
                Err(Lost { why: reason(&failed.error), clean })
            }
        }
    }

    /// Serves until dom0 wants the domain to end.
    pub fn run(&mut self) -> Result<Stop, XsError> {
        info!("serving; {} xenstore requests so far; held: {}", self.line.store().stats().requests, Held::now());
        let mut idle_ns = Xen.now_ns().saturating_add(QUIET_NS);
        loop {
            let until_ns = if self.store.is_some() { idle_ns } else { self.reopen.next_ns() };
            match self.line.wait_idle(until_ns)? {
                Wake::Request(text) => {
                    self.request(text)?;
                    idle_ns = Xen.now_ns().saturating_add(QUIET_NS);
                }
                Wake::Stop(stop) => return Ok(stop),
                Wake::DiskLost(why) => self.lost(why.as_str())?,
                Wake::Devices => self.devices(),
                Wake::Disarmed => self.say(self.node.state)?,
                Wake::Time if self.store.is_some() => idle_ns = self.tidy_up()?,
                Wake::Time => self.open_again()?,
            }
        }
    }

    /// Lets go of a store whose device failed or goes away. What lies on the device is found out by opening it anew.
    fn lost(&mut self, why: &str) -> Result<(), XsError> {
        let clean = self.store.take().is_none_or(|store| self.release(store.into_device()));
        self.reopen.lost(Xen.now_ns(), clean);
        self.fail(&format!("the store's disk: {why}"))
    }

    /// A disk that was attached since the last attempt is tried at once.
    fn devices(&mut self) {
        let Some(wanted) = self.wanted.as_ref().filter(|_| self.store.is_none()) else { return };
        let backend = disk::backend(self.line.store(), wanted);
        if backend != self.tried && backend.is_some() {
            info!("a disk was attached");
            self.reopen.attached(Xen.now_ns());
        }
        self.tried = backend;
    }

    fn open_again(&mut self) -> Result<(), XsError> {
        let Some(wanted) = self.wanted.clone() else { return Ok(()) };
        match self.open_store(&wanted) {
            Ok(()) => self.serve(),
            Err(lost) => {
                self.reopen.failed(Xen.now_ns(), lost.clean);
                self.fail(&lost.why)
            }
        }
    }

    /// A bounded piece of cleaning while nobody asks for anything. Returns when to go on.
    fn tidy_up(&mut self) -> Result<u64, XsError> {
        let now_ns = Xen.now_ns();
        let Some(store) = &mut self.store else { return Ok(u64::MAX) };
        store.set_now(now_ns);
        if let Err(error) = store.reclaim() {
            warn!("leases: {error}");
        }
        match store.clean_step() {
            // A moment for xenstore between two steps: a request comes first.
            Ok(Cleaned::Working) => return Ok(Xen.now_ns().saturating_add(STEP_NS)),
            Ok(Cleaned::Nothing) => return Ok(now_ns.saturating_add(REST_NS)),
            Ok(Cleaned::Freed { snapshot, segments }) => info!("cleaned snapshot {snapshot}: {segments} MiB let go"),
            Err(error) => error!("cleaning: {error}"),
        }
        // The generation has moved, or the store is lost: both are to be said.
        if let Some(store) = self.store.take() {
            self.after(store)?;
        }
        Ok(Xen.now_ns().saturating_add(STEP_NS))
    }

    /// Carries a request out. Nothing of it is on the heap any more when the stub says how much memory is free.
    fn request(&mut self, text: Vec<u8>) -> Result<(), XsError> {
        self.line.request_done()?;
        let request = match Request::parse(&text) {
            Ok(request) => request,
            Err(error) => {
                let token = Request::token_of(&text).unwrap_or(Token([0; 16]));
                return self.line.refuse(token, fault_of(&error), error);
            }
        };
        drop(text);
        let Some(mut store) = self.store.take() else {
            return self.line.refuse(request.token(), Fault::Store, self.node.reason.clone());
        };
        store.set_now(Xen.now_ns());
        store.stop_cleaning();
        self.say(StubState::Busy)?;
        let before = Held::now();
        let answer = match request {
            Request::Take(take) => {
                let hold = if self.holds > 0 { self.hold } else { None };
                self.holds = self.holds.saturating_sub(1);
                session::take(&mut self.line, &mut store, &take, hold)
            }
            Request::Remove(remove) => session::remove(&mut self.line, &mut store, &remove),
            Request::Disarm(disarm) => session::disarm(&mut self.line, &disarm),
        };
        let after = Held::now();
        if before != after {
            error!("the session left something behind: before {before}, after {after}");
        }
        self.after(store)?;
        answer
    }

    /// The store is whole, or the stub has none any more.
    fn after(&mut self, store: store::Store<Disk>) -> Result<(), XsError> {
        let poisoned = store.poisoned();
        self.store = Some(store);
        match self.line.disk_lost() {
            Some(why) => self.lost(why.as_str()),
            None if poisoned => self.lost("a write or a flush failed"),
            None => self.say(StubState::Idle),
        }
    }

    /// Gives the disk back before the domain ends.
    fn close(&mut self) {
        self.line.vigil().end();
        if let Some(store) = self.store.take() {
            self.release(store.into_device());
        }
        info!("held at the end: {}", Held::now());
    }

    /// Whether nothing of the connection is left.
    fn release(&mut self, disk: Disk) -> bool {
        self.line.set_beat(None).into_iter().for_each(Beat::close);
        disk::close(disk, self.vdev, self.line.store())
    }

    /// Writes the stub's node.
    fn say(&mut self, state: StubState) -> Result<(), XsError> {
        self.node.state = state;
        self.node.armed = self.line.vigil().list();
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
