//! The stub domain's image: `kernel/` linked for the ordinary gnu target, freestanding, by `linker/x86_64-xen-pv.ld`.
//!
//! The flags here are what makes the difference to a Linux program, and why: linker/README.md.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::paths;
use crate::sh::{cmd, run};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "stub";
/// Flags of the compiler and, behind `link-arg=`, of the linker.
const FLAGS: &[&str] = &[
    "relocation-model=static",
    "code-model=small",
    "no-redzone=yes",
    "target-feature=+crt-static",
    "link-arg=-nostartfiles",
    "link-arg=-nostdlib",
    "link-arg=-static",
    "link-arg=-no-pie",
    "link-arg=-Wl,--build-id=none",
    "link-arg=-Wl,--gc-sections",
];
/// The largest image that we hand out.
const MAX_BYTES: u64 = 512 << 10;

/// Builds the stub and returns its stripped image; the one with symbols lies beside it as `.debug`.
pub fn build() -> Result<PathBuf> {
    bin("livesave-stubdom")
}

/// Builds the test kernel that tries what the policy forbids.
pub fn prober() -> Result<PathBuf> {
    bin("prober")
}

fn bin(name: &str) -> Result<PathBuf> {
    let target = paths::target().join("image");
    let mut cargo = cmd("cargo", &["build", "--quiet", "--package", "livesave-stubdom", "--bin", name]);
    cargo.args(["--features", "image", "--profile", PROFILE, "--target", TARGET, "--target-dir"]).arg(&target);
    cargo.current_dir(paths::root()).env("RUSTFLAGS", flags());
    run(&mut cargo)?;
    let built = target.join(TARGET).join(PROFILE).join(name);
    let image = paths::target_dir("stubdom")?.join(name);
    fs::copy(&built, image.with_extension("debug")).with_context(|| built.display().to_string())?;
    run(cmd("objcopy", &["--strip-all"]).arg(&built).arg(&image))?;
    check_size(&image)?;
    Ok(image)
}

fn flags() -> String {
    let script = paths::root().join("linker/x86_64-xen-pv.ld");
    let mut words: Vec<String> = FLAGS.iter().map(|flag| format!("-C {flag}")).collect();
    words.push(format!("-C link-arg=-Wl,-T,{}", script.display()));
    words.join(" ")
}

fn check_size(image: &Path) -> Result<()> {
    let bytes = fs::metadata(image).with_context(|| image.display().to_string())?.len();
    println!("{}: {bytes} bytes", image.display());
    ensure!(bytes <= MAX_BYTES, "{} is larger than {MAX_BYTES} bytes", image.display());
    Ok(())
}
