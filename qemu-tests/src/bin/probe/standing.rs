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

/// One look at the guest.
#[derive(Clone, Copy)]
struct Look {
    at_ns: u64,
    domain: DomId,
    runs: bool,
    /// What its processor has done for it.
    cpu_ns: u64,
}

/// Prints each change until killed. A guest stands while no domain of its handle can run: shut down, paused by a tool,
/// dying, or gone. If it `moves` it is looked for in the next domains as well.
pub fn run(probe: &Probe, moves: bool, out: &mut impl Write) -> Result<()> {
    let handle = probe.xen.getdomaininfo(probe.domain, None)?.handle;
    let mut last = look(probe, probe.domain, handle)?;
    say(out, last.at_ns, last.runs)?;
    loop {
        thread::sleep(INTERVAL);
        let mut now = look(probe, last.domain, handle)?;
        if !now.runs && moves {
            let id = last.domain.raw();
            for next in (id + 1..id + NEXT_IDS).map(DomId::new) {
                let other = look(probe, next, handle)?;
                if other.runs {
                    now = other;
                    break;
                }
            }
        }
        if now.runs != last.runs {
            say(out, changed_ns(&last, &now), now.runs)?;
        }
        last = now;
    }
}

fn say(out: &mut impl Write, at_ns: u64, runs: bool) -> Result<()> {
    writeln!(out, "{}", Change { at_ns, runs }.line())?;
    Ok(out.flush()?)
}

/// When it was that the guest, of one vCPU, began or ceased to be able to run. Where one processor has to do for all we
/// look late: most of the time after a resume it is the guest that runs, and not we. So it was as long ago as the guest
/// has run since; and it has stood as long as it did not run since we looked. The pause is never too short by that.
fn changed_ns(last: &Look, now: &Look) -> u64 {
    let before_ns = if last.domain == now.domain { last.cpu_ns } else { 0 };
    let ran_ns = now.cpu_ns.saturating_sub(before_ns);
    let at_ns = if now.runs { now.at_ns.saturating_sub(ran_ns) } else { last.at_ns.saturating_add(ran_ns) };
    at_ns.clamp(last.at_ns, now.at_ns.max(last.at_ns))
}

fn look(probe: &Probe, domain: DomId, handle: DomHandle) -> Result<Look> {
    let (runs, cpu_ns) = match probe.xen.getdomaininfo(domain, Some(handle)) {
        Ok(info) => {
            let stands = info.flags.intersects(DomainFlags::PAUSED | DomainFlags::DYING);
            (info.shutdown.is_none() && !stands, info.cpu_time_ns)
        }
        Err(Error::NotFound { .. }) => (false, 0),
        Err(error) => return Err(error.into()),
    };
    Ok(Look { at_ns: hvm::system_time(probe.xen.transport())?, domain, runs, cpu_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(domain: u16, at_ns: u64, cpu_ns: u64, runs: bool) -> Look {
        Look { at_ns, domain: DomId::new(domain), runs, cpu_ns }
    }

    #[test]
    fn a_pause_is_as_long_as_the_guest_did_not_run() {
        let (ran, stood) = (look(7, 1000, 500, true), look(7, 1100, 520, false));
        assert_eq!(changed_ns(&ran, &stood), 1020, "it ran for 20 after the look");
        assert_eq!(changed_ns(&stood, &look(7, 1400, 650, true)), 1270, "it has run for 130");
        assert_eq!(changed_ns(&stood, &look(7, 1400, 9000, true)), 1100, "not before we saw it stand");
        assert_eq!(changed_ns(&stood, &look(8, 1400, 100, true)), 1300, "another domain counts from 0");
        assert_eq!(changed_ns(&ran, &look(7, 1100, 0, false)), 1000, "gone");
    }
}
