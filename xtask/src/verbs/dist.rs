//! `cargo xtask dist`: leaves everything that a host needs in `target/dist`, and says how large it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::build;
use crate::images;
use crate::packages;
use crate::paths;
use crate::sh::{cmd, heading, read};

/// Arguments of `cargo xtask dist`.
#[derive(clap::Args, Default)]
pub struct Args {}

/// The stub domain's configuration for xl.
const CONFIG: &str = "docs/operating/livesave.cfg";

/// Runs the verb.
pub fn run(_args: &Args) -> Result<()> {
    packages::ensure_installed()?;
    let hypervisor = images::hypervisor::build(images::hypervisor::Kind::Usual)?;
    let policy = images::policy::build(&hypervisor)?;
    let dir = programs()?;
    copy(&policy, &dir.join("xenpolicy"))?;
    copy(&hypervisor.xen, &dir.join("xen"))?;
    for (from, to) in [("flask", "flask"), ("cli/hooks", "hooks")] {
        let copies = dir.join(to);
        fs::create_dir_all(&copies).context(to)?;
        read(cmd("cp", &["-a"]).arg(paths::root().join(from).join(".")).arg(&copies))?;
    }
    heading("target/dist");
    let mut entries: Vec<PathBuf> = fs::read_dir(&dir).context("dist")?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries.iter().filter(|path| path.is_file()) {
        let bytes = fs::metadata(path).with_context(|| path.display().to_string())?.len();
        println!("{bytes:>10} {}", path.display());
    }
    Ok(())
}

/// What changes with our own code: all that the lab copies into dom0.
pub fn programs() -> Result<PathBuf> {
    let built = build::ours()?;
    let dir = paths::target_dir("dist")?;
    copy(&built.stub, &dir.join("livesave-stubdom"))?;
    copy(&built.cli, &dir.join("livesave"))?;
    // Not for installation: what the nested tests boot as guests or in the stub's place.
    copy(&built.prober, &paths::target_dir("images")?.join("prober"))?;
    images::narrow::build()?;
    copy(&paths::root().join(CONFIG), &dir.join("livesave.cfg"))?;
    Ok(dir)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("{} -> {}", from.display(), to.display()))?;
    Ok(())
}
