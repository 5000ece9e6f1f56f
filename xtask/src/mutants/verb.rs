//! `cargo xtask mutants`: would the tests of store and session notice if the code were wrong?
//!
//! The changes are those that cargo-mutants lists. It builds each one by itself, which for two thousand of them takes
//! hours; here all that can be are woven into one build, and a variable says which is on. What cannot be woven is built
//! by itself as well. What was judged is kept in `target/mutants/judged.tsv`, and not judged again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::judge::{Bench, Verdict};
use super::known::{Judged, SURVIVES, UNVIABLE};
use super::list::{self, Mutant};
use super::tree::{Build, Tree};
use crate::sh::heading;

/// Tests that take seconds: they judge only what all others let pass, with `--by`.
const SLOW: [&str; 9] = [
    "crash::",
    "bitrot::",
    "order::",
    "a_store_lists_so_many",
    "space::after_a_hundred",
    "shared::what_snapshots_share_is_cleaned",
    "shared::any_order",
    "hostile::structures_with",
    "entry::tests::every_shape",
];
/// Of the library's own tests those of these modules judge first.
const MODULES: [&str; 2] = ["store::", "session::"];
/// A program that takes longer judges only what all others let pass.
const QUICK: Duration = Duration::from_secs(5);
const SLOWEST: Duration = Duration::from_secs(900);
/// How often it is said how far it is.
const EACH: usize = 50;

/// Arguments of `cargo xtask mutants`.
#[derive(clap::Args)]
pub struct Args {
    /// Whose code.
    #[arg(long, default_value = "snapshot")]
    package: String,
    /// Which of its files, from the root of the checkout.
    #[arg(long, default_values_t = ["snapshot/src/store/**".to_owned(), "snapshot/src/session/**".to_owned()])]
    file: Vec<String>,
    /// Judge those that survived once more, by the tests with this in their names, slow ones too; may be repeated.
    #[arg(long, value_name = "WORD")]
    by: Vec<String>,
    /// Test programs side by side.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

impl Args {
    /// Quick ones of all tests, or those that are named.
    fn bench(&self, tests: &BTreeMap<String, PathBuf>, folder: &Path) -> Result<Bench> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        if self.by.is_empty() {
            let only = BTreeMap::from([(self.package.clone(), words(&MODULES))]);
            return Bench::new(tests, folder, words(&SLOW), only, QUICK);
        }
        let only = tests.keys().map(|name| (name.clone(), self.by.clone())).collect();
        Bench::new(tests, folder, Vec::new(), only, SLOWEST)
    }
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    heading("mutants");
    let mutants = list::of(&args.package, &args.file)?;
    let judged = Judged::load()?;
    println!("{} mutants", mutants.len());
    let tree = Tree::new("woven", &args.package)?;
    let woven = tree.weave(&mutants)?;
    println!("{} of them woven into one build", woven.len());
    let Build::Tests(tests) = tree.build()? else { bail!("what is woven compiles, and its tests do not") };
    let bench = args.bench(&tests, &tree.root().join(&args.package))?;
    let is_open = |id: &usize| judged.is_open(&mutants[*id].name, !args.by.is_empty());
    let (mut together, mut alone) = (BTreeSet::new(), BTreeSet::new());
    (0..mutants.len()).filter(is_open).for_each(|id| {
        let _ = if woven.contains(&id) { together.insert(id) } else { alone.insert(id) };
    });
    println!("{} to judge in it, {} each in a build of its own", together.len(), alone.len());
    let work = Work { args, mutants: &mutants, bench: &bench, judged: &judged };
    work.all(&together.into_iter().collect::<Vec<_>>(), &alone)?;
    judged.tell(&mutants);
    Ok(())
}

struct Work<'a> {
    args: &'a Args,
    mutants: &'a [Mutant],
    bench: &'a Bench,
    judged: &'a Judged,
}

impl Work<'_> {
    /// Those that need a build of their own one after the other, the others beside them.
    fn all(&self, together: &[usize], alone: &BTreeSet<usize>) -> Result<()> {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let beside = (1..self.args.jobs).map(|_| scope.spawn(|| self.woven(together, &next)));
            let beside: Vec<_> = beside.collect();
            self.alone(alone)?;
            self.woven(together, &next)?;
            beside.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker died")))
        })
    }

    fn woven(&self, ids: &[usize], next: &AtomicUsize) -> Result<()> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(id) = ids.get(at) else { return Ok(()) };
            self.judged.note(&self.mutants[*id], &told(&self.bench.judge(Some(*id))?))?;
            if at.is_multiple_of(EACH) {
                println!("  {at} of {}", ids.len());
            }
        }
    }

    fn alone(&self, ids: &BTreeSet<usize>) -> Result<()> {
        let tree = Tree::new("alone", &self.args.package)?;
        for (at, id) in ids.iter().enumerate() {
            let word = match tree.alone(&self.mutants[*id])? {
                Build::Refused => UNVIABLE.to_owned(),
                Build::Tests(tests) => told(&self.bench.of_build(&tests).judge(None)?),
            };
            self.judged.note(&self.mutants[*id], &word)?;
            if at.is_multiple_of(EACH) {
                println!("  {at} of {} alone", ids.len());
            }
        }
        Ok(())
    }
}

fn told(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Caught(by) => by.clone(),
        Verdict::Survives => SURVIVES.to_owned(),
    }
}
