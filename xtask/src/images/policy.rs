//! The FLASK policy: Xen's own, with the modules of `flask/` added, compiled as the hypervisor's source prescribes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::images::hypervisor::Hypervisor;
use crate::paths;
use crate::sh::{cmd, long};

/// The two directories of Xen's tree that take part; the first refers to the second by relative path.
const PARTS: [&str; 2] = ["tools/flask/policy", "xen/xsm/flask/policy"];

/// Compiles it into `target/images/xenpolicy`.
pub fn build(hypervisor: &Hypervisor) -> Result<PathBuf> {
    let work = paths::target_dir("policy")?;
    fs::remove_dir_all(&work).context("policy")?;
    for part in PARTS {
        let to = work.join(part);
        fs::create_dir_all(&to).with_context(|| to.display().to_string())?;
        copy_tree(&hypervisor.source.join(part), &to)?;
    }
    add_modules(&work.join(PARTS[0]))?;
    let compiled = work.join("out");
    fs::create_dir_all(&compiled).context("policy")?;
    let build_dir = format!("FLASK_BUILD_DIR={}", compiled.display());
    let mut make = cmd("make", &["-f", "Makefile.common", &build_dir, "XEN_FULLVERSION=livesave"]);
    long("FLASK policy", make.current_dir(work.join(PARTS[0])))?;
    let policy = paths::target_dir("images")?.join("xenpolicy");
    fs::copy(compiled.join("xenpolicy-livesave"), &policy).context("xenpolicy")?;
    Ok(policy)
}

/// Every `flask/NAME.te` (with its `.if` and `.cons`, if any) becomes a module that is on.
fn add_modules(policy: &Path) -> Result<()> {
    let ours = paths::root().join("flask");
    let Ok(entries) = fs::read_dir(&ours) else { return Ok(()) };
    let list = policy.join("modules/modules.conf");
    let mut enabled = fs::read_to_string(&list).context("modules.conf")?;
    for entry in entries {
        let path = entry.context("flask")?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !["te", "if", "cons"].contains(&extension) {
            continue;
        }
        let name = path.file_name().context("flask")?;
        fs::copy(&path, policy.join("modules").join(name)).with_context(|| path.display().to_string())?;
        if extension == "te" {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            enabled.push_str(&format!("{stem} = on\n"));
        }
    }
    fs::write(list, enabled).context("modules.conf")
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    crate::sh::read(cmd("cp", &["-a"]).arg(from.join(".")).arg(to)).map(|_| ())
}
