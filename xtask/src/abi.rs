//! `cargo xtask abi`: does a C compiler, reading Xen's own headers, agree with xen-hypercall?
//!
//! Every row of `xen_hypercall::abi::rows` is a C expression with the value that the crate claims. A probe prints what
//! the compiler makes of each expression; any difference fails the verb. The headers are those of Debian's libxen-dev.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A claim about Xen's headers: an expression and its value.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Claim {
    expression: String,
    value: i64,
}

const HEADERS: &[&str] = &[
    "stddef.h",
    "stdint.h",
    "stdio.h",
    "xen/xen.h",
    "xen/errno.h",
    "xen/domctl.h",
    "xen/memory.h",
    "xen/grant_table.h",
    "xen/event_channel.h",
    "xen/sched.h",
    "xen/vcpu.h",
    "xen/version.h",
    "xen/xsm/flask_op.h",
    "xen/elfnote.h",
    "xen/hvm/hvm_op.h",
    "xen/hvm/params.h",
    "xen/hvm/save.h",
    "xen/io/ring.h",
    "xen/io/blkif.h",
    "xen/io/console.h",
    "xen/io/xenbus.h",
    "xen/io/xs_wire.h",
    "xen/sys/privcmd.h",
    "xen/sys/evtchn.h",
];

/// The Debian package of the headers, and a file by which its presence is seen.
const PACKAGE: &str = "libxen-dev";
const PRESENT: &str = "/usr/include/xen/domctl.h";

/// Runs the verb.
pub fn run() -> Result<()> {
    ensure_headers()?;
    let claims = claims();
    ensure!(claims.len() > 400, "only {} claims: the table of xen-hypercall is not complete", claims.len());
    let values = probe(&claims, &PathBuf::from("target/abi"))?;
    let wrong = differences(&claims, &values)?;
    for line in &wrong {
        eprintln!("{line}");
    }
    ensure!(wrong.is_empty(), "{} of {} claims about Xen's headers are wrong", wrong.len(), claims.len());
    println!("abi: {} sizes, offsets and constants agree with {PACKAGE}", claims.len());
    Ok(())
}

fn claims() -> Vec<Claim> {
    let rows = xen_hypercall::abi::rows().map(|row| Claim { expression: row.expression.into(), value: row.value });
    let errnos = xen_hypercall::abi::errnos()
        .filter(|(name, _)| !INTERNAL_ERRNOS.contains(name))
        .map(|(name, value)| Claim { expression: format!("XEN_{name}"), value: value.into() });
    rows.chain(errnos).collect()
}

/// errno.h shows these to the hypervisor alone; Xen must never return them.
const INTERNAL_ERRNOS: &[&str] = &["EINTR", "ERESTART"];

fn ensure_headers() -> Result<()> {
    if Path::new(PRESENT).exists() {
        return Ok(());
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    if !root {
        bail!("Xen's headers are missing; as root: apt-get install --yes {PACKAGE}");
    }
    println!("abi: apt-get install --yes {PACKAGE}");
    let status = Command::new("apt-get").args(["install", "--yes", "--quiet", PACKAGE]).status();
    ensure!(status.context("apt-get")?.success(), "apt-get could not install {PACKAGE}");
    Ok(())
}

/// The C program that prints the value of every claim's expression, one on a line.
fn source(claims: &[Claim]) -> String {
    let mut text = String::from("#define __XEN_TOOLS__ 1\n#define _GNU_SOURCE 1\n#include <sys/ioctl.h>\n");
    for header in HEADERS {
        let _ = writeln!(text, "#include <{header}>");
    }
    text.push_str("int main(void)\n{\n");
    for claim in claims {
        let _ = writeln!(text, "    printf(\"%lld\\n\", (long long)({}));", claim.expression);
    }
    text.push_str("    return 0;\n}\n");
    text
}

/// Compiles and runs the probe in `dir`; the values, in order of the claims.
fn probe(claims: &[Claim], dir: &Path) -> Result<Vec<i64>> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let (input, program) = (dir.join("probe.c"), dir.join("probe"));
    std::fs::write(&input, source(claims)).with_context(|| format!("writing {}", input.display()))?;
    // The flexible-array members of the ring macros and offsetof beyond them are GNU C, as Xen's tools are built.
    let status = Command::new("cc").args(["-std=gnu11", "-w", "-o"]).arg(&program).arg(&input).status();
    ensure!(status.context("cc")?.success(), "{} does not compile: a name is not Xen's", input.display());
    let output = Command::new(&program).output().context("running the probe")?;
    ensure!(output.status.success(), "the probe failed");
    let text = String::from_utf8(output.stdout).context("the probe's output")?;
    text.lines().map(|line| line.parse().with_context(|| format!("the probe printed {line:?}"))).collect()
}

/// A line for each claim whose value is another.
fn differences(claims: &[Claim], values: &[i64]) -> Result<Vec<String>> {
    ensure!(claims.len() == values.len(), "the probe printed {} values for {} claims", values.len(), claims.len());
    let pairs = claims.iter().zip(values).filter(|(claim, value)| claim.value != **value);
    Ok(pairs
        .map(|(claim, value)| format!("{}: the headers say {value}, xen-hypercall {}", claim.expression, claim.value))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(expression: &str, value: i64) -> Claim {
        Claim { expression: expression.into(), value }
    }

    #[test]
    fn a_wrong_value_is_named_with_both_values() {
        let claims = [claim("a", 1), claim("b", 2)];
        assert_eq!(differences(&claims, &[1, 2]).unwrap(), Vec::<String>::new());
        assert_eq!(differences(&claims, &[1, 3]).unwrap(), ["b: the headers say 3, xen-hypercall 2"]);
    }

    #[test]
    fn a_missing_value_is_an_error() {
        assert!(differences(&[claim("a", 1)], &[]).is_err());
    }

    #[test]
    fn every_claim_is_printed_once() {
        let text = source(&[claim("sizeof(int)", 4), claim("XEN_EPERM", 1)]);
        assert_eq!(text.matches("printf").count(), 2);
        assert!(text.contains("(long long)(XEN_EPERM)"));
    }

    #[test]
    fn no_expression_is_claimed_twice() {
        let mut seen = std::collections::HashMap::new();
        for claim in claims() {
            let twice = seen.insert(claim.expression.clone(), claim.value);
            assert!(twice.is_none_or(|value| value == claim.value), "{} has two values", claim.expression);
        }
    }
}
