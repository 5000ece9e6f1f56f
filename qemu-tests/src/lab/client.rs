//! The host's end of a port: one client at a time, guarded by a lock file beside the socket.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::verdict::{Verdict, stop};
use crate::wire::{self, Frame, Kind, PAYLOAD_MAX, PORTS};

/// How long an agent that is up may take to answer HELLO before we assume it waits for the rest of an older frame.
const HELLO_WAIT: Duration = Duration::from_secs(3);
/// What the agent may take beyond a command's own time, on a machine that is busy with other things.
const SLACK: Duration = Duration::from_secs(60);
/// Pause between two tries.
const STEP: Duration = Duration::from_millis(50);

/// What a command left.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Exit code, negative signal, or [`wire::EXIT_TIMEOUT`].
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text, without the last newline.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Standard error as text, without the last newline.
    #[must_use]
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end().to_owned()
    }
}

/// A port that is ours until dropped.
pub struct Port {
    stream: UnixStream,
    // Held for as long as the stream: the lock is released after the connection closed.
    _lock: File,
}

impl Port {
    /// Takes the first free port of the machine in `dir` and waits until the agent answers.
    pub fn open(dir: &Path, wait: Duration) -> Result<Self> {
        let deadline = Instant::now() + wait;
        loop {
            let answered = match Self::connect(dir)? {
                Some(mut port) => port.greet(deadline)?.then_some(port),
                None => None,
            };
            if let Some(port) = answered {
                return Ok(port);
            }
            if Instant::now() >= deadline {
                return Err(stop(Verdict::Crash, format!("dom0 does not answer ({wait:?})")));
            }
            ensure!(super::machine::runs_in(dir), stop(Verdict::Crash, "the machine is not running"));
            thread::sleep(STEP);
        }
    }

    fn connect(dir: &Path) -> Result<Option<Self>> {
        // A socket's path is limited to 107 bytes; through /proc it is short wherever the checkout lies.
        let here = File::open(dir).with_context(|| dir.display().to_string())?;
        for port in 0..PORTS {
            let lock = dir.join(format!("port{port}.lock"));
            let lock = OpenOptions::new().create(true).truncate(false).write(true).open(lock).context("lock")?;
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            match UnixStream::connect(format!("/proc/self/fd/{}/port{port}", here.as_raw_fd())) {
                Ok(stream) => return Ok(Some(Self { stream, _lock: lock })),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
                Err(error) => return Err(error).context("connect"),
            }
        }
        Ok(None)
    }

    /// HELLO until its answer comes. The second try pads: the agent may wait for the rest of a dead client's frame.
    fn greet(&mut self, deadline: Instant) -> Result<bool> {
        let nonce = format!("{}-{:?}", std::process::id(), Instant::now());
        self.stream.set_read_timeout(Some(HELLO_WAIT)).context("socket")?;
        self.stream.set_write_timeout(Some(HELLO_WAIT)).context("socket")?;
        while Instant::now() < deadline {
            if wire::send(&mut self.stream, Kind::HELLO, nonce.as_bytes()).is_err() {
                return Ok(false);
            }
            let asked = Instant::now();
            while asked.elapsed() < HELLO_WAIT {
                match wire::hunt(&mut self.stream) {
                    Ok(frame) if frame.kind == Kind::HELLO && frame.payload == nonce.as_bytes() => return Ok(true),
                    Ok(_) => {}
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                    Err(_) => return Ok(false),
                }
            }
            if self.stream.write_all(&vec![0; PAYLOAD_MAX]).is_err() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Runs a shell command; `sink` sees its output as it comes.
    pub fn run(&mut self, command: &str, timeout: Duration, mut sink: impl FnMut(Kind, &[u8])) -> Result<i32> {
        let timeout_ms = u32::try_from(timeout.as_millis()).context("timeout")?;
        self.ask(Kind::RUN, &wire::join_request(timeout_ms, command), timeout)?;
        loop {
            let frame = self.next()?;
            match frame.kind {
                Kind::STDOUT | Kind::STDERR => sink(frame.kind, &frame.payload),
                Kind::EXIT => {
                    let status = frame.payload.try_into().ok().map(i32::from_le_bytes);
                    return status.context("malformed EXIT");
                }
                _ => return unexpected(&frame),
            }
        }
    }

    /// Writes a file in dom0.
    pub fn put(&mut self, mut from: impl Read, path: &str, mode: u32) -> Result<()> {
        self.ask(Kind::PUT, &wire::join_request(mode, path), SLACK)?;
        let mut buffer = vec![0; PAYLOAD_MAX];
        loop {
            let length = from.read(&mut buffer).with_context(|| path.to_owned())?;
            let Some(chunk @ [_, ..]) = buffer.get(..length) else { break };
            wire::send(&mut self.stream, Kind::DATA, chunk).with_context(|| path.to_owned())?;
        }
        wire::send(&mut self.stream, Kind::END, &[]).with_context(|| path.to_owned())?;
        let frame = self.next()?;
        if frame.kind == Kind::END { Ok(()) } else { unexpected(&frame) }
    }

    /// Reads a file of dom0.
    pub fn get(&mut self, path: &str, mut to: impl Write) -> Result<()> {
        self.ask(Kind::GET, path.as_bytes(), SLACK)?;
        loop {
            let frame = self.next()?;
            match frame.kind {
                Kind::DATA => to.write_all(&frame.payload).with_context(|| path.to_owned())?,
                Kind::END => return Ok(()),
                _ => return unexpected(&frame),
            }
        }
    }

    fn ask(&mut self, kind: Kind, payload: &[u8], timeout: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(timeout + SLACK)).context("socket")?;
        self.stream.set_write_timeout(Some(timeout + SLACK)).context("socket")?;
        wire::send(&mut self.stream, kind, payload).map_err(gone)
    }

    /// The next frame that is no greeting: under load several HELLOs go out before the first answer comes, and the
    /// answers to the others arrive later.
    fn next(&mut self) -> Result<Frame> {
        loop {
            let frame = wire::receive(&mut self.stream).map_err(gone)?;
            if frame.kind != Kind::HELLO {
                return Ok(frame);
            }
        }
    }
}

/// The agent answers or the machine is dead: there is no third case.
fn gone(error: std::io::Error) -> anyhow::Error {
    stop(Verdict::Crash, format!("dom0 fell silent: {error}"))
}

fn unexpected<T>(frame: &Frame) -> Result<T> {
    let text = String::from_utf8_lossy(&frame.payload);
    if frame.kind == Kind::ERROR {
        bail!("dom0: {text}");
    }
    bail!("dom0 answered {:?}: {text}", frame.kind)
}
