//! What the guest does during the rounds of a take: its counter beside the state of the stub's session, both as
//! they stand in xenstore. Raw messages over dom0's device (public/io/xs_wire.h), so that no client under test is in
//! between.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xen_hypercall::DomId;

/// XS_READ and XS_ERROR.
const READ: u32 = 2;
const ERROR: u32 = 16;
/// XENSTORE_PAYLOAD_MAX.
const PAYLOAD_MAX: usize = 4096;
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(40);

/// Prints `us=T state=S round=R ticks=N` at each change. The counter was read between two reads of the status that
/// agree, so the value stood in xenstore while that round was under way.
pub fn run(guest: DomId, stub: u16, out: &mut impl Write) -> Result<()> {
    let mut bus = OpenOptions::new().read(true).write(true).open("/dev/xen/xenbus").context("/dev/xen/xenbus")?;
    let status = format!("/local/domain/{stub}/data/livesave/status");
    let counter = format!("/local/domain/{guest}/data/counter");
    let (start, mut last) = (Instant::now(), String::new());
    loop {
        let before = session(&mut bus, &status)?;
        let counted = read(&mut bus, &counter)?.unwrap_or_default();
        let ticks = counted.split(' ').next().unwrap_or_default();
        if session(&mut bus, &status)? == before {
            let line = format!("{before} ticks={ticks}");
            if line != last {
                writeln!(out, "us={} {line}", start.elapsed().as_micros())?;
                out.flush()?;
                last = line;
            }
        }
        thread::sleep(INTERVAL);
    }
}

/// State and round of the session, `none` before the first.
fn session(bus: &mut File, path: &str) -> Result<String> {
    let text = read(bus, path)?.unwrap_or_default();
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("none").to_owned();
    Ok(format!("state={} round={}", value("state="), value("round=")))
}

/// The value of a node, if there is one.
fn read(bus: &mut File, path: &str) -> Result<Option<String>> {
    let length = u32::try_from(path.len() + 1)?;
    let mut message: Vec<u8> = [READ, 0, 0, length].iter().flat_map(|word| word.to_le_bytes()).collect();
    message.extend_from_slice(path.as_bytes());
    message.push(0);
    bus.write_all(&message).context("xenstore")?;
    let mut header = [0; 16];
    bus.read_exact(&mut header).context("xenstore")?;
    let [kind, _, _, length] = [0, 4, 8, 12].map(|at| {
        let word = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u32::from_le_bytes(word)
    });
    ensure!(length as usize <= PAYLOAD_MAX, "xenstored answers with {length} bytes");
    let mut payload = vec![0; length as usize];
    bus.read_exact(&mut payload).context("xenstore")?;
    Ok((kind != ERROR).then(|| String::from_utf8_lossy(&payload).into_owned()))
}
