//! `cargo xtask flask`: compares what a compiled policy gives to the stub with `flask/effective-permissions.txt`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::paths;

use super::binary::Policy;
use super::compile::compile;
use super::effective::report;
use super::refusals::try_all;

const GOLDEN: &str = "flask/effective-permissions.txt";

/// Arguments of `cargo xtask flask`.
#[derive(clap::Args)]
pub struct Args {
    /// A compiled policy to look into.
    #[arg(long, conflicts_with = "xen", required_unless_present = "xen")]
    policy: Option<PathBuf>,
    /// A Xen source tree: compile its policy with our module in target/flask, look into the result, and try the rules
    /// of flask/refused.txt on it.
    #[arg(long)]
    xen: Option<PathBuf>,
    /// Write the list instead of comparing with it. A change of it belongs into a decision record.
    #[arg(long)]
    bless: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let root = paths::root();
    match (&args.policy, &args.xen) {
        (Some(policy), _) if args.bless => bless(&root, policy),
        (Some(policy), _) => check(&root, policy),
        (None, Some(xen)) if args.bless => bless(&root, &compile(&root, xen, &paths::target_dir("flask")?)?),
        (None, Some(xen)) => prove(xen),
        (None, None) => bail!("which policy? See --help"),
    }
}

/// Compiles the policy of the Xen tree `xen` with our module, compares all that it gives to the stub with the list, and
/// tries the rules that no policy may have.
pub fn prove(xen: &Path) -> Result<()> {
    let (root, work) = (paths::root(), paths::target_dir("flask")?);
    check(&root, &compile(&root, xen, &work)?)?;
    let refused = try_all(&root, &work)?;
    println!("{refused} wrong rules tried, each refused by the compiler");
    Ok(())
}

fn bless(root: &Path, policy: &Path) -> Result<()> {
    fs::write(root.join(GOLDEN), effective(policy)?).with_context(|| format!("writing {GOLDEN}"))
}

/// Fails, naming each difference, if the compiled policy gives the stub anything but what is written down.
fn check(root: &Path, policy: &Path) -> Result<()> {
    let found = effective(policy)?;
    let golden = fs::read_to_string(root.join(GOLDEN)).with_context(|| format!("reading {GOLDEN}"))?;
    let differences = differences(&golden, &found);
    if differences.is_empty() {
        println!("{}: the stub has exactly the permissions of {GOLDEN}", policy.display());
        return Ok(());
    }
    bail!("{} gives the stub something else than {GOLDEN}:\n{}", policy.display(), differences.join("\n"))
}

fn effective(policy: &Path) -> Result<String> {
    let bytes = fs::read(policy).with_context(|| format!("reading {}", policy.display()))?;
    let parsed = Policy::parse(&bytes).with_context(|| format!("in {}", policy.display()))?;
    report(&parsed)
}

/// Lines with the section they stand in, so that a line that moved to another section differs.
fn lines(text: &str) -> Vec<String> {
    let mut section = "";
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        } else if !line.starts_with('#') {
            lines.push(format!("{section}: {line}"));
        }
    }
    lines
}

pub(super) fn differences(golden: &str, found: &str) -> Vec<String> {
    let (golden, found) = (lines(golden), lines(found));
    let gone = golden.iter().filter(|line| !found.contains(line)).map(|line| format!("- {line}"));
    let new = found.iter().filter(|line| !golden.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(new).collect()
}
