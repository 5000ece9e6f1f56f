//! The line to dom0 during a session: takes in messages, gives out the status, keeps the verdict until it is wanted.
//!
//! It believes nothing but a verdict after the release; one that comes earlier can only end the session.

use crate::fault::Fault;
use crate::fields::Line;
use crate::names::Token;
use crate::ports::{Clock, Control, ControlLost, Message};
use crate::session::{Machine, Trouble, limits};
use crate::status::{Counters, State, Status};
use crate::verdict::Verdict;

/// Longest sleep within a dwell.
const DWELL_STEP_NS: u64 = 10_000_000;

/// Test aid (`hold=STATE:MILLISECONDS` on the stub's command line): dwell once in a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Where.
    pub state: State,
    /// How long.
    pub ms: u32,
}

impl core::str::FromStr for Hold {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (state, ms) = text.split_once(':').ok_or(())?;
        Ok(Self { state: state.parse()?, ms: ms.parse().map_err(|_| ())? })
    }
}

/// The line, with what it has heard.
pub(crate) struct Desk<'a, K> {
    pub control: &'a mut K,
    token: Token,
    state: State,
    started_ns: u64,
    /// From here the time to the next report of progress counts: from the last one, or from the begin of the pause.
    report_from_ns: u64,
    released: bool,
    acked: bool,
    verdict: Option<Verdict>,
    hold: Option<Hold>,
    /// What the snapshot builds on, or why on nothing.
    pub about: Lines,
}

/// Two lines of the status.
#[derive(Clone, Default)]
pub(crate) struct Lines {
    pub base: Line,
    pub why_full: Line,
}

impl<'a, K: Control + Clock> Desk<'a, K> {
    pub fn new(control: &'a mut K, token: Token, hold: Option<Hold>) -> Self {
        let started_ns = control.now_ns();
        Self {
            control,
            token,
            state: State::Preparing,
            started_ns,
            report_from_ns: started_ns,
            released: false,
            acked: false,
            verdict: None,
            hold,
            about: Lines::default(),
        }
    }

    pub fn now_ns(&mut self) -> u64 {
        self.control.now_ns()
    }

    /// Says where the session stands; dwells there if the test aid wants it.
    pub fn enter(&mut self, state: State, counters: &Counters) -> Result<(), Trouble> {
        self.state = state;
        self.publish(counters)?;
        self.dwell(counters)
    }

    /// As `enter`, without a word to dom0 unless it dwells: inside the pause a write to xenstore costs too much. A
    /// pause that lasts is reported by `attend`, counted from here and not from the report before it.
    pub fn enter_quietly(&mut self, state: State, counters: &Counters) -> Result<(), Trouble> {
        if self.hold.is_some_and(|hold| hold.state == state) {
            return self.enter(state, counters);
        }
        self.report_from_ns = self.now_ns();
        self.state = state;
        Ok(())
    }

    /// Says where the session stands, and stays there for a while.
    pub fn linger(&mut self, counters: &Counters, ns: u64) -> Result<(), Trouble> {
        self.publish(counters)?;
        let until_ns = self.now_ns().saturating_add(ns);
        while self.now_ns() < until_ns {
            self.attend(counters)?;
            self.wait(DWELL_STEP_NS)?;
        }
        Ok(())
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// When the session began.
    pub fn started_ns(&self) -> u64 {
        self.started_ns
    }

    /// Since the session began.
    pub fn elapsed_us(&mut self) -> u64 {
        self.now_ns().saturating_sub(self.started_ns) / 1000
    }

    fn publish(&mut self, counters: &Counters) -> Result<(), ControlLost> {
        self.report_from_ns = self.now_ns();
        let counters = Counters { elapsed_us: self.elapsed_us(), ..*counters };
        let Lines { base, why_full } = self.about.clone();
        let status = Status { counters, base, why_full, ..Status::new(self.token, self.state) };
        self.control.publish(&status)
    }

    /// Between two batches: takes messages in, reports progress when it is time.
    pub fn attend(&mut self, counters: &Counters) -> Result<(), Trouble> {
        for _ in 0..limits::MESSAGES_MAX {
            match self.control.poll()? {
                None => break,
                Some(Message::Cancel) => return Err(Trouble::new(Fault::Cancelled, "cancelled from dom0")),
                Some(Message::StoreLost) => {
                    return Err(Trouble::new(Fault::Store, "the store's device is closing or gone"));
                }
                Some(Message::Verdict(verdict)) => self.heard(verdict)?,
                // Before our wish it can be no answer to it.
                Some(Message::Acked) => self.acked |= self.state == State::WantSuspend,
            }
        }
        if self.now_ns().saturating_sub(self.report_from_ns) >= limits::PROGRESS_NS {
            self.publish(counters)?;
        }
        Ok(())
    }

    fn heard(&mut self, verdict: Verdict) -> Result<(), Trouble> {
        if self.released {
            self.verdict.get_or_insert(verdict);
            return Ok(());
        }
        let reason = if verdict.resumed { "a verdict came before the release" } else { verdict.reason.as_str() };
        Err(Trouble::new(Fault::VerdictVoid, reason))
    }

    /// The keeper said that the guest took the request; told once.
    pub fn acked(&mut self) -> bool {
        core::mem::take(&mut self.acked)
    }

    pub fn verdict(&mut self) -> Option<Verdict> {
        self.verdict.take()
    }

    /// Sleeps, at most `ns`.
    pub fn wait(&mut self, ns: u64) -> Result<(), Trouble> {
        let until_ns = self.now_ns().saturating_add(ns);
        Ok(self.control.wait(until_ns)?)
    }

    /// The one edge of the session.
    pub fn release(&mut self) -> Result<(), Trouble> {
        self.released = true;
        Ok(self.control.release()?)
    }

    fn dwell(&mut self, counters: &Counters) -> Result<(), Trouble> {
        let Some(hold) = self.hold.take_if(|hold| hold.state == self.state) else { return Ok(()) };
        self.linger(counters, u64::from(hold.ms) * 1_000_000)
    }

    /// The last word, after which the session is over. Nobody is left to tell if it does not get through.
    pub fn finish(&mut self, machine: &Machine, counters: &Counters) -> Status {
        let trouble = machine.trouble();
        let status = Status {
            token: self.token,
            state: machine.state(),
            fault: trouble.map(|trouble| trouble.fault),
            reason: trouble.map(|trouble| trouble.reason.clone()).unwrap_or_default(),
            counters: Counters { elapsed_us: self.elapsed_us(), ..*counters },
            base: self.about.base.clone(),
            why_full: self.about.why_full.clone(),
        };
        let _ = self.control.publish(&status);
        status
    }
}
