//! The hook: a shell command in a process group of its own, watched by a thread, killed on demand. It runs in the pause
//! (phase `captured`), where it may keep the guest's disks as they are, and once more when it is known what became of
//! the snapshot (`sealed`, `failed`, or `unknown`).

use super::senses::{self, Event};
use super::words::Job;
use rustix::process::{Pid, Signal, kill_process_group};
use snapshot::verdict::DISKS_MAX;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Between two looks at the hook.
const LOOK: Duration = Duration::from_millis(2);

/// Why the hook is run; it sees the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The guest stands.
    Captured,
    /// The snapshot exists.
    Sealed,
    /// It does not.
    Failed,
    /// The stub did not say.
    Unknown,
}

impl Phase {
    /// As the hook sees it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::Sealed => "sealed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// A hook that was started.
#[derive(Debug)]
pub struct Hook {
    child: Arc<Mutex<Option<Child>>>,
}

impl Hook {
    /// Starts it. It may name the disks that it keeps in the file `disks`.
    pub fn start(phase: Phase, job: &Job, disks: &Path, events: Sender<Event>) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(job.hook.as_deref().unwrap_or("false")).stdin(Stdio::null()).process_group(0);
        shell.env("LIVESAVE_PHASE", phase.word()).env("LIVESAVE_DOMID", job.domid.to_string());
        shell.env("LIVESAVE_GUEST", &job.guest).env("LIVESAVE_NAME", &job.name);
        shell.env("LIVESAVE_HANDLE", &job.handle).env("LIVESAVE_TOKEN", &job.token);
        shell.env("LIVESAVE_GUEST_DISKS", job.disks.join("\n")).env("LIVESAVE_DISKS", disks);
        let child = shell.spawn()?;
        // The keeper is exempt from the OOM killer; what the operator runs is not.
        let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "0");
        let child = Arc::new(Mutex::new(Some(child)));
        let watched = Arc::clone(&child);
        senses::spawn("hook", move || watch(&watched, &events))?;
        Ok(Self { child })
    }

    /// Runs it to its end, or kills it at its deadline. Only when no guest stands.
    pub fn run(phase: Phase, job: &Job, disks: &Path) -> Result<(), String> {
        let (sender, ended) = mpsc::channel();
        let hook = Self::start(phase, job, disks, sender).map_err(|error| error.to_string())?;
        match ended.recv_timeout(Duration::from_millis(job.hook_timeout_ms)) {
            Ok(Event::HookEnded(true)) => Ok(()),
            Ok(_) => Err("it failed".to_owned()),
            Err(_) => {
                hook.stop();
                Err("it took too long".to_owned())
            }
        }
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

/// The hook's last phase, for whoever has the take's end on his hands; what it kept is forgotten once that is settled.
pub fn conclude(phase: Phase, job: &Job, disks: &Path) -> Result<(), String> {
    Hook::run(phase, job, disks)
        .map_err(|error| format!("the hook, phase {}: {error}; {} stays", phase.word(), disks.display()))?;
    if phase != Phase::Unknown {
        let _ = std::fs::remove_file(disks);
    }
    Ok(())
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

/// What the hook wrote of the disks that it keeps, as the verdict carries it: `VDEV=PATH` joined by `;`. Only disks of
/// the guest, each once, absolute paths.
pub fn kept_disks(file: &Path, job: &Job) -> Result<String, String> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error.to_string()),
    };
    let known: Vec<&str> = job.disks.iter().filter_map(|disk| Some(disk.split_once('=')?.0)).collect();
    let mut seen = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let plain = !line.contains(';') && !line.chars().any(char::is_control);
        let disk = line.split_once('=').filter(|(vdev, path)| plain && path.starts_with('/') && known.contains(vdev));
        let Some((vdev, _)) = disk else {
            return Err(format!("the hook wrote `{line}`: not VDEV=PATH of the guest's"));
        };
        if seen.contains(&vdev) {
            return Err(format!("the hook named {vdev} twice"));
        }
        seen.push(vdev);
    }
    let joined = text.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>().join(";");
    if joined.len() > DISKS_MAX { Err(format!("the hook wrote more than {DISKS_MAX} bytes")) } else { Ok(joined) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::record::tests::job;
    use std::path::PathBuf;

    fn with(command: &str) -> Job {
        Job { hook: Some(command.to_owned()), hook_timeout_ms: 20_000, ..job() }
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("livesave-hook-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn its_status_is_told_and_it_knows_guest_phase_and_disks() {
        let none = Path::new("/nonexistent");
        let knows = "test $LIVESAVE_DOMID = 5 && test $LIVESAVE_PHASE = sealed && test $LIVESAVE_GUEST = web01 && \
                     test $LIVESAVE_DISKS = /nonexistent && test \"$LIVESAVE_GUEST_DISKS\" = xvda=/dev/vg0/web01";
        assert_eq!(Hook::run(Phase::Sealed, &with(knows), none), Ok(()));
        assert!(Hook::run(Phase::Captured, &with(knows), none).is_err());
        assert!(Hook::run(Phase::Failed, &with("exit 3"), none).is_err());
    }

    #[test]
    fn it_can_be_killed_with_its_children() {
        let (sender, receiver) = mpsc::channel();
        let hook = Hook::start(Phase::Captured, &with("sleep 1000 & wait"), Path::new("/x"), sender).unwrap();
        hook.stop();
        let ended = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(matches!(ended, Event::HookEnded(false)), "{ended:?}");
        let slow = Job { hook_timeout_ms: 50, ..with("sleep 1000") };
        assert!(Hook::run(Phase::Failed, &slow, Path::new("/x")).unwrap_err().contains("too long"));
    }

    #[test]
    fn what_it_keeps_is_checked() {
        let file = scratch("kept").join("disks");
        let kept = |text: &str| {
            std::fs::write(&file, text).unwrap();
            kept_disks(&file, &job())
        };
        assert_eq!(kept("xvda=/dev/vg0/kept\n\n"), Ok("xvda=/dev/vg0/kept".to_owned()));
        assert_eq!(kept(""), Ok(String::new()));
        let long = format!("xvda=/{}", "x".repeat(DISKS_MAX));
        for bad in ["xvdb=/dev/x", "xvda=relative", "xvda", "xvda=/a;b", "xvda=/a\nxvda=/b", "xvda=/\x01", &long] {
            assert!(kept(bad).is_err(), "{bad}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(kept_disks(&file, &job()), Ok(String::new()));
    }

    /// The ready hook, with an LVM that only notes what it is told.
    #[test]
    fn the_hook_for_lvm_makes_names_and_removes() {
        use std::os::unix::fs::PermissionsExt;
        let dir = scratch("lvm");
        let (log, disks) = (dir.join("log"), dir.join("disks"));
        let lvs = "case \"$*\" in */dev/sdb) exit 5;; esac; \
                   case \"$*\" in *vg_name,pool_lv*) echo \"  vg0 $([ ! -e $D/thin ] || echo pool)\";; esac";
        for (name, body) in
            [("lvs", lvs), ("lvcreate", "echo \"$0 $*\" >>$D/log"), ("lvremove", "echo \"$0 $*\" >>$D/log")]
        {
            std::fs::write(dir.join(name), format!("#!/bin/sh\nD={}\n{body}\n", dir.display())).unwrap();
            std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/hooks/lvm");
        let run = |phase: &str, guest: &str| {
            let _ = std::fs::remove_file(&log);
            let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
            let mut shell = Command::new("sh");
            shell.arg(script).env("PATH", path).env("LIVESAVE_PHASE", phase).env("LIVESAVE_DISKS", &disks);
            shell.env("LIVESAVE_TOKEN", "00112233445566778899aabbccddeeff").env("LIVESAVE_GUEST_DISKS", guest);
            let well = shell.stderr(Stdio::null()).status().unwrap().success();
            (well, std::fs::read_to_string(&log).unwrap_or_default())
        };
        let two = "xvda=/dev/vg0/web01\nxvdb=/dev/vg0/data";
        let (well, made) = run("captured", two);
        assert!(well && made.lines().count() == 2 && made.contains("--extents 20%ORIGIN"), "{made}");
        let kept = std::fs::read_to_string(&disks).unwrap();
        assert_eq!(kept, "xvda=/dev/vg0/livesave-001122334455-xvda\nxvdb=/dev/vg0/livesave-001122334455-xvdb\n");
        assert_eq!(run("sealed", two), (true, String::new()));
        let (well, removed) = run("failed", two);
        assert!(well && removed.matches("lvremove").count() == 2, "{removed}");
        std::fs::remove_file(&disks).unwrap();
        assert_eq!(run("failed", two), (true, String::new()), "nothing was made");
        std::fs::write(dir.join("thin"), "").unwrap();
        let (well, made) = run("captured", "xvda=/dev/vg0/web01");
        assert!(well && made.contains("--setactivationskip n") && !made.contains("--extents"), "{made}");
        assert!(!run("captured", "xvdb=/dev/sdb").0, "not a logical volume");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
