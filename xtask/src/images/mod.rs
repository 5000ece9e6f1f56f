//! What the nested host boots: hypervisor, policy, dom0's image, and the Rust programs inside.

pub mod dom0;
pub mod hypervisor;
pub mod kernel;
pub mod policy;
pub mod programs;
pub mod stubdom;

use anyhow::Result;
use qemu_tests::lab::Images;

use crate::packages;

/// Builds everything that a machine boots from, or takes it from the cache.
pub fn build() -> Result<Images> {
    packages::ensure_installed()?;
    let hypervisor = hypervisor::build()?;
    let policy = policy::build(&hypervisor)?;
    let dom0 = dom0::build()?;
    Ok(Images { xen: hypervisor.xen, vmlinuz: dom0.kernel, dom0: dom0.image, policy, scratch: dom0.scratch })
}
