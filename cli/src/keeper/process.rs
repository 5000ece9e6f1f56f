//! The keeper's process: `livesave keeper`, started by `take` with a socket as its standard input.
//!
//! It makes itself hard to kill (own session, memory locked, exempt from the OOM killer), takes the locks, tells its
//! port, and then steps the machine until the guest is nobody's care any more, whatever happens to who started it.

use super::desk::Desk;
use super::errands::Errands;
use super::hook::Phase;
use super::keepoff;
use super::record::{RecordFile, Stage};
use super::senses::{self, Event, Watched};
use super::throttle::Throttle;
use super::words::{Ending, Job, Note};
use crate::exit::{Exit, Failure, Outcome};
use crate::host::files::{self, Lock};
use crate::host::xen::{self, Xen};
use crate::waits;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::setsid;
use snapshot::keeper::{Action, Deadlines, Machine, Mark, Observation, Pace, Times, Verdict};
use snapshot::status::State;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use xen_hypercall::transport::privcmd::Evtchn;
use xen_hypercall::types::{DomId, EvtchnPort};

/// A CLI that does not read must not hold us up.
const NOTE_WAIT: Duration = Duration::from_millis(100);
/// Most bytes of a job.
const JOB_MAX: u64 = 64 * 1024;

/// The CLI's ear; deaf after the first error.
struct Voice(Option<UnixStream>);

impl Voice {
    fn tell(&mut self, note: &Note) {
        let Some(socket) = &mut self.0 else { return };
        let line = serde_json::to_string(note).unwrap_or_default() + "\n";
        if socket.write_all(line.as_bytes()).is_err() {
            self.0 = None;
        }
    }
}

fn trouble(what: &str, error: impl Display) -> Failure {
    Exit::KeeperLost.fail(format_args!("the keeper: {what}: {error}")).hint("/run/livesave/keeper.log may say more")
}

/// Runs the keeper to its end.
pub fn main() -> Outcome {
    let input = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| trouble("its socket", error))?;
    let socket = UnixStream::from(input);
    let ear = socket.try_clone().map_err(|error| trouble("its socket", error))?;
    let _ = socket.set_write_timeout(Some(NOTE_WAIT));
    let mut voice = Voice(Some(socket));
    let mut ear = BufReader::new(ear);
    let prepared = read_job(&mut ear).and_then(prepare);
    match prepared {
        Ok(keeper) => keeper.run(ear, &mut voice),
        Err(failure) => {
            voice.tell(&Note::from(&failure));
            Err(failure)
        }
    }
}

fn read_job(ear: &mut BufReader<UnixStream>) -> Outcome<Job> {
    let mut line = String::new();
    let read = std::io::Read::take(&mut *ear, JOB_MAX).read_line(&mut line);
    read.map_err(|error| trouble("no job", error))?;
    serde_json::from_str(&line).map_err(|error| trouble("a job that it does not understand", error))
}

/// Best effort, each on its own: a keeper that can be swapped or killed is still better than none.
fn harden() {
    if let Err(error) = setsid() {
        eprintln!("keeper: no session of its own: {error}");
    }
    if let Err(error) = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE) {
        eprintln!("keeper: memory is not locked: {error}");
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        eprintln!("keeper: not exempt from the OOM killer: {error}");
    }
}

struct Keeper {
    job: Job,
    xen: Xen,
    evtchn: Evtchn,
    port: EvtchnPort,
    record: RecordFile,
    guest_lock: Lock,
    stub_lock: Lock,
}

fn held(name: &str, whose: &str) -> Outcome<Lock> {
    files::lock(name)?.ok_or_else(|| {
        let what = format!("another keeper is responsible for {whose}");
        Exit::Busy
            .fail(what)
            .hint("`livesave status` shows it; one that waits for a late suspend ends after 10 minutes")
    })
}

fn prepare(job: Job) -> Outcome<Keeper> {
    let (Some((_, handle)), Some((stub, _)), Some(_)) = (job.target(), job.stub(), job.session()) else {
        return Err(trouble("its job", "a uuid or token is malformed"));
    };
    harden();
    let dir = files::make_run_dir()?;
    let guest_lock = held(&format!("guest-{handle}"), &format!("guest '{}'", job.guest))?;
    let stub_lock = held(&format!("stub-{stub}"), "this stub's session")?;
    let xen = Xen::open()?;
    let opened = Evtchn::open().and_then(|evtchn| evtchn.bind_unbound_port(stub).map(|port| (evtchn, port)));
    let (evtchn, port) = opened.map_err(|error| xen::trouble("the release port", error))?;
    let mut record = RecordFile::create(&dir, &job).map_err(|error| trouble("its record", error))?;
    if let Err(why) = keepoff::begin(&xen, DomId::new(job.domid), &mut record) {
        eprintln!("keeper: other tools are not kept off, the take gives way to them: {why}");
    }
    Ok(Keeper { job, xen, evtchn, port, record, guest_lock, stub_lock })
}

impl Keeper {
    fn run(self, ear: BufReader<UnixStream>, voice: &mut Voice) -> Outcome {
        let (sender, events) = mpsc::channel();
        let Some(((target, stub), token)) = self.job.target().zip(self.job.stub()).zip(self.job.session()) else {
            return Err(trouble("its job", "malformed"));
        };
        let watched = Watched {
            token,
            base: format!("/local/domain/{}/data/livesave", stub.0),
            control: format!("/local/domain/{}/control/shutdown", target.0),
        };
        let asked = Arc::new(AtomicU32::new(0));
        let (errands, commands) = mpsc::channel();
        let disks = Arc::new(Mutex::new(String::new()));
        let boy = Errands {
            watched: watched.clone(),
            domid: target.0,
            asked: Arc::clone(&asked),
            disks: Arc::clone(&disks),
            events: sender.clone(),
        };
        let (port, evtchn) = (self.port, self.evtchn);
        let (domid, guest) = (target.0.raw(), self.job.guest.clone());
        let threads = [
            senses::spawn("errands", move || boy.serve(&commands)),
            senses::spawn("watch", along(&sender, move |to| senses::watch(&watched, &asked, &to))),
            senses::spawn("release", along(&sender, move |to| senses::listen(&evtchn, port, &to))),
            senses::spawn("savers", along(&sender, move |to| senses::watch_savers(domid, &guest, &to))),
            senses::spawn("cli", along(&sender, move |to| senses::hear(ear, &to))),
        ];
        threads.into_iter().collect::<Result<(), _>>().map_err(|error| trouble("a thread", error))?;
        let deadlines = deadlines(&self.job);
        let machine = Machine::new(deadlines, self.job.hook.is_some());
        let desk = Desk {
            xen: self.xen,
            job: self.job,
            target,
            stub,
            seen: Observation::nothing(),
            errands,
            events: sender,
            record: self.record,
            hook: None,
            hook_time: (None, None),
            disks,
            state: None,
            throttle: Throttle::default(),
            let_in: false,
            stub_seen: None,
        };
        voice.tell(&Note::Ready { port: port.raw() });
        let locks = (self.guest_lock, Some(self.stub_lock));
        Shift { desk, machine, events, started: Instant::now(), told: Told::default() }.work(voice, locks)
    }
}

fn along<F: FnOnce(mpsc::Sender<Event>) + Send>(
    sender: &mpsc::Sender<Event>,
    body: F,
) -> impl FnOnce() + Send + use<F> {
    let sender = sender.clone();
    move || body(sender)
}

fn deadlines(job: &Job) -> Deadlines {
    Deadlines {
        pause: job.max_pause_ms.map(Duration::from_millis),
        hook: Duration::from_millis(job.hook_timeout_ms),
        ..Deadlines::LIVE
    }
}

#[derive(Default)]
struct Told {
    times: Times,
    over: bool,
}

/// One keeper at work.
struct Shift {
    desk: Desk,
    machine: Machine,
    events: Receiver<Event>,
    started: Instant,
    told: Told,
}

impl Shift {
    fn work(mut self, voice: &mut Voice, locks: (Lock, Option<Lock>)) -> Outcome {
        let (guest_lock, mut stub_lock) = locks;
        loop {
            let action = self.machine.step(self.started.elapsed(), &self.desk.seen);
            self.unask();
            match action {
                Action::Do(seq, command) => self.desk.act(&self.machine, seq, command),
                Action::Wait(pace) => self.rest(pace),
                Action::Finish => break,
            }
            self.desk.let_others(&self.machine);
            self.tell(voice);
            if self.machine.times().resumed.is_some() || self.machine.only_late() {
                self.desk.end_throttle();
            }
            if self.machine.only_late() {
                // The stub is free for others; only the guest is still in our care.
                stub_lock = None;
            }
        }
        // Who hears of the end may save the guest at once.
        self.desk.end_keepoff();
        self.tell_over(voice, false);
        self.last_hook();
        self.see_stub_off();
        // Whoever finds the locks free finds the record gone as well.
        let done = self.finish();
        drop((guest_lock, stub_lock));
        done
    }

    /// Drains what came, waits if nothing did, then looks at the domains.
    fn rest(&mut self, pace: Pace) {
        let mut next = self.events.try_recv().ok();
        if next.is_none() {
            next = match self.events.recv_timeout(pace.sleep()) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                // Cannot be: the desk holds a sender.
                Err(RecvTimeoutError::Disconnected) => None,
            };
        }
        while let Some(event) = next.take() {
            if self.desk.note(event) {
                break;
            }
            next = self.events.try_recv().ok();
        }
        self.desk.look();
    }

    /// A request that is used up or withdrawn leaves the record at once: for `livesave recover` a guest that took it
    /// may still suspend by it, so the record says that it stands before it is resumed.
    fn unask(&mut self) {
        let (was, stage) = (self.desk.record.stage(), Stage::from(self.machine.mark()));
        if matches!(was, Stage::Asked | Stage::Standing)
            && stage != was
            && let Err(error) = self.desk.record.update(stage)
        {
            eprintln!("keeper: the record cannot be written: {error}");
        }
    }

    fn tell(&mut self, voice: &mut Voice) {
        let times = self.machine.times();
        let before = std::mem::replace(&mut self.told.times, times);
        for (was, is, note) in [
            (before.asked, times.asked, Note::Asking),
            (before.suspended, times.suspended, Note::Suspended),
            (before.resumed, times.resumed, Note::Resumed),
        ] {
            if was.is_none() && is.is_some() {
                voice.tell(&note);
            }
        }
        if self.machine.only_late() {
            self.tell_over(voice, true);
        }
    }

    fn tell_over(&mut self, voice: &mut Voice, late: bool) {
        if !std::mem::replace(&mut self.told.over, true) {
            let hook_us = self.desk.hook_time.1.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
            voice.tell(&Note::Over(Ending { hook_us, ..Ending::of(&self.machine.report(), late) }));
        }
    }

    /// A hook that saw the pause hears what became of the snapshot. The guest runs by now.
    fn last_hook(&mut self) {
        if self.desk.hook.is_none() {
            return;
        }
        let phase = match self.machine.report().verdict {
            Verdict::Void(_) => Phase::Failed,
            Verdict::Resumed => self.fate(),
        };
        self.desk.last_hook(phase);
    }

    /// What the stub makes of a verdict that lets it seal. It may have much to write before: as long as it says
    /// something now and then it is waited for.
    fn fate(&mut self) -> Phase {
        let (mut stamp, mut heard) = (self.desk.seen.stub_stamp, Instant::now());
        loop {
            if std::mem::replace(&mut stamp, self.desk.seen.stub_stamp) != self.desk.seen.stub_stamp {
                heard = Instant::now();
            }
            match self.desk.state {
                Some(State::Sealed) => return Phase::Sealed,
                Some(state) if state.is_final() => return Phase::Failed,
                _ => {}
            }
            match self.events.recv_timeout(waits::STUB.saturating_sub(heard.elapsed())) {
                Ok(event) => {
                    self.desk.note(event);
                }
                Err(_) => return Phase::Unknown,
            }
        }
    }

    /// A stub that was told of a void switches its tracking off. If it dies before it does, nobody else would know.
    fn see_stub_off(&mut self) {
        let until = Instant::now() + waits::STUB;
        while self.desk.seen.stub_tracks() && Instant::now() < until {
            self.rest(Pace::Easy);
        }
    }

    fn finish(mut self) -> Outcome {
        self.desk.end_throttle();
        let capped = self.desk.record.cap().is_some();
        let tracked = self.machine.mark() == Mark::Done && self.desk.tracking_may_be_on(&self.machine.report());
        let kept_off = self.desk.record.keeps_off() && self.desk.end_keepoff();
        let written = match self.machine.mark() {
            Mark::Done if tracked || capped || kept_off => self.desk.record.update(Stage::Tracking),
            Mark::Done => self.desk.record.remove(),
            mark => self.desk.record.update(Stage::from(mark)),
        };
        written.map_err(|error| trouble("its record", error))
    }
}
