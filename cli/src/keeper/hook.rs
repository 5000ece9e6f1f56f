//! The hook of the pause: a shell command in a process group of its own, watched by a thread, killed on demand.

use super::senses::{self, Event};
use super::words::Job;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Between two looks at the hook.
const LOOK: Duration = Duration::from_millis(2);

/// A hook that was started.
#[derive(Debug)]
pub struct Hook {
    child: Arc<Mutex<Option<Child>>>,
}

impl Hook {
    /// Starts it.
    pub fn start(command: &str, job: &Job, events: Sender<Event>) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command).stdin(Stdio::null()).process_group(0);
        shell.env("LIVESAVE_PHASE", "suspended").env("LIVESAVE_DOMID", job.domid.to_string());
        shell.env("LIVESAVE_GUEST", &job.guest).env("LIVESAVE_NAME", &job.name);
        shell.env("LIVESAVE_HANDLE", &job.handle).env("LIVESAVE_TOKEN", &job.token);
        let child = shell.spawn()?;
        // The keeper is exempt from the OOM killer; what the operator runs is not.
        let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "0");
        let child = Arc::new(Mutex::new(Some(child)));
        let watched = Arc::clone(&child);
        senses::spawn("hook", move || watch(&watched, &events))?;
        Ok(Self { child })
    }

    /// Kills it and all that it started, unless it has ended.
    pub fn stop(&self) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = child.as_ref().and_then(|child| i32::try_from(child.id()).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn watch(child: &Mutex<Option<Child>>, events: &Sender<Event>) {
    loop {
        let mut held = child.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = match held.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => None,
            Some(Ok(Some(status))) => Some(status.success()),
            Some(Err(_)) | None => Some(false),
        };
        if let Some(well) = ended {
            *held = None;
            let _ = events.send(Event::HookEnded(well));
            return;
        }
        drop(held);
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::record::tests::job;
    use std::sync::mpsc;

    fn run(command: &str, kill: bool) -> bool {
        let (sender, receiver) = mpsc::channel();
        let hook = Hook::start(command, &job(), sender).unwrap();
        if kill {
            hook.stop();
        }
        match receiver.recv_timeout(Duration::from_secs(20)).unwrap() {
            Event::HookEnded(well) => well,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn its_status_is_told_and_it_knows_the_guest() {
        assert!(run(
            "test $LIVESAVE_DOMID = 5 && test $LIVESAVE_PHASE = suspended && test $LIVESAVE_GUEST = web01",
            false
        ));
        assert!(!run("exit 3", false));
    }

    #[test]
    fn it_can_be_killed_with_its_children() {
        assert!(!run("sleep 1000 & wait", true));
    }
}
