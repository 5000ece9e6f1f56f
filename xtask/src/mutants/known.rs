//! What became of each mutant, kept by its name in a file that grows: what was judged is not judged again.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context, Result};

use super::list::Mutant;
use crate::paths;

/// It is no mutant.
pub const UNVIABLE: &str = "does not compile";
/// No test noticed.
pub const SURVIVES: &str = "survives";

/// What became of each, by name: what is known of earlier runs, and a file that grows.
pub struct Judged {
    path: PathBuf,
    known: Mutex<BTreeMap<String, String>>,
}

impl Judged {
    /// What earlier runs left.
    pub fn load() -> Result<Self> {
        let path = paths::target_dir("mutants")?.join("judged.tsv");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let known = text.lines().filter_map(|line| line.split_once('\t'));
        let known = known.map(|(name, word)| (name.to_owned(), word.to_owned())).collect();
        Ok(Self { path, known: Mutex::new(known) })
    }

    /// Is it to be judged: never before, or again if it survived?
    pub fn is_open(&self, name: &str, again: bool) -> bool {
        let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(name).map_or(!again, |word| again && word == SURVIVES)
    }

    /// Keeps what became of it.
    pub fn note(&self, mutant: &Mutant, word: &str) -> Result<()> {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.insert(mutant.name.clone(), word.to_owned());
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        writeln!(file, "{}\t{word}", mutant.name).with_context(|| self.path.display().to_string())
    }

    /// Counts, and the names of those that survived.
    pub fn tell(&self, mutants: &[Mutant]) {
        let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let word = |mutant: &Mutant| known.get(&mutant.name).cloned();
        let words: Vec<String> = mutants.iter().filter_map(word).collect();
        let count = |is: &dyn Fn(&str) -> bool| words.iter().filter(|word| is(word)).count();
        let (survive, unviable) = (count(&|word| word == SURVIVES), count(&|word| word == UNVIABLE));
        let viable = words.len() - unviable;
        println!(
            "of {} mutants {} are judged: {unviable} do not compile; of the other {viable} {} are caught: {:.1} %",
            mutants.len(),
            words.len(),
            viable - survive,
            (viable - survive) as f64 * 100.0 / viable.max(1) as f64,
        );
        mutants.iter().filter(|mutant| word(mutant).as_deref() == Some(SURVIVES)).for_each(|mutant| {
            println!("  survives: {}", mutant.name);
        });
    }
}
