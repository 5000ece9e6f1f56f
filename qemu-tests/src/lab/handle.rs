//! `Lab`: what a scenario holds. Commands and files go to dom0; guests are made from a specification.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::client::{Output, Port};
use super::machine::{self, Machine, Spec};
use super::pulse::Pulse;
use crate::verdict::{Verdict, stop};
use crate::wire::{EXIT_TIMEOUT, Kind};

/// From power-on until the agent answers and dom0's daemons run; 10 to 20 s on an idle machine.
const BOOT_WAIT: Duration = Duration::from_secs(300);
/// What the agent says on the console when dom0's daemons run.
const UP: &str = "agent: dom0 is up";
/// Until an agent that is up takes a command.
const PORT_WAIT: Duration = Duration::from_secs(60);
/// A command's time unless told otherwise.
pub const COMMAND_WAIT: Duration = Duration::from_secs(120);
/// Pause between two looks of `wait_until`.
const POLL_STEP: Duration = Duration::from_millis(100);

/// A nested host that is up.
pub struct Lab {
    dir: PathBuf,
    machine: Option<Machine>,
    _pulse: Pulse,
}

impl Lab {
    /// Boots a machine that dies with the value, and waits until dom0 is usable.
    pub fn boot(spec: &Spec) -> Result<Self> {
        let machine = Machine::start(spec)?;
        let lab = Self { dir: spec.dir.clone(), machine: Some(machine), _pulse: Pulse::start(&spec.dir) };
        lab.wait_until("dom0 is up", BOOT_WAIT, |lab| {
            check_alive(lab.is_alive())?;
            Ok(lab.serial().contains(UP))
        })?;
        let failed = lab.sh("cat /run/agent.booted")?;
        if failed != "0" {
            bail!("dom0 came up with {failed} failed steps; see {}", lab.dir.join("serial.log").display());
        }
        Ok(lab)
    }

    /// A machine that somebody else started in `dir`.
    pub fn attach(dir: &Path) -> Result<Self> {
        if !machine::runs_in(dir) {
            bail!("no machine runs in {}; `cargo xtask lab up` starts one", dir.display());
        }
        Ok(Self { dir: dir.to_owned(), machine: None, _pulse: Pulse::start(dir) })
    }

    /// Lets the machine live after this value.
    pub fn keep(mut self) {
        if let Some(machine) = self.machine.take() {
            machine.detach();
        }
    }

    /// Where its log and sockets are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether QEMU still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        machine::runs_in(&self.dir)
    }

    /// A port of our own, for streaming.
    pub fn port(&self) -> Result<Port> {
        Port::open(&self.dir, PORT_WAIT)
    }

    /// Runs a shell command; a command that fails is not an error here, one that does not end is a TIMEOUT.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.run_for(command, COMMAND_WAIT)
    }

    /// [`Lab::run`] with a time of its own.
    pub fn run_for(&self, command: &str, timeout: Duration) -> Result<Output> {
        run_on(self.port()?, command, timeout)
    }

    /// Runs a command that must succeed, and gives its standard output without the last newline.
    pub fn sh(&self, command: &str) -> Result<String> {
        let output = self.run(command)?;
        if output.status != 0 {
            bail!("`{command}` ended with {}: {} {}", output.status, output.errors(), output.text());
        }
        Ok(output.text())
    }

    /// Starts a command and goes on; its time runs from now.
    pub fn spawn(&self, command: &str, timeout: Duration) -> Result<Background> {
        let port = self.port()?;
        let command = command.to_owned();
        Ok(Background { thread: thread::spawn(move || run_on(port, &command, timeout)) })
    }

    /// Copies a file into dom0, with its executable bit.
    pub fn put(&self, from: &Path, path: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let file = File::open(from).with_context(|| from.display().to_string())?;
        let mode = file.metadata().with_context(|| from.display().to_string())?.permissions().mode() & 0o777;
        self.port()?.put(file, path, mode)
    }

    /// Writes a file in dom0.
    pub fn put_bytes(&self, bytes: &[u8], path: &str) -> Result<()> {
        self.port()?.put(bytes, path, 0o644)
    }

    /// Copies a file out of dom0.
    pub fn get(&self, path: &str, to: &Path) -> Result<()> {
        let file = File::create(to).with_context(|| to.display().to_string())?;
        self.port()?.get(path, file)
    }

    /// Reads a file of dom0.
    pub fn get_bytes(&self, path: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.port()?.get(path, &mut bytes)?;
        Ok(bytes)
    }

    /// Asks until the answer is yes; a TIMEOUT that names `what` when `wait` is over.
    pub fn wait_until(&self, what: &str, wait: Duration, mut ready: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + wait;
        while !ready(self)? {
            if Instant::now() >= deadline {
                return Err(stop(Verdict::Timeout, format!("{what}: not within {wait:?}")));
            }
            thread::sleep(POLL_STEP);
        }
        Ok(())
    }

    /// What the hypervisor and dom0's kernel said on the serial line so far.
    #[must_use]
    pub fn serial(&self) -> String {
        fs::read(self.dir.join("serial.log")).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// Powers the machine off, by force if it does not go by itself.
    pub fn poweroff(self) -> Result<()> {
        if let Ok(mut port) = Port::open(&self.dir, Duration::from_secs(5)) {
            // The answer may never come: the machine is gone by then.
            let _ = port.run("sync; poweroff -f", Duration::from_secs(1), |_, _| {});
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.is_alive() && Instant::now() < deadline {
            thread::sleep(POLL_STEP);
        }
        machine::kill_in(&self.dir)
    }
}

/// A command that runs in dom0 while the scenario goes on.
pub struct Background {
    thread: JoinHandle<Result<Output>>,
}

impl Background {
    /// Whether it has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    pub fn join(self) -> Result<Output> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the thread that followed a command died"))?
    }
}

fn check_alive(alive: bool) -> Result<()> {
    if alive { Ok(()) } else { Err(stop(Verdict::Crash, "the machine ended while it booted")) }
}

fn run_on(mut port: Port, command: &str, timeout: Duration) -> Result<Output> {
    let mut output = Output::default();
    let status = port.run(command, timeout, |kind, bytes| {
        let to = if kind == Kind::STDERR { &mut output.stderr } else { &mut output.stdout };
        to.extend_from_slice(bytes);
    })?;
    output.status = status;
    if status == EXIT_TIMEOUT {
        let said = format!("{} {}", output.text(), output.errors());
        return Err(stop(Verdict::Timeout, format!("`{command}` did not end within {timeout:?}: {said}")));
    }
    Ok(output)
}
