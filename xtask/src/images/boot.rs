//! All that a machine boots from, together.

use anyhow::Result;
use qemu_tests::lab::Images;

use super::hypervisor::{self, Kind};
use super::{dom0, policy};
use crate::packages;

/// Builds everything that a machine boots from, or takes it from the cache.
pub fn build() -> Result<Images> {
    packages::ensure_installed()?;
    let hypervisor = hypervisor::build(Kind::Usual)?;
    let policy = policy::build(&hypervisor)?;
    let dom0::Dom0 { kernel: vmlinuz, image: dom0, scratch, tools } = dom0::build()?;
    Ok(Images { xen: hypervisor.xen, unshadowed: None, vmlinuz, dom0, policy, scratch, tools })
}
