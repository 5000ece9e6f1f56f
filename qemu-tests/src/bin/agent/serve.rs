//! `agent serve`: one thread a port, one request at a time on each.
//!
//! A port without a client reads as end of file; a client that leaves in the middle of a command takes the command
//! with it. Nothing of an earlier conversation is believed: each starts with HELLO.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::wire::{self, Frame, Kind, PAYLOAD_MAX, PORTS};

use crate::command;

/// Pause before a port without a client is looked at again.
const IDLE: Duration = Duration::from_millis(20);
/// How long the virtio ports may take to appear.
const PORTS_WAIT_MAX: Duration = Duration::from_secs(120);

/// Serves every port, for ever.
pub fn run() -> Result<()> {
    let deadline = Instant::now() + PORTS_WAIT_MAX;
    let mut devices = ports()?;
    while devices.len() < PORTS {
        ensure!(Instant::now() < deadline, "{} of {PORTS} virtio ports appeared", devices.len());
        thread::sleep(IDLE);
        devices = ports()?;
    }
    let threads: Vec<_> = devices.into_iter().map(|device| thread::spawn(move || serve(&device))).collect();
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// The device nodes of the ports whose name is ours.
fn ports() -> Result<Vec<PathBuf>> {
    let class = "/sys/class/virtio-ports";
    let Ok(entries) = fs::read_dir(class) else { return Ok(Vec::new()) };
    let mut devices = Vec::new();
    for entry in entries {
        let entry = entry.context(class)?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        let node = PathBuf::from("/dev").join(entry.file_name());
        if name.trim().starts_with("livesave.") && node.exists() {
            devices.push(node);
        }
    }
    Ok(devices)
}

fn serve(device: &PathBuf) {
    match OpenOptions::new().read(true).write(true).open(device) {
        // Never closed: a port that is opened again too soon is busy.
        Ok(mut port) => loop {
            if converse(&mut port).is_err() {
                thread::sleep(IDLE);
            }
        },
        Err(error) => println!("agent: {}: {error}", device.display()),
    }
}

/// Answers until the client leaves, which reads as end of file.
fn converse(port: &mut File) -> io::Result<()> {
    loop {
        let frame = wire::hunt(port)?;
        answer(port, &frame)?;
    }
}

fn answer(port: &mut File, frame: &Frame) -> io::Result<()> {
    let done = match frame.kind {
        Kind::HELLO => return wire::send(port, Kind::HELLO, &frame.payload),
        Kind::RUN => run_command(port, &frame.payload),
        Kind::PUT => put(port, &frame.payload),
        Kind::GET => get(port, &frame.payload),
        // Left over from a client that went away in the middle of a PUT.
        Kind::DATA | Kind::END => return Ok(()),
        other => Err(anyhow::anyhow!("unknown request {other:?}")),
    };
    match done {
        Ok(()) => Ok(()),
        Err(error) => wire::send(port, Kind::ERROR, format!("{error:#}").as_bytes()),
    }
}

fn run_command(port: &mut File, payload: &[u8]) -> Result<()> {
    let (timeout_ms, text) = wire::split_request(payload).context("malformed RUN")?;
    let status = command::run(text, Duration::from_millis(timeout_ms.into()), port)?;
    Ok(wire::send(port, Kind::EXIT, &status.to_le_bytes())?)
}

fn put(port: &mut File, payload: &[u8]) -> Result<()> {
    let (mode, path) = wire::split_request(payload).context("malformed PUT")?;
    // The data is taken from the port even if the file cannot be made: the answer comes after END.
    let mut file = File::create(path).with_context(|| path.to_owned());
    loop {
        let frame = wire::receive(port)?;
        match frame.kind {
            Kind::DATA => {
                let wrote = file.as_mut().map(|file| file.write_all(&frame.payload));
                if let Ok(Err(error)) = wrote {
                    file = Err(error).with_context(|| path.to_owned());
                }
            }
            Kind::END => break,
            other => anyhow::bail!("{other:?} in the middle of a PUT"),
        }
    }
    file?.set_permissions(fs::Permissions::from_mode(mode)).with_context(|| path.to_owned())?;
    Ok(wire::send(port, Kind::END, &[])?)
}

fn get(port: &mut File, payload: &[u8]) -> Result<()> {
    let path = std::str::from_utf8(payload).context("path")?;
    let mut file = File::open(path).with_context(|| path.to_owned())?;
    let mut buffer = vec![0; PAYLOAD_MAX];
    loop {
        let length = file.read(&mut buffer).with_context(|| path.to_owned())?;
        if length == 0 {
            return Ok(wire::send(port, Kind::END, &[])?);
        }
        wire::send(port, Kind::DATA, buffer.get(..length).context("read past the buffer")?)?;
    }
}
