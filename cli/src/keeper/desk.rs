//! The keeper's desk: what it has seen so far, and the hands that carry out the machine's commands.
//!
//! Hypercalls are made here, at once. Everything that could wait (xenstore, the hook) is handed to a thread.

use super::hook::Hook;
use super::record::{RecordFile, Stage};
use super::senses::Event;
use super::throttle::Throttle;
use super::words::Job;
use crate::host::xen::Xen;
use crate::host::xl;
use snapshot::keeper::{
    self, Cli, Command, Completion, Control, Machine, Observation, Outcome, Reason, Report, Stub, Target, Verdict,
};
use snapshot::status::State;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};
use xen_hypercall::domctl::DomainFlags;
use xen_hypercall::types::{DomHandle, DomId};

/// Between two looks at the stub's domain.
const STUB_LOOK: Duration = Duration::from_millis(50);

/// For a stub that was paused to be destroyed, before its dirty tracking is switched off.
const STUB_END: Duration = Duration::from_secs(10);

/// Target or stub, by domid and handle.
pub type Whom = (DomId, DomHandle);

/// The desk.
pub struct Desk {
    /// The hypervisor.
    pub xen: Xen,
    /// The take.
    pub job: Job,
    /// The guest.
    pub target: Whom,
    /// The stub's domain.
    pub stub: Whom,
    /// What was seen.
    pub seen: Observation,
    /// Errands to xenstored.
    pub errands: Sender<(u32, Command)>,
    /// For the hook's thread.
    pub events: Sender<Event>,
    /// The record on disk.
    pub record: RecordFile,
    /// The hook.
    pub hook: Option<Hook>,
    /// Processor time taken away from the guest.
    pub throttle: Throttle,
    /// The last look at the stub's domain.
    pub stub_seen: Option<Instant>,
}

/// Nothing seen yet.
pub fn nothing() -> Observation {
    Observation {
        target: Target::Running,
        stub: Stub::Working,
        stub_stamp: 0,
        control: Control::Unknown,
        released: false,
        cli: Cli::Present,
        saver: false,
        hook: keeper::Hook::Idle,
        done: None,
    }
}

impl Desk {
    /// Notes what came. True: a command ended, and the machine has to see it before the next event.
    pub fn note(&mut self, event: Event) -> bool {
        let seen = &mut self.seen;
        match event {
            Event::Status(status) => {
                // The stub's word alone takes nothing away from a guest.
                if self.job.throttle {
                    self.throttle.ask(&self.xen, self.target, &mut self.record, status.counters.throttle);
                }
                seen.stub_stamp = seen.stub_stamp.wrapping_add(1);
                if seen.stub != Stub::Gone {
                    seen.stub = stub_of(status.state);
                }
            }
            Event::Control(control) => seen.control = control,
            Event::Edge => seen.released = true,
            Event::CliCancels if seen.cli == Cli::Present => seen.cli = Cli::Cancels,
            Event::CliCancels => {}
            Event::CliGone => seen.cli = Cli::Gone,
            Event::Saver(helpers) => {
                seen.saver = true;
                // The stub's tracking is on until it says that all is captured. A helper that runs by then may have
                // begun its own, and what the stub switches off it would miss: it has to fail, and say so.
                if matches!(seen.stub, Stub::Working | Stub::WantsSuspend) {
                    xl::end_helpers(&helpers);
                }
            }
            Event::HookEnded(well) => seen.hook = if well { keeper::Hook::Done } else { keeper::Hook::Failed },
            Event::Done(completion) => {
                seen.done = Some(completion);
                return true;
            }
        }
        false
    }

    /// Looks at the domains; the target last, as the machine wants it. While the guest stands, the stub is looked at
    /// every time: the end of any domain makes xenstored look at all of them, and a suspend that it sees ends xl's
    /// monitor of the guest (up to Xen 4.19), so the guest has to run before the stub's destruction is complete.
    pub fn look(&mut self) {
        let stands = self.seen.target == Target::Suspended;
        if stands || self.stub_seen.is_none_or(|at| at.elapsed() >= STUB_LOOK) {
            self.stub_seen = Some(Instant::now());
            if self.stub_is_dead(stands) {
                self.seen.stub = Stub::Gone;
            }
        }
        self.seen.target = self.xen.target(self.target.0, self.target.1);
    }

    /// A paused stub cannot finish what the guest stands for, and `xl destroy` begins with a pause.
    fn stub_is_dead(&self, guest_stands: bool) -> bool {
        let mut fatal = DomainFlags::DYING | DomainFlags::SHUTDOWN;
        fatal.set(DomainFlags::PAUSED, guest_stands);
        match self.xen.info(self.stub.0, Some(self.stub.1)) {
            Ok(Some(info)) => info.flags.intersects(fatal),
            Ok(None) => true,
            // No proof of death; the silence has a deadline.
            Err(_) => false,
        }
    }

    /// Carries out a command.
    pub fn act(&mut self, machine: &Machine, seq: u32, command: Command) {
        if command.needs_record()
            && let Err(error) = self.record.update(Stage::from(machine.mark()))
        {
            // What could not be undone after our death must not be done.
            eprintln!("keeper: the record cannot be written: {error}");
            self.seen.done = Some(Completion { seq, outcome: Outcome::Failed });
            return;
        }
        let (domid, handle) = self.target;
        let result = match command {
            Command::Silence => self.xen.silence(domid, handle, true),
            Command::Unsilence => self.xen.silence(domid, handle, false),
            Command::Resume => self.xen.resume(domid, handle).map(drop),
            Command::StartHook => return self.start_hook(),
            Command::StopHook => {
                self.hook.iter().for_each(Hook::stop);
                return;
            }
            errand => {
                if errand == Command::AskSuspend {
                    self.seen.control = Control::Unknown;
                }
                // The thread lives as long as we do.
                let _ = self.errands.send((seq, errand));
                return;
            }
        };
        if let Err(error) = &result {
            eprintln!("keeper: {command:?}: {error}");
        }
        let outcome = if result.is_ok() { Outcome::Ok } else { Outcome::Failed };
        self.seen.done = Some(Completion { seq, outcome });
    }

    /// The guest gets its processor time back.
    pub fn end_throttle(&mut self) {
        self.throttle.end(&self.xen, self.target, &mut self.record);
    }

    /// After a stub that died or fell silent: switches its dirty tracking off if it is dead. True: it may still be
    /// on, and the record has to stay for `livesave recover`.
    pub fn tracking_may_be_on(&self, report: &Report) -> bool {
        let (domid, handle) = self.target;
        let silent = report.verdict == Verdict::Void(Reason::StubSilent);
        if (self.seen.stub != Stub::Gone && !silent) || self.xen.target(domid, handle) == Target::Gone {
            return false;
        }
        let until = Instant::now() + STUB_END;
        while self.seen.stub == Stub::Gone && !self.stub_is_dead(false) && Instant::now() < until {
            thread::sleep(STUB_LOOK);
        }
        if !self.stub_is_dead(false) || xl::saver_of(domid.raw(), &self.job.guest).is_some() {
            return true;
        }
        let off = self.xen.log_dirty_off(domid);
        if let Err(error) = &off {
            eprintln!("keeper: dirty tracking of a dead stub: {error}");
        }
        off.is_err()
    }

    fn start_hook(&mut self) {
        let started = Hook::start(self.job.hook.as_deref().unwrap_or("false"), &self.job, self.events.clone());
        self.seen.hook = if started.is_ok() { keeper::Hook::Running } else { keeper::Hook::Failed };
        match started {
            Ok(hook) => self.hook = Some(hook),
            Err(error) => eprintln!("keeper: the hook cannot start: {error}"),
        }
    }
}

/// The stub's state, as the keeper needs it. `sealed` before our verdict would be a breach: then nothing is sure.
fn stub_of(state: State) -> Stub {
    match state {
        State::Preparing | State::Copying => Stub::Working,
        State::WantSuspend | State::Capturing => Stub::WantsSuspend,
        State::Captured | State::Flushing => Stub::Captured,
        State::Refused | State::Sealed | State::Void | State::Failed | State::Done => Stub::GaveUp,
    }
}
