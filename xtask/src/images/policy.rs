//! The FLASK policy: Xen's own, with our module in it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::flask;
use crate::images::hypervisor::Hypervisor;
use crate::paths;

/// Compiles it into `target/images/xenpolicy`.
pub fn build(hypervisor: &Hypervisor) -> Result<PathBuf> {
    let compiled = flask::compile(&paths::root(), &hypervisor.source, &paths::target_dir("policy")?)?;
    let policy = paths::target_dir("images")?.join("xenpolicy");
    fs::copy(compiled, &policy).context("xenpolicy")?;
    Ok(policy)
}
