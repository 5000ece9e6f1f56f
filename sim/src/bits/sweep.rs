//! Flips the bits, asks those who read the block, and compares with what the format promises of such a block.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow, ensure};

use super::readers::{Reader, Readers, Seen};
use super::small::{Kind, ROOT, SET, Small};
use crate::replay;

/// Bits in a block.
const BITS: usize = 4096 * 8;
/// Bytes at the start and the end of a block in which every bit is tried; of the rest one bit in `STRIDE`.
const DENSE: usize = 384;
const TAIL: usize = 16;
const STRIDE: usize = 11;
/// Of so many bits one is tried by those, too, who do not read its block.
const PROBE: usize = 4099;
/// Workers at most.
const WORKERS: usize = 8;

/// Which bits of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// Really every one.
    Every,
    /// Every one where structures lie, and some of the rest.
    Some,
    /// A few.
    Few,
}

impl Bits {
    fn has(self, bit: usize) -> bool {
        let byte = bit / 8;
        match self {
            Self::Every => true,
            Self::Some => !(DENSE..4096 - TAIL).contains(&byte) || bit.is_multiple_of(STRIDE),
            Self::Few => byte < TAIL || bit.is_multiple_of(997),
        }
    }
}

/// What was seen of all bits of one kind of block.
#[derive(Clone, Copy, Default)]
pub struct Sum {
    blocks: u64,
    bits: u64,
    told: u64,
    harmed: u64,
}

type Sums = BTreeMap<Kind, Sum>;

/// Flips and shows the table.
pub fn table(bits: Bits) -> Result<()> {
    let sums = sweep(bits)?;
    println!("blocks      bits   noticed  refused  (noticed: by a reader, store check or a writer; refused: not read)");
    for (kind, sum) in &sums {
        println!("{:>6} {:>9} {:>9} {:>8}  {kind:?}", sum.blocks, sum.bits, sum.told, sum.harmed);
    }
    let all = |of: fn(&Sum) -> u64| sums.values().map(of).sum::<u64>();
    println!("{} bits of {} blocks, no page wrong, no store lost", all(|sum| sum.bits), all(|sum| sum.blocks));
    Ok(())
}

/// Flips the bits of every block that anybody reads, a worker for each processor. What is wrong is an error.
pub fn sweep(bits: Bits) -> Result<Sums> {
    replay::note("bits", 0);
    let (next, count) = (AtomicUsize::new(0), thread::available_parallelism().map_or(1, usize::from).min(WORKERS));
    let parts: Vec<Result<Sums>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(|| work(bits, &next))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err(anyhow!("a worker died")))).collect()
    });
    let mut sums = Sums::new();
    for part in parts {
        for (kind, sum) in part? {
            let all = sums.entry(kind).or_default();
            let Sum { blocks, bits, told, harmed } = *all;
            *all = Sum {
                blocks: blocks + sum.blocks,
                bits: bits + sum.bits,
                told: told + sum.told,
                harmed: harmed + sum.harmed,
            };
        }
    }
    Ok(sums)
}

/// Takes one block after the other.
fn work(bits: Bits, next: &AtomicUsize) -> Result<Sums> {
    let small = Small::new()?;
    let readers = Readers::new(&small).map_err(|wrong| anyhow!(wrong))?;
    let blocks: Vec<u64> = readers.reached().into_iter().collect();
    let mut worker = Worker { small, readers, sums: Sums::new() };
    worker.complete()?;
    while let Some(at) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
        worker.block(*at, bits)?;
    }
    Ok(worker.sums)
}

struct Worker {
    small: Small,
    readers: Readers,
    sums: Sums,
}

impl Worker {
    /// Every kind of block is there, and everything that the format reaches is read by somebody.
    fn complete(&self) -> Result<()> {
        let reached = self.readers.reached();
        let unread = |(at, kind): (&u64, &Kind)| (*kind != Kind::Unused && !reached.contains(at)).then_some(*at);
        let unread: Vec<u64> = self.small.kinds.iter().filter_map(unread).collect();
        ensure!(unread.is_empty(), "blocks that nobody reads: {unread:?}");
        let kinds: BTreeSet<Kind> = self.small.kinds.values().copied().collect();
        ensure!(kinds.len() == KINDS, "kinds of blocks: {kinds:?}");
        Ok(())
    }

    fn block(&mut self, at: u64, bits: Bits) -> Result<()> {
        let kind = self.small.kinds.get(&at).copied();
        let kind = kind.ok_or_else(|| anyhow!("block {at} is read, and nothing that is known lies there"))?;
        let (concerned, others) = (self.readers.of(at), self.readers.others(at));
        self.sums.entry(kind).or_default().blocks += 1;
        for bit in (0..BITS).filter(|bit| bits.has(*bit)) {
            let seen = self.readers.flip(at, bit, &concerned).map_err(|wrong| anyhow!(wrong))?;
            self.judge(kind, at, bit, seen).map_err(|what| anyhow!("block {at} ({kind:?}), bit {bit}: {what}"))?;
            if bit % PROBE == 0 {
                self.unconcerned(at, bit, &others)?;
            }
            let sum = self.sums.entry(kind).or_default();
            sum.bits += 1;
            sum.told += u64::from(seen.told);
            sum.harmed += u64::from(seen.harmed);
        }
        self.readers.sound().map_err(|wrong| anyhow!(wrong))
    }

    /// Those who do not read the block see nothing: now and then they are asked all the same.
    fn unconcerned(&mut self, at: u64, bit: usize, others: &[Reader]) -> Result<()> {
        let seen = self.readers.flip(at, bit, others).map_err(|wrong| anyhow!(wrong))?;
        ensure!(seen == Seen::default(), "block {at}, bit {bit}: noticed by who does not read it");
        Ok(())
    }

    /// What the format promises.
    fn judge(&self, kind: Kind, at: u64, bit: usize, seen: Seen) -> Result<(), &'static str> {
        let holds = |condition, what| if condition { Ok(()) } else { Err(what) };
        match kind {
            Kind::Slot | Kind::Copy(_) => {
                holds(seen.told, "nobody noticed")?;
                holds(!seen.harmed && !seen.stops, "there is a second copy, and something was lost")
            }
            Kind::Alone(what) => {
                holds(seen.told, "nobody noticed")?;
                // Only the writer, verify and store check need the set.
                holds(seen.harmed == (what != SET), "a reader gave what it could not know, or missed what is there")?;
                holds(seen.stops == [ROOT, SET].contains(&what), "a writer that goes on, or stops, without a reason")
            }
            Kind::Packed => {
                let inside = self.small.packed.get(&at).is_some_and(|bytes| bytes.contains(&(bit / 8)));
                holds(inside || seen == Seen::default(), "nothing lies there, and something was noticed")?;
                holds(seen.told == seen.harmed && !seen.stops, "a page that is told of is not handed out")
            }
            Kind::Note => {
                holds(seen.told == self.small.image.get(at).is_some(), "a note, and it was not the one that changed")?;
                holds(!seen.harmed && !seen.stops, "what decides nothing cost something")
            }
            Kind::Unused => holds(seen == Seen::default(), "nothing lies there, and something was noticed"),
        }
    }
}

/// Kinds of blocks in the small store: slots, three copies, six that are alone, packed ones, notes, and unused ones.
const KINDS: usize = 13;
