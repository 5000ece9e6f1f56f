//! One shell command: its output streamed to the port, its whole process group killed when its time is up or its
//! client is gone.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use qemu_tests::wire::{self, EXIT_TIMEOUT, Kind, PAYLOAD_MAX};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process_group};

/// How often the child, the deadline and the client are looked at while no output comes.
const STEP: Duration = Duration::from_millis(10);
/// Output that a background descendant may still add after the command itself has ended.
const LINGER: Duration = Duration::from_millis(100);

type Chunk = (Kind, Vec<u8>);

/// Runs `sh -c text`. The result is the exit code, a negative signal number, or [`EXIT_TIMEOUT`].
pub fn run(text: &str, timeout: Duration, port: &mut File) -> Result<i32> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", text])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("sh")?;
    let (sender, chunks) = mpsc::channel();
    pump(child.stdout.take(), Kind::STDOUT, &sender);
    pump(child.stderr.take(), Kind::STDERR, &sender);
    drop(sender);
    let result = follow(&mut child, &chunks, Instant::now() + timeout, port);
    if !matches!(result, Ok(Some(_))) {
        kill_group(&mut child);
    }
    Ok(result?.map_or(EXIT_TIMEOUT, |status| status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))))
}

/// What one wait for output brought.
#[derive(PartialEq, Eq)]
enum Heard {
    Output,
    Nothing,
    Closed,
}

/// Passes output on until the command has ended; `None` when its time is up.
fn follow(
    child: &mut Child,
    chunks: &Receiver<Chunk>,
    deadline: Instant,
    port: &mut File,
) -> Result<Option<ExitStatus>> {
    loop {
        let heard = forward(chunks, STEP, port)?;
        if let Some(status) = child.try_wait().context("wait")? {
            // A daemon may keep the pipe open for ever; what matters came while somebody was still writing.
            while forward(chunks, LINGER, port)? == Heard::Output {}
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        if heard == Heard::Closed {
            thread::sleep(STEP);
        }
        if client_left(port)? {
            anyhow::bail!("the client left");
        }
    }
}

/// Waits for at most `wait` and sends what came.
fn forward(chunks: &Receiver<Chunk>, wait: Duration, port: &mut File) -> io::Result<Heard> {
    match chunks.recv_timeout(wait) {
        Ok((kind, bytes)) => wire::send(port, kind, &bytes).map(|()| Heard::Output),
        Err(RecvTimeoutError::Timeout) => Ok(Heard::Nothing),
        Err(RecvTimeoutError::Disconnected) => Ok(Heard::Closed),
    }
}

fn pump(pipe: Option<impl Read + Send + 'static>, kind: Kind, to: &Sender<Chunk>) {
    let Some(mut pipe) = pipe else { return };
    let to = to.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; PAYLOAD_MAX];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            let chunk = buffer.get(..length).unwrap_or_default().to_vec();
            if to.send((kind, chunk)).is_err() {
                break;
            }
        }
    });
}

fn client_left(port: &File) -> io::Result<bool> {
    let mut fds = [PollFd::new(port, PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now))?;
    Ok(fds.iter().any(|fd| fd.revents().contains(PollFlags::HUP)))
}

fn kill_group(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let _ = child.wait();
}
