//! A block backend for host tests: it serves real rings over granted pages, and misbehaves on order.
//!
//! Stricter than blkback: it fails the test at a request that overlaps another under way, leaves the device, repeats an
//! id, exceeds what was offered, or names a grant it may not map. Data moves when a request completes, not when it
//! arrives, so a page that is reused too early shows. What was not flushed is lost in [`FakeDisk::durable`]. It runs
//! only as a peer of the fake platform, at most one completion a step.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a fake fails the test that misuses it")]

mod config;
mod nodes;
mod ring;

use super::BLOCK_LEN;
use crate::platform::fake::FakePlatform;
use crate::ring::shared::SharedPage;
use crate::types::{DomId, EvtchnPort, GrantRef};
use crate::xenstore::fake::FakeStore;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
pub use config::{Config, Mischief, Order, Seen};
use core::cell::RefCell;
use ring::{BackRing, Request};
use xen_hypercall::abi::io::blkif as abi;

/// The domain that the device belongs to.
pub const FRONT: DomId = DomId::new(5);
/// The domain of the backend.
pub const BACK: DomId = DomId::new(0);
/// The device's number: xvda.
pub const VDEV: u32 = 51712;
/// Pages that blkback keeps mapped.
const PERSISTENT_MAX: usize = 1056;

struct Backend {
    platform: FakePlatform,
    store: FakeStore,
    config: Config,
    state: String,
    ring: Option<BackRing>,
    port: Option<EvtchnPort>,
    mapped: BTreeMap<u32, SharedPage>,
    queue: VecDeque<Request>,
    data: Vec<u8>,
    durable: Vec<u8>,
    /// Blocks of `data` that `durable` lacks.
    cached: Vec<usize>,
    order: Order,
    mischief: VecDeque<(usize, Mischief)>,
    seen: Vec<Seen>,
    /// So many requests are completed yet; None: all.
    completes: Option<usize>,
    storm: bool,
    /// The ring holds garbage: nothing in it is the driver's.
    spoiled: bool,
    hold_grants: bool,
    queue_max: usize,
}

/// A handle of the backend; clones share it.
#[derive(Clone)]
pub struct FakeDisk(Rc<RefCell<Backend>>);

impl FakeDisk {
    /// Makes the device's nodes and lets the backend run as a peer of the platform.
    pub fn attach(platform: &FakePlatform, store: &FakeStore, config: Config) -> Self {
        let bytes = config.sectors as usize * abi::SECTOR_LEN;
        let backend = Backend {
            platform: platform.clone(),
            store: store.clone(),
            state: String::new(),
            ring: None,
            port: None,
            mapped: BTreeMap::new(),
            queue: VecDeque::new(),
            data: vec![0; bytes],
            durable: vec![0; bytes],
            cached: Vec::new(),
            order: Order::Fifo,
            mischief: VecDeque::new(),
            seen: Vec::new(),
            completes: None,
            storm: false,
            spoiled: false,
            hold_grants: false,
            queue_max: 0,
            config,
        };
        backend.make_nodes();
        let disk = Self(Rc::new(RefCell::new(backend)));
        let peer = disk.clone();
        platform.add_peer(Box::new(move || peer.0.borrow_mut().step()));
        disk
    }

    /// Something goes wrong after so many more responses (0 = with the next).
    pub fn misbehave(&self, after: usize, how: Mischief) {
        self.0.borrow_mut().mischief.push_back((after, how));
    }

    /// In which order requests complete.
    pub fn set_order(&self, order: Order) {
        self.0.borrow_mut().order = order;
    }

    /// Takes requests but completes none while set.
    pub fn stall(&self, stalled: bool) {
        self.0.borrow_mut().completes = stalled.then_some(0);
    }

    /// Completes so many, then none.
    pub fn answer(&self, count: usize) {
        self.0.borrow_mut().completes = Some(count);
    }

    /// Never unmaps, whatever happens.
    pub fn hold_grants(&self) {
        self.0.borrow_mut().hold_grants = true;
    }

    /// What was asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.0.borrow().seen.clone()
    }

    /// The most requests that were under way together.
    pub fn queue_max(&self) -> usize {
        self.0.borrow().queue_max
    }

    /// A block as a reader would see it.
    pub fn block(&self, at: usize) -> Vec<u8> {
        self.0.borrow().data[at * BLOCK_LEN..][..BLOCK_LEN].to_vec()
    }

    /// A block as it stands after a power cut.
    pub fn durable(&self, at: usize) -> Vec<u8> {
        self.0.borrow().durable[at * BLOCK_LEN..][..BLOCK_LEN].to_vec()
    }

    /// Fills a block from outside.
    pub fn put(&self, at: usize, value: u8) {
        self.0.borrow_mut().data[at * BLOCK_LEN..][..BLOCK_LEN].fill(value);
    }

    /// Pages that are mapped now, the ring's included.
    pub fn mapped(&self) -> usize {
        self.0.borrow().mapped.len()
    }

    /// The backend goes to another state by itself, or vanishes.
    pub fn announce(&self, state: Option<&'static str>) {
        self.0.borrow_mut().announce(state);
    }

    /// Does a mischief now, without a response.
    pub fn now(&self, how: Mischief) {
        self.0.borrow_mut().strike(how);
    }
}

/// The next value of a pseudo-random sequence (xorshift).
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

impl Backend {
    fn step(&mut self) -> bool {
        let front = self.store.get(&self.front("state")).unwrap_or_default();
        let moved = self.handshake(&front);
        let worked = self.ring.is_some() && !self.spoiled && self.work();
        if self.storm {
            self.platform.raise(self.port.expect("a storm needs a port"));
        }
        moved || worked || self.storm
    }

    fn work(&mut self) -> bool {
        let taken = self.take_requests();
        let finished = self.completes != Some(0) && self.finish_one();
        self.completes = self.completes.map(|left| left - usize::from(finished));
        taken || finished
    }

    fn take_requests(&mut self) -> bool {
        let mut any = false;
        while let Some(words) = self.ring.as_mut().and_then(BackRing::take) {
            let request = self.parse(&words);
            self.judge(&request);
            self.seen.push(request.seen());
            self.queue.push_back(request);
            self.queue_max = self.queue_max.max(self.queue.len());
            any = true;
        }
        any
    }

    fn parse(&mut self, words: &[u64; 14]) -> Request {
        let mapped = &mut self.mapped;
        let platform = &self.platform;
        Request::parse(words, |gref| {
            let map = || platform.map(BACK, GrantRef::new(gref), true).expect("a grant that cannot be mapped");
            let page = mapped.entry(gref).or_insert_with(map).alias();
            assert!(mapped.len() <= PERSISTENT_MAX, "more pages than blkback keeps mapped");
            page
        })
    }

    fn judge(&self, request: &Request) {
        let offered: usize = self.config.indirect.map_or(0, |text| text.parse().unwrap_or(usize::MAX));
        assert!(!request.indirect || request.pages.len() <= offered, "more segments than offered");
        let flushes = request.operation == abi::OP_FLUSH_DISKCACHE;
        assert!(flushes || !request.pages.is_empty(), "a request without segments");
        assert!(!flushes || self.config.flush == Some("1"), "a flush that was not offered");
        assert!(request.end() <= self.data.len() / abi::SECTOR_LEN, "a request beyond the device");
        for other in &self.queue {
            assert_ne!(other.id, request.id, "an id in use");
            let reads = other.operation == abi::OP_READ && request.operation == abi::OP_READ;
            assert!(reads || !other.overlaps(request), "overlapping requests under way");
        }
    }

    fn finish_one(&mut self) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        let at = match &mut self.order {
            Order::Fifo => 0,
            Order::Lifo => self.queue.len() - 1,
            Order::Random(seed) => random(seed) as usize % self.queue.len(),
        };
        let request = self.queue.remove(at).unwrap();
        match self.mischief.front_mut() {
            Some((0, how)) => {
                let how = *how;
                self.mischief.pop_front();
                self.misanswer(&request, how);
            }
            Some((after, _)) => {
                *after -= 1;
                self.answer(&request, 0);
            }
            None => self.answer(&request, 0),
        }
        true
    }

    fn answer(&mut self, request: &Request, status: i16) {
        if status == 0 {
            self.carry_out(request);
        }
        self.respond(request.id, request.operation, status);
    }

    fn carry_out(&mut self, request: &Request) {
        for (index, page) in request.pages.iter().enumerate() {
            let at = request.sector as usize / 8 + index;
            let block = &mut self.data[at * BLOCK_LEN..][..BLOCK_LEN];
            if request.operation == abi::OP_READ {
                page.write_bytes(0, block);
            } else {
                page.read_bytes(0, block);
                self.cached.push(at);
            }
        }
        if request.operation == abi::OP_FLUSH_DISKCACHE || self.config.flush != Some("1") {
            for at in self.cached.drain(..) {
                let range = at * BLOCK_LEN..(at + 1) * BLOCK_LEN;
                self.durable[range.clone()].copy_from_slice(&self.data[range]);
            }
        }
    }

    fn respond(&mut self, id: u64, operation: u8, status: i16) {
        let Some(ring) = &mut self.ring else { return };
        if ring.respond(id, operation, status) {
            self.platform.raise(self.port.unwrap());
        }
    }

    fn misanswer(&mut self, request: &Request, how: Mischief) {
        let (id, operation) = (request.id, request.operation);
        match how {
            Mischief::Id(change) => self.respond(id ^ change, operation, 0),
            Mischief::Twice => (0..2).for_each(|_| self.respond(id, operation, 0)),
            Mischief::Operation(wrong) => self.respond(id, wrong, 0),
            Mischief::Status(status) => self.answer(request, status),
            Mischief::Jump(_) => {
                self.strike(how);
                self.answer(request, 0);
            }
            _ => self.strike(how),
        }
    }

    fn strike(&mut self, how: Mischief) {
        match how {
            Mischief::Jump(by) => self.ring.as_mut().unwrap().jump(by),
            Mischief::Close => {
                self.let_go();
                self.announce(Some("5"));
            }
            Mischief::Vanish => {
                self.let_go();
                self.announce(None);
            }
            Mischief::State(text) => self.announce(Some(text)),
            Mischief::Storm => self.storm = true,
            Mischief::Scribble(seed) => {
                self.ring.as_mut().unwrap().scribble(seed);
                self.spoiled = true;
                self.platform.raise(self.port.unwrap());
            }
            _ => {}
        }
    }
}
