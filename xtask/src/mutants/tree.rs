//! A copy of the checkout in which mutants are built: woven, all in one build, or one alone.
//!
//! Nothing here writes outside of its copy. What does not compile woven is left to a build of its own; only what does
//! not compile there either is no mutant.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::list::{Genre, Mutant};
use super::weave::{self, QUESTION};
use crate::paths;
use crate::sh::{cmd, read};

/// Builds until what does not compile is sorted out.
const ROUNDS: usize = 60;

/// A copy of the checkout with build products of its own.
pub struct Tree {
    root: PathBuf,
    package: String,
}

/// What a build of the tests came to.
pub enum Build {
    /// The test programs, by name.
    Tests(BTreeMap<String, PathBuf>),
    /// It does not compile.
    Refused,
}

impl Tree {
    /// Copies what git knows of; what an earlier copy has built stays.
    pub fn new(name: &str, package: &str) -> Result<Self> {
        let root = paths::target_dir("mutants")?.join(name);
        let tree = Self { root, package: package.to_owned() };
        for file in read(cmd("git", &["ls-files"]).current_dir(paths::root()))?.lines() {
            tree.put(file, &fs::read(paths::root().join(file)).with_context(|| file.to_owned())?)?;
        }
        Ok(tree)
    }

    /// Its root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes what differs, so that nothing else is built anew.
    fn put(&self, file: &str, text: &[u8]) -> Result<()> {
        let path = self.root.join(file);
        if fs::read(&path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        fs::create_dir_all(path.parent().context("a file has a folder")?)?;
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    fn cargo(&self, words: &[&str]) -> Command {
        let mut command = cmd("cargo", words);
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", self.root.join("target"));
        command.args(["--package", &self.package, "--lib", "--tests"]);
        // What nobody debugs is built in half the time; what is woven looks unusual.
        command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("RUSTFLAGS", "--cap-lints=allow");
        command
    }

    /// Weaves all that compile woven; their ids.
    pub fn weave(&self, mutants: &[Mutant]) -> Result<BTreeSet<usize>> {
        let mut left: BTreeSet<usize> =
            (0..mutants.len()).filter(|id| mutants[*id].genre != Genre::StructField).collect();
        let library = format!("{}/src/lib.rs", self.package);
        let source = fs::read_to_string(paths::root().join(&library))?;
        self.put(&library, (source + QUESTION).as_bytes())?;
        for round in 1..=ROUNDS {
            let woven = self.write(mutants, &left)?;
            left.retain(|id| woven.values().any(|text| text.contains(&format!("crate::mutant({id})"))));
            let guilty = self.guilty(&woven)?;
            println!("  round {round}: {} woven, {} of them do not compile so", left.len(), guilty.len());
            if guilty.is_empty() {
                return Ok(left);
            }
            left.retain(|id| !guilty.contains(id));
        }
        anyhow::bail!("after {ROUNDS} rounds there is still something that does not compile");
    }

    fn write(&self, mutants: &[Mutant], ids: &BTreeSet<usize>) -> Result<BTreeMap<String, String>> {
        let mut files: BTreeMap<&str, Vec<(usize, &Mutant)>> = BTreeMap::new();
        for (id, mutant) in mutants.iter().enumerate() {
            let of_file = files.entry(&mutant.file).or_default();
            of_file.extend(ids.contains(&id).then_some((id, mutant)));
        }
        let mut woven = BTreeMap::new();
        for (file, mutants) in files {
            let source = fs::read_to_string(paths::root().join(file))?;
            let text = weave::weave(&source, &mutants).with_context(|| file.to_owned())?;
            self.put(file, text.as_bytes())?;
            woven.insert(file.to_owned(), text);
        }
        Ok(woven)
    }

    /// The mutants in whose text the compiler found errors.
    fn guilty(&self, woven: &BTreeMap<String, String>) -> Result<BTreeSet<usize>> {
        let output = self.cargo(&["check", "--quiet", "--message-format", "json"]).output().context("cargo check")?;
        if output.status.success() {
            return Ok(BTreeSet::new());
        }
        let marks: BTreeMap<&String, _> = woven.iter().map(|(file, text)| (file, weave::marks(text))).collect();
        let mut guilty = BTreeSet::new();
        let text = String::from_utf8_lossy(&output.stdout);
        for message in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            for (file, at) in spans(&message) {
                let mut around =
                    marks.get(&file).into_iter().flatten().filter(|(start, end, _)| (*start..*end).contains(&at));
                guilty.extend(around.next_back().into_iter().flat_map(|(.., ids)| ids.iter().copied()));
            }
        }
        ensure!(!guilty.is_empty(), "what does not compile is in no mutant: {}", said(&text));
        Ok(guilty)
    }

    /// One alone, as cargo-mutants would have it.
    pub fn alone(&self, mutant: &Mutant) -> Result<Build> {
        let source = fs::read_to_string(paths::root().join(&mutant.file))?;
        let (start, end) = (weave::offset(&source, mutant.start), weave::offset(&source, mutant.end));
        let text = format!("{}{}{}", &source[..start], mutant.replacement, &source[end..]);
        self.put(&mutant.file, text.as_bytes())?;
        let build = self.build();
        self.put(&mutant.file, source.as_bytes())?;
        build
    }

    /// Builds the tests as the tree stands.
    pub fn build(&self) -> Result<Build> {
        let mut command = self.cargo(&["test", "--no-run", "--quiet", "--message-format", "json"]);
        let output = command.output().context("cargo test --no-run")?;
        if !output.status.success() {
            return Ok(Build::Refused);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let program = |line: &str| {
            let message: Value = serde_json::from_str(line).ok()?;
            let path = PathBuf::from(message.get("executable")?.as_str()?);
            Some((message.get("target")?.get("name")?.as_str()?.to_owned(), path))
        };
        Ok(Build::Tests(text.lines().filter_map(program).collect()))
    }
}

/// File and offset of each place that an error names first.
fn spans(message: &Value) -> Vec<(String, usize)> {
    let Some(message) = message.get("message").filter(|message| message.get("level").is_some_and(|it| it == "error"))
    else {
        return Vec::new();
    };
    let list = message.get("spans").and_then(Value::as_array).cloned().unwrap_or_default();
    let primary = list.iter().filter(|span| span.get("is_primary").is_some_and(|it| it == true));
    let place = |span: &Value| {
        let at = usize::try_from(span.get("byte_start")?.as_u64()?).ok()?;
        Some((span.get("file_name")?.as_str()?.to_owned(), at))
    };
    primary.filter_map(place).collect()
}

fn said(text: &str) -> String {
    let rendered = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        Some(message.get("message")?.get("rendered")?.as_str()?.to_owned())
    };
    text.lines().filter_map(rendered).take(3).collect()
}
