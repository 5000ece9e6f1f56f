//! Every populated frame of a guest, hashed. The guest should stand still; the digest of a frame that is written
//! meanwhile is that of no instant.

use std::io::Write;

use anyhow::{Result, ensure};
use qemu_tests::digest::digest;
use xen_hypercall::memory::{PAGE_TYPES_MAX, PageType, maximum_gpfn};
use xen_hypercall::transport::privcmd::ForeignPages;
use xen_hypercall::{Gfn, PAGE_SIZE};

use crate::Probe;

/// Prints `gfn type digest` for each frame that has contents, in order; gfn and digest in hexadecimal without prefix.
/// A frame that has contents but cannot be mapped is an error.
pub fn run(probe: &Probe, out: &mut impl Write) -> Result<()> {
    let info = probe.xen.getdomaininfo(probe.domain, None)?;
    ensure!(info.is_hvm(), "domain {} is PV: its frames have no gfn", probe.domain);
    let end = maximum_gpfn(probe.xen.transport(), probe.domain)?.raw() + 1;
    let (mut page, zero) = ([0; PAGE_SIZE], digest(&[0; PAGE_SIZE]));
    for start in (0..end).step_by(PAGE_TYPES_MAX) {
        let batch = populated(probe, start..end.min(start + PAGE_TYPES_MAX as u64))?;
        if batch.is_empty() {
            continue;
        }
        let gfns: Vec<Gfn> = batch.iter().map(|(gfn, _)| *gfn).collect();
        let pages = ForeignPages::map(probe.xen.transport(), probe.domain, &gfns)?;
        for (index, (gfn, kind)) in batch.iter().enumerate() {
            let done = pages.read(index, &mut page);
            ensure!(done.is_ok(), "gfn {gfn} ({kind}) cannot be mapped: {done:?}");
            // Most of a guest is zero, and a digest costs more than a look.
            let sum = if page == [0; PAGE_SIZE] { zero } else { digest(&page) };
            writeln!(out, "{:x} {kind} {sum:032x}", gfn.raw())?;
        }
    }
    Ok(())
}

/// The frames of a range that have contents, with their types.
fn populated(probe: &Probe, range: std::ops::Range<u64>) -> Result<Vec<(Gfn, PageType)>> {
    let mut words: Vec<u64> = range.clone().collect();
    probe.xen.page_types(probe.domain, &mut words)?;
    let typed = range.map(Gfn::new).zip(words.into_iter().map(PageType::from_raw));
    Ok(typed.filter(|(_, kind)| kind.has_data()).collect())
}

/// Writes the contents of a frame as they are.
pub fn one(probe: &Probe, gfn: &str, out: &mut impl Write) -> Result<()> {
    let gfn = Gfn::new(u64::from_str_radix(gfn, 16)?);
    let pages = ForeignPages::map(probe.xen.transport(), probe.domain, &[gfn])?;
    let mut page = [0; PAGE_SIZE];
    let done = pages.read(0, &mut page);
    ensure!(done.is_ok(), "gfn {gfn} cannot be mapped: {done:?}");
    out.write_all(&page)?;
    Ok(())
}
