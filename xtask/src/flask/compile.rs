//! Compiles Xen's policy with our module in it.
//!
//! Works on a copy of the two policy directories of a Xen source tree; the tree itself is not touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

/// What Xen's policy is made of, by path in its source tree.
const POLICY: &str = "tools/flask/policy";
const CLASSES: &str = "xen/xsm/flask/policy";
/// Our module, by path in this repository.
const MODULE: [&str; 2] = ["flask/livesave.te", "flask/livesave.if"];
const ENABLE: &str = "\n# Live Save: the stub domain and its targets.\nlivesave = on\n";

/// Builds the policy of the Xen tree `xen` with the module of the repository `root` in the directory `work`, which is
/// emptied first. Returns the path of the compiled policy.
pub fn compile(root: &Path, xen: &Path, work: &Path) -> Result<PathBuf> {
    if work.exists() {
        fs::remove_dir_all(work).with_context(|| format!("emptying {}", work.display()))?;
    }
    for part in [POLICY, CLASSES] {
        copy_tree(&xen.join(part), &work.join(part))?;
    }
    let modules = work.join(POLICY).join("modules");
    for file in MODULE {
        let source = root.join(file);
        let name = source.file_name().context("a module without a name")?;
        fs::copy(&source, modules.join(name)).with_context(|| format!("copying {}", source.display()))?;
    }
    let list = modules.join("modules.conf");
    let enabled = fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))? + ENABLE;
    fs::write(&list, enabled)?;
    let output = make(work)?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "the policy does not compile:\n{}", String::from_utf8_lossy(&said));
    Ok(work.join(POLICY).join("xenpolicy-livesave"))
}

/// The copy of the module's rules in `work`.
pub fn module(work: &Path) -> PathBuf {
    work.join(POLICY).join("modules/livesave.te")
}

/// Runs the policy's own makefile in `work`. A policy that does not compile is a value, not an error.
pub fn make(work: &Path) -> Result<Output> {
    let policy_dir = work.join(POLICY);
    let mut command = Command::new("make");
    command.arg("-C").arg(&policy_dir).args(["-f", "Makefile.common", "XEN_FULLVERSION=livesave", "all"]);
    command.arg(format!("FLASK_BUILD_DIR={}", policy_dir.display()));
    command.output().context("running make (needs make, m4, checkpolicy)")
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("no Xen source tree: {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("copying {}", entry.path().display()))?;
        }
    }
    Ok(())
}
