//! The kernel of the benchmark's guests: Debian's source, and nothing in it that they do not need.
//!
//! Debian's own kernel keeps 47 MiB of a guest for itself, so that guests which write to half of their memory have to
//! be large, and every run on them long. Built once, in a few minutes, and cached, keyed by the recipe below and the
//! configuration; the source is not kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::kernel;
use crate::packages;
use crate::paths;
use crate::sh::{cmd, heading, long, read};

/// Changed when the steps below change, so that older results are not taken for new ones.
const RECIPE: &str = "1";
/// What is not off.
const CONFIG: &str = "qemu-tests/kernel.config";
/// The metapackage that names the release's source.
const SOURCE: &str = "linux-source";
/// Beyond what the lab needs: the build checks its own object files.
const NEEDED: &[&str] = &["libelf-dev"];

/// A built kernel.
pub struct Small {
    /// The ELF that libxl loads for PV and for PVH.
    pub vmlinux: PathBuf,
    /// What it is, for a report.
    pub what: String,
}

/// Takes it from the cache, or builds it.
pub fn build() -> Result<Small> {
    let fragment = paths::root().join(CONFIG);
    let config = fs::read_to_string(&fragment).with_context(|| fragment.display().to_string())?;
    let dir = paths::cache_dir(&format!("linux-{}", key(&config)))?;
    let (vmlinux, what) = (dir.join("vmlinux"), dir.join("what"));
    if !vmlinux.exists() {
        heading("small kernel for guests, of Debian's source (once; some minutes)");
        packages::ensure(NEEDED)?;
        fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let package = packages::dependency(SOURCE, SOURCE)?;
        let tree = source(&package, &dir)?;
        configure(&tree, &fragment, &config)?;
        make(&tree, &["vmlinux"])?;
        let version = read(cmd("make", &["-s", "kernelversion"]).current_dir(&tree))?;
        let said = format!("Linux {}, small: built of Debian's {package} with {CONFIG}", version.trim());
        fs::write(&what, said).context("what")?;
        finish(&tree, &vmlinux)?;
        fs::remove_dir_all(dir.join("source")).context("source")?;
    }
    println!("small kernel: {}", vmlinux.display());
    let what = fs::read_to_string(&what).with_context(|| what.display().to_string())?;
    Ok(Small { vmlinux, what })
}

fn key(config: &str) -> String {
    let hash = blake3::hash(format!("{RECIPE}\n{SOURCE}\n{config}").as_bytes());
    hash.to_hex().chars().take(12).collect()
}

fn source(package: &str, dir: &Path) -> Result<PathBuf> {
    let dir = dir.join("source");
    let root = packages::unpacked(&[package], &dir)?;
    let packed = root.join("usr/src").join(format!("{package}.tar.xz"));
    long("tar", cmd("tar", &["-xf"]).arg(&packed).arg("-C").arg(&dir))?;
    Ok(dir.join(package))
}

/// All off but what is named; a line that did not hold, because something that it needs is missing, is an error.
fn configure(tree: &Path, fragment: &Path, wanted: &str) -> Result<()> {
    let mut command = cmd("make", &["allnoconfig"]);
    command.arg(format!("KCONFIG_ALLCONFIG={}", fragment.display())).current_dir(tree);
    long("make allnoconfig", &mut command)?;
    let got = fs::read_to_string(tree.join(".config")).context(".config")?;
    let lost = lost(wanted, &got);
    ensure!(lost.is_empty(), "{CONFIG}: the source does not take {}", lost.join(", "));
    Ok(())
}

fn lost<'a>(wanted: &'a str, got: &str) -> Vec<&'a str> {
    let lines = wanted.lines().filter(|line| line.starts_with("CONFIG_"));
    lines.filter(|wanted| !got.lines().any(|line| line == *wanted)).collect()
}

fn make(tree: &Path, goals: &[&str]) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = cmd("make", &[&format!("-j{jobs}")]);
    long(&format!("make {}", goals.join(" ")), command.args(goals).current_dir(tree))
}

/// Without what only a debugger reads. It appears under its name when it is whole.
fn finish(tree: &Path, vmlinux: &Path) -> Result<()> {
    let (stripped, partial) = (tree.join("vmlinux.stripped"), vmlinux.with_extension("partial"));
    read(cmd("strip", &["-o"]).arg(&stripped).arg(tree.join("vmlinux")))?;
    kernel::for_guests(&stripped, &partial)?;
    fs::rename(&partial, vmlinux).with_context(|| vmlinux.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_did_not_hold_is_told() {
        let wanted = "# why\nCONFIG_XEN=y\nCONFIG_XEN_PVH=y\nCONFIG_HZ=250\n";
        assert_eq!(
            lost(wanted, "CONFIG_XEN=y\n# CONFIG_XEN_PVH is not set\nCONFIG_HZ=2500\n"),
            ["CONFIG_XEN_PVH=y", "CONFIG_HZ=250"]
        );
        assert!(lost(wanted, wanted).is_empty());
    }
}
