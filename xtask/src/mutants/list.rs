//! What cargo-mutants would change, as it lists it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::paths;
use crate::sh::{cmd, long, read};

/// Another version may list other mutants, or say otherwise what they are.
const VERSION: &str = "27.1.0";

/// What kind of change: cargo-mutants' own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Genre {
    /// A function gives something else, without its body.
    FnValue,
    /// Another operator.
    BinaryOperator,
    /// The operator is left out.
    UnaryOperator,
    /// The arm is left out.
    MatchArm,
    /// The guard is always true, or never.
    MatchArmGuard,
    /// A field is left to the base of the struct.
    StructField,
}

/// One change.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// cargo-mutants' name of it: file, line, column, what becomes of what.
    pub name: String,
    /// From the root of the checkout.
    pub file: String,
    /// What kind of.
    pub genre: Genre,
    /// Line from 1, column from 0: where what is replaced begins.
    pub start: (usize, usize),
    /// Where it ends.
    pub end: (usize, usize),
    /// What stands there instead.
    pub replacement: String,
}

/// All mutants of these files of the package, in cargo-mutants' order.
pub fn of(package: &str, files: &[String]) -> Result<Vec<Mutant>> {
    let program = installed()?;
    let mut words = vec!["mutants", "--list", "--json", "--package", package];
    for file in files {
        words.extend(["--file", file]);
    }
    let text = read(cmd(&program.to_string_lossy(), &words).current_dir(paths::root()))?;
    let list: Vec<Value> = serde_json::from_str(&text).context("the list of cargo-mutants")?;
    list.iter().map(|value| parse(value).with_context(|| format!("a mutant as listed: {value}"))).collect()
}

/// cargo-mutants, installed into the cache if it is not there.
fn installed() -> Result<PathBuf> {
    let root = paths::cache_dir(&format!("cargo-mutants-{VERSION}"))?;
    let program = root.join("bin/cargo-mutants");
    if !program.exists() {
        let into = root.to_string_lossy().into_owned();
        let words = ["install", "cargo-mutants", "--version", VERSION, "--locked", "--root", &into];
        long("install cargo-mutants", &mut cmd("cargo", &words))?;
    }
    Ok(program)
}

fn parse(value: &Value) -> Option<Mutant> {
    let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
    let place = |end: &str| {
        let place = value.get("span")?.get(end)?;
        let number = |key: &str| usize::try_from(place.get(key)?.as_u64()?).ok();
        Some((number("line")?, number("column")?.checked_sub(1)?))
    };
    let genre = match text("genre")?.as_str() {
        "FnValue" => Genre::FnValue,
        "BinaryOperator" => Genre::BinaryOperator,
        "UnaryOperator" => Genre::UnaryOperator,
        "MatchArm" => Genre::MatchArm,
        "MatchArmGuard" => Genre::MatchArmGuard,
        "StructField" => Genre::StructField,
        _ => return None,
    };
    let (name, file, replacement) = (text("name")?, text("file")?, text("replacement")?);
    Some(Mutant { name, file, genre, start: place("start")?, end: place("end")?, replacement })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_mutant_is_read_with_columns_from_nought() {
        let text = r#"{ "name": "a.rs:2:9: replace f with 1", "file": "a.rs", "genre": "FnValue", "replacement": "1",
            "span": { "start": { "line": 2, "column": 9 }, "end": { "line": 2, "column": 12 } } }"#;
        let mutant = parse(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!((mutant.genre, mutant.start, mutant.end), (Genre::FnValue, (2, 8), (2, 11)));
        assert!(parse(&serde_json::from_str(&text.replace("FnValue", "Unheard")).unwrap()).is_none());
    }
}
