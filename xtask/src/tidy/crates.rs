//! Which crate may use which: the directions of the design, and a line of reason for each dependency from outside.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::finding::Finding;
use super::tree::Tree;

/// Package, its directory, and the packages of this workspace that it may use. Nothing uses the kernel or the CLI.
const DIRECTIONS: [(&str, &str, &[&str]); 8] = [
    ("xen-hypercall", "hypercall", &[]),
    ("xen-drivers", "drivers", &["xen-hypercall"]),
    ("snapshot", "snapshot", &["xen-hypercall"]),
    ("sim", "sim", &["xen-hypercall", "xen-drivers", "snapshot"]),
    ("livesave-stubdom", "kernel", &["xen-hypercall", "xen-drivers", "snapshot"]),
    ("livesave", "cli", &["xen-hypercall", "xen-drivers", "snapshot"]),
    ("qemu-tests", "qemu-tests", &["xen-hypercall", "xen-drivers", "snapshot"]),
    ("xtask", "xtask", &["xen-hypercall", "xen-drivers", "snapshot", "qemu-tests"]),
];
const REASONS: &str = "docs/dependencies.md";

/// A dependency as cargo states it.
struct Dependency {
    name: String,
    /// True of a member of this workspace.
    ours: bool,
}

/// Applies the rules to what cargo says about the workspace.
pub fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--no-deps", "--format-version=1"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.output().context("running cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let reasons = tree.text(REASONS).unwrap_or_default();
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata without packages")? {
        let name = package["name"].as_str().context("a package without a name")?;
        let dependencies = package["dependencies"].as_array().context("a package without dependencies")?;
        findings.extend(judge(name, &dependencies.iter().filter_map(dependency).collect::<Vec<_>>(), reasons));
    }
    Ok(findings)
}

fn dependency(value: &Value) -> Option<Dependency> {
    Some(Dependency { name: value["name"].as_str()?.to_owned(), ours: value["path"].is_string() })
}

fn judge(package: &str, dependencies: &[Dependency], reasons: &str) -> Vec<Finding> {
    let Some((_, directory, allowed)) = DIRECTIONS.iter().find(|(name, ..)| *name == package) else {
        return vec![Finding::new(
            "Cargo.toml",
            1,
            "direction",
            format!("{package} is not in the table of directions"),
        )];
    };
    let manifest = format!("{directory}/Cargo.toml");
    let mut findings = Vec::new();
    for dependency in dependencies {
        let name = dependency.name.as_str();
        if dependency.ours && !allowed.contains(&name) && name != package {
            findings.push(Finding::new(&manifest, 1, "direction", format!("{package} must not use {name}")));
        } else if !dependency.ours && !reasons.contains(&format!("`{name}`")) {
            findings.push(Finding::new(&manifest, 1, "dependency", format!("{name} has no line in {REASONS}")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::rules;
    use super::*;

    fn on(name: &str, ours: bool) -> Dependency {
        Dependency { name: name.to_owned(), ours }
    }

    #[test]
    fn arrows_only_point_down() {
        assert!(judge("xen-drivers", &[on("xen-hypercall", true)], "").is_empty());
        assert_eq!(rules(&judge("xen-drivers", &[on("snapshot", true)], "")), [("direction", 1)]);
        assert_eq!(rules(&judge("snapshot", &[on("xen-drivers", true)], "")), [("direction", 1)]);
        for (package, ..) in DIRECTIONS {
            let findings = judge(package, &[on("livesave", true), on("livesave-stubdom", true)], "");
            let itself = usize::from(package.starts_with("livesave"));
            assert_eq!(findings.len(), 2 - itself, "{package}");
        }
        assert_eq!(rules(&judge("new", &[], "")), [("direction", 1)]);
    }

    #[test]
    fn a_dependency_from_outside_needs_a_reason() {
        assert_eq!(rules(&judge("snapshot", &[on("crc", false)], "")), [("dependency", 1)]);
        assert!(judge("snapshot", &[on("crc", false)], "| `crc` | checks |").is_empty());
    }
}
