//! Cuts the power: after every operation of a history, with every subset of what was not flushed where that is
//! feasible, otherwise with chosen and random ones; torn at 512 bytes; with one damaged or stale slot; and again while
//! the store is opened afterwards.

use std::collections::HashSet;
use std::rc::Rc;

use snapshot::store::Geometry;

use crate::content::Held;
use crate::disk::Op;
use crate::history::History;
use crate::image::{Block, Image};
use crate::judge;
use crate::rng::Rng;

/// Sectors of a torn block that arrive.
const TEARS: [u8; 6] = [0x01, 0x0f, 0x7f, 0x80, 0xfe, 0xaa];
/// Bits of a slot in which something stands.
const SLOT_BITS: u64 = 304 * 8;
/// So many pending writes are many.
const MANY: usize = 32;
/// Front meta area.
const META: std::ops::Range<u64> = 72..256;

/// How much is tried.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Most pending writes of which every subset is tried.
    pub exhaustive: usize,
    /// Random subsets at each cut, with tears and in another order.
    pub random: u64,
    /// Once in so many points the store is used further, and cut again while it is opened.
    pub deep: u64,
    /// With many writes pending, of the moments between two blocks of data only one in so many gets more than the plain
    /// cut, in which everything so far has arrived.
    pub thin: u64,
    /// Stops after so many wrong ones.
    pub enough: usize,
}

/// What came of it.
#[derive(Default)]
pub struct Outcome {
    /// Distinct crash points: the moment's promise, and what is on the disk.
    pub points: u64,
    /// What was wrong.
    pub wrong: Vec<String>,
}

/// One moment.
struct Cut<'a> {
    durable: &'a Image,
    pending: &'a [(u64, Rc<Block>)],
    /// Operations before it.
    number: usize,
    mark: usize,
    /// The last operation was a write: subsets without it were tried before.
    wrote: bool,
}

impl Cut<'_> {
    fn survivors(&self, survives: impl Fn(usize) -> bool) -> Image {
        let mut image = self.durable.clone();
        for (number, (at, block)) in self.pending.iter().enumerate() {
            if survives(number) {
                image.put(*at, block.clone());
            }
        }
        image
    }

    /// A random subset in a random order; every third write is torn.
    fn random(&self, rng: &mut Rng) -> Image {
        let mut image = self.durable.clone();
        let mut order: Vec<usize> = (0..self.pending.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, usize::try_from(rng.below(last as u64 + 1)).unwrap_or(last));
        }
        for (at, block) in order.into_iter().map(|number| &self.pending[number]) {
            match rng.below(3) {
                0 => {}
                1 => image.put(*at, block.clone()),
                _ => image.tear(*at, block, rng.next().to_le_bytes()[0]),
            }
        }
        image
    }
}

/// Tries what may be left of a history.
pub fn explore(history: &History, seed: u64, effort: Effort) -> Outcome {
    let mut explorer = Explorer {
        history,
        effort,
        rng: Rng(seed),
        seen: HashSet::new(),
        slots: [None, None],
        intact: [!history.unsettled; 2],
        outcome: Outcome { points: 0, wrong: history.wrong.clone() },
    };
    explorer.all();
    explorer.outcome
}

/// A random moment of a history, and what may be found there.
pub fn random_cut(history: &History, rng: &mut Rng) -> (Image, Vec<Held>) {
    let log = history.log();
    let stop = usize::try_from(rng.below(log.len() as u64 + 1)).unwrap_or(0);
    let mut walk = Walk::new(&history.start);
    log.iter().take(stop).for_each(|op| walk.step(op));
    (walk.cut(stop, false).random(rng), history.allowed[walk.mark].clone())
}

/// At the end of a history: everything arrived, nothing that was not flushed, and some random subsets.
pub fn ends(history: &History, rng: &mut Rng, random: u64) -> Vec<Image> {
    let mut walk = Walk::new(&history.start);
    history.log().iter().for_each(|op| walk.step(op));
    let cut = walk.cut(0, false);
    let mut images = vec![cut.survivors(|_| true), walk.durable.clone()];
    images.extend((0..random).map(|_| cut.random(rng)));
    images
}

/// What is durable and what is pending, operation by operation.
struct Walk {
    durable: Image,
    pending: Vec<(u64, Rc<Block>)>,
    mark: usize,
}

impl Walk {
    fn new(start: &Image) -> Self {
        Self { durable: start.clone(), pending: Vec::new(), mark: 0 }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Write(at, block) => self.pending.push((*at, block.clone())),
            Op::Flush => self.pending.drain(..).for_each(|(at, block)| self.durable.put(at, block)),
            Op::Lost => self.pending.clear(),
            Op::Mark(point) => self.mark = *point,
        }
    }

    fn cut(&self, number: usize, wrote: bool) -> Cut<'_> {
        Cut { durable: &self.durable, pending: &self.pending, number, mark: self.mark, wrote }
    }
}

struct Explorer<'a> {
    history: &'a History,
    effort: Effort,
    rng: Rng,
    seen: HashSet<(usize, u64)>,
    /// What stood in the slots before what stands there now.
    slots: [Option<Rc<Block>>; 2],
    /// Slots that were written whole.
    intact: [bool; 2],
    outcome: Outcome,
}

impl Explorer<'_> {
    fn all(&mut self) {
        let mut walk = Walk::new(&self.history.start);
        self.cut(&walk.cut(0, false));
        for (number, op) in self.history.log().iter().enumerate() {
            if matches!(op, Op::Flush) {
                self.note_slots(&walk);
            }
            walk.step(op);
            self.cut(&walk.cut(number + 1, matches!(op, Op::Write(..))));
            if self.outcome.wrong.len() >= self.effort.enough {
                return;
            }
        }
    }

    /// What the slots held before this flush is what a lost write would leave.
    fn note_slots(&mut self, walk: &Walk) {
        let ends = [0, self.history.blocks() - 1];
        for ((kept, intact), end) in self.slots.iter_mut().zip(&mut self.intact).zip(ends) {
            if walk.pending.iter().any(|(at, _)| *at == end) {
                *intact = true;
                *kept = walk.durable.get(end).cloned();
            }
        }
    }

    fn cut(&mut self, cut: &Cut<'_>) {
        if cut.wrote && cut.pending.len() > MANY && !self.rng.once_in(self.effort.thin) {
            return self.whole(cut, cut.survivors(|_| true), "all");
        }
        if cut.pending.len() <= self.effort.exhaustive {
            let last = if cut.wrote { cut.pending.len() - 1 } else { cut.pending.len() };
            for subset in 0..1u32 << last {
                let image = cut.survivors(|number| number >= last || subset >> number & 1 == 1);
                self.whole(cut, image, "a subset");
            }
        } else {
            self.chosen(cut);
        }
        for _ in 0..self.effort.random.min(cut.pending.len() as u64 * 2) {
            let image = cut.random(&mut self.rng);
            self.judge(cut, &image, "a random subset");
        }
        self.torn(cut);
        if cut.pending.is_empty() {
            self.bad_copies(cut);
        }
    }

    /// Too many for every subset: all, each one missing, each one alone, each beginning, each end.
    fn chosen(&mut self, cut: &Cut<'_>) {
        let count = cut.pending.len();
        self.whole(cut, cut.survivors(|_| true), "all");
        self.whole(cut, cut.survivors(|number| number % 2 == 0), "every second");
        let singles = count.min(24);
        for chosen in count - singles..count {
            self.whole(cut, cut.survivors(|number| number != chosen), "one lost");
            self.whole(cut, cut.survivors(|number| number == chosen), "one alone");
            self.whole(cut, cut.survivors(|number| number > chosen), "an end");
        }
    }

    fn torn(&mut self, cut: &Cut<'_>) {
        let Some((at, block)) = cut.pending.last().filter(|_| cut.wrote) else { return };
        let last = cut.pending.len() - 1;
        for mask in TEARS {
            let mut image = cut.durable.clone();
            cut.pending.iter().for_each(|(at, block)| image.tear(*at, block, mask));
            self.judge(cut, &image, "all torn");
        }
        let slot = *at == 0 || *at + 1 == self.history.blocks();
        let masks: Vec<u8> = if slot { (0..=255).collect() } else { TEARS.to_vec() };
        for mask in masks {
            for others in [true, false] {
                let mut image = cut.survivors(|number| others && number != last);
                image.tear(*at, block, mask);
                self.judge(cut, &image, "torn");
            }
        }
    }

    /// Whole writes only: then one damaged or stale slot must not matter either, whichever it is.
    fn whole(&mut self, cut: &Cut<'_>, image: Image, how: &str) {
        let formatted = !self.history.allowed[cut.mark].contains(&None) && self.intact == [true; 2];
        if formatted && (cut.pending.is_empty() || self.rng.once_in(8)) {
            for (number, slot) in [0, self.history.blocks() - 1].into_iter().enumerate() {
                let bits = if self.rng.once_in(2) { SLOT_BITS } else { 4096 * 8 };
                let mut damaged = image.clone();
                damaged.flip(slot, usize::try_from(self.rng.below(bits)).unwrap_or(0));
                self.judge(cut, &damaged, "one slot damaged");
                if let Some(old) = self.slots[number].clone() {
                    let mut stale = image.clone();
                    stale.put(slot, old);
                    self.judge(cut, &stale, "one slot stale");
                }
            }
        }
        self.judge(cut, &image, how);
    }

    /// Nothing is pending: one block of either meta area may be lost or damaged.
    fn bad_copies(&mut self, cut: &Cut<'_>) {
        let (allowed, blocks) = (&self.history.allowed[cut.mark], self.history.blocks());
        let Ok(geometry) = Geometry::of(blocks) else { return };
        if allowed.contains(&None) {
            return;
        }
        let front = META.start..META.start + geometry.meta_blocks;
        let back = geometry.mirror(META.start)..blocks - 1;
        let used: Vec<u64> = cut.durable.used().filter(|at| front.contains(at) || back.contains(at)).collect();
        for at in used {
            let mut image = cut.durable.clone();
            image.flip(at, usize::try_from(self.rng.below(400 * 8)).unwrap_or(0));
            if self.is_new(cut, &image) {
                let verdict = judge::but_for_copies(blocks, &image, allowed);
                self.note(cut, verdict, "one copy in the meta area damaged");
            }
        }
    }

    fn is_new(&mut self, cut: &Cut<'_>, image: &Image) -> bool {
        let room = self.outcome.wrong.len() < self.effort.enough;
        let new = room && self.seen.insert((cut.mark, image.print()));
        self.outcome.points += u64::from(new);
        new
    }

    fn note(&mut self, cut: &Cut<'_>, verdict: judge::Verdict, how: &str) {
        if let Err(error) = verdict {
            let place = format!("point {}, after operation {}, {how}", self.outcome.points, cut.number);
            self.outcome.wrong.push(format!("{place}: {error}"));
        }
    }

    fn judge(&mut self, cut: &Cut<'_>, image: &Image, how: &str) {
        if !self.is_new(cut, image) {
            return;
        }
        let (history, deep) = (self.history, self.outcome.points.is_multiple_of(self.effort.deep));
        let allowed = &history.allowed[cut.mark];
        self.note(cut, judge::whole(history.blocks(), image, allowed, deep), how);
        if deep {
            self.opening(cut, image);
        }
    }

    /// The power goes again while the store is opened.
    fn opening(&mut self, before: &Cut<'_>, image: &Image) {
        let mut walk = Walk { durable: image.clone(), pending: Vec::new(), mark: before.mark };
        for op in judge::opening(self.history.blocks(), image) {
            walk.step(&op);
            let cut = Cut { number: before.number, ..walk.cut(before.number, true) };
            if let Some((at, block)) = cut.pending.last() {
                let mut torn = cut.durable.clone();
                torn.tear(*at, block, self.rng.next().to_le_bytes()[0]);
                self.again(&cut, &torn);
            }
            self.again(&cut, &cut.survivors(|_| true));
        }
    }

    fn again(&mut self, cut: &Cut<'_>, image: &Image) {
        if self.is_new(cut, image) {
            let verdict = judge::whole(self.history.blocks(), image, &self.history.allowed[cut.mark], false);
            self.note(cut, verdict, "and again while it was opened");
        }
    }
}
