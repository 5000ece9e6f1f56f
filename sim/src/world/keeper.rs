//! The keeper's process, without threads: what it has seen, when it looks again, and the loop around the production
//! machine, in the order of `cli/src/keeper/process.rs`.

use std::time::Duration;

use snapshot::keeper::{self, Action, Completion, Control, Deadlines, Machine, Mark, Observation, Target};
use snapshot::keeper::{Cli, Command, Reason, Stub, Verdict};
use snapshot::names::Token;
use snapshot::status::Status;

use super::breakage::{Slip, slip};
use super::host::{Caller, Host, Who};
use super::plan::{MS, S};
use super::tree::{Node, SUSPEND, Tree};

/// When the watch has not fired for so long, everything is read all the same (`cli/src/keeper/senses.rs`).
const RENEW_NS: u64 = 5 * S;
/// Between two looks for another tool that saves the guest.
const SAVER_LOOK_NS: u64 = 100 * MS;
/// Between two looks at the stub's domain.
const STUB_LOOK_NS: u64 = 50 * MS;
/// For a stub that was told of a void (`cli/src/waits.rs`), and between two looks at it.
const STUB_NS: u64 = 35 * S;
const EASY_NS: u64 = 10 * MS;
/// The longest that another process keeps it from the processor.
const JITTER_NS: u64 = 2 * MS;
/// Within this a guest has to run when its stub or the caller has died.
const SOON_NS: u64 = S;
/// A command to xenstored, tried as often as the machine does while the guest stands, and some more.
const PATIENCE_NS: u64 = 20 * S;
/// Most deeds in a row without a rest.
const DEEDS_MAX: u32 = 100;

/// What comes to the keeper's loop.
pub enum News {
    Status(Box<Status>),
    Control(Control),
    Edge,
    Cli(Cli),
    Done(Completion),
}

/// An errand to xenstored.
pub struct Errand {
    pub seq: u32,
    pub command: Command,
    pub started_ns: u64,
    pub ready_ns: u64,
}

/// The process.
pub struct Keeper {
    pub machine: Machine,
    pub seen: Observation,
    pub token: Token,
    pub news: Vec<(u64, News)>,
    pub errands: Vec<Errand>,
    /// Requests that were written.
    pub asked: u32,
    pub pause_ns: Option<u64>,
    pub throttles: bool,
    pub throttled: (u64, bool),
    pub over: bool,
    /// Until then it stays for a stub that has not said that its tracking is off.
    leaves_ns: Option<u64>,
    started_ns: u64,
    next_ns: u64,
    watch_ns: u64,
    fires_lost: bool,
    last_status: String,
    saver_ns: u64,
    stub_seen_ns: Option<u64>,
}

impl Keeper {
    pub fn new(now_ns: u64, token: Token, max_pause_ms: Option<u32>, throttles: bool) -> Self {
        let pause = max_pause_ms.map(|ms| Duration::from_millis(u64::from(ms)));
        Self {
            machine: Machine::new(Deadlines { pause, ..Deadlines::LIVE }, false),
            seen: Observation::nothing(),
            token,
            news: Vec::new(),
            errands: Vec::new(),
            asked: 0,
            pause_ns: max_pause_ms.map(|ms| u64::from(ms) * MS),
            throttles,
            throttled: (0, false),
            over: false,
            leaves_ns: None,
            started_ns: now_ns,
            next_ns: now_ns,
            watch_ns: now_ns + RENEW_NS,
            fires_lost: false,
            last_status: String::new(),
            saver_ns: now_ns,
            stub_seen_ns: None,
        }
    }

    pub fn due_ns(&self, now_ns: u64, tree: &Tree) -> u64 {
        if self.over {
            return u64::MAX;
        }
        let errand = self.errands.first().map_or(u64::MAX, |errand| errand.due_ns(tree));
        let news = self.news.iter().map(|(at, _)| *at);
        news.chain([errand, self.next_ns, self.watch_ns]).filter(|at| *at > now_ns).min().unwrap_or(u64::MAX)
    }

    pub fn watch_fires(&mut self, at_ns: u64) {
        if !std::mem::take(&mut self.fires_lost) {
            self.watch_ns = self.watch_ns.min(at_ns);
        }
    }

    pub fn loses_watch(&mut self) {
        self.fires_lost = true;
    }
}

impl Host {
    pub fn keeper_hears_of_caller(&mut self, cli: Cli) {
        let at = self.now_ns() + self.latency_ns();
        self.keeper.iter_mut().for_each(|keeper| keeper.news.push((at, News::Cli(cli))));
    }

    /// The keeper does what is due.
    pub fn keeper_turn(&mut self) {
        let (now_ns, back_ns) = (self.now_ns(), self.tree.back_ns());
        let Some(keeper) = self.keeper.as_mut().filter(|keeper| !keeper.over) else { return };
        if keeper.watch_ns <= now_ns {
            if self.tree.answers(now_ns) {
                keeper.watch_ns = now_ns + RENEW_NS;
                keeper.reads(now_ns, &self.tree);
            } else {
                keeper.watch_ns = back_ns;
            }
        }
        let called = keeper.news.iter().any(|(at, _)| *at <= now_ns);
        if keeper.next_ns > now_ns && !called {
            return;
        }
        self.drain(now_ns);
        self.keeper_looks(now_ns);
        for deed in 0.. {
            let Some(keeper) = &mut self.keeper else { return };
            let action = keeper.machine.step(Duration::from_nanos(now_ns - keeper.started_ns), &keeper.seen);
            self.unask();
            match action {
                Action::Wait(pace) => {
                    let sleep_ns = u64::try_from(pace.sleep().as_nanos()).unwrap_or(MS);
                    let jitter_ns = if self.rng.once_in(8) { self.rng.below(JITTER_NS) } else { 0 };
                    self.after_deed();
                    self.keeper.iter_mut().for_each(|keeper| keeper.next_ns = now_ns + sleep_ns + jitter_ns);
                    break;
                }
                Action::Do(seq, command) => {
                    self.step();
                    self.act(seq, command);
                    self.step();
                }
                Action::Finish if self.sees_stub_off(now_ns) => return,
                Action::Finish => {
                    self.step();
                    self.keeper_finishes();
                    return;
                }
            }
            self.after_deed();
            if deed > DEEDS_MAX {
                return self.wrong("the keeper never rests");
            }
        }
        self.keeper_is_judged(now_ns);
    }

    fn drain(&mut self, now_ns: u64) {
        loop {
            let Some(keeper) = &mut self.keeper else { return };
            let Some(index) = keeper.news.iter().position(|(at, _)| *at <= now_ns) else { return };
            let (_, news) = keeper.news.remove(index);
            if self.note(news) {
                return;
            }
        }
    }

    /// Looks at the domains; the target last.
    fn keeper_looks(&mut self, now_ns: u64) {
        let target = self.target();
        let (alive, paused, saver) = (self.stub.alive, self.stub.paused, self.saver);
        let Some(keeper) = &mut self.keeper else { return };
        let stands = keeper.seen.target == Target::Suspended;
        if stands || keeper.stub_seen_ns.is_none_or(|at| now_ns - at >= STUB_LOOK_NS) {
            keeper.stub_seen_ns = Some(now_ns);
            if !alive || paused && stands {
                keeper.seen.stub = Stub::Gone;
            }
        }
        if now_ns - keeper.saver_ns >= SAVER_LOOK_NS {
            keeper.saver_ns = now_ns;
            keeper.seen.saver |= saver;
        }
        keeper.seen.target = target;
    }

    /// A request that is used up or withdrawn leaves the record at once.
    fn unask(&mut self) {
        let (Some(keeper), Some(record)) = (&self.keeper, &self.record) else { return };
        let mark = keeper.machine.mark();
        if matches!(record.mark, Mark::Asked | Mark::Standing) && mark != record.mark {
            self.step();
            self.update_record(mark);
        }
    }

    fn after_deed(&mut self) {
        let Some(keeper) = &self.keeper else { return };
        if keeper.machine.times().resumed.is_some() || keeper.machine.only_late() {
            self.end_throttle();
        }
    }

    /// A stub that was told of a void is seen off: it switches its tracking off, or dies before.
    fn sees_stub_off(&mut self, now_ns: u64) -> bool {
        let Some(keeper) = &mut self.keeper else { return false };
        let until_ns = *keeper.leaves_ns.get_or_insert(now_ns + STUB_NS);
        let stays = keeper.seen.stub_tracks() && now_ns < until_ns && !slip(Slip::LeavesStub);
        keeper.next_ns = now_ns + EASY_NS;
        stays
    }

    fn keeper_finishes(&mut self) {
        self.end_throttle();
        let Some(keeper) = &self.keeper else { return };
        let (mark, report) = (keeper.machine.mark(), keeper.machine.report());
        let capped = self.record.as_ref().is_some_and(|record| record.cap.is_some());
        let tracked = mark == Mark::Done && self.tracking_may_be_on(&report);
        self.step();
        match mark {
            _ if self.keeper.is_none() => return,
            Mark::Done if tracked || capped => drop(self.update_record(Mark::Done)),
            Mark::Done => self.record = None,
            mark => drop(self.update_record(mark)),
        }
        self.tally.verdict(report.verdict);
        if report.stuck && !self.truth.refused {
            self.wrong("the keeper could not resume the guest");
        }
        self.keeper.iter_mut().for_each(|keeper| keeper.over = true);
    }

    /// After a stub that died or fell silent. True: the record has to stay.
    fn tracking_may_be_on(&mut self, report: &keeper::Report) -> bool {
        let gone = self.keeper.as_ref().is_some_and(|keeper| keeper.seen.stub == Stub::Gone);
        let silent = report.verdict == Verdict::Void(Reason::StubSilent);
        let tracks = self.keeper.as_ref().is_some_and(|keeper| keeper.seen.stub_tracks() && !slip(Slip::LeavesStub));
        if !gone && !silent && !tracks || self.target() == Target::Gone {
            return false;
        }
        if self.stub.alive || self.saver {
            return true;
        }
        self.step();
        if self.keeper.is_some() {
            self.guest.borrow_mut().log_dirty = false;
        }
        false
    }

    /// A guest that stands by us, with a keeper that can do something about it, does not stand for long.
    fn keeper_is_judged(&mut self, now_ns: u64) {
        let (Some(keeper), Some((Who::Us, since_ns))) = (&self.keeper, self.truth.stands) else { return };
        if self.truth.refused || self.target() != Target::Suspended {
            return;
        }
        let slow_ns = if self.tree.troubled { PATIENCE_NS } else { 0 };
        let mut limit_ns = keeper.pause_ns.map_or(u64::MAX, |pause_ns| since_ns + pause_ns + SOON_NS);
        if !self.stub.alive {
            limit_ns = limit_ns.min(since_ns.max(self.stub.died_ns) + SOON_NS);
        }
        if let Caller::Gone(at_ns) = self.caller {
            limit_ns = limit_ns.min(since_ns.max(at_ns) + SOON_NS);
        }
        if now_ns > limit_ns.saturating_add(slow_ns) {
            self.wrong("the guest stands longer than the keeper's deadlines allow");
            // Once is enough.
            self.truth.refused = true;
        }
    }

    fn update_record(&mut self, mark: Mark) -> bool {
        let now_s = self.now_ns() / S;
        let Some(record) = self.record.as_mut().filter(|_| !self.records_fail) else { return false };
        if record.mark != mark && mark == Mark::Asked {
            record.asked_s = Some(now_s);
        }
        record.mark = mark;
        self.step();
        true
    }

    /// Brings the record up to date before a command that needs it. False: what could not be undone must not be done.
    pub fn record_before(&mut self, command: Command) -> bool {
        let Some(keeper) = &self.keeper else { return false };
        let mark = keeper.machine.mark();
        let differs = self.record.as_ref().is_none_or(|record| record.mark != mark);
        !command.needs_record() || !differs || slip(Slip::NoRecord) || self.update_record(mark)
    }
}

impl Keeper {
    /// Whatever fired: looks at all of it.
    fn reads(&mut self, now_ns: u64, tree: &Tree) {
        if self.asked > 0 {
            self.news.push((now_ns, News::Control(control(tree))));
        }
        let text = tree.read(Node::Status);
        if text == self.last_status {
            return;
        }
        let Ok(status) = Status::parse(text.as_bytes()) else { return };
        if status.token == self.token {
            text.clone_into(&mut self.last_status);
            self.news.push((now_ns, News::Status(Box::new(status))));
        }
    }
}

/// What stands in `control/shutdown`.
pub fn control(tree: &Tree) -> Control {
    match tree.read(Node::Control) {
        "" => Control::Empty,
        SUSPEND => Control::Standing,
        _ => Control::Other,
    }
}
