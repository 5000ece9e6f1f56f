//! What a guest is and does besides its memory.

use std::io::Write;

use anyhow::{Context, Result, bail};
use qemu_tests::context;
use xen_hypercall::abi::event::EVTCHNSTAT_CLOSED;
use xen_hypercall::abi::vcpu::VcpuGuestContext;
use xen_hypercall::shadow::Pass;
use xen_hypercall::{EvtchnPort, XenErrno, dom0, event};
use zerocopy::FromZeros as _;

use crate::Probe;

/// More event channels than any domain of the lab has.
const PORTS_MAX: u32 = 1 << 16;

/// Prints what getdomaininfo says, `key=value` each.
pub fn info(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let info = probe.xen.getdomaininfo(probe.domain, None)?;
    let shutdown = info.shutdown.map_or("no".to_owned(), |reason| reason.to_string());
    writeln!(out, "domid={} handle={} flags={:?}", info.domain, info.handle, info.flags)?;
    writeln!(out, "shutdown={shutdown} online_vcpus={} cpu_time_ns={}", info.online_vcpus, info.cpu_time_ns)?;
    writeln!(out, "tot_pages={} max_pages={} ssidref={}", info.tot_pages, info.max_pages, info.ssidref)?;
    Ok(())
}

/// Prints `type instance length bytes` for each record of the context of a PVH or HVM guest. The TSC of a vCPU reads 0:
/// it counts on while the guest stands still.
pub fn context(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let mut context = vec![0; probe.xen.hvm_context_size(probe.domain)?];
    let len = probe.xen.gethvmcontext(probe.domain, &mut context)?;
    for record in context::records(context.get(..len).context("longer than its size")?)? {
        writeln!(out, "{record}")?;
    }
    Ok(())
}

/// Prints the registers that carry a hypercall and its arguments, as a PV guest's first vCPU left them.
pub fn registers(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let mut context = VcpuGuestContext::new_zeroed();
    probe.xen.getvcpucontext(probe.domain, 0, &mut context)?;
    let regs = context.user_regs;
    writeln!(
        out,
        "rax={:#x} rdi={:#x} rsi={:#x} rdx={:#x} r10={:#x} r8={:#x}",
        regs.rax, regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8
    )?;
    Ok(())
}

/// Prints `port status remote-domain remote-port` of each event channel of the domain that is in use.
pub fn ports(probe: &Probe, out: &mut impl Write) -> Result<()> {
    for port in 1..PORTS_MAX {
        match event::status(probe.xen.transport(), probe.domain, EvtchnPort::new(port)) {
            Ok(status) if status.status == EVTCHNSTAT_CLOSED => {}
            Ok(port_is) => {
                writeln!(out, "{port} {} {} {}", port_is.status, port_is.remote_dom, port_is.remote_port)?;
            }
            // A port that was closed has lost its label, so the policy does not know whose it is (flask/hooks.c,
            // flask_free_security_evtchn).
            Err(error) if error.xen() == Some(XenErrno::EACCES) => {}
            // The table ends here.
            Err(error) if error.xen() == Some(XenErrno::EINVAL) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    bail!("domain {} has more than {PORTS_MAX} event channels", probe.domain)
}

/// Whether log-dirty is off (`status`), or switches it. ENABLE is the only question that Xen answers: 0 means that it
/// was off, and then it is switched off again.
pub fn log_dirty(probe: &Probe, what: &str, out: &mut impl Write) -> Result<()> {
    match what {
        "on" => probe.xen.logdirty_enable(probe.domain)?,
        "off" => probe.xen.logdirty_off(probe.domain)?,
        "status" => match probe.xen.logdirty_enable(probe.domain) {
            Ok(()) => {
                probe.xen.logdirty_off(probe.domain)?;
                writeln!(out, "off")?;
            }
            Err(error) if error.xen() == Some(XenErrno::EINVAL) => writeln!(out, "on")?,
            Err(error) => return Err(error.into()),
        },
        "clean" => writeln!(out, "{}", clean(probe)?)?,
        "dirty" => writeln!(out, "{}", probe.xen.logdirty_stats(probe.domain)?.dirty_count)?,
        _ => bail!("{what} is not status, on, off, clean or dirty"),
    }
    Ok(())
}

/// Fetches and clears the bits of so many pages, 4 GiB of them; how many were dirty.
fn clean(probe: &Probe) -> Result<u32> {
    const PAGES: u64 = 1 << 20;
    // Written to, so that they are there when Xen fills them.
    let mut bits = vec![1; (PAGES / 64) as usize];
    Ok(probe.xen.logdirty_clean(probe.domain, &mut bits, PAGES, Pass::Live)?.dirty_count)
}

/// Processor time that the guest has used, nanoseconds.
pub fn cpu_time(probe: &Probe, out: &mut impl Write) -> Result<()> {
    Ok(writeln!(out, "{}", probe.xen.getdomaininfo(probe.domain, None)?.cpu_time_ns)?)
}

/// Lets a suspended guest go on, and prints how that ended.
pub fn resume(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let handle = probe.xen.getdomaininfo(probe.domain, None)?.handle;
    match dom0::fast_resume(&probe.xen, probe.domain, handle)? {
        dom0::Resumed::Done => writeln!(out, "resumed")?,
        dom0::Resumed::ExtendedStateLost(error) => writeln!(out, "resumed, extended state lost: {error}")?,
        dom0::Resumed::NotSuspended(info) => bail!("not suspended: {:?} {:?}", info.flags, info.shutdown),
    }
    Ok(())
}
