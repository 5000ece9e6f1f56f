//! A guest's pauses from outside, whatever makes them, and wherever on this host it goes on: `qemu_tests::standing`.

use std::io::Write;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use qemu_tests::standing::Change;
use xen_hypercall::domctl::DomainFlags;
use xen_hypercall::{DomHandle, DomId, Error, hvm};

use crate::Probe;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(1);
/// xl gives domids in turn: a guest that is built anew here has one of the next.
const NEXT_IDS: u16 = 8;

/// Prints each change until killed. A guest stands while no domain of its handle can run: shut down, paused by a tool,
/// dying, or gone.
pub fn run(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let handle = probe.xen.getdomaininfo(probe.domain, None)?.handle;
    let (mut domain, mut last) = (probe.domain, None);
    loop {
        let mut runs = can_run(probe, domain, handle)?;
        if !runs {
            let id = domain.raw();
            for next in (id + 1..id + NEXT_IDS).map(DomId::new) {
                if can_run(probe, next, handle)? {
                    (domain, runs) = (next, true);
                    break;
                }
            }
        }
        if last != Some(runs) {
            let at_ns = hvm::system_time(probe.xen.transport())?;
            writeln!(out, "{}", Change { at_ns, runs }.line())?;
            out.flush()?;
            last = Some(runs);
        }
        thread::sleep(INTERVAL);
    }
}

fn can_run(probe: &Probe, domain: DomId, handle: DomHandle) -> Result<bool> {
    match probe.xen.getdomaininfo(domain, Some(handle)) {
        Ok(info) => Ok(info.shutdown.is_none() && !info.flags.intersects(DomainFlags::PAUSED | DomainFlags::DYING)),
        Err(Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
