//! The counter on the console and in xenstore, from a thread of its own: a console that nobody drains or a xenstored
//! that is away must not stop the counting.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::settings::Settings;
use crate::{Published, counter};

/// XS_WRITE and XS_ERROR (public/io/xs_wire.h).
const XS_WRITE: u32 = 11;
const XS_ERROR: u32 = 16;
/// Longest answer that xenstored may send (XENSTORE_PAYLOAD_MAX).
const PAYLOAD_MAX: usize = 4096;

/// Starts the two publishers.
pub fn start(settings: &Settings, shared: &Arc<Published>) {
    let period = Duration::from_millis((settings.publish * settings.tick_ms).max(1));
    let console = Arc::clone(shared);
    thread::spawn(move || each(&console, period, |line| println!("COUNTER {line}")));
    let store = Arc::clone(shared);
    thread::spawn(move || match OpenOptions::new().read(true).write(true).open("/dev/xen/xenbus") {
        Ok(mut bus) => each(&store, period, |line| {
            if let Err(error) = write(&mut bus, "data/counter", line) {
                println!("GUEST xenstore: {error}");
            }
        }),
        Err(error) => println!("GUEST has no xenbus: {error}"),
    });
}

/// Calls `publish` once a period, if the counter moved.
fn each(shared: &Published, period: Duration, mut publish: impl FnMut(&str)) {
    let mut last = 0;
    loop {
        let counter = counter::ticks();
        if counter != last {
            last = counter;
            let errors = shared.errors.load(Ordering::Relaxed);
            let passes = shared.passes.load(Ordering::Relaxed);
            let gfn = counter::gfn().map_or_else(|| "none".to_owned(), |gfn| format!("{gfn:x}"));
            publish(&format!("{counter} errors={errors} pass={passes} gfn={gfn}"));
        }
        thread::sleep(period);
    }
}

/// One xenstore write over the xenbus device; the path is relative to our own home.
fn write(bus: &mut File, path: &str, value: &str) -> io::Result<()> {
    let length = u32::try_from(path.len() + 1 + value.len()).map_err(io::Error::other)?;
    let mut message = Vec::new();
    for word in [XS_WRITE, 0, 0, length] {
        message.extend_from_slice(&word.to_le_bytes());
    }
    message.extend_from_slice(path.as_bytes());
    message.push(0);
    message.extend_from_slice(value.as_bytes());
    bus.write_all(&message)?;
    let mut header = [0; 16];
    bus.read_exact(&mut header)?;
    let word = |at: usize| header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    let mut payload = vec![0; (word(12) as usize).min(PAYLOAD_MAX)];
    bus.read_exact(&mut payload)?;
    if word(0) == XS_ERROR {
        return Err(io::Error::other(String::from_utf8_lossy(&payload).into_owned()));
    }
    Ok(())
}
