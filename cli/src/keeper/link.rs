//! The CLI's end: starts a keeper, hears its notes, cancels it.

use super::words::{CANCEL, Ending, Job, Note, refusal};
use crate::exit::{Exit, Failure, Outcome};
use crate::host::files;
use crate::waits;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// A keeper at work, seen from the CLI. Dropping it closes the socket, which the keeper takes for our death.
#[derive(Debug)]
pub struct Link {
    socket: UnixStream,
    notes: Receiver<Note>,
}

fn lost(why: impl std::fmt::Display) -> Failure {
    Exit::KeeperLost
        .fail(format_args!("the keeper could not start or went away: {why}"))
        .hint("see /run/livesave/keeper.log, then run `livesave recover`")
}

/// Where the keeper's words go that nobody waits for.
fn log() -> Outcome<File> {
    let path = files::make_run_dir()?.join("keeper.log");
    let options = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    options.map_err(|error| lost(format_args!("{}: {error}", path.display())))
}

impl Link {
    /// Starts a keeper with this job; returns with the port that the stub may bind.
    pub fn start(job: &Job) -> Outcome<(Self, u32)> {
        let (ours, theirs) = UnixStream::pair().map_err(lost)?;
        let log = log()?;
        let copy = log.try_clone().map_err(lost)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("keeper").stdin(Stdio::from(OwnedFd::from(theirs))).stdout(copy).stderr(log).current_dir("/");
        // Not reaped: it outlives us, in a session of its own that no signal of our terminal reaches.
        command.spawn().map_err(lost)?;
        drop(command);
        let mut link = Self { notes: hear(&ours)?, socket: ours };
        let line = serde_json::to_string(job).map_err(lost)? + "\n";
        link.socket.write_all(line.as_bytes()).map_err(lost)?;
        match link.notes.recv_timeout(waits::KEEPER) {
            Ok(Note::Ready { port }) => Ok((link, port)),
            Ok(Note::Refused { exit, what, hint }) => Err(refusal(&exit, what, hint)),
            Ok(other) => Err(lost(format_args!("unexpected {other:?}"))),
            Err(error) => Err(lost(error)),
        }
    }

    /// The next note, if one is there. An error: the keeper is gone without an ending.
    pub fn poll(&self) -> Outcome<Option<Note>> {
        match self.notes.try_recv() {
            Ok(note) => Ok(Some(note)),
            Err(mpsc::TryRecvError::Empty) => Ok(None),
            Err(mpsc::TryRecvError::Disconnected) => Err(lost("it was killed").exiting(Exit::Stuck)),
        }
    }

    /// Waits until the keeper has ended. False: it had not by then.
    pub fn wait_for_end(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            match self.notes.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(error) => return error == RecvTimeoutError::Disconnected,
            }
        }
    }

    /// Asks the keeper to stop the take.
    pub fn cancel(&mut self) -> io::Result<()> {
        writeln!(self.socket, "{CANCEL}")
    }
}

impl Failure {
    fn exiting(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }
}

fn hear(socket: &UnixStream) -> Outcome<Receiver<Note>> {
    let (sender, notes) = mpsc::channel();
    let reader = BufReader::new(socket.try_clone().map_err(lost)?);
    thread::spawn(move || {
        for line in reader.lines() {
            let note = line.ok().and_then(|line| serde_json::from_str(&line).ok());
            let Some(note) = note else { return };
            if sender.send(note).is_err() {
                return;
            }
        }
    });
    Ok(notes)
}

/// The failure that a keeper's ending stands for, as far as the keeper knows; `None`: resumed in order.
pub fn judge(ending: &Ending, guest: &str) -> Option<Failure> {
    use snapshot::keeper::Reason as R;
    if ending.stuck {
        let what = format!("the guest '{guest}' may stand still, or Xen could not be set back");
        return Some(Exit::Stuck.fail(what).hint("run `livesave recover` now"));
    }
    let word = ending.reason.as_deref()?;
    let failure = match ending.cause() {
        Some(R::CliGone | R::Cancelled) => Exit::Cancelled.fail("the take was cancelled; the guest runs"),
        Some(R::StubGone) => Exit::StubDied
            .fail("the stub died during the take; the guest runs")
            .hint("start it again; `livesave recover` switches off a dirty tracking that it left on"),
        Some(R::StubSilent) => Exit::StubDied
            .fail("the stub fell silent during the take; the guest runs")
            .hint("`xl console` shows its log; destroy it only while it is idle"),
        Some(R::TargetGone | R::TargetStopped) => {
            Exit::GuestEnded.fail(format_args!("the guest '{guest}' ended during the take ({word})"))
        }
        Some(R::ForeignSuspend | R::ForeignRequest | R::ForeignResume) => Exit::Foreign
            .fail(format_args!("another tool acted on the guest '{guest}' during the take ({word})"))
            .hint("keep xl save, migrate, shutdown and resume away from a guest during a take"),
        Some(R::ForeignSave) => Exit::Foreign
            .fail(format_args!("a save or migration of the guest '{guest}' began during the take; the take gave way"))
            .hint("take it again when that has ended; if it failed, it had come too far beside the take: repeat it"),
        Some(R::NotAcked) => Exit::NotAcked
            .fail(format_args!("the guest '{guest}' did not take the suspend request in time; it was withdrawn"))
            .hint("is it hung, or paused by `xl pause`?"),
        Some(R::NotSuspended) => Exit::NotSuspended
            .fail(format_args!("the guest '{guest}' took the suspend request and did not suspend in time"))
            .hint("its kernel log says why; the keeper stays and resumes it should it suspend late"),
        Some(R::PauseSpent) => Exit::PauseSpent
            .fail("the pause budget was spent; the guest was resumed")
            .hint("give more with --max-pause"),
        Some(R::HookFailed | R::HookSlow) => Exit::Hook
            .fail(format_args!("the hook failed ({word}); the guest was resumed"))
            .hint("/run/livesave/keeper.log holds its output"),
        Some(R::NotSilenced) => Exit::Denied
            .fail("Xen refused XEN_DOMCTL_subscribe for the guest")
            .hint("`livesave doctor` checks the FLASK policy"),
        _ => Exit::Void.fail(format_args!("the take is void: {word}; the guest runs")),
    };
    Some(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapshot::keeper::Reason;

    #[test]
    fn every_reason_of_the_keeper_has_an_exit_status() {
        for reason in Reason::ALL {
            let ending = Ending { reason: Some(reason.word().to_owned()), ..Ending::default() };
            let failure = judge(&ending, "g").unwrap();
            assert!(failure.to_string().contains("\nhint: "), "{reason:?}: {failure}");
        }
        assert_eq!(judge(&Ending::default(), "g"), None);
        let stuck = Ending { stuck: true, ..Ending::default() };
        assert_eq!(judge(&stuck, "g").unwrap().exit, Exit::Stuck);
    }
}
