//! Runs test programs against a mutant until one fails.
//!
//! A mutant is caught by the first test that fails, by a program that dies, or by one that takes some times as long as
//! it does without; never by the compiler.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// What a program may take that takes no time without a mutant, and how many times what it takes else.
const LEAST: Duration = Duration::from_secs(5);
const TIMES: u32 = 4;
/// Address space of a test program: what loops may allocate as it does.
const MEMORY_KIB: u64 = 8 << 20;

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// By that test of that program, or by its death or its silence.
    Caught(String),
    /// No test failed.
    Survives,
}

/// A test program and how long it may take.
#[derive(Clone, Debug)]
struct Program {
    name: String,
    path: PathBuf,
    limit: Duration,
}

/// The programs of one build, quickest first.
#[derive(Clone, Debug)]
pub struct Bench {
    programs: Vec<Program>,
    skipped: Vec<String>,
    only: BTreeMap<String, Vec<String>>,
    folder: PathBuf,
}

impl Bench {
    /// Measures each program without a mutant; one that fails then judges nothing. Those that take longer than
    /// `longest` are left out, and so is each test whose name has a word of `skipped` in it; of a program that `only`
    /// knows those alone judge that have one of these words in their names.
    pub fn new(
        tests: &BTreeMap<String, PathBuf>,
        folder: &Path,
        skipped: Vec<String>,
        only: BTreeMap<String, Vec<String>>,
        longest: Duration,
    ) -> Result<Self> {
        let mut bench = Self { programs: Vec::new(), skipped, only, folder: folder.to_owned() };
        for (name, path) in tests {
            let mut program = Program { name: name.clone(), path: path.clone(), limit: Duration::from_secs(1800) };
            let began = Instant::now();
            let verdict = bench.run(&program, None)?;
            ensure!(verdict == Verdict::Survives, "without a mutant: {verdict:?}");
            let took = began.elapsed();
            println!("  {name}: {:.1} s{}", took.as_secs_f64(), if took > longest { ", left out" } else { "" });
            program.limit = LEAST + took * TIMES;
            bench.programs.extend((took <= longest).then_some(program));
        }
        bench.programs.sort_by_key(|program| program.limit);
        Ok(bench)
    }

    /// The same for another build, of which no time is known.
    pub fn of_build(&self, tests: &BTreeMap<String, PathBuf>) -> Self {
        let with = |program: &Program| Some(Program { path: tests.get(&program.name)?.clone(), ..program.clone() });
        Self { programs: self.programs.iter().filter_map(with).collect(), ..self.clone() }
    }

    /// Runs the programs until one fails.
    pub fn judge(&self, id: Option<usize>) -> Result<Verdict> {
        for program in &self.programs {
            let verdict = self.run(program, id)?;
            if verdict != Verdict::Survives {
                return Ok(verdict);
            }
        }
        Ok(Verdict::Survives)
    }

    fn run(&self, program: &Program, id: Option<usize>) -> Result<Verdict> {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\"")]).arg(&program.path);
        command.arg("--test-threads=1");
        command.args(self.skipped.iter().flat_map(|word| ["--skip", word]));
        command.args(self.only.get(&program.name).into_iter().flatten());
        command.current_dir(&self.folder).env("RUST_BACKTRACE", "0").env_remove("LIVESAVE_MUTANT");
        id.map(|id| command.env("LIVESAVE_MUTANT", id.to_string()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("a test program")?;
        let verdict = watch(&mut child, program)?;
        let _ = child.kill();
        let status = child.wait().context("a test program")?;
        Ok(match verdict {
            Some(verdict) => verdict,
            None if status.success() => Verdict::Survives,
            None => Verdict::Caught(format!("{}: {status}", program.name)),
        })
    }
}

/// Until a test fails, the time is over, or the program ends.
fn watch(child: &mut Child, program: &Program) -> Result<Option<Verdict>> {
    let output = child.stdout.take().context("a pipe")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let end = Instant::now() + program.limit;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(test) = failed(&line) {
                    return Ok(Some(Verdict::Caught(format!("{}: {test}", program.name))));
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                return Ok(Some(Verdict::Caught(format!("{}: takes too long", program.name))));
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

fn failed(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(|test| test.trim_end_matches(" - should panic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(script: &str) -> Verdict {
        let program = Program {
            name: "it".to_owned(),
            path: PathBuf::from("/bin/sh"),
            limit: Duration::from_millis(if script.contains("sleep") { 100 } else { 60_000 }),
        };
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let verdict = watch(&mut child, &program).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        verdict.unwrap_or(Verdict::Survives)
    }

    #[test]
    fn the_first_test_that_fails_is_named_and_silence_is_no_pass() {
        let caught = |by: &str| Verdict::Caught(format!("it: {by}"));
        assert_eq!(judged("echo 'test a ... ok'; echo 'test b::c ... FAILED'; exec sleep 60"), caught("b::c"));
        assert_eq!(judged("echo 'test a ... ok'; exec sleep 60"), caught("takes too long"));
        assert_eq!(judged("echo 'test a ... ok'"), Verdict::Survives);
    }
}
