//! The handshake of a block device over xenstore, and its end.
//!
//! The machine of [`crate::xenbus`] says what to do; here it is done. Features are read once, before the ring is built;
//! geometry once, when the backend says Connected. No transaction is needed: a backend looks at our nodes only after
//! `state` has become Initialised, and that node is written last. Every failure gives everything back.

use super::device::{Blkfront, Parts};
use super::error::{ConnectError, IoError};
use super::geometry::{Geometry, RawGeometry, number};
use super::plan::{Built, Options, Plan, RING_ORDER_MAX};
use super::request::DIRECT_MAX;
use crate::platform::Platform;
use crate::types::DomId;
use crate::xenbus::{Failure, Handshake, State, Step};
use crate::xenstore::wire::parse_decimal;
use crate::xenstore::{Client, Nodes, Wire, XsError};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use xen_hypercall::XenErrno;
use xen_hypercall::abi::io::blkif as abi;

/// How long the backend may take to let go of a connection that failed halfway.
const ABANDON_TIMEOUT_NS: u64 = 5_000_000_000;
/// A watch event may be lost in a flood: the state is looked at this often in any case.
const LOOK_AGAIN_NS: u64 = 1_000_000_000;

/// How a device was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseReport {
    /// The fault that the device had, if any; requests under way were waited for.
    pub drained: Result<(), IoError>,
    /// Whether the backend said Closed.
    pub handshake: Result<(), ConnectError>,
    /// Pages that the backend still maps; they are never used again.
    pub grants_held: usize,
}

/// The virtual device numbers of this domain's block devices, in order.
pub fn list<W: Wire>(store: &mut Client<W>) -> Result<Vec<u32>, ConnectError> {
    let names = match store.directory("device/vbd") {
        Err(error) if error.is_missing() => return Ok(Vec::new()),
        names => names?,
    };
    let parsed: Result<Vec<u32>, _> = names.iter().map(|name| parse_decimal(name)).collect();
    let mut numbers = parsed.map_err(|_| ConnectError::BadNode("device/vbd"))?;
    numbers.sort_unstable();
    Ok(numbers)
}

/// Connects the device `vdev` (`device/vbd/<vdev>`) before the deadline.
pub fn connect<P: Platform + Clone, W: Wire>(
    platform: P,
    store: &mut Client<W>,
    vdev: u32,
    options: &Options,
    deadline_ns: u64,
) -> Result<Blkfront<P>, ConnectError> {
    let mut link = Link::find(store, vdev)?;
    store.watch(&link.backend_node("state"), &link.token)?;
    let mut built = None;
    let outcome = link.establish(&platform, store, options, &mut built, deadline_ns);
    match (outcome, built) {
        (Ok(geometry), Some(built)) => Ok(Blkfront::new(built.finish(platform, link, geometry, options))),
        (Ok(_), None) => Err(ConnectError::Handshake(Failure::Closed)),
        (Err(error), built) => {
            link.abandon(store);
            drop(built);
            Err(error)
        }
    }
}

/// Where the device's two ends stand in xenstore.
pub(super) struct Link {
    vdev: u32,
    front: String,
    back: String,
    peer: DomId,
    token: String,
    handshake: Handshake,
}

impl Link {
    fn find<W: Wire>(store: &mut Client<W>, vdev: u32) -> Result<Self, ConnectError> {
        let front = format!("device/vbd/{vdev}");
        let back = store.find_text(&format!("{front}/backend"))?.ok_or(ConnectError::NoDevice)?;
        let peer = store.find_text(&format!("{front}/backend-id"))?.ok_or(ConnectError::BadNode("backend-id"))?;
        let peer = DomId::new(parse_decimal(&peer).map_err(|_| ConnectError::BadNode("backend-id"))?);
        let (token, handshake) = (format!("vbd-{vdev}"), Handshake::default());
        Ok(Self { vdev, front, back, peer, token, handshake })
    }

    /// The device number as requests carry it; the backend ignores it.
    pub(super) fn handle(&self) -> u16 {
        self.vdev as u16
    }

    fn front_node(&self, name: &str) -> String {
        format!("{}/{name}", self.front)
    }

    fn backend_node(&self, name: &str) -> String {
        format!("{}/{name}", self.back)
    }

    fn set_state<W: Wire>(&self, store: &mut Client<W>, state: State) -> Result<(), XsError> {
        store.write(&self.front_node("state"), state.as_text())
    }

    /// Waits for a change of the backend's state, or for the time to look again, then looks.
    fn next_step<W: Wire>(&mut self, store: &mut Client<W>, deadline_ns: u64) -> Result<Step, ConnectError> {
        let now_ns = store.now_ns();
        if now_ns >= deadline_ns {
            return Err(ConnectError::Timeout);
        }
        store.wait_event_of(&self.token, deadline_ns.min(now_ns.saturating_add(LOOK_AGAIN_NS)))?;
        let state = self.backend_state(store)?;
        Ok(self.handshake.observe(state.as_deref()))
    }

    /// What the backend's state node holds. Of a node that is gone together with its parent, xenstored says not that it
    /// is missing but that it may not be read: once connected or closing, that is a backend that is gone.
    fn backend_state<W: Wire>(&self, store: &mut Client<W>) -> Result<Option<String>, XsError> {
        match store.find_text(&self.backend_node("state")) {
            Err(XsError::Denied(XenErrno::EACCES)) if self.handshake.outlives_backend() => Ok(None),
            other => other,
        }
    }

    fn establish<P: Platform + Clone, W: Wire>(
        &mut self,
        platform: &P,
        store: &mut Client<W>,
        options: &Options,
        built: &mut Option<Built<P>>,
        deadline_ns: u64,
    ) -> Result<Geometry, ConnectError> {
        loop {
            match self.next_step(store, deadline_ns)? {
                Step::Wait => {}
                Step::Reset => self.reset(store)?,
                Step::Publish => {
                    let plan = self.plan(store, options)?;
                    let built = built.insert(Built::new(platform, self.peer, &plan)?);
                    self.publish(store, built)?;
                }
                Step::Connect => {
                    let geometry = self.geometry(store)?;
                    self.set_state(store, State::CONNECTED)?;
                    return Ok(geometry);
                }
                Step::Fail(failure) => return Err(ConnectError::Handshake(failure)),
                Step::FinishClose | Step::Closed => return Err(ConnectError::Handshake(Failure::Closed)),
            }
        }
    }

    /// The device was connected in a former life of this domain: start over, without the nodes that only some rings
    /// have.
    fn reset<W: Wire>(&self, store: &mut Client<W>) -> Result<(), ConnectError> {
        match store.rm(&self.front_node("ring-page-order")) {
            Err(error) if !error.is_missing() => return Err(error.into()),
            _ => {}
        }
        Ok(self.set_state(store, State::INITIALISING)?)
    }

    /// How large the ring and the requests are, by what the backend offers.
    fn plan<W: Wire>(&self, store: &mut Client<W>, options: &Options) -> Result<Plan, ConnectError> {
        let mut offer = |name: &'static str| -> Result<u32, ConnectError> {
            let text = store.find_text(&self.backend_node(name))?;
            Ok(number(text.as_deref(), name, Some(0))?)
        };
        let segments = offer("feature-max-indirect-segments")? as usize;
        let segments = segments.min(options.segments_max).min(abi::SEGMENTS_PER_INDIRECT_PAGE);
        let order = if segments > DIRECT_MAX { 0 } else { offer("max-ring-page-order")?.min(RING_ORDER_MAX) };
        Ok(Plan::new(options.pool_pages, segments, order))
    }

    fn publish<P: Platform, W: Wire>(&self, store: &mut Client<W>, built: &Built<P>) -> Result<(), ConnectError> {
        let pages = built.ring.pages();
        if pages.len() == 1 {
            store.write(&self.front_node("ring-ref"), format!("{}", pages.gref(0)))?;
        } else {
            store.write(&self.front_node("ring-page-order"), format!("{}", pages.len().ilog2()))?;
            for index in 0..pages.len() {
                store.write(&self.front_node(&format!("ring-ref{index}")), format!("{}", pages.gref(index)))?;
            }
        }
        store.write(&self.front_node("event-channel"), format!("{}", built.port.port()))?;
        store.write(&self.front_node("protocol"), "x86_64-abi")?;
        store.write(&self.front_node("feature-persistent"), "1")?;
        Ok(self.set_state(store, State::INITIALISED)?)
    }

    fn geometry<W: Wire>(&self, store: &mut Client<W>) -> Result<Geometry, ConnectError> {
        let mut node = |name: &str| store.find_text(&self.backend_node(name));
        let sectors = node("sectors")?;
        let sector_size = node("sector-size")?;
        let physical_sector_size = node("physical-sector-size")?;
        let info = node("info")?;
        let feature_flush_cache = node("feature-flush-cache")?;
        Ok(Geometry::parse(RawGeometry {
            sectors: sectors.as_deref(),
            sector_size: sector_size.as_deref(),
            physical_sector_size: physical_sector_size.as_deref(),
            info: info.as_deref(),
            feature_flush_cache: feature_flush_cache.as_deref(),
        })?)
    }

    /// Closes what failed halfway, as far as xenstore lets us.
    fn abandon<W: Wire>(&mut self, store: &mut Client<W>) {
        let deadline_ns = store.now_ns().saturating_add(ABANDON_TIMEOUT_NS);
        // The first error is the one to report; a close that fails as well adds nothing.
        let _ = self.close(store, deadline_ns);
    }

    /// Both ends to Closed; the backend has let go of ring and grants then.
    fn close<W: Wire>(&mut self, store: &mut Client<W>, deadline_ns: u64) -> Result<(), ConnectError> {
        let outcome = self.shake_hands(store, deadline_ns);
        // Whatever came of it: a watch that stays keeps the next connection of this device from having one.
        let unwatched = store.unwatch(&self.backend_node("state"), &self.token);
        outcome.and(unwatched.map_err(ConnectError::from))
    }

    fn shake_hands<W: Wire>(&mut self, store: &mut Client<W>, deadline_ns: u64) -> Result<(), ConnectError> {
        self.handshake.begin_close();
        self.set_state(store, State::CLOSING)?;
        loop {
            match self.next_step(store, deadline_ns)? {
                Step::FinishClose => self.set_state(store, State::CLOSED)?,
                Step::Closed => return Ok(()),
                Step::Fail(failure) => return Err(ConnectError::Handshake(failure)),
                _ => {}
            }
        }
    }
}

impl<P: Platform> Blkfront<P> {
    /// The token of the watch on the backend's state; on its event (and on a rescan) call [`Self::look`].
    pub fn watch_token(&self) -> &str {
        &self.parts.link.token
    }

    /// The virtual device number.
    pub fn vdev(&self) -> u32 {
        self.parts.link.vdev
    }

    /// Reads the backend's state; an error if the device cannot be used any more.
    pub fn look<W: Wire>(&mut self, store: &mut Client<W>) -> Result<(), ConnectError> {
        let state = self.parts.link.backend_state(store)?;
        match self.parts.link.handshake.observe(state.as_deref()) {
            Step::Wait => Ok(()),
            Step::Fail(failure) => {
                self.backend_left();
                Err(ConnectError::Handshake(failure))
            }
            _ => Ok(()),
        }
    }

    /// Waits for what is under way (no flush), closes both ends, gives everything back.
    pub fn close<W: Wire>(mut self, store: &mut Client<W>, deadline_ns: u64) -> CloseReport {
        let drained = self.drain();
        let handshake = self.parts.link.close(store, deadline_ns);
        let Parts { ring, data, tables, .. } = &mut self.parts;
        CloseReport { drained, handshake, grants_held: ring.release() + data.release() + tables.release() }
    }
}
