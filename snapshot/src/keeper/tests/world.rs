//! A small dom0, guest, stub and xenstored, stepped by the millisecond, that go wrong on demand.
//!
//! It holds the truth the keeper cannot see (who suspended the guest) and refuses what must never happen.

use crate::keeper::{Cli, Command, Completion, Control, Deadlines, Hook, Observation, Outcome, Stub, Target, Verdict};
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

/// How long a stall of xenstored lasts.
pub const STALL_MS: u64 = 25;

pub struct World {
    pub t: u64,
    pub guest: Guest,
    pub manners: Manners,
    pub node: &'static str,
    pub ack_at: Option<u64>,
    pub suspend_at: Option<u64>,
    pub foreign_word: bool,
    pub foreign_resume_at: u64,
    pub subscribed: bool,
    pub stub: Stub,
    pub shown: Stub,
    pub stamp: u32,
    pub stub_hangs: bool,
    pub captured_at: Option<u64>,
    pub status_at: Option<u64>,
    pub edge: bool,
    pub xenstore_back: u64,
    pub control: Control,
    pub cli: Cli,
    pub saver: bool,
    pub hook: Hook,
    pub hook_at: Option<u64>,
    pub hook_fails: bool,
    pub hook_hangs: bool,
    pub resume_refused: u32,
    pub subscribe_refused: bool,
    pub queue: Vec<(u32, Command)>,
    pub done: Option<Completion>,
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
            saver: false,
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
        if self.t.is_multiple_of(20) && self.xenstore() {
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
            saver: self.saver,
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
