//! What a guest does meanwhile: the page in which it counts, read again and again beside Xen's system time, the clock
//! of a take's trace. One mapping, and two calls to Xen a look; nobody else is asked.

use std::io::Write;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::counter::{Count, Sample};
use xen_hypercall::transport::privcmd::ForeignPages;
use xen_hypercall::{PAGE_SIZE, hvm};

use crate::{Probe, pv};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(10);
/// Looks between two flushes of the output.
const FLUSH: u64 = 8;

/// Prints `FROM TO TICKS STEPS` (`qemu_tests::counter::Sample`) for each look, until killed.
pub fn run(probe: &Probe, gfn: &str, out: &mut impl Write) -> Result<()> {
    let page = map(probe, gfn)?;
    for look in 0_u64.. {
        writeln!(out, "{}", sample(probe, &page)?.line())?;
        if look % FLUSH == 0 {
            out.flush()?;
        }
        thread::sleep(INTERVAL);
    }
    Ok(())
}

/// Prints one such line.
pub fn once(probe: &Probe, gfn: &str, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{}", sample(probe, &map(probe, gfn)?)?.line())?;
    Ok(())
}

fn map(probe: &Probe, gfn: &str) -> Result<ForeignPages> {
    let gfn = u64::from_str_radix(gfn, 16).with_context(|| format!("{gfn} is no gfn"))?;
    let gfn = pv::frame(probe, gfn)?;
    Ok(ForeignPages::map(probe.xen.transport(), probe.domain, &[gfn])?)
}

fn sample(probe: &Probe, mapped: &ForeignPages) -> Result<Sample> {
    let mut page = [0; PAGE_SIZE];
    let from_ns = hvm::system_time(probe.xen.transport())?;
    let done = mapped.read(0, &mut page);
    let to_ns = hvm::system_time(probe.xen.transport())?;
    ensure!(done.is_ok(), "the page cannot be mapped: {done:?}");
    let count = Count::of(&page).context("the page holds no counter")?;
    Ok(Sample { from_ns, to_ns, count })
}
