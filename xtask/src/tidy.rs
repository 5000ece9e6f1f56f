//! `cargo xtask tidy`: the house rules that a machine can check, reported as a compiler reports.
//!
//! Reads every file that git knows or would add. Rules look at one file, or at all of them, and return findings; none
//! of them changes anything. What the rules are for is in docs/STYLE.md.

mod crates;
mod docs;
mod finding;
mod rust;
mod sizes;
mod text;
mod tree;
mod unsafety;

use anyhow::{Result, bail};

use tree::Tree;

/// Runs the verb.
pub fn run() -> Result<()> {
    let tree = Tree::of_repository()?;
    let mut findings = text::check(&tree);
    findings.extend(rust::check(&tree));
    findings.extend(unsafety::check(&tree));
    findings.extend(sizes::check(&tree));
    findings.extend(docs::check(&tree));
    findings.extend(crates::check(&tree)?);
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings in {} files read", findings.len(), tree.files.len());
    }
    println!("tidy: {} files, nothing to say", tree.files.len());
    Ok(())
}
