//! Strikes somebody down in the middle of a take, and tells how long the guest stood after that. All in one process, by
//! Xen's clock: a shell that does this costs more than the time in question.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use xen_hypercall::domctl::DomainFlags;
use xen_hypercall::{DomId, Error, hvm};

use crate::Probe;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(1);
/// So long the guest must have run, without a break, before we stop looking: a suspend that was asked for before the
/// blow may come after it.
const QUIET_NS: u64 = 3_000_000_000;
/// Then nobody resumes it any more.
const HOPELESS_NS: u64 = 120_000_000_000;

/// Kills the processes (`kill PID...`) or destroys the domain of the stub (`destroy`). Prints `stood_us=N was=W`:
/// how long the guest stood at most without a break, from the blow, or from its suspend if that came later; and what it
/// did before the blow, `standing` or `running`.
pub fn run(probe: &Probe, stub: &str, blow: &[&str], out: &mut impl Write) -> Result<()> {
    let stub = DomId::new(stub.parse().context("the stub's domid")?);
    let stands = stands(probe)?;
    let from_ns = hvm::system_time(probe.xen.transport())?;
    let (from_ns, child) = match blow {
        ["destroy"] => {
            let child = Command::new("xl").arg("destroy").arg(stub.to_string()).stderr(Stdio::null()).spawn();
            let child = child.context("xl destroy")?;
            (hit(probe, stub, from_ns)?, Some(child))
        }
        ["kill", pids @ ..] => {
            for pid in pids {
                let pid = pid.parse().ok().and_then(Pid::from_raw).with_context(|| format!("{pid} is no pid"))?;
                kill_process(pid, Signal::KILL).context("kill")?;
            }
            (from_ns, None)
        }
        _ => bail!("destroy, or kill PID..., not {blow:?}"),
    };
    let longest_ns = stood(probe, from_ns, stands)?;
    child.map(|mut child: Child| child.wait()).transpose().context("xl destroy")?;
    writeln!(out, "stood_us={} was={}", longest_ns / 1000, if stands { "standing" } else { "running" })?;
    Ok(())
}

/// The last moment at which the stub was seen alive: xl's own beginning is not part of the blow.
fn hit(probe: &Probe, stub: DomId, from_ns: u64) -> Result<u64> {
    let mut alive_ns = from_ns;
    loop {
        let now_ns = hvm::system_time(probe.xen.transport())?;
        match probe.xen.getdomaininfo(stub, None) {
            Ok(info) if info.flags.intersects(DomainFlags::PAUSED | DomainFlags::DYING) => return Ok(alive_ns),
            Err(Error::NotFound { .. }) => return Ok(alive_ns),
            Ok(_) => alive_ns = now_ns,
            Err(error) => return Err(error.into()),
        }
        ensure!(now_ns - from_ns < HOPELESS_NS, "the stub lives on");
        thread::sleep(INTERVAL);
    }
}

fn stands(probe: &Probe) -> Result<bool> {
    Ok(probe.xen.getdomaininfo(probe.domain, None)?.shutdown.is_some())
}

/// The longest time that the guest stood from here on, until it has run for a while. It ran again at the latest when it
/// was seen to.
fn stood(probe: &Probe, from_ns: u64, stood_before: bool) -> Result<u64> {
    let (mut since_ns, mut runs_ns, mut longest_ns) = (stood_before.then_some(from_ns), from_ns, 0);
    loop {
        let stands = stands(probe)?;
        let now_ns = hvm::system_time(probe.xen.transport())?;
        if stands {
            longest_ns = longest_ns.max(now_ns - *since_ns.get_or_insert(now_ns));
        } else if let Some(since_ns) = since_ns.take() {
            longest_ns = longest_ns.max(now_ns - since_ns);
            runs_ns = now_ns;
        } else if now_ns - runs_ns >= QUIET_NS {
            return Ok(longest_ns);
        }
        ensure!(longest_ns < HOPELESS_NS, "the guest stands still");
        thread::sleep(INTERVAL);
    }
}
