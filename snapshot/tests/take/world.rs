//! A guest, a hypervisor, a keeper and a store in one, stepped by the calls of the engine. Stricter than Xen:
//!
//! - the bitmap is empty after ENABLE, and CLEAN with tracking off answers zeros;
//! - only a page that Xen write-protects is noticed when it is written; a page that is added to the p2m is not
//!   protected before the next CLEAN (Xen 4.17, 4.18), and a frame that Xen itself writes is marked by FINAL alone;
//! - the guest writes between any two calls and between any two pages of one copy.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use snapshot::fault::Fault;
use snapshot::fields::Line;
use snapshot::ports::{DomainInfo, Message, ShutdownCode, TargetError};
use snapshot::session::Trouble;
use snapshot::status::{State, Status};
use snapshot::take::{After, Before, Engine, Options};
use snapshot::verdict::Verdict;
use xen_hypercall::types::DomId;

/// What the keeper says of the disks.
pub const KEPT: &str = "xvda=/dev/vg0/kept";

pub use super::setup::{Event, GFNS, HANDLE, Setup, Stored, TOKEN, take_request};

/// The last few gfns are special pages, far above the memory.
const SPECIAL_PAGES: usize = 4;
/// What stands in every page of the domain that has the domid after [`Event::DomidReused`].
pub const FOREIGN: u64 = 0xf0e1_f0e1_f0e1_f0e1;
/// A frame that Xen writes without marking it.
const XEN_WRITES: usize = 5;

pub struct World {
    pub setup: Setup,
    rng: u64,
    pub now_ns: u64,
    pub guest_ran_ns: u64,
    /// Of that while we wanted the processor, and what we waited for.
    pub stolen_ns: u64,
    pub blocked_ns: u64,
    /// The disk has done all that it was given.
    pub disk_idle_ns: u64,
    /// When it answered last, and what it did in all.
    pub disk_step_ns: u64,
    pub disk_busy_ns: u64,
    pub calls: u64,
    /// Those of them on the target.
    pub target_calls: u64,
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
    /// The call that released the guest.
    pub release_call: u64,
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
    /// Percent of the guest's writes that are taken away.
    throttle: u64,
    /// Calls that asked for types.
    pub types_calls: u64,
    /// Tracking was on when *captured* was said.
    pub tracked_at_captured: bool,
}

pub type Shared = Rc<RefCell<World>>;

impl World {
    pub fn new(setup: Setup) -> Shared {
        let mut world = Self {
            rng: setup.seed,
            now_ns: 1_000,
            guest_ran_ns: 0,
            stolen_ns: 0,
            blocked_ns: 0,
            disk_idle_ns: 0,
            disk_step_ns: 0,
            disk_busy_ns: 0,
            calls: 0,
            target_calls: 0,
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
            release_call: 0,
            statuses: Vec::new(),
            stored: Stored::default(),
            fresh: Vec::new(),
            unmappable: false,
            early_peeks: 0,
            cleans: 0,
            last_look: 0,
            ballooned: false,
            waits: 0,
            throttle: 0,
            types_calls: 0,
            tracked_at_captured: false,
            setup,
        };
        for gfn in 0..world.setup.memory {
            let zero = world.random(3) == 0;
            world.memory[gfn] = Some(if zero { 0 } else { world.random(u64::MAX) | 1 });
        }
        if let Some(gfn) = world.setup.dirty_hole {
            world.memory[gfn] = None;
        }
        Rc::new(RefCell::new(world))
    }

    /// The guest goes on, another take begins; what happened and what was promised before is over.
    pub fn next_take(&mut self, setup: Setup) {
        (self.releases, self.calls, self.cleans, self.early_peeks) = (0, 0, 0, 0);
        (self.at_suspend, self.suspend_at_ns) = (None, None);
        self.statuses.clear();
        self.messages.clear();
        self.stored = Stored::default();
        self.resume();
        self.setup = setup;
    }

    /// Something happens between two takes.
    pub fn meanwhile(&mut self, event: Event) {
        self.happen(event);
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

    /// The guest stands, and the stub did not let it go yet.
    pub fn stands(&self) -> bool {
        self.shutdown == Some(ShutdownCode::SUSPEND) && self.releases == 0
    }

    /// A call of the engine begins: time passes, the guest runs, what is due happens. True if this call must fail.
    pub fn tick(&mut self) -> bool {
        let call = self.calls;
        self.calls += 1;
        self.pass(self.setup.call_ns);
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

    /// While the guest runs it takes its share of the processor.
    pub fn spend(&mut self, ns: u64) {
        let taken_ns = if self.running() { ns * self.setup.guest_share } else { 0 };
        self.guest_ran_ns += taken_ns;
        self.stolen_ns += taken_ns;
        self.now_ns += ns + taken_ns;
    }

    pub fn pass(&mut self, ns: u64) {
        self.spend(ns);
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
        let throttled = self.throttle > 0 && self.random(100) < self.throttle;
        if !self.running() || throttled {
            return;
        }
        let gfn = self.random(self.setup.working_set as u64) as usize;
        let content = if self.random(4) == 0 && !self.setup.no_zeros { 0 } else { self.random(u64::MAX) };
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
            Event::StoreLost => self.messages.push_back(Message::StoreLost),
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
        self.messages.push_back(Message::Verdict(Verdict { token: TOKEN, resumed, reason, disks: KEPT.into() }));
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
            cpu_time_ns: self.guest_ran_ns,
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
        if let Some(gfn) = self.setup.dirty_hole {
            self.dirty[gfn] = true;
        }
    }

    pub fn suspend_wanted(&self) -> bool {
        self.statuses.iter().any(|status| status.state == State::WantSuspend)
    }

    // The keeper.

    pub fn keeper_reads(&mut self, status: &Status) {
        self.statuses.push(status.clone());
        self.tracked_at_captured |= status.state == State::Captured && self.log_dirty;
        if self.setup.keeper_dead {
            return;
        }
        if self.setup.obeys {
            self.throttle = status.counters.throttle;
        }
        if status.state == State::WantSuspend && self.suspend_at_ns.is_none() && !self.setup.never_suspends {
            self.suspend_at_ns = Some(self.now_ns + self.setup.suspend_after_ns);
            if self.setup.acks {
                self.messages.push_back(Message::Acked);
            }
        }
        if status.state == State::Captured && self.releases == 1 {
            self.say(!self.setup.keeper_voids);
        }
    }

    pub fn edge(&mut self) {
        self.releases += 1;
        (self.suspend_at_ns, self.release_call) = (None, self.calls);
        if !self.setup.keeper_dead {
            self.resume();
        }
    }
}

/// Runs one take to its end.
pub fn run(setup: Setup) -> (Status, Shared) {
    let (status, _, world) = run_again(setup, None);
    (status, world)
}

/// The same of a guest that needed so long to suspend before.
pub fn run_again(setup: Setup, freeze_ns: Option<u64>) -> (Status, After, Shared) {
    let take = take_request(&setup);
    let options = Options { memory_bytes: setup.memory_bytes, hold: setup.hold };
    let world = World::new(setup);
    let (mut target, mut control, mut store) =
        (super::fakes::Target(world.clone()), super::fakes::Line(world.clone()), super::fakes::Store(world.clone()));
    let engine = Engine::new(&mut target, &mut control, &mut store, &take, b"{}", options);
    let (status, after) = engine.run_after(Before { freeze_ns, ..Before::default() });
    (status, after, world)
}

/// An injected failure.
pub fn injected() -> Trouble {
    Trouble::new(Fault::Store, "injected")
}
