//! Proves that the module's neverallow rules bite: each rule of `flask/refused.txt`, added alone, must break the build.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::compile::{make, module};

const REFUSED: &str = "flask/refused.txt";

/// Tries every rule in the work directory that `compile` left, and leaves the module there as it was.
/// Returns how many rules were tried.
pub fn try_all(root: &Path, work: &Path) -> Result<usize> {
    let rules = fs::read_to_string(root.join(REFUSED)).with_context(|| format!("reading {REFUSED}"))?;
    let module = module(work);
    let clean = fs::read_to_string(&module).with_context(|| format!("reading {}", module.display()))?;
    let mut accepted = Vec::new();
    let mut tried = 0;
    for rule in rules.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        fs::write(&module, format!("{clean}\n{rule}\n"))?;
        let output = make(work)?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !said.contains("neverallow") {
            accepted.push(rule);
        }
        tried += 1;
    }
    fs::write(&module, clean)?;
    ensure!(tried > 0, "{REFUSED} names no rule");
    ensure!(accepted.is_empty(), "no neverallow rule refuses:\n{}", accepted.join("\n"));
    Ok(tried)
}
