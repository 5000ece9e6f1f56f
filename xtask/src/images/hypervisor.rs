//! The lab's hypervisors: Debian's Xen, built from its source package with XSM and FLASK.
//!
//! Debian's binary package has neither, so this takes a minute and a half once. The result and the source tree it came
//! from (the policy is compiled from it) are cached, keyed by the recipe below and the configuration.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::packages;
use crate::paths;
use crate::sh::{cmd, heading, long};

/// Which one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The lab's: with shadow paging, so that PV guests can be tracked.
    Usual,
    /// As later versions are by default, without shadow paging (XSA-495); and with 32-bit PV guests, which the usual
    /// one lacks.
    Unshadowed,
}

impl Kind {
    /// What is added to the configuration of Debian's own package.
    const fn config(self) -> &'static str {
        match self {
            Self::Usual => {
                "CONFIG_XSM=y\nCONFIG_XSM_FLASK=y\nCONFIG_XSM_FLASK_POLICY=y\nCONFIG_SHADOW_PAGING=y\n\
                 CONFIG_LIVEPATCH=n\n"
            }
            Self::Unshadowed => {
                "CONFIG_XSM=y\nCONFIG_XSM_FLASK=y\nCONFIG_XSM_FLASK_POLICY=y\nCONFIG_SHADOW_PAGING=n\n\
                 CONFIG_LIVEPATCH=n\nCONFIG_PV32=y\n"
            }
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Usual => "with XSM, FLASK and shadow paging",
            Self::Unshadowed => "with XSM, FLASK and 32-bit PV guests, without shadow paging",
        }
    }
}

/// Changed when the steps below change, so that older results are not taken for new ones.
const RECIPE: &str = "1";
/// The package whose configuration we start from.
const BASE: &str = "xen-hypervisor-4.17-amd64";
const BASE_CONFIG: &str = "boot/xen-4.17-amd64.config";

/// A built hypervisor.
pub struct Hypervisor {
    /// The 32-bit ELF that QEMU and GRUB load.
    pub xen: PathBuf,
    /// The source tree, patches of the package applied.
    pub source: PathBuf,
}

/// Takes it from the cache, or builds it.
pub fn build(kind: Kind) -> Result<Hypervisor> {
    let dir = paths::cache_dir(&format!("xen-{}", key(kind)))?;
    let built = Hypervisor { xen: dir.join("xen.elf"), source: dir.join("xen") };
    if built.xen.exists() && built.source.join("tools/flask/policy").exists() {
        println!("hypervisor: {} (cached)", built.xen.display());
        return Ok(built);
    }
    heading(&format!("hypervisor: Debian's Xen {} (once; about two minutes)", kind.what()));
    fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let base = packages::unpacked(&[BASE], &dir.join("base"))?;
    let tree = packages::source("xen", &dir)?;
    configure(kind, &base, &tree)?;
    make(&tree, &["MAP"])?;
    fs::copy(tree.join("xen/xen"), &built.xen).context("xen/xen")?;
    Ok(built)
}

fn key(kind: Kind) -> String {
    let hash = blake3::hash(format!("{RECIPE}\n{BASE}\n{}", kind.config()).as_bytes());
    hash.to_hex().chars().take(12).collect()
}

fn configure(kind: Kind, base: &Path, tree: &Path) -> Result<()> {
    let config = base.join(BASE_CONFIG);
    let mut text = fs::read_to_string(&config).with_context(|| config.display().to_string())?;
    text.push_str(kind.config());
    fs::write(tree.join("xen/.config"), text).context("xen/.config")?;
    make(tree, &["olddefconfig"])
}

fn make(tree: &Path, goals: &[&str]) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = cmd("make", &[&format!("-j{jobs}"), "-C", "xen"]);
    command.args(goals).current_dir(tree).env("XEN_CONFIG_EXPERT", "y");
    long(&format!("make {}", goals.join(" ")), &mut command)
}
