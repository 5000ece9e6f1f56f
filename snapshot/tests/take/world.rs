//! A guest, a hypervisor, a keeper and a store in one, stepped by the calls of the engine. Stricter than Xen:
//!
//! - the bitmap is empty after ENABLE, and CLEAN with tracking off answers zeros;
//! - only a page that Xen write-protects is noticed when it is written; a page that is added to the p2m is not
//!   protected before the next CLEAN (Xen 4.17, 4.18), and a frame that Xen itself writes is marked by FINAL alone;
//! - the guest writes between any two calls and between any two pages of one copy.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use snapshot::fault::Fault;
use snapshot::fields::Line;
use snapshot::names::Token;
use snapshot::ports::{DomainInfo, Message, ShutdownCode, TargetError};
use snapshot::request::{Mode, Take};
use snapshot::session::Trouble;
use snapshot::status::{State, Status};
use snapshot::take::{Attachment, Engine, Hold, Options};
use snapshot::verdict::Verdict;
use xen_hypercall::types::{DomHandle, DomId, EvtchnPort};

pub const TOKEN: Token = Token([7; 16]);
pub const HANDLE: DomHandle = DomHandle::new([3; 16]);
/// Gfns of the guest, if nothing else is said; the last few are special pages, far above its memory.
pub const GFNS: usize = 3000;
const SPECIAL_PAGES: usize = 4;
/// A frame that Xen writes without marking it.
const XEN_WRITES: usize = 5;

/// What happens to the world at the call with a given number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Destroy,
    DomidReused,
    Shutdown(u8),
    ForeignOff,
    ForeignResume,
    Pause,
    BalloonOut(usize),
    BalloonIn(usize),
    /// One page leaves, another comes: the size stays.
    Swap,
    Cancel,
    VerdictVoid,
    VerdictResumed,
    XenstoreDies,
    /// The working set cannot be mapped, or can again.
    Mappable(bool),
}

/// How the world is made.
#[derive(Clone, Debug)]
pub struct Setup {
    pub seed: u64,
    pub mode: Mode,
    pub round1_skip: bool,
    pub max_pause_ms: Option<u32>,
    /// Gfns of the guest.
    pub gfns: usize,
    /// Pages of memory.
    pub memory: usize,
    /// Writes between two calls.
    pub writes: u64,
    /// Pages that are written.
    pub working_set: usize,
    pub suspend_after_ns: u64,
    pub log_dirty_on: bool,
    pub never_suspends: bool,
    /// A page that is added is marked dirty (Xen 4.19.5 and later).
    pub marks_added: bool,
    pub keeper_dead: bool,
    pub keeper_voids: bool,
    /// A port call that fails, by number from 0.
    pub fault_at: Option<u64>,
    pub events: Vec<(u64, Event)>,
    pub hold: Option<Hold>,
    pub memory_bytes: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            mode: Mode::Live,
            round1_skip: false,
            max_pause_ms: None,
            gfns: GFNS,
            memory: 1300,
            writes: 8,
            working_set: 300,
            suspend_after_ns: 5_000_000,
            log_dirty_on: false,
            never_suspends: false,
            marks_added: false,
            keeper_dead: false,
            keeper_voids: false,
            fault_at: None,
            events: Vec::new(),
            hold: None,
            memory_bytes: 1 << 20,
        }
    }
}

/// The store, as a model.
#[derive(Default, Debug)]
pub struct Stored {
    pub begun: bool,
    pub in_run: bool,
    pub last_gfn: Option<u64>,
    pub pages: BTreeMap<u64, u64>,
    pub runs: u32,
    pub attachments: Vec<(Attachment, Vec<u8>)>,
    pub flushed: bool,
    pub sealed: bool,
    pub aborted: bool,
    pub broken: bool,
}

pub struct World {
    pub setup: Setup,
    rng: u64,
    pub now_ns: u64,
    pub calls: u64,
    /// Content of each populated gfn; 0 is a page of zeros.
    pub memory: Vec<Option<u64>>,
    pub dirty: Vec<bool>,
    pub protected: Vec<bool>,
    pub log_dirty: bool,
    pub shutdown: Option<ShutdownCode>,
    pub paused: bool,
    pub dying: bool,
    pub gone: bool,
    suspend_at_ns: Option<u64>,
    pub at_suspend: Option<Vec<Option<u64>>>,
    pub messages: VecDeque<Message>,
    pub xenstore_dead: bool,
    pub releases: u32,
    pub statuses: Vec<Status>,
    pub stored: Stored,
    /// Gfns that came during the take; each is written once more, at the call given.
    fresh: Vec<(usize, u64)>,
    pub unmappable: bool,
    /// PEEKs with a bitmap before the first CLEAN.
    pub early_peeks: u64,
    pub cleans: u64,
    /// The call that began the last search for new pages.
    pub last_look: u64,
    pub ballooned: bool,
    pub waits: u64,
    /// Calls that asked for types.
    pub types_calls: u64,
}

pub type Shared = Rc<RefCell<World>>;

impl World {
    pub fn new(setup: Setup) -> Shared {
        let mut world = Self {
            rng: setup.seed,
            now_ns: 1_000,
            calls: 0,
            memory: vec![None; setup.gfns],
            dirty: vec![false; setup.gfns],
            protected: vec![false; setup.gfns],
            log_dirty: setup.log_dirty_on,
            shutdown: None,
            paused: false,
            dying: false,
            gone: false,
            suspend_at_ns: None,
            at_suspend: None,
            messages: VecDeque::new(),
            xenstore_dead: false,
            releases: 0,
            statuses: Vec::new(),
            stored: Stored::default(),
            fresh: Vec::new(),
            unmappable: false,
            early_peeks: 0,
            cleans: 0,
            last_look: 0,
            ballooned: false,
            waits: 0,
            types_calls: 0,
            setup,
        };
        for gfn in 0..world.setup.memory {
            let zero = world.random(3) == 0;
            world.memory[gfn] = Some(if zero { 0 } else { world.random(u64::MAX) | 1 });
        }
        Rc::new(RefCell::new(world))
    }

    /// splitmix64: small, seeded, good enough to move pages about.
    pub fn random(&mut self, below: u64) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.rng;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % below
    }

    pub fn running(&self) -> bool {
        self.shutdown.is_none() && !self.dying && !self.gone && !self.paused
    }

    /// A call of the engine begins: time passes, the guest runs, what is due happens. True if this call must fail.
    pub fn tick(&mut self, cost_ns: u64) -> bool {
        let call = self.calls;
        self.calls += 1;
        self.pass(cost_ns);
        for at in 0..self.setup.events.len() {
            if self.setup.events[at].0 == call {
                self.happen(self.setup.events[at].1);
            }
        }
        self.fresh_pages_are_used(call);
        self.setup.fault_at == Some(call)
    }

    fn fresh_pages_are_used(&mut self, call: u64) {
        let due: Vec<_> = self.fresh.iter().filter(|(_, at)| *at == call).map(|(gfn, _)| *gfn).collect();
        for gfn in due {
            let content = self.random(u64::MAX);
            if self.running() {
                self.write(gfn, content);
            }
        }
    }

    pub fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
        for _ in 0..self.setup.writes {
            self.guest_writes();
        }
        if self.suspend_at_ns.is_some_and(|at| self.now_ns >= at) && self.running() {
            self.suspend_at_ns = None;
            self.suspend();
        }
    }

    pub fn suspend(&mut self) {
        let again = self.shutdown.replace(ShutdownCode::SUSPEND).is_some() || self.releases > 0;
        if again {
            return;
        }
        self.memory[XEN_WRITES] = Some(self.now_ns | 1);
        self.at_suspend = Some(self.memory.clone());
    }

    fn resume(&mut self) {
        if self.shutdown == Some(ShutdownCode::SUSPEND) {
            self.shutdown = None;
        }
    }

    pub fn guest_writes(&mut self) {
        if !self.running() {
            return;
        }
        let gfn = self.random(self.setup.working_set as u64) as usize;
        let content = if self.random(4) == 0 { 0 } else { self.random(u64::MAX) };
        self.write(gfn, content);
    }

    fn write(&mut self, gfn: usize, content: u64) {
        if self.memory[gfn].is_none() {
            return;
        }
        self.memory[gfn] = Some(content);
        if self.log_dirty && self.protected[gfn] {
            self.dirty[gfn] = true;
            self.protected[gfn] = false;
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Destroy => self.dying = true,
            Event::DomidReused => self.gone = true,
            Event::Shutdown(2) => self.suspend(),
            Event::Shutdown(code) => self.shutdown = Some(ShutdownCode::new(code)),
            Event::ForeignOff => self.log_dirty = false,
            Event::ForeignResume => self.resume(),
            Event::Pause => self.paused = true,
            Event::BalloonOut(pages) => (0..pages).for_each(|_| self.balloon_out()),
            Event::BalloonIn(pages) => (0..pages).for_each(|_| self.balloon_in()),
            Event::Swap => {
                self.balloon_out();
                self.balloon_in();
            }
            Event::Cancel => self.messages.push_back(Message::Cancel),
            Event::VerdictVoid => self.say(false),
            Event::VerdictResumed => self.say(true),
            Event::XenstoreDies => self.xenstore_dead = true,
            Event::Mappable(mappable) => self.unmappable = !mappable,
        }
    }

    fn balloon_out(&mut self) {
        if !self.running() {
            return;
        }
        self.ballooned = true;
        let gfn = self.random(self.setup.memory as u64) as usize;
        self.memory[gfn] = None;
    }

    /// Comes unprotected, and is written at once.
    fn balloon_in(&mut self) {
        let special = self.setup.gfns - SPECIAL_PAGES;
        let free = self.memory[..special].iter().rposition(Option::is_none);
        let Some(gfn) = free.filter(|_| self.running()) else { return };
        self.ballooned = true;
        self.protected[gfn] = false;
        self.dirty[gfn] |= self.setup.marks_added && self.log_dirty;
        let at = self.calls + 1 + self.random(8);
        self.fresh.push((gfn, at));
        self.memory[gfn] = Some(self.random(u64::MAX));
    }

    pub fn say(&mut self, resumed: bool) {
        let reason = Line::of(if resumed { "" } else { "the keeper says so" });
        self.messages.push_back(Message::Verdict(Verdict { token: TOKEN, resumed, reason }));
    }

    pub fn tot_pages(&self) -> u64 {
        self.memory.iter().flatten().count() as u64
    }

    pub fn info(&self) -> DomainInfo {
        DomainInfo {
            domid: DomId::new(9),
            handle: HANDLE,
            dying: self.dying,
            shutdown: self.shutdown,
            paused: self.paused,
            hvm: true,
            tot_pages: self.tot_pages(),
            max_pages: 4000,
            max_vcpu_id: 1,
        }
    }

    pub fn alive(&self) -> Result<(), TargetError> {
        if self.gone || self.dying { Err(TargetError::Gone) } else { Ok(()) }
    }

    pub fn protect_all(&mut self) {
        let populated = self.memory.iter().map(Option::is_some);
        self.protected.iter_mut().zip(populated).for_each(|(protected, populated)| *protected = populated);
    }

    /// Frames that are no memory of the guest but map well and change all the time.
    pub fn is_special(&self, gfn: usize) -> bool {
        gfn >= self.setup.gfns - SPECIAL_PAGES
    }

    pub fn xen_marks_its_own(&mut self) {
        self.dirty[XEN_WRITES] = true;
    }

    pub fn suspend_wanted(&self) -> bool {
        self.statuses.iter().any(|status| status.state == State::WantSuspend)
    }

    // The keeper.

    pub fn keeper_reads(&mut self, status: &Status) {
        self.statuses.push(status.clone());
        if self.setup.keeper_dead {
            return;
        }
        if status.state == State::WantSuspend && self.suspend_at_ns.is_none() && !self.setup.never_suspends {
            self.suspend_at_ns = Some(self.now_ns + self.setup.suspend_after_ns);
        }
        if status.state == State::Captured && self.releases == 1 {
            self.say(!self.setup.keeper_voids);
        }
    }

    pub fn edge(&mut self) {
        self.releases += 1;
        self.suspend_at_ns = None;
        if !self.setup.keeper_dead {
            self.resume();
        }
    }
}

pub fn take_request(setup: &Setup) -> Take {
    Take {
        token: TOKEN,
        domid: DomId::new(9),
        handle: HANDLE,
        name: "web01@now".parse().unwrap(),
        mode: setup.mode,
        created_unix: 1,
        release_port: EvtchnPort::new(5),
        max_pause_ms: setup.max_pause_ms,
        round1_skip: setup.round1_skip,
        config_chunks: 0,
    }
}

/// Runs one take to its end.
pub fn run(setup: Setup) -> (Status, Shared) {
    let take = take_request(&setup);
    let options = Options { memory_bytes: setup.memory_bytes, hold: setup.hold };
    let world = World::new(setup);
    let (mut target, mut control, mut store) =
        (super::fakes::Target(world.clone()), super::fakes::Line(world.clone()), super::fakes::Store(world.clone()));
    let status = Engine::new(&mut target, &mut control, &mut store, &take, b"{}", options).run();
    (status, world)
}

/// An injected failure.
pub fn injected() -> Trouble {
    Trouble::new(Fault::Store, "injected")
}
