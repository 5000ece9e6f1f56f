//! Does xen-hypercall's dom0 side work on this machine? Each check has one line; the first that fails ends it.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xen_hypercall::transport::privcmd::Evtchn;
use xen_hypercall::{DomId, Error, XenErrno, event, memory, version};

use crate::Probe;

/// How long an event that has been sent may take to arrive.
const EVENT_WAIT: Duration = Duration::from_secs(10);

/// Runs all checks.
pub fn run(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let xen = probe.xen.transport();
    let version = version::xen_version(xen)?;
    writeln!(out, "version {version}, domctl interface {:#x}", probe.xen.interface_version())?;
    buffers(probe, out)?;
    missing_domain(probe, out)?;
    let ram = memory::maximum_ram_page(xen)?;
    writeln!(out, "maximum_ram_page {ram}")?;
    loopback(probe, out)
}

/// Buffers of more than a page go through.
fn buffers(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let commandline = version::commandline(probe.xen.transport())?;
    let end = commandline.iter().position(|byte| *byte == 0).context("the command line has no end")?;
    ensure!(end > 0, "Xen's command line is empty");
    let mut frames: Vec<u64> = (0..1024).collect();
    let answer = probe.xen.page_types(probe.domain, &mut frames);
    ensure!(answer.is_ok(), "1024 frame types: {answer:?}");
    writeln!(out, "buffers {end} bytes, 1024 frame types")?;
    Ok(())
}

/// A domid that nobody has is not found, whatever domains there are.
fn missing_domain(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let missing = DomId::new(DomId::FIRST_RESERVED.raw() - 1);
    let answer = probe.xen.getdomaininfo(missing, None);
    ensure!(matches!(answer, Err(Error::NotFound { .. })), "domain {missing}: {answer:?}");
    let answer = probe.xen.pause(missing).map_err(|error| error.xen());
    ensure!(answer == Err(Some(XenErrno::ESRCH)), "pausing domain {missing}: {answer:?}");
    writeln!(out, "missing domain not found")?;
    Ok(())
}

/// A channel from dom0 to dom0: an event sent at either end arrives at the other, once.
fn loopback(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let (near, far) = (Evtchn::open()?, Evtchn::open()?);
    let near_port = near.bind_unbound_port(DomId::DOM0)?;
    let far_port = far.bind_interdomain(DomId::DOM0, near_port)?;
    let status = event::status(probe.xen.transport(), DomId::DOM0, near_port)?;
    ensure!(status.status == 2 && status.remote_port == far_port.raw(), "the ends do not know each other: {status:?}");
    // Both ends are pending once from the moment that they are connected.
    drain(&near)?;
    drain(&far)?;
    far.notify(far_port)?;
    ensure!(near.pending(EVENT_WAIT)? == Some(near_port), "the event did not arrive");
    near.unmask(near_port)?;
    ensure!(near.pending(Duration::ZERO)?.is_none(), "the event arrived twice");
    near.unbind(near_port)?;
    let gone = near.notify(near_port);
    ensure!(matches!(gone, Err(Error::Host { .. })), "a closed port can be notified: {gone:?}");
    writeln!(out, "event channel {near_port} to {far_port}")?;
    Ok(())
}

/// Takes what is pending, at most as many events as a device has ports here.
fn drain(device: &Evtchn) -> Result<()> {
    for _ in 0..2 {
        if let Some(port) = device.pending(Duration::from_millis(200))? {
            device.unmask(port)?;
        }
    }
    Ok(())
}
