//! Running `xl`, with a deadline, its output kept and its errors shown.

use crate::exit::{Exit, Failure, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Most bytes of output that are kept.
const OUTPUT_MAX: u64 = 4 << 20;
/// Between two looks at a child that has not ended.
const LOOK: Duration = Duration::from_millis(20);

/// The program. `LIVESAVE_XL` names another one.
pub fn xl() -> Command {
    Command::new(std::env::var_os("LIVESAVE_XL").unwrap_or_else(|| "xl".into()))
}

fn failed(what: &str, why: impl std::fmt::Display) -> Failure {
    Exit::XlFailed.fail(format_args!("{what}: {why}")).hint("does it work by hand?")
}

/// Waits for a child; kills it at the deadline.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => thread::sleep(LOOK),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

/// Runs `xl` with these arguments and returns what it printed.
pub fn output(arguments: &[&str], limit: Duration) -> Outcome<Vec<u8>> {
    output_if(arguments, limit, |status, _| status.success())
}

/// As [`output`], for a command whose exit status is not about success: `well` judges status and output.
pub fn output_if(arguments: &[&str], limit: Duration, well: impl Fn(ExitStatus, &[u8]) -> bool) -> Outcome<Vec<u8>> {
    let what = format!("xl {}", arguments.join(" "));
    let spawned = xl().args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| failed(&what, error))?;
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let status = wait(&mut child, limit).ok_or_else(|| failed(&what, "no end in time"))?;
    let (out, err) = (out.recv().unwrap_or_default(), err.recv().unwrap_or_default());
    if well(status, &out) {
        return Ok(out);
    }
    Err(failed(&what, format_args!("{status}: {}", String::from_utf8_lossy(&err).trim())))
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // A pipe that breaks ends the output; the exit status tells the rest.
            let _ = pipe.take(OUTPUT_MAX).read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// Whether a process's arguments are those of libxl's helper saving this domain (libxl_save_callout.c: mode, two file
/// descriptors, domid), or of an `xl` that is told to save or migrate it.
pub fn saves(arguments: &[&str], domid: u16, name: &str) -> bool {
    let [program, rest @ ..] = arguments else { return false };
    let program = program.rsplit('/').next().unwrap_or(program);
    let id = domid.to_string();
    match (program, rest) {
        ("libxl-save-helper", ["--save-domain", _, _, helped, ..]) => *helped == id,
        ("xl", ["save" | "migrate", arguments @ ..]) => arguments.iter().any(|word| *word == id || *word == name),
        _ => false,
    }
}

/// A running process that saves or migrates the domain, by its command line.
pub fn saver_of(domid: u16, name: &str) -> Option<String> {
    pids().into_iter().filter_map(command_line).find(|words| saves(&borrowed(words), domid, name)).map(|w| w.join(" "))
}

/// A running process that saves or migrates any domain.
pub fn any_saver() -> Option<String> {
    let of_any = |words: &Vec<String>| match borrowed(words).as_slice() {
        [program, first, ..] => match program.rsplit('/').next() {
            Some("libxl-save-helper") => *first == "--save-domain",
            Some("xl") => matches!(*first, "save" | "migrate"),
            _ => false,
        },
        _ => false,
    };
    pids().into_iter().filter_map(command_line).find(of_any).map(|words| words.join(" "))
}

/// Whether these are the arguments of a helper that tracks the dirty pages of this domain: after the domid come flags,
/// of which the first bit means a live migration (xenctrl.h, XCFLAGS_LIVE).
fn tracks(arguments: &[&str], domid: u16) -> bool {
    let [_, "--save-domain", _, _, helped, flags, ..] = arguments else { return false };
    saves(arguments, domid, "") && *helped == domid.to_string() && flags.parse().is_ok_and(|flags: u32| flags & 1 != 0)
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn pids() -> BTreeSet<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeSet::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A process's arguments; none for one that is gone, or of the kernel's own.
fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// Whether these arguments mean that the guest is suspended without any tracking: a save, not a migration.
fn only_suspends(arguments: &[&str], domid: u16) -> bool {
    match arguments {
        [_, "save", ..] => true,
        [_, "--save-domain", ..] => !tracks(arguments, domid),
        _ => false,
    }
}

/// Who saves or migrates a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Savers {
    /// The processes among them that track the domain's dirty pages.
    pub helpers: Vec<u32>,
    /// One of them will suspend the domain without tracking anything.
    pub suspends: bool,
}

/// A look at the processes that is repeated: those that are known by now are not looked at again.
#[derive(Debug, Default)]
pub struct Processes {
    known: BTreeMap<u32, Known>,
}

/// A process begins as a copy of another, and has no arguments at all while it loads its program (begin_new_exec,
/// fs/exec.c); on a loaded host either lasts. It is looked at for so long before its arguments count as settled.
const SETTLED: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Known {
    since: Instant,
    told: bool,
}

impl Processes {
    /// Who saves or migrates the domain and did not when last looked.
    pub fn savers(&mut self, domid: u16, name: &str) -> Option<Savers> {
        let (pids, now) = (pids(), Instant::now());
        self.known.retain(|pid, _| pids.contains(pid));
        let (mut found, mut savers) = (false, Savers::default());
        for pid in pids {
            let known = self.known.entry(pid).or_insert(Known { since: now, told: false });
            if known.told || now.duration_since(known.since) >= SETTLED {
                continue;
            }
            let Some(words) = command_line(pid) else { continue };
            if saves(&borrowed(&words), domid, name) {
                found = true;
                // Told once: a second signal would kill the helper before it has cleaned up.
                known.told = true;
                savers.suspends |= only_suspends(&borrowed(&words), domid);
                if tracks(&borrowed(&words), domid) {
                    savers.helpers.push(pid);
                }
            }
        }
        found.then_some(savers)
    }
}

/// Asks helpers of a migration to fail: libxl_save_helper.c makes its stream unwritable on this signal, ends the
/// tracking and reports the failure, and libxl lets the guest go on.
pub fn end_helpers(pids: &[u32]) {
    for pid in pids.iter().filter_map(|pid| i32::try_from(*pid).ok()).filter_map(Pid::from_raw) {
        eprintln!("keeper: a migration tracks the guest's pages beside the take: its helper {pid:?} is asked to end");
        // One that ended by itself is as good.
        let _ = kill_process(pid, Signal::TERM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;

    #[test]
    fn a_save_or_migration_of_this_domain_is_recognised() {
        let helper = ["/usr/lib/xen-4.17/bin/libxl-save-helper", "--save-domain", "9", "-1", "5", "1", "0"];
        assert!(saves(&helper, 5, "web01"));
        assert!(!saves(&helper, 1, "web01"));
        assert!(saves(&["/usr/sbin/xl", "migrate", "web01", "host2"], 5, "web01"));
        assert!(saves(&["xl", "save", "-c", "5", "/tmp/x"], 5, "web01"));
        assert!(!saves(&["xl", "list", "5"], 5, "web01"));
        assert!(!saves(&["libxl-save-helper", "--restore-domain", "9", "-1", "5"], 5, "web01"));
        assert!(!saves(&[], 5, "web01"));
    }

    #[test]
    fn only_a_live_helper_tracks_pages() {
        let helper = |flags| ["/usr/lib/xen-4.17/bin/libxl-save-helper", "--save-domain", "9", "-1", "5", flags, "0"];
        assert!(tracks(&helper("1"), 5));
        assert!(!tracks(&helper("0"), 5));
        assert!(!tracks(&helper("1"), 6));
        assert!(!tracks(&["xl", "migrate", "web01", "host2"], 5));
        assert!(only_suspends(&helper("0"), 5) && only_suspends(&["xl", "save", "web01", "x"], 5));
        assert!(!only_suspends(&helper("1"), 5) && !only_suspends(&["xl", "migrate", "web01", "host2"], 5));
    }

    #[test]
    fn a_process_that_begins_is_told_of_once() {
        let mut processes = Processes::default();
        assert_eq!(processes.savers(31999, "no such guest"), None);
        // It blocks as soon as the pipe is full.
        let mut xl = Command::new("yes").arg0("xl").args(["save", "31999"]).stdout(Stdio::piped()).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        let mut found = None;
        while found.is_none() && Instant::now() < until {
            found = processes.savers(31999, "no such guest");
        }
        let again = processes.savers(31999, "no such guest");
        let any = any_saver();
        xl.kill().unwrap();
        xl.wait().unwrap();
        assert_eq!((found, again), (Some(Savers { suspends: true, ..Savers::default() }), None));
        assert!(any.is_some_and(|words| words.contains("save")));
    }

    #[test]
    fn a_process_that_has_settled_is_not_looked_at_again() {
        let mut xl = Command::new("yes").arg0("xl").args(["save", "31998"]).stdout(Stdio::piped()).spawn().unwrap();
        let since = Instant::now().checked_sub(SETTLED).unwrap();
        let known = BTreeMap::from([(xl.id(), Known { since, told: false })]);
        let mut processes = Processes { known };
        let until = Instant::now() + Duration::from_secs(20);
        while saver_of(31998, "no such guest").is_none() && Instant::now() < until {}
        let seen = (saver_of(31998, "no such guest").is_some(), processes.savers(31998, "no such guest"));
        xl.kill().unwrap();
        xl.wait().unwrap();
        assert_eq!(seen, (true, None));
    }

    #[test]
    fn a_command_that_never_ends_is_killed() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        assert_eq!(wait(&mut child, Duration::from_millis(50)), None);
    }
}
