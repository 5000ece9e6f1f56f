//! One run: takes of one guest, one after the other, by stubs that may die, each followed by what dom0 would do.

use snapshot::names::Token;
use snapshot::ports::BlockDevice;
use snapshot::request::{Kind, Take};
use snapshot::status::{State, Status};
use snapshot::store::Store;
use snapshot::take::{After, Armed, Before, Engine, Options, StoreRecorder};

use super::host::{Caller, Host, Shared, Truth};
use super::keeper::Keeper;
use super::plan::{Plan, S, Wish};
use super::rescue::Record;
use super::stub::{Disk, Line, Target};
use super::tally::Tally;
use super::tree::Node;
use crate::content::run as pages;
use crate::disk::{self, Faults};
use crate::history::{CONFIG, History, ROOMY};
use crate::image::Image;
use crate::take::fakes;
use crate::take::setup::{Setup, take_request};
use crate::take::world::{Shared as Guest, World};
use crate::take::{GFNS, MEMORY, MEMORY_BYTES, WORKING_SET};

/// Attempts to open the store after a stub's death.
const OPENS_MAX: u32 = 3;
/// No keeper stays longer: it may watch twice for a late suspend, and there is all that comes before it.
const KEEPER_NS: u64 = 1400 * S;
/// A guest that may suspend late is not waited for any longer.
const LATE_NS: u64 = 601 * S;
/// Recoveries until nothing may be left.
const RECOVERIES_MAX: u32 = 4;

/// What came of a run.
pub struct Outcome {
    pub wrong: Vec<String>,
    pub tally: Tally,
}

pub struct Run {
    pub host: Shared,
    pub guest: Guest,
    pub history: History,
    pub store: Option<Store<Disk>>,
    pub armed: Option<Armed>,
    /// The disk itself lost or moved something.
    pub lied: bool,
    /// Everything that may ever have been there.
    pub known: Vec<crate::content::Held>,
}

thread_local! {
    static BASE: (Image, Vec<crate::content::Held>) = {
        let history = History::with(ROOMY, &[("old@1", vec![pages(0, 9, 1)])]);
        (history.disk.image(), history.possible)
    };
}

/// Runs a plan to its end.
pub fn run(plan: Plan, told: bool) -> Outcome {
    let takes = plan.takes.clone();
    let mut run = Run::new(plan, told);
    for (number, wish) in takes.iter().enumerate() {
        if !run.is_ready() {
            break;
        }
        run.host.borrow().tell(format_args!("take {number}: {wish:?}"));
        let status = run.take(number, wish);
        run.follow();
        run.judge(&status);
        if run.host.borrow().power_is_out {
            break;
        }
    }
    run.end()
}

impl Run {
    fn new(plan: Plan, told: bool) -> Self {
        let (image, possible) = BASE.with(Clone::clone);
        let guest = World::new(Setup {
            seed: plan.seed,
            gfns: GFNS,
            memory: MEMORY,
            working_set: WORKING_SET,
            ..Setup::default()
        });
        let known = possible.clone();
        let history = History::new(disk::Disk::with(ROOMY, image), possible);
        let host = Host::new(plan, guest.clone(), told);
        let mut run = Self { host, guest, history, store: None, armed: None, lied: false, known };
        run.open();
        run
    }

    /// A stub opens the store, a new one if the last is dead.
    fn open(&mut self) {
        for _ in 0..OPENS_MAX {
            if self.host.borrow().power_is_out {
                return;
            }
            if !self.host.borrow().stub.alive {
                self.disk_after_death();
            }
            self.host.borrow_mut().begin_stub();
            self.history.disk.plan(Faults::default());
            let disk = Disk { host: self.host.clone(), disk: self.history.disk.clone() };
            self.store = Store::open(disk).ok();
            if let Some(store) = &mut self.store {
                let Ok(listed) = store.list() else { continue };
                let listed: Vec<String> = listed.into_iter().map(|one| one.name).collect();
                self.found(&listed);
                return;
            }
        }
    }

    /// What the store lists tells which of the possible states it is.
    fn found(&mut self, listed: &[String]) {
        let same = |held: &crate::content::Held| {
            held.as_ref().is_some_and(|held| held.len() == listed.len() && listed.iter().all(|n| held.contains_key(n)))
        };
        self.history.possible.retain(same);
        self.history.possible.truncate(1);
        if self.history.possible.is_empty() && !self.lied {
            self.host.borrow_mut().wrong(format!("the store lists {listed:?}"));
        }
    }

    /// A take can begin: the guest runs, nothing is left of an earlier one, a stub has the store open.
    fn is_ready(&mut self) -> bool {
        let dead = !self.host.borrow().stub.alive;
        if dead || self.store.as_ref().is_none_or(Store::poisoned) {
            self.store = None;
            self.armed = self.armed.take().filter(|_| !dead);
            self.open();
        }
        let mut host = self.host.borrow_mut();
        let runs = host.target() == snapshot::keeper::Target::Running;
        runs && host.stub.alive && self.store.is_some() && !self.history.possible.is_empty() && host.recover()
    }

    fn take(&mut self, number: usize, wish: &Wish) -> Status {
        let setup = Setup {
            gfns: GFNS,
            memory: MEMORY,
            working_set: WORKING_SET,
            mode: wish.mode,
            kind: wish.kind,
            name: format!("n{number}"),
            max_pause_ms: wish.max_pause_ms,
            staging_kib: wish.staging_kib,
            on_busy: wish.on_busy,
            writes: wish.writes,
            fault_at: wish.hypercall_fails,
            ..Setup::default()
        };
        let token = Token([u8::try_from(number + 1).unwrap_or(0); 16]);
        let take = Take { token, ..take_request(&setup) };
        self.guest.borrow_mut().next_take(setup);
        self.host.borrow_mut().begin_take(token, wish);
        self.history.disk.plan(wish.disk);
        self.lied |= wish.disk.lose_write.is_some() || wish.disk.misdirect.is_some();
        let status = self.engine(&take);
        self.history.disk.plan(Faults::default());
        status
    }

    fn engine(&mut self, take: &Take) -> Status {
        let mut target = Target { host: self.host.clone(), inner: fakes::Target(self.guest.clone()) };
        let mut line = Line(self.host.clone());
        let before = Before { armed: self.armed.take(), ..Before::default() };
        let Some(store) = &mut self.store else { return Status::new(take.token, State::Refused) };
        let mut recorder = StoreRecorder::new(store);
        let options = Options { memory_bytes: MEMORY_BYTES, hold: None };
        let engine = Engine::new(&mut target, &mut line, &mut recorder, take, CONFIG, options);
        let (status, After { armed, .. }) = engine.run_after(before);
        drop(recorder);
        let mut host = self.host.borrow_mut();
        host.stub.mail = None;
        host.stub.busy = false;
        host.stub.armed = armed.is_some();
        if host.stub.alive {
            if host.stub.edges != 1 {
                let edges = host.stub.edges;
                host.wrong(format!("{edges} release edges"));
            }
            host.tally.ending(&status);
        } else {
            host.tally.end("died");
        }
        // A stub without xenstore ends, and is started again.
        if host.stub.lost {
            host.stub_dies();
        }
        self.armed = armed.filter(|_| host.stub.alive);
        host.stub.armed = self.armed.is_some();
        host.stub.state = status.state;
        status
    }

    /// The keeper goes on until it is done; then dom0 is as an operator would leave it.
    fn follow(&mut self) {
        let mut host = self.host.borrow_mut();
        let until_ns = host.now_ns() + KEEPER_NS;
        let ended = |host: &Host| host.keeper.as_ref().is_none_or(|keeper| keeper.over) && host.recover_ns.is_none();
        host.pass(until_ns, ended);
        if host.power_is_out {
            return;
        }
        if !ended(&host) {
            host.wrong("the keeper never ends");
        }
        host.saver = false;
        host.resume_refusals = 0;
        host.records_fail = false;
        host.unpause();
        let back_ns = host.tree.back_ns();
        host.pass(back_ns, |_| false);
        for _ in 0..RECOVERIES_MAX {
            if host.recover() || host.power_is_out {
                return;
            }
            let until_ns = host.now_ns() + LATE_NS;
            host.pass(until_ns, |_| false);
        }
        let left = host.tally.left.join("; ");
        host.wrong(format!("`recover` leaves something: {left}"));
    }
}

impl Host {
    fn begin_stub(&mut self) {
        self.stub.alive = true;
        self.stub.paused = false;
        self.stub.lost = false;
        self.stub.armed &= self.stub.alive;
        self.stub.fired.clear();
        self.stub.state = State::Done;
    }

    fn begin_take(&mut self, token: Token, wish: &Wish) {
        let now_ns = self.now_ns();
        let throttles = wish.on_busy == snapshot::policy::Busy::Throttle;
        self.tally.takes += 1;
        self.token = token;
        self.truth = Truth::default();
        self.tree.troubled = !self.tree.answers(now_ns);
        self.caller = Caller::Present;
        self.keeper = Some(Keeper::new(now_ns, token, wish.max_pause_ms, throttles));
        self.record = Some(Record::FIRST);
        self.recover_ns = None;
        (self.manners, self.writes) = (wish.manners, wish.writes);
        (self.ack_ns, self.suspend_ns) = (None, None);
        self.subscribe_refused = false;
        self.resume_refusals = 0;
        self.marked |= wish.kind == Kind::Incremental;
        self.tree.write(Node::Control, "");
        self.stub.busy = true;
        self.stub.edges = 0;
        self.stub.state = State::Preparing;
        self.stub.mail = Some(snapshot::mailbox::Mailbox::new(token));
        self.stub.fired.push((now_ns, Node::Cancel));
    }
}

impl Run {
    /// Size of the store's device.
    pub fn blocks(&self) -> u64 {
        self.history.disk.blocks()
    }
}
