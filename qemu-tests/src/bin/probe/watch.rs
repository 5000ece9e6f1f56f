//! When a guest stands and when it goes on, as seen from outside: the whole pause, whoever makes it.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use xen_hypercall::Error;

use crate::Probe;

/// Microseconds between two looks, unless told otherwise.
pub const INTERVAL_US: u64 = 500;

/// Prints `us=T unix_us=U state=S gap_us=G` at the start and at each change, until the guest is gone or the program is
/// killed. T counts from the start, S is `running` or the shutdown's reason, and the change came at most G before T.
pub fn run(probe: &Probe, interval_us: u64, out: &mut impl Write) -> Result<()> {
    let start = Instant::now();
    let handle = probe.xen.getdomaininfo(probe.domain, None)?.handle;
    let mut last: Option<(Option<_>, Duration)> = None;
    loop {
        let info = match probe.xen.getdomaininfo(probe.domain, Some(handle)) {
            Ok(info) => info,
            Err(Error::NotFound { .. }) => {
                writeln!(out, "us={} state=gone", start.elapsed().as_micros())?;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let now = start.elapsed();
        if last.is_none_or(|(shutdown, _)| shutdown != info.shutdown) {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let state = info.shutdown.map_or("running".to_owned(), |reason| reason.to_string());
            let gap = last.map_or(Duration::ZERO, |(_, before)| now - before);
            let (us, unix_us, gap_us) = (now.as_micros(), unix.as_micros(), gap.as_micros());
            writeln!(out, "us={us} unix_us={unix_us} state={state} gap_us={gap_us}")?;
            out.flush()?;
        }
        last = Some((info.shutdown, now));
        thread::sleep(Duration::from_micros(interval_us));
    }
}
