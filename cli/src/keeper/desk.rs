//! The keeper's desk: what it has seen so far, and the hands that carry out the machine's commands.
//!
//! Hypercalls are made here, at once. Everything that could wait (xenstore, the hook) is handed to a thread.

use super::hook::{self, Hook};
use super::keepoff;
use super::record::{Record, RecordFile, Stage};
use super::senses::Event;
use super::throttle::Throttle;
use super::words::Job;
use crate::host::xen::Xen;
use crate::host::{files, xl};
use crate::marks;
use snapshot::keeper::{
    self, Cli, Command, Completion, Control, Heard, Machine, Observation, Outcome, Reason, Report, Stub, Target,
    Verdict,
};
use snapshot::status::State;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
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
    /// When it was started, and how long it took.
    pub hook_time: (Option<Instant>, Option<Duration>),
    /// What it keeps of the disks.
    pub disks: Arc<Mutex<String>>,
    /// The stub's last word on the session.
    pub state: Option<State>,
    /// Processor time taken away from the guest.
    pub throttle: Throttle,
    /// Other tools were let in again.
    pub let_in: bool,
    /// The last look at the stub's domain.
    pub stub_seen: Option<Instant>,
}

impl Desk {
    /// Notes what came. True: a command ended, and the machine has to see it before the next event.
    pub fn note(&mut self, event: Event) -> bool {
        let heard = match event {
            Event::Status(status) => {
                // The stub's word alone takes nothing away from a guest.
                if self.job.throttle {
                    let suspends = status.state == State::WantSuspend;
                    self.throttle.ask(&self.xen, self.target, &mut self.record, status.counters.throttle, suspends);
                }
                self.state = Some(status.state);
                Heard::Status(status.state)
            }
            Event::Control(control) => Heard::Control(control),
            Event::Edge => Heard::Edge,
            Event::CliCancels => Heard::Cli(Cli::Cancels),
            Event::CliGone => Heard::Cli(Cli::Gone),
            Event::Done(completion) => Heard::Done(completion),
            Event::Saver(savers) => {
                self.saver(&savers);
                return false;
            }
            Event::HookEnded(well) => {
                self.hook_ended(well);
                return false;
            }
        };
        self.seen.note(heard)
    }

    /// Another tool saves or migrates the guest. If it is kept off, it fails by itself; if not, the take gives way.
    fn saver(&mut self, savers: &xl::Savers) {
        if self.kept_off(savers.suspends) {
            eprintln!("keeper: a save or migration of the guest begins, and is refused");
            return;
        }
        self.seen.saver = true;
        // The stub's tracking is on until it says that all is captured. A helper that runs by then may have begun its
        // own, and what the stub switches off it would miss: it has to fail, and say so.
        if matches!(self.seen.stub, Stub::Working | Stub::WantsSuspend) {
            xl::end_helpers(&savers.helpers);
        }
    }

    /// Whether Xen refuses now what the tool needs. Asked each time: somebody may have reset the boolean. The save of a
    /// PV guest that tracks nothing asks for nothing that could be refused before it suspends the guest.
    fn kept_off(&self, suspends: bool) -> bool {
        let (domid, handle) = self.target;
        let hvm = || matches!(self.xen.info(domid, Some(handle)), Ok(Some(info)) if info.is_hvm());
        self.record.keeps_off() && self.xen.keeps_tools_off(domid) && (!suspends || hvm())
    }

    /// Other tools may have the guest again once its tracking is off and it runs, or all but a late suspend is over.
    pub fn let_others(&mut self, machine: &Machine) {
        let times = machine.times();
        let stands = times.suspended.is_some() && times.resumed.is_none();
        let over = matches!(self.seen.stub, Stub::Captured | Stub::GaveUp) || machine.only_late();
        if over && !stands && !self.let_in {
            // An error is tried once more at the keeper's end.
            self.let_in = true;
            self.end_keepoff();
        }
    }

    /// The boolean is reset, unless another take needs it. True: it is not, and the record says so.
    pub fn end_keepoff(&mut self) -> bool {
        if let Err(error) = keepoff::end(&self.xen, &mut self.record, marks::guards) {
            eprintln!("keeper: other tools are kept off still: {error}");
        }
        self.record.keeps_off()
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
        let sees_to_it = self.seen.stub != Stub::Gone && !silent && !self.seen.stub_tracks();
        if sees_to_it || self.xen.target(domid, handle) == Target::Gone {
            return false;
        }
        let until = Instant::now() + STUB_END;
        while self.seen.stub == Stub::Gone && !self.stub_is_dead(false) && Instant::now() < until {
            thread::sleep(STUB_LOOK);
        }
        if !self.stub_is_dead(false) || xl::saver_of(domid.raw(), &self.job.guest).is_some() {
            return true;
        }
        let dir = files::run_dir();
        let off = keepoff::lifted(&dir, &self.xen, || self.xen.log_dirty_off(domid).map_err(|error| error.to_string()));
        let off = off.and_then(|off| off);
        if let Err(error) = &off {
            eprintln!("keeper: dirty tracking of a dead stub: {error}");
        }
        off.is_err()
    }

    fn start_hook(&mut self) {
        self.hook_time.0 = Some(Instant::now());
        // A hook of which nobody would know after our death must not be started.
        let started = self
            .record
            .set_hooked(true)
            .and_then(|()| Hook::start(hook::Phase::Captured, &self.job, &self.disks_file(), self.events.clone()));
        self.seen.hook = if started.is_ok() { keeper::Hook::Running } else { keeper::Hook::Failed };
        match started {
            Ok(hook) => self.hook = Some(hook),
            Err(error) => eprintln!("keeper: the hook cannot start: {error}"),
        }
    }

    fn hook_ended(&mut self, well: bool) {
        self.hook_time.1 = self.hook_time.0.map(|started| started.elapsed());
        let kept = if well { hook::kept_disks(&self.disks_file(), &self.job) } else { Err("it failed".to_owned()) };
        self.seen.hook = if kept.is_ok() { keeper::Hook::Done } else { keeper::Hook::Failed };
        match kept {
            Ok(kept) => *self.disks.lock().unwrap_or_else(PoisonError::into_inner) = kept,
            Err(error) => eprintln!("keeper: the hook: {error}"),
        }
    }

    /// Where the hook names the disks that it keeps.
    fn disks_file(&self) -> PathBuf {
        Record::disks_beside(self.record.path())
    }

    /// The hook once more, when it is known what became of the snapshot. Nobody waits for its success.
    pub fn last_hook(&mut self, phase: hook::Phase) {
        if let Err(error) = hook::conclude(phase, &self.job, &self.disks_file()) {
            eprintln!("keeper: {error}");
        }
        if let Err(error) = self.record.set_hooked(false) {
            eprintln!("keeper: the record cannot be written: {error}");
        }
    }
}
