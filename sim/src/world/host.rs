//! The host: who lives in it, its one clock, and the steps at which the plan strikes.

use std::cell::RefCell;
use std::rc::Rc;

use snapshot::mailbox::Mailbox;
use snapshot::names::Token;
use snapshot::status::State;

use super::keeper::Keeper;
use super::plan::{MS, Plan, Strike};
use super::rescue::Record;
use super::tally::Tally;
use super::tree::{Node, Tree};
use crate::rng::Rng;
use crate::take::world::Shared as Guest;

/// Most steps of a run: one that comes to no end is a failure.
const STEPS_MAX: u64 = 3_000_000;
/// From a killed keeper to the recovery that the command runs.
const AT_ONCE_NS: u64 = 5 * MS;

/// A handle to the host.
pub type Shared = Rc<RefCell<Host>>;

/// The stub's domain, beside the engine.
pub struct Stub {
    pub alive: bool,
    pub paused: bool,
    /// When it died.
    pub died_ns: u64,
    /// It gets no processor until this much time has passed.
    pub stall_ns: u64,
    /// A session runs.
    pub busy: bool,
    /// A guest stays tracked by it.
    pub armed: bool,
    /// Its connection to xenstored is gone.
    pub lost: bool,
    pub state: State,
    pub mail: Option<Mailbox>,
    /// Watches that fired: when they arrive, and for what.
    pub fired: Vec<(u64, Node)>,
    /// Release edges of this session.
    pub edges: u32,
}

/// Who called us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    Present,
    Gone(u64),
}

/// Whose request or tool the guest stands by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    Us,
    Foreign,
}

/// What really happened in this take, which nobody in it can see.
#[derive(Default)]
pub struct Truth {
    /// The guest stands, by whom and since when.
    pub stands: Option<(Who, u64)>,
    /// The guest took our request.
    pub acked: bool,
    /// Somebody wrote over our word.
    pub overwritten: bool,
    /// The guest's memory when the stub let it go, if it stood then by us.
    pub captured: Option<Vec<Option<u64>>>,
    /// The stub has said that all is captured.
    pub said_captured: bool,
    /// The keeper resumed it.
    pub resumed: u32,
    /// The keeper's word for a seal may have reached the stub.
    pub may_seal: bool,
    pub refused: bool,
    /// Somebody wrote a cancel or a verdict for this session.
    pub word: bool,
    /// Our word was taken back from a guest that stood by another tool.
    pub withdrawn: bool,
    /// Looks for pages that came or went.
    pub looks: u32,
    /// Pages that went and came since the last one.
    moves: (u32, u32),
}

impl Truth {
    /// A look for pages that came or went begins.
    pub fn look(&mut self) {
        self.looks += 1;
        self.moves = (0, 0);
    }

    /// So many pages are to go and to come: will it be seen? As many of both, after the last look before the suspend,
    /// will not (docs/protocol/failures.md, "What cannot be seen").
    pub fn seen_moves(&mut self, went: u32, came: u32) -> bool {
        let moves = (self.moves.0 + went, self.moves.1 + came);
        let seen = self.looks < 2 || moves.0 == 0 || moves.1 == 0;
        self.moves = if seen { moves } else { self.moves };
        seen
    }
}

/// The host.
pub struct Host {
    pub guest: Guest,
    pub plan: Plan,
    pub rng: Rng,
    pub steps: u64,
    pub tree: Tree,
    pub stub: Stub,
    pub keeper: Option<Keeper>,
    pub record: Option<Record>,
    pub caller: Caller,
    /// The command will run a recovery.
    pub recover_ns: Option<u64>,
    pub token: Token,
    pub cap: u16,
    /// Writes between two calls of a guest that is not throttled.
    pub writes: u64,
    pub manners: super::plan::Manners,
    pub ack_ns: Option<u64>,
    pub suspend_ns: Option<u64>,
    pub saver: bool,
    pub resume_refusals: u32,
    pub subscribe_refused: bool,
    pub subscribed: bool,
    pub records_fail: bool,
    /// An incremental take was asked of this stub: its tracking may stay on (a mark in dom0 says so).
    pub marked: bool,
    pub power_is_out: bool,
    pub truth: Truth,
    pub wrong: Vec<String>,
    pub tally: Tally,
    /// What happens is printed.
    told: bool,
}

/// The stub is no more.
pub struct Dead;

impl Host {
    pub fn new(plan: Plan, guest: Guest, told: bool) -> Shared {
        let stub = Stub {
            alive: true,
            paused: false,
            died_ns: 0,
            stall_ns: 0,
            busy: false,
            armed: false,
            lost: false,
            state: State::Preparing,
            mail: None,
            fired: Vec::new(),
            edges: 0,
        };
        Rc::new(RefCell::new(Self {
            guest,
            rng: Rng(plan.seed),
            steps: 0,
            tree: Tree::default(),
            stub,
            keeper: None,
            record: None,
            caller: Caller::Present,
            recover_ns: None,
            token: Token([0; 16]),
            cap: plan.cap,
            writes: 0,
            manners: super::plan::Manners { ack_ns: None, suspend_ns: None },
            ack_ns: None,
            suspend_ns: None,
            saver: false,
            resume_refusals: 0,
            subscribe_refused: false,
            subscribed: false,
            records_fail: false,
            marked: false,
            power_is_out: false,
            truth: Truth::default(),
            wrong: Vec::new(),
            tally: Tally::default(),
            told,
            plan,
        }))
    }

    pub fn now_ns(&self) -> u64 {
        self.guest.borrow().now_ns
    }

    pub fn wrong(&mut self, what: impl std::fmt::Display) {
        let (at, step) = (self.now_ns() / 1000, self.steps);
        if self.wrong.len() < 8 {
            self.wrong.push(format!("{what} (at {at} us, step {step})"));
        }
    }

    /// A line of the story.
    pub fn tell(&self, what: impl std::fmt::Display) {
        if self.told {
            println!("{:>14} us, step {:>6}: {what}", self.now_ns() / 1000, self.steps);
        }
    }

    /// A call of a port by the stub begins. What is due happens before, and the stub may not live to make it.
    pub fn port(&mut self) -> Result<(), Dead> {
        if !self.stub.alive {
            return Err(Dead);
        }
        self.step();
        self.others();
        let stall_ns = std::mem::take(&mut self.stub.stall_ns);
        if stall_ns > 0 && self.stub.alive {
            let until_ns = self.now_ns() + stall_ns;
            self.pass(until_ns, |host| !host.stub.alive);
            self.stub.paused = false;
        }
        if self.stub.alive { Ok(()) } else { Err(Dead) }
    }

    /// Something is about to be done by somebody.
    pub fn step(&mut self) {
        let now = self.steps;
        self.steps += 1;
        if now == STEPS_MAX {
            self.wrong("no end");
            self.power_goes();
        }
        for at in 0..self.plan.strikes.len() {
            if self.plan.strikes[at].0 == now {
                self.strike(self.plan.strikes[at].1);
            }
        }
    }

    /// Everybody but the stub does what is due by now.
    pub fn others(&mut self) {
        self.guest_turn();
        self.errand_turn();
        self.keeper_turn();
        if self.recover_ns.is_some_and(|at| at <= self.now_ns()) {
            self.recover_ns = None;
            self.recover();
        }
    }

    /// Time passes for everybody, the stub only waits.
    pub fn pass(&mut self, until_ns: u64, over: impl Fn(&Self) -> bool) {
        loop {
            self.others();
            let now_ns = self.now_ns();
            if over(self) || now_ns >= until_ns || self.power_is_out {
                return;
            }
            let next_ns = self.due_ns().clamp(now_ns + 1, until_ns);
            self.guest.borrow_mut().pass(next_ns - now_ns);
        }
    }

    /// When somebody has something to do next. What is due already and was not done waits for something else.
    fn due_ns(&self) -> u64 {
        let now_ns = self.now_ns();
        let keeper = self.keeper.as_ref().map_or(u64::MAX, |keeper| keeper.due_ns(now_ns, &self.tree));
        let fired = self.stub.fired.iter().map(|(at, _)| *at);
        let others = [self.guest_due_ns(), self.recover_ns.unwrap_or(u64::MAX), self.tree.back_ns(), keeper];
        fired.chain(others).filter(|at| *at > now_ns).min().unwrap_or(u64::MAX)
    }

    /// A word of dom0's is written; the stub's watch fires a little later.
    pub fn write(&mut self, node: Node, text: &str) {
        self.tree.write(node, text);
        let at = self.now_ns() + self.latency_ns();
        match node {
            Node::Verdict | Node::Cancel | Node::Acked => self.stub.fired.push((at, node)),
            Node::Status | Node::Control => self.keeper.iter_mut().for_each(|keeper| keeper.watch_fires(at)),
        }
    }

    /// How long a small thing takes to get across.
    pub fn latency_ns(&mut self) -> u64 {
        if self.rng.once_in(16) { self.rng.below(5 * MS) } else { 20_000 + self.rng.below(200_000) }
    }

    pub fn stub_dies(&mut self) {
        if std::mem::replace(&mut self.stub.alive, false) {
            self.stub.died_ns = self.now_ns();
            let state = self.stub_stands_in();
            self.tally.death("stub", state);
            self.stub.armed = false;
        }
    }

    pub fn keeper_dies(&mut self) {
        if self.keeper.as_ref().is_none_or(|keeper| keeper.over) {
            return;
        }
        let state = self.stub_stands_in();
        self.tally.death("keeper", state);
        self.errand_is_cut();
        self.keeper = None;
        if self.caller == Caller::Present {
            self.recover_ns = Some(self.now_ns() + AT_ONCE_NS);
        }
    }

    pub fn caller_dies(&mut self) {
        if self.caller != Caller::Present {
            return;
        }
        let (now_ns, state) = (self.now_ns(), self.stub_stands_in());
        self.tally.death("caller", state);
        self.caller = Caller::Gone(now_ns);
        self.recover_ns = None;
        self.keeper_hears_of_caller(snapshot::keeper::Cli::Gone);
    }

    pub fn power_goes(&mut self) {
        let state = self.stub_stands_in();
        self.tally.death("power", state);
        self.power_is_out = true;
        self.stub.alive = false;
        self.keeper = None;
        self.record = None;
        self.recover_ns = None;
    }

    /// The state of the session, with what the stub does not say in the pause.
    pub fn stub_stands_in(&self) -> State {
        let stands = self.truth.stands.is_some();
        if self.stub.state == State::WantSuspend && stands { State::Capturing } else { self.stub.state }
    }

    /// Something of the plan.
    fn strike(&mut self, strike: Strike) {
        self.tally.strikes += 1;
        self.tell(format_args!("{strike:?}"));
        match strike {
            Strike::StubDies => self.stub_dies(),
            Strike::KeeperDies => self.keeper_dies(),
            Strike::CliDies => self.caller_dies(),
            Strike::PowerCut => self.power_goes(),
            Strike::StubStalls { ns, paused } => {
                self.stub.stall_ns = ns;
                self.stub.paused = paused;
            }
            Strike::CliCancels => self.keeper_hears_of_caller(snapshot::keeper::Cli::Cancels),
            Strike::CancelNode => {
                self.truth.word = true;
                let cancel = snapshot::verdict::Cancel { token: self.token };
                self.write(Node::Cancel, &cancel.to_string());
            }
            Strike::XenstoredStalls(ns) => {
                self.tree.stalled_until_ns = self.now_ns() + ns;
                self.tree.troubled = true;
            }
            Strike::XenstoredDies(ns) => {
                self.tree.down_until_ns = self.now_ns() + ns;
                self.tree.troubled = true;
                self.stub.lost = true;
            }
            Strike::Rescan => {
                let now_ns = self.now_ns();
                self.stub.fired.extend([Node::Cancel, Node::Verdict, Node::Acked].map(|node| (now_ns, node)));
            }
            Strike::WatchLost => self.keeper.iter_mut().for_each(Keeper::loses_watch),
            Strike::Overwritten => {
                self.truth.overwritten = true;
                self.write(Node::Control, "poweroff");
            }
            Strike::Saver => self.saver = true,
            Strike::ResumeRefused(times) => {
                self.resume_refusals = times;
                self.truth.refused = true;
            }
            Strike::SubscribeRefused => self.subscribe_refused = true,
            Strike::RecordFails => self.records_fail = true,
            Strike::StoreLost => {
                let lost = snapshot::ports::Message::StoreLost;
                self.stub.mail.iter_mut().for_each(|mail| drop(mail.put(lost.clone())));
            }
            of_the_guest => self.strike_guest(of_the_guest),
        }
    }
}
