//! Running `xl`, with a deadline, its output kept and its errors shown.

use crate::exit::{Exit, Failure, Outcome};
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
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(bytes) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let arguments: Vec<&str> = text.split('\0').filter(|word| !word.is_empty()).collect();
        if saves(&arguments, domid, name) {
            return Some(arguments.join(" "));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_command_that_never_ends_is_killed() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        assert_eq!(wait(&mut child, Duration::from_millis(50)), None);
    }
}
