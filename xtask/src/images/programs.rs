//! The Rust programs that run inside: static binaries of the ordinary gnu target, since musl's is not installed.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::paths;
use crate::sh::{cmd, run};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the binaries of `package` statically, and gives the directory that holds them.
pub fn build(package: &str) -> Result<PathBuf> {
    let target = paths::target().join("static");
    let mut cargo =
        cmd("cargo", &["build", "--quiet", "--release", "--bins", "--target", TARGET, "--package", package]);
    cargo.arg("--target-dir").arg(&target).current_dir(paths::root());
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols");
    run(&mut cargo)?;
    Ok(directory(&target))
}

fn directory(target: &Path) -> PathBuf {
    target.join(TARGET).join("release")
}
