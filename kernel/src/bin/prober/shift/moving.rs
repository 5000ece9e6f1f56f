//! Frames that are page tables and ordinary memory in turn. Each is a whole cycle ahead or behind the others, so that
//! at any moment there are some of every kind.
//!
//! A table holds entries that map frames of ours and, one in three, words that map nothing and look like anything; as
//! ordinary memory the frame holds words that look like entries. What each word must be follows from the frame's place
//! and age alone, so a check needs no copy.

use alloc::vec::Vec;

use livesave_stubdom::mm::{self, DATA, READ_ONLY, entry, layout, m2p};
use livesave_stubdom::{hv, panic};
use xen_hypercall::abi::mmu::{
    MMUEXT_PIN_L1_TABLE, MMUEXT_UNPIN_TABLE, MmuUpdate, MmuextOp, PTE_ADDRESS_MASK, PteFlags,
};
use xen_hypercall::{Mfn, Pfn, mmu};

use super::tree::{frame_of, get, put};

/// Words of a frame.
const WORDS: u64 = 512;
/// Entries that one turn changes.
const STEP: u64 = 64;
/// Frames that the tables map.
const TARGETS: usize = 32;

/// The frames, and what was found wrong in them.
pub struct Moving {
    frames: Vec<Frame>,
    targets: Vec<Pfn>,
    next: usize,
    /// Words that were not what they must be.
    pub wrong: u64,
}

struct Frame {
    pfn: Pfn,
    age: u64,
    /// Entries below are a year older; None: it is no table.
    table: Option<u64>,
}

impl Moving {
    /// None without memory.
    pub fn new(count: usize) -> Option<Self> {
        let targets = (0..TARGETS).map(|_| mm::take_frame()).collect::<Option<Vec<_>>>()?;
        let mut moving = Self { frames: Vec::new(), targets, next: 0, wrong: 0 };
        for index in 0..count {
            let frame = Frame { pfn: mm::take_frame()?, age: 0, table: None };
            frame.fill(&moving.targets);
            moving.frames.push(frame);
            // Some turns of its own, that not all change at once.
            moving.next = index;
            (0..index % 10).for_each(|_| moving.step(index));
        }
        Some(moving)
    }

    /// The next frame's next step.
    pub fn turn(&mut self) {
        self.next = (self.next + 1) % self.frames.len();
        self.step(self.next);
    }

    /// Looks at every word of every frame.
    pub fn check_all(&mut self) {
        self.wrong += self.frames.iter().map(|frame| frame.wrong(&self.targets)).sum::<u64>();
    }

    fn step(&mut self, index: usize) {
        let Self { frames, targets, wrong, .. } = self;
        let frame = &mut frames[index];
        *wrong += frame.wrong(targets);
        match frame.table {
            None => frame.becomes_table(targets),
            Some(done) if done < WORDS => frame.changes(targets, done),
            Some(_) => frame.becomes_memory(targets),
        }
    }
}

impl Frame {
    fn address(&self) -> u64 {
        layout::address_of(self.pfn)
    }

    fn wrong(&self, targets: &[Pfn]) -> u64 {
        let differs = |&at: &u64| !alike(get(self.address() + at * 8), self.word(targets, at), self.table.is_some());
        (0..WORDS).filter(differs).count() as u64
    }

    fn word(&self, targets: &[Pfn], at: u64) -> u64 {
        let age = self.age + u64::from(self.table.is_some_and(|done| at < done));
        let mixed = mix(self.pfn.raw() << 32 | age << 10 | at);
        match self.table {
            // Anywhere in RAM, and in the holes between.
            None => mixed >> 20 & !PTE_ADDRESS_MASK | mixed % m2p::limit() << 12 | 1,
            Some(_) if mixed.is_multiple_of(3) => mixed & !1,
            Some(_) => {
                let target = targets[(mixed >> 8) as usize % targets.len()];
                entry(Mfn::new(frame_of(target)), READ_ONLY)
            }
        }
    }

    fn fill(&self, targets: &[Pfn]) {
        (0..WORDS).for_each(|at| put(self.address() + at * 8, self.word(targets, at)));
    }

    /// Filled while it can still be written, then read-only, then a table.
    fn becomes_table(&mut self, targets: &[Pfn]) {
        (self.age, self.table) = (self.age + 1, Some(0));
        self.fill(targets);
        self.map(READ_ONLY);
        self.pin(MMUEXT_PIN_L1_TABLE);
    }

    fn changes(&mut self, targets: &[Pfn], done: u64) {
        self.table = Some(done + STEP);
        let machine = frame_of(self.pfn) << 12;
        let update = |at| MmuUpdate { ptr: machine + at * 8, val: self.word(targets, at) };
        let updates: Vec<MmuUpdate> = (done..done + STEP).map(update).collect();
        // SAFETY: nothing is reached through this table: it is in no other.
        if let Err(stopped) = unsafe { mmu::update(&hv::xen(), &updates, None) } {
            panic::die(&format_args!("entry {}: {}", stopped.done, stopped.error));
        }
    }

    fn becomes_memory(&mut self, targets: &[Pfn]) {
        self.pin(MMUEXT_UNPIN_TABLE);
        self.map(DATA);
        (self.age, self.table) = (self.age + 1, None);
        self.fill(targets);
    }

    fn map(&self, flags: PteFlags) {
        if let Err(error) = hv::update_va_mapping(self.address(), entry(Mfn::new(frame_of(self.pfn)), flags)) {
            panic::die(&format_args!("mapping {}: {error}", self.pfn));
        }
    }

    fn pin(&self, cmd: u32) {
        let op = MmuextOp { cmd, pad: 0, arg1: frame_of(self.pfn), arg2: 0 };
        // SAFETY: nothing is reached through this table: it is in no other.
        if let Err(stopped) = unsafe { mmu::extended(&hv::xen(), &[op], None) } {
            panic::die(&format_args!("pinning {}: {}", self.pfn, stopped.error));
        }
    }
}

/// Xen adds flags of its own to an entry that maps something (xen/arch/x86/mm.c, adjust_guest_l1e).
fn alike(found: u64, wanted: u64, table: bool) -> bool {
    let mask = PTE_ADDRESS_MASK | (PteFlags::PRESENT | PteFlags::RW | PteFlags::NX).bits();
    let maps = table && wanted & PteFlags::PRESENT.bits() != 0;
    if maps { (found ^ wanted) & mask == 0 } else { found == wanted }
}

/// A word in which each bit depends on all bits of `seed` (the finisher of splitmix64).
const fn mix(seed: u64) -> u64 {
    let word = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}
