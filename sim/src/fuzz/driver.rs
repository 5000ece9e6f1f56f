//! Makes inputs: seeds, and seeds that were changed. An input that a target answers in a way not seen before becomes a
//! seed too. Deterministic: target and seed give the same inputs again.
//!
//! A target returns what it made of the input; a panic, an endless loop or a broken promise (`Err`) is a failure.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::{disk, image, peer, text};
use crate::replay;
use crate::rng::Rng;

/// Most bytes of an input.
const INPUT_MAX: usize = 6000;
/// Most inputs in the pool.
const POOL_MAX: usize = 4096;
/// An input that takes longer hangs, however busy the machine is.
const HANG: Duration = Duration::from_secs(20);

/// What a target says of an input: anything that tells one path through the parser from another.
pub type Answer = std::result::Result<String, String>;

/// A parser under test.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that mean something to it, each in a line.
    pub words: &'static str,
    /// Gives it an input.
    pub run: fn(&[u8]) -> Answer,
    /// What one input costs, in units of the cheapest: so many fewer are tried.
    pub cost: u64,
}

/// All of them.
const TARGETS: [Target; 16] = [
    text::REQUEST,
    text::STATUS,
    text::STUB,
    text::VERDICT,
    text::CANCEL,
    text::NAME,
    text::TRACE,
    disk::SUPERBLOCK,
    disk::CATALOG,
    disk::TABLE,
    disk::ROOT,
    disk::RUN,
    disk::PAGES,
    image::STREAM,
    peer::XENSTORE,
    peer::BLKIF,
];

/// Gives each target, or one, so many inputs divided by its cost.
pub fn run(inputs: u64, seed: u64, only: Option<&str>) -> Result<()> {
    let mut tried = 0;
    for target in TARGETS.iter().filter(|target| only.is_none_or(|only| only == target.name)) {
        replay::note(&format!("fuzz {}", target.name), seed);
        let mut fuzzer = Fuzzer::new(target, seed);
        let count = inputs / target.cost;
        for _ in 0..count {
            fuzzer.one()?;
        }
        println!("{count:>9} inputs  {:<12} {:>5} answers", target.name, fuzzer.answers.len());
        tried += count;
    }
    ensure!(tried > 0, "no such target");
    Ok(())
}

struct Fuzzer<'a> {
    target: &'a Target,
    rng: Rng,
    pool: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    answers: HashSet<u64>,
    fresh: usize,
}

impl<'a> Fuzzer<'a> {
    fn new(target: &'a Target, seed: u64) -> Self {
        let words =
            target.words.lines().map(|word| word.replace("\\n", "\n").replace("\\0", "\0").into_bytes()).collect();
        let pool = (target.seeds)();
        Self { target, rng: Rng(seed), pool, words, answers: HashSet::new(), fresh: 0 }
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.rng.below(end.max(1) as u64)).unwrap_or(0)
    }

    /// One input: first every seed as it is, then changed ones.
    fn one(&mut self) -> Result<()> {
        let input = match self.pool.get(self.fresh) {
            Some(seed) => seed.clone(),
            None => self.changed(),
        };
        self.fresh += 1;
        let start = Instant::now();
        replay::input(&input);
        let answer = (self.target.run)(&input);
        let name = self.target.name;
        match answer {
            _ if start.elapsed() > HANG => bail!("{name}: hangs on {input:02x?}"),
            Err(wrong) => bail!("{name}: {wrong} on {input:02x?}"),
            Ok(answer) => self.learn(input, &answer),
        }
        Ok(())
    }

    fn learn(&mut self, input: Vec<u8>, answer: &str) {
        let mut hasher = DefaultHasher::new();
        answer.hash(&mut hasher);
        if self.answers.insert(hasher.finish()) && self.pool.len() < POOL_MAX && self.fresh > self.pool.len() {
            self.pool.push(input);
            self.fresh = self.fresh.max(self.pool.len());
        }
    }

    fn changed(&mut self) -> Vec<u8> {
        let mut input = match self.below(self.pool.len()) {
            at if self.pool.is_empty() => vec![0; at],
            at => self.pool[at].clone(),
        };
        for _ in 0..1 + self.below(5) {
            self.change(&mut input);
        }
        input.truncate(INPUT_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let (at, other) = (self.below(input.len()), self.below(input.len()));
        let end = (at + 1 + self.below(16)).min(input.len());
        let random = self.rng.next().to_le_bytes();
        match self.rng.below(10) {
            _ if input.is_empty() => input.extend_from_slice(&random),
            0 => input[at] ^= 1 << (random[0] % 8),
            1 => input[at] = random[0],
            2 => input[at] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'=', b' '][usize::from(random[0] % 8)],
            3 => drop(input.drain(at..end)),
            4 => {
                let piece = input[at..end].to_vec();
                input.splice(other..other, piece);
            }
            5 => input.truncate(at),
            6 if !self.words.is_empty() => {
                let word = self.below(self.words.len());
                let word = self.words[word].clone();
                let until = if random[0].is_multiple_of(2) { at } else { (at + word.len()).min(input.len()) };
                input.splice(at..until, word);
            }
            7 => {
                let from = self.below(self.pool.len());
                let donor = self.pool[from].clone();
                let cut = at.min(donor.len());
                input.truncate(at);
                input.extend_from_slice(&donor[cut..]);
            }
            8 => {
                let width = [2, 4, 8][usize::from(random[0] % 3)].min(input.len() - at);
                let value = [0, u64::MAX, 1 << 31, 1 << 40, u64::from(random[1]), u64::MAX >> 1];
                let value = value[usize::from(random[2] % 6)].to_le_bytes();
                input[at..at + width].copy_from_slice(&value[..width]);
            }
            _ => input.insert(at, random[0]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_takes_some_thousand_inputs() {
        run(3000, 1, None).map_err(|error| error.to_string()).unwrap_or_else(|error| panic!("{error}"));
    }
}
