//! What a guest is and does besides its memory.

use std::fmt::Write as _;
use std::io::Write;

use anyhow::{Context, Result, bail, ensure};
use xen_hypercall::abi::hvm::{HW_CPU_TSC, SAVE_CPU, SAVE_END, SaveDescriptor};
use xen_hypercall::{XenErrno, dom0};
use zerocopy::FromBytes;

use crate::Probe;

/// Prints what getdomaininfo says, `key=value` each.
pub fn info(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let info = probe.xen.getdomaininfo(probe.domain, None)?;
    let shutdown = info.shutdown.map_or("no".to_owned(), |reason| reason.to_string());
    writeln!(out, "domid={} handle={} flags={:?}", info.domain, info.handle, info.flags)?;
    writeln!(out, "shutdown={shutdown} online_vcpus={} cpu_time_ns={}", info.online_vcpus, info.cpu_time_ns)?;
    writeln!(out, "tot_pages={} max_pages={} ssidref={}", info.tot_pages, info.max_pages, info.ssidref)?;
    Ok(())
}

/// Prints `type instance length digest bytes` for each record of the context of a PVH or HVM guest. The TSC of a vCPU
/// reads 0: it counts on while the guest stands still.
pub fn context(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let mut context = vec![0; probe.xen.hvm_context_size(probe.domain)?];
    let len = probe.xen.gethvmcontext(probe.domain, &mut context)?;
    let mut rest = &context[..len];
    loop {
        let (head, after) = SaveDescriptor::read_from_prefix(rest).ok().context("the context has no end")?;
        let (body, next) = after.split_at_checked(head.length as usize).context("a record exceeds the context")?;
        if head.typecode == SAVE_END {
            ensure!(next.is_empty(), "{} bytes after the context's end", next.len());
            return Ok(());
        }
        let body = without_tsc(head.typecode, body);
        let bytes = body.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let digest = blake3::hash(&body).to_hex();
        writeln!(out, "{} {} {} {} {bytes}", head.typecode, head.instance, body.len(), &digest[..16])?;
        rest = next;
    }
}

fn without_tsc(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    if kind == SAVE_CPU
        && let Some(tsc) = body.get_mut(HW_CPU_TSC..HW_CPU_TSC + 8)
    {
        tsc.fill(0);
    }
    body
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
        _ => bail!("{what} is not status, on or off"),
    }
    Ok(())
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
