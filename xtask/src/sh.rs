//! Child processes: echoed before they start, with progress while they run.
//!
//! A short command inherits our output. A long one writes to a log under `target/log` and shows how long it runs: as
//! one line that is rewritten on a terminal, as an occasional line otherwise. A failure shows the end of the log.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::paths;

/// How often a long step is looked at, and how often it says so where no terminal is.
const STEP: Duration = Duration::from_millis(200);
const PLAIN_PERIOD: Duration = Duration::from_secs(30);
/// Lines of a failed step's log that are shown.
const TAIL_LINES: usize = 30;

/// A command from words.
pub fn cmd(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Echoes and runs; a status other than 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    echo(command);
    let status = command.status().with_context(|| describe(command))?;
    ensure!(status.success(), "{}: {status}", describe(command));
    Ok(())
}

/// Runs silently and gives standard output; a status other than 0 is an error that carries standard error.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::piped()).output().with_context(|| describe(command))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {}", describe(command), output.status, said.trim());
    String::from_utf8(output.stdout).with_context(|| describe(command))
}

/// Echoes and runs with standard output both shown and collected; whether it succeeded is part of the result.
pub fn watched(command: &mut Command) -> Result<(bool, String)> {
    echo(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| describe(command))?;
    let mut output = String::new();
    let pipe = child.stdout.take().context("no pipe")?;
    for line in BufReader::new(pipe).lines() {
        let line = line.with_context(|| describe(command))?;
        println!("{line}");
        output.push_str(&line);
        output.push('\n');
    }
    let status = child.wait().with_context(|| describe(command))?;
    Ok((status.success(), output))
}

/// A step that takes longer than a few seconds: echoed, logged, with progress.
pub fn long(name: &str, command: &mut Command) -> Result<()> {
    echo(command);
    let log = log_path(name)?;
    let file = File::create(&log).with_context(|| log.display().to_string())?;
    command.stdin(Stdio::null()).stdout(file.try_clone().context("log")?).stderr(file);
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| describe(command))?;
    let mut progress = Progress::new(name);
    let status = loop {
        if let Some(status) = child.try_wait().context("wait")? {
            break status;
        }
        progress.tick(&log);
        thread::sleep(STEP);
    };
    progress.end();
    if !status.success() {
        eprintln!("{}", tail(&log));
        bail!("{name}: {status} (whole log: {})", log.display());
    }
    println!("  {name}: {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Prints the command as one could type it.
pub fn echo(command: &Command) {
    println!("$ {}", describe(command));
}

/// A heading for a phase of a verb.
pub fn heading(text: &str) {
    println!("\n== {text}");
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| quote(&word.to_string_lossy())));
    words.join(" ")
}

fn quote(word: &str) -> String {
    let plain = !word.is_empty() && !word.contains(|c: char| c.is_whitespace() || "'\"$&|;<>()*?".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

fn log_path(name: &str) -> Result<PathBuf> {
    Ok(paths::target_dir("log")?.join(format!("{}.log", name.replace(' ', "-"))))
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

struct Progress {
    name: String,
    started: Instant,
    said: Instant,
    terminal: bool,
}

impl Progress {
    fn new(name: &str) -> Self {
        let now = Instant::now();
        Self { name: name.to_owned(), started: now, said: now, terminal: stdout().is_terminal() }
    }

    fn tick(&mut self, log: &Path) {
        let seconds = self.started.elapsed().as_secs();
        if self.terminal {
            let last: String = tail(log).lines().last().unwrap_or_default().trim().chars().take(80).collect();
            print!("\r\x1b[K  {} {seconds} s  {last}", self.name);
            let _ = stdout().flush();
        } else if self.said.elapsed() >= PLAIN_PERIOD {
            self.said = Instant::now();
            println!("  {} {seconds} s", self.name);
        }
    }

    fn end(&self) {
        if self.terminal {
            print!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_echoed_can_be_typed() {
        assert_eq!(describe(&cmd("echo", &["a b", "it's", "plain", ""])), "echo 'a b' 'it'\\''s' plain ''");
    }
}
