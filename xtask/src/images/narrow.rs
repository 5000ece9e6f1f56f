//! The 32-bit PV guest that a take must refuse: no Linux is one any more, so it is a few lines of assembly.

use std::path::PathBuf;

use anyhow::Result;

use crate::paths;
use crate::sh::{cmd, run};

const SOURCE: &str = "qemu-tests/narrow/narrow.S";

/// Assembles and links it.
pub fn build() -> Result<PathBuf> {
    let image = paths::target_dir("images")?.join("narrow");
    let object = image.with_extension("o");
    run(cmd("as", &["--32", "-o"]).arg(&object).arg(paths::root().join(SOURCE)))?;
    let flags = ["-m", "elf_i386", "-static", "--build-id=none", "-z", "noexecstack", "-Ttext-segment=0xc0100000"];
    run(cmd("ld", &flags).arg("-o").arg(&image).arg(&object))?;
    Ok(image)
}
