//! A small dom0, guest, stub and xenstored, stepped by the millisecond, that go wrong on demand.
//!
//! It holds the truth the keeper cannot see (who suspended the guest) and refuses what must never happen.

use super::super::{Action, Cli, Command, Completion, Control, Deadlines, Hook, Machine, Observation, Outcome, Pace};
use super::super::{Reason, Report, Stub, Target, Verdict};
use core::time::Duration;
use std::format;
use std::string::String;
use std::vec::Vec;

pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Short deadlines, so that a run takes few steps; their order is that of the defaults.
pub const SHORT: Deadlines = Deadlines {
    ack: ms(40),
    suspend: ms(40),
    pause: Some(ms(30)),
    silence: ms(60),
    late: ms(300),
    hook: ms(20),
    command: ms(10),
    resume: ms(40),
    settle: ms(60),
    take: ms(2000),
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Us,
    Foreign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    Running,
    Suspended(Who),
    Stopped,
    Gone,
}

/// How the guest answers a request: (after the request, after the ack), `None` = never.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    pub ack: Option<u64>,
    pub suspend: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    CliDies,
    CliCancels,
    StubDies,
    StubGivesUp,
    StubHangs,
    GuestDestroyed,
    GuestPowersOff,
    ForeignSuspend,
    ForeignResume,
    XenstoreHangs,
    XenstoreStalls,
    RequestOverwritten,
    HookFails,
    HookHangs,
    ResumeRefusedOnce,
    ResumeRefused,
    SubscribeRefused,
    SpuriousEdge,
}

pub const FAULTS: [Fault; 19] = [
    Fault::None,
    Fault::CliDies,
    Fault::CliCancels,
    Fault::StubDies,
    Fault::StubGivesUp,
    Fault::StubHangs,
    Fault::GuestDestroyed,
    Fault::GuestPowersOff,
    Fault::ForeignSuspend,
    Fault::ForeignResume,
    Fault::XenstoreHangs,
    Fault::XenstoreStalls,
    Fault::RequestOverwritten,
    Fault::HookFails,
    Fault::HookHangs,
    Fault::ResumeRefusedOnce,
    Fault::ResumeRefused,
    Fault::SubscribeRefused,
    Fault::SpuriousEdge,
];

/// How long a stall of xenstored lasts.
const STALL_MS: u64 = 25;

pub struct World {
    pub t: u64,
    pub guest: Guest,
    manners: Manners,
    node: &'static str,
    ack_at: Option<u64>,
    suspend_at: Option<u64>,
    foreign_word: bool,
    foreign_resume_at: u64,
    pub subscribed: bool,
    stub: Stub,
    shown: Stub,
    stamp: u32,
    stub_hangs: bool,
    captured_at: Option<u64>,
    status_at: Option<u64>,
    edge: bool,
    xenstore_back: u64,
    control: Control,
    cli: Cli,
    hook: Hook,
    hook_at: Option<u64>,
    hook_fails: bool,
    hook_hangs: bool,
    resume_refused: u32,
    subscribe_refused: bool,
    queue: Vec<(u32, Command)>,
    done: Option<Completion>,
    pub verdicts: Vec<Verdict>,
    pub resumes: u32,
    pub stood_by_us: u64,
    pub captured_before_resume: bool,
    pub broken: Vec<String>,
}

impl World {
    pub fn new(manners: Manners) -> Self {
        Self {
            t: 0,
            guest: Guest::Running,
            manners,
            node: "",
            ack_at: None,
            suspend_at: None,
            foreign_word: false,
            foreign_resume_at: u64::MAX,
            subscribed: false,
            stub: Stub::Working,
            shown: Stub::Working,
            stamp: 1,
            stub_hangs: false,
            captured_at: None,
            status_at: None,
            edge: false,
            xenstore_back: 0,
            control: Control::Unknown,
            cli: Cli::Present,
            hook: Hook::Idle,
            hook_at: None,
            hook_fails: false,
            hook_hangs: false,
            resume_refused: 0,
            subscribe_refused: false,
            queue: Vec::new(),
            done: None,
            verdicts: Vec::new(),
            resumes: 0,
            stood_by_us: 0,
            captured_before_resume: false,
            broken: Vec::new(),
        }
    }

    fn xenstore(&self) -> bool {
        self.t >= self.xenstore_back
    }

    pub fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::None => {}
            Fault::CliDies => self.cli = Cli::Gone,
            Fault::CliCancels => self.cli = Cli::Cancels,
            Fault::StubDies => self.stub = Stub::Gone,
            Fault::StubGivesUp if self.stub != Stub::Gone => {
                self.stub = Stub::GaveUp;
                self.edge = true;
            }
            Fault::StubGivesUp => {}
            Fault::StubHangs => self.stub_hangs = true,
            Fault::GuestDestroyed => self.guest = Guest::Gone,
            Fault::GuestPowersOff if self.guest == Guest::Running => self.guest = Guest::Stopped,
            Fault::GuestPowersOff => {}
            // After the guest took our word its suspend is ours, whoever else wished for one.
            // A resume and a suspend between two looks cannot be told from nothing at all.
            Fault::ForeignSuspend if self.foreign_resume_at == self.t => {}
            Fault::ForeignSuspend if self.guest == Guest::Running && self.suspend_at.is_none() => {
                self.guest = Guest::Suspended(Who::Foreign);
                self.ack_at = None;
            }
            Fault::ForeignSuspend => {}
            Fault::ForeignResume if matches!(self.guest, Guest::Suspended(_)) => {
                self.guest = Guest::Running;
                self.foreign_resume_at = self.t;
            }
            Fault::ForeignResume => {}
            Fault::XenstoreHangs => self.xenstore_back = u64::MAX,
            Fault::XenstoreStalls => self.xenstore_back = self.xenstore_back.max(self.t + STALL_MS),
            Fault::RequestOverwritten => {
                self.node = "poweroff";
                self.foreign_word = true;
                self.ack_at = None;
            }
            Fault::HookFails => self.hook_fails = true,
            Fault::HookHangs => self.hook_hangs = true,
            Fault::ResumeRefusedOnce => self.resume_refused = self.resume_refused.max(1),
            Fault::ResumeRefused => self.resume_refused = u32::MAX,
            Fault::SubscribeRefused => self.subscribe_refused = true,
            Fault::SpuriousEdge => self.edge = true,
        }
    }

    /// One millisecond of everybody but the keeper.
    pub fn tick(&mut self) {
        self.t += 1;
        if self.guest == Guest::Suspended(Who::Us) {
            self.stood_by_us += 1;
        }
        self.tick_guest();
        self.tick_stub();
        self.tick_hook();
        if self.xenstore() {
            self.shown = self.stub;
            self.control = match self.node {
                "suspend" => Control::Standing,
                "" => Control::Empty,
                _ => Control::Other,
            };
            if !self.queue.is_empty() {
                let (seq, command) = self.queue.remove(0);
                let outcome = self.xenstore_command(command);
                self.done = Some(Completion { seq, outcome });
            }
        }
    }

    fn tick_guest(&mut self) {
        if self.guest != Guest::Running {
            return;
        }
        if self.ack_at.is_some_and(|at| self.t >= at) && self.xenstore() && self.node == "suspend" {
            self.node = "";
            self.ack_at = None;
            self.suspend_at = Some(self.manners.suspend.map_or(u64::MAX, |after| self.t + after));
        }
        if self.suspend_at.is_some_and(|at| self.t >= at) {
            self.suspend_at = None;
            self.guest = Guest::Suspended(Who::Us);
        }
    }

    fn tick_stub(&mut self) {
        if matches!(self.stub, Stub::Gone | Stub::GaveUp) || self.stub_hangs {
            return;
        }
        if self.t == 3 {
            self.stub = Stub::WantsSuspend;
        }
        if self.t % 20 == 0 && self.xenstore() {
            self.stamp += 1;
        }
        let suspended = matches!(self.guest, Guest::Suspended(_));
        match self.captured_at {
            None if suspended && self.stub == Stub::WantsSuspend => self.captured_at = Some(self.t + 4),
            Some(at) if self.status_at.is_none() && !suspended => {
                self.stub = Stub::GaveUp;
                self.edge = true;
                let _ = at;
            }
            Some(at) if self.status_at.is_none() && self.t >= at => {
                self.edge = true;
                self.status_at = Some(self.t + 2);
            }
            _ if self.status_at.is_some_and(|at| self.t >= at) => self.stub = Stub::Captured,
            _ => {}
        }
    }

    fn tick_hook(&mut self) {
        if self.hook == Hook::Running && !self.hook_hangs && self.hook_at.is_some_and(|at| self.t >= at) {
            self.hook = if self.hook_fails { Hook::Failed } else { Hook::Done };
        }
    }

    pub fn look(&self) -> Observation {
        let target = match self.guest {
            Guest::Running => Target::Running,
            Guest::Suspended(_) => Target::Suspended,
            Guest::Stopped => Target::Stopped,
            Guest::Gone => Target::Gone,
        };
        // The death of a domain is seen without xenstored.
        let stub = if self.stub == Stub::Gone { Stub::Gone } else { self.shown };
        Observation {
            target,
            stub,
            stub_stamp: self.stamp,
            control: self.control,
            released: self.edge,
            cli: self.cli,
            hook: self.hook,
            done: self.done,
        }
    }

    pub fn act(&mut self, seq: u32, command: Command) {
        let outcome = match command {
            Command::Silence if self.subscribe_refused || self.guest == Guest::Gone => Outcome::Failed,
            Command::Silence => {
                self.subscribed = true;
                Outcome::Ok
            }
            Command::Unsilence if self.guest == Guest::Gone => Outcome::Failed,
            Command::Unsilence => {
                self.subscribed = false;
                Outcome::Ok
            }
            Command::Resume => self.resume(),
            Command::StartHook => {
                self.hook = Hook::Running;
                self.hook_at = Some(self.t + 3);
                return;
            }
            Command::StopHook => {
                if self.hook == Hook::Running {
                    self.hook = Hook::Failed;
                }
                return;
            }
            command => {
                self.queue.push((seq, command));
                return;
            }
        };
        self.done = Some(Completion { seq, outcome });
    }

    fn resume(&mut self) -> Outcome {
        match self.guest {
            Guest::Suspended(Who::Us) if self.resume_refused > 0 => {
                if self.resume_refused != u32::MAX {
                    self.resume_refused -= 1;
                }
                Outcome::Failed
            }
            Guest::Suspended(who) => {
                // Without an answer, or with our word overwritten, nobody in dom0 can tell whose suspend it is.
                if who == Who::Foreign && self.xenstore() && !self.foreign_word {
                    self.broken.push(format!("resumed a foreign suspend at {}", self.t));
                }
                self.captured_before_resume = self.status_at.is_some();
                self.resumes += 1;
                self.guest = Guest::Running;
                Outcome::Ok
            }
            _ => Outcome::Failed,
        }
    }

    fn xenstore_command(&mut self, command: Command) -> Outcome {
        match command {
            Command::AskSuspend if !self.node.is_empty() => Outcome::Busy,
            Command::AskSuspend => {
                self.node = "suspend";
                self.control = Control::Standing;
                self.ack_at = self.manners.ack.map(|after| self.t + after);
                Outcome::Ok
            }
            Command::ReadControl if self.node == "suspend" => Outcome::Standing,
            Command::ReadControl => Outcome::Taken,
            Command::Withdraw if self.node == "suspend" => {
                self.node = "";
                self.ack_at = None;
                Outcome::Ok
            }
            Command::Withdraw => Outcome::Taken,
            Command::Announce(verdict) => {
                self.verdicts.push(verdict);
                Outcome::Ok
            }
            _ => Outcome::Ok,
        }
    }
}

pub struct Run {
    pub world: World,
    pub report: Report,
    pub only_late_at: Option<u64>,
}

/// Runs a take to its end, each fault at its millisecond.
pub fn run(manners: Manners, with_hook: bool, deadlines: Deadlines, faults: &[(u64, Fault)]) -> Run {
    let mut world = World::new(manners);
    let mut machine = Machine::new(deadlines, with_hook);
    let mut only_late_at = None;
    for _ in 0..20_000_u32 {
        for (at, fault) in faults {
            if *at == world.t {
                world.inject(*fault);
            }
        }
        let mut acted = 0;
        loop {
            match machine.step(ms(world.t), &world.look()) {
                Action::Do(seq, command) => {
                    assert!(!command.needs_record() || machine.mark() != super::super::Mark::Watching, "{command:?}");
                    world.act(seq, command);
                }
                Action::Wait(Pace::Tight | Pace::Easy) => break,
                Action::Finish => return Run { report: machine.report(), world, only_late_at },
            }
            acted += 1;
            assert!(acted < 20, "the keeper never rests: {machine:?}");
        }
        if machine.only_late() {
            only_late_at = only_late_at.or(Some(world.t));
        }
        world.tick();
    }
    panic!("the keeper never finishes: {machine:?}");
}

/// What must hold at the end of every run.
pub fn check(run: &Run, faults: &[(u64, Fault)], what: &str) {
    let had = |fault: Fault| faults.iter().any(|(_, f)| *f == fault);
    let w = &run.world;
    assert!(w.broken.is_empty(), "{what}: {:?}", w.broken);
    if w.guest == Guest::Suspended(Who::Us) {
        assert!(had(Fault::ResumeRefused) && run.report.stuck, "{what}: left stopped by us");
    }
    if w.subscribed {
        assert!(w.guest == Guest::Gone, "{what}: still subscribed");
    }
    // The same word may be written again (a resume interrupted the first try); another word never.
    let first = w.verdicts.first();
    assert!(w.verdicts.iter().all(|v| Some(v) == first), "{what}: two verdicts {:?}", w.verdicts);
    if !had(Fault::XenstoreHangs) {
        assert_eq!(first, Some(&run.report.verdict), "{what}: the verdict that was given");
    }
    if run.report.verdict == Verdict::Resumed {
        assert_eq!(w.resumes, 1, "{what}");
        assert!(w.captured_before_resume, "{what}: resumed before captured");
        assert!(w.hook != Hook::Failed && w.hook != Hook::Running, "{what}: hook {:?}", w.hook);
    }
    assert!(w.resumes <= 1, "{what}: resumed {} times", w.resumes);
    if !had(Fault::ResumeRefused) && !had(Fault::XenstoreHangs) && !had(Fault::XenstoreStalls) {
        assert!(w.stood_by_us <= 30 + 25, "{what}: stood {} ms", w.stood_by_us);
    }
    // A request left behind would bite later.
    if w.node == "suspend" {
        assert!(run.report.standing || matches!(w.guest, Guest::Gone | Guest::Stopped), "{what}: request left");
    }
}

pub fn void(run: &Run) -> Option<Reason> {
    match run.report.verdict {
        Verdict::Void(reason) => Some(reason),
        Verdict::Resumed => None,
    }
}
