//! A PV guest in a machine of 64-bit frames, stricter than Xen: frames of others, a hole in the M2P, page tables that
//! change while they are read, pages that move to other frames. The model keeps page tables as pfns and makes machine
//! frames of them when somebody reads, so what a snapshot has to hold is known without normalising anything.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use snapshot::ports::{PAGE_SIZE, Page};

/// Frames of the machine that the M2P covers; those of one stretch have no entries.
pub const MFNS: u64 = 9000;
pub const HOLE: std::ops::Range<u64> = 4000..4100;
/// A frame of another domain, whose owner calls it pfn 3.
pub const FOREIGN: u64 = 77;
pub const SHARED_INFO: u64 = 78;

pub const PFNS: u64 = 1300;
/// Where the guest keeps things: the p2m's frames, the tables that map them, what the vCPU names.
pub const LEAVES: std::ops::Range<u64> = 20..23;
pub const MAPPING: [u64; 4] = [30, 31, 32, 33];
pub const START_INFO: u64 = 40;
pub const GDT: u64 = 41;
pub const TREE: [u64; 2] = [42, 43];
/// L1 tables from the beginning.
pub const TABLES: std::ops::Range<u64> = 50..70;
/// Not memory.
const BALLOONED: std::ops::Range<u64> = 700..720;
pub const VADDR: u64 = 0xffff_c900_0000_0000;

/// What an entry of a page table leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A page of the guest, with these flags.
    Pfn(u64, u64),
    /// A machine frame, whoever's.
    Frame(u64, u64),
    /// Any bits.
    Raw(u64),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    Data(u64),
    Table(u8, BTreeMap<usize, Entry>),
    /// A frame of the p2m: its number.
    Leaf(u64),
    /// Words as they are.
    Words(BTreeMap<usize, u64>),
}

pub struct Guest {
    rng: u64,
    /// Frame of each pfn.
    pub p2m: Vec<Option<u64>>,
    pub m2p: Vec<Option<u64>>,
    pub pages: BTreeMap<u64, Content>,
    pub pinned: BTreeSet<u64>,
    pub dirty: BTreeSet<u64>,
    pub log_dirty: bool,
    pub can_track: bool,
    /// Of an address.
    pub bits: u32,
    pub suspended: bool,
    pub generation: u64,
    /// The linear list, else the tree.
    pub linear: bool,
    pub max_pfn: u64,
    /// Words of the p2m that say something else than the truth.
    pub lies: BTreeMap<u64, u64>,
    pub held: Vec<u64>,
    /// A fault of ours: what was held is let go of, and every word of it reads as no memory.
    pub dropped: bool,
    pub calls: u64,
    /// What the guest does at every call while it runs.
    pub mischief: Option<fn(&mut Guest)>,
    /// Actions between two calls.
    pub busy: u64,
    pub vcpus: Vec<Option<bool>>,
    /// While it runs, a frame cannot be read now and then, and nothing marks its page for that.
    pub clumsy: bool,
    /// Pages that were not read when they were to be, and not since.
    pub stumbled: BTreeSet<u64>,
    /// Those of them that no bitmap named when it suspended: only a second attempt brings them.
    pub owed: u64,
    /// No page gets another frame.
    pub still: bool,
    /// Stricter than Xen: what becomes of page tables, and which pages are some, leaves no mark.
    pub silent: bool,
    /// The call at which its next trick is due; 0: none.
    pub strikes_at: u64,
    /// What is to be in the snapshot.
    pub truth: BTreeMap<u64, (u8, Page)>,
}

pub type Shared = Rc<RefCell<Guest>>;

/// Where an ordinary page has its word.
pub const SLOTS: [usize; 3] = [0, 100, 511];

impl Guest {
    pub fn new(seed: u64) -> Self {
        let mut guest = Self {
            rng: seed,
            p2m: vec![None; PFNS as usize],
            m2p: vec![None; MFNS as usize],
            pages: BTreeMap::new(),
            pinned: BTreeSet::new(),
            dirty: BTreeSet::new(),
            log_dirty: false,
            can_track: true,
            bits: 64,
            suspended: false,
            generation: 4,
            linear: true,
            max_pfn: PFNS,
            lies: BTreeMap::new(),
            held: Vec::new(),
            dropped: false,
            calls: 0,
            mischief: None,
            busy: 4,
            vcpus: vec![Some(true)],
            clumsy: false,
            stumbled: BTreeSet::new(),
            owed: 0,
            still: false,
            silent: false,
            strikes_at: 0,
            truth: BTreeMap::new(),
        };
        guest.m2p[FOREIGN as usize] = Some(3);
        for pfn in (0..PFNS).filter(|pfn| !BALLOONED.contains(pfn)) {
            let mfn = guest.free_frame();
            guest.p2m[pfn as usize] = Some(mfn);
            guest.m2p[mfn as usize] = Some(pfn);
            let content = if guest.random(3) == 0 { 0 } else { guest.random(u64::MAX) };
            guest.pages.insert(pfn, Content::Data(content));
        }
        guest.furnish();
        guest
    }

    fn furnish(&mut self) {
        for pfn in LEAVES {
            self.pages.insert(pfn, Content::Leaf(pfn - LEAVES.start));
        }
        // L4, L3, L2, L1 of the p2m's address: 0xffffc90000000000 has slots 402, 0x24 * 8, 0, 0.
        let slots = [VADDR >> 39 & 511, VADDR >> 30 & 511, VADDR >> 21 & 511].map(|slot| slot as usize);
        for (depth, slot) in slots.into_iter().enumerate() {
            let below = BTreeMap::from([(slot, Entry::Pfn(MAPPING[depth + 1], 0x67))]);
            self.pages.insert(MAPPING[depth], Content::Table(4 - depth as u8, below));
        }
        let leaves = LEAVES.enumerate().map(|(slot, pfn)| (slot, Entry::Pfn(pfn, 0x8000_0000_0000_0063))).collect();
        self.pages.insert(MAPPING[3], Content::Table(1, leaves));
        if let Some(Content::Table(_, top)) = self.pages.get_mut(&MAPPING[0]) {
            top.insert(256, Entry::Frame(FOREIGN, 0x67));
            top.insert(0, Entry::Raw(0x1234_5000));
        }
        self.pinned.insert(MAPPING[0]);
        let lists = LEAVES.map(|pfn| self.p2m[pfn as usize].unwrap()).enumerate().collect();
        self.pages.insert(TREE[1], Content::Words(lists));
        let list = BTreeMap::from([(0, self.p2m[TREE[1] as usize].unwrap())]);
        self.pages.insert(TREE[0], Content::Words(list));
        for pfn in TABLES {
            let entries = (0..6).map(|_| (self.random(512) as usize, self.entry())).collect();
            self.pages.insert(pfn, Content::Table(1, entries));
        }
    }

    pub fn free_frame(&mut self) -> u64 {
        loop {
            let mfn = self.random(MFNS - 100) + 100;
            if self.m2p[mfn as usize].is_none() && !HOLE.contains(&mfn) {
                return mfn;
            }
        }
    }

    pub fn random(&mut self, below: u64) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.rng;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % below
    }

    pub fn entry(&mut self) -> Entry {
        let pfn = self.random(PFNS);
        match self.random(5) {
            0 => Entry::Raw(self.random(u64::MAX) & !1),
            _ if self.p2m[pfn as usize].is_none() => Entry::Raw(0),
            _ => Entry::Pfn(pfn, 0x8000_0000_0000_0067),
        }
    }

    // What the hypervisor knows.

    pub fn owner_pfn(&self, mfn: u64) -> Option<u64> {
        let pfn = self.m2p.get(mfn as usize).copied().flatten()?;
        (self.p2m.get(pfn as usize).copied().flatten() == Some(mfn)).then_some(pfn)
    }

    /// The page whose frame it is, whatever the M2P says: Xen knows a frame's owner by itself.
    pub fn holder(&self, mfn: u64) -> Option<u64> {
        let holds = || self.p2m.iter().position(|frame| *frame == Some(mfn)).map(|pfn| pfn as u64);
        self.owner_pfn(mfn).or_else(holds)
    }

    pub fn kind(&self, pfn: u64) -> u8 {
        match self.pages.get(&pfn) {
            Some(Content::Table(level, _)) => level | if self.pinned.contains(&pfn) { 8 } else { 0 },
            _ => 0,
        }
    }

    pub fn mark(&mut self, pfn: u64) {
        if self.log_dirty {
            self.dirty.insert(pfn);
        }
    }

    pub fn mark_table(&mut self, pfn: u64) {
        if !self.silent {
            self.mark(pfn);
        }
    }

    /// The bytes of a frame; with `pfns`, as a stream has them.
    pub fn bytes(&self, pfn: u64, pfns: bool) -> Page {
        let mut page = [0; PAGE_SIZE];
        let mut put = |slot: usize, word: u64| page[slot * 8..slot * 8 + 8].copy_from_slice(&word.to_le_bytes());
        match &self.pages[&pfn] {
            Content::Data(word) => SLOTS.iter().for_each(|slot| put(*slot, *word)),
            Content::Words(words) => words.iter().for_each(|(slot, word)| put(*slot, *word)),
            Content::Leaf(number) => (0..512).for_each(|slot| put(slot, self.p2m_word(number * 512 + slot as u64))),
            Content::Table(level, entries) => {
                for (slot, entry) in entries.iter().filter(|(s, _)| !pfns || *level != 4 || !(256..272).contains(*s)) {
                    put(*slot, self.entry_word(*entry, pfns));
                }
            }
        }
        page
    }

    /// One word of a frame, as Xen and we read it.
    pub fn word(&self, pfn: u64, slot: usize) -> u64 {
        match &self.pages[&pfn] {
            Content::Leaf(number) => self.p2m_word(number * 512 + slot as u64),
            _ => u64::from_le_bytes(*self.bytes(pfn, false).as_chunks::<8>().0.get(slot).unwrap()),
        }
    }

    pub fn entry_word(&self, entry: Entry, pfns: bool) -> u64 {
        match entry {
            Entry::Raw(word) => word,
            Entry::Frame(mfn, flags) => mfn << 12 | flags,
            Entry::Pfn(pfn, flags) if pfns => pfn << 12 | flags,
            Entry::Pfn(pfn, flags) => self.p2m[pfn as usize].unwrap() << 12 | flags,
        }
    }

    fn p2m_word(&self, pfn: u64) -> u64 {
        let truth = self.p2m.get(pfn as usize).copied().flatten().unwrap_or(u64::MAX);
        self.lies.get(&pfn).copied().unwrap_or(truth)
    }

    pub fn shared_info(&self) -> Page {
        let mut page = [0x5a; PAGE_SIZE];
        let root = self.p2m[TREE[0] as usize].unwrap();
        let cr3 = if self.linear { self.p2m[MAPPING[0] as usize].unwrap() << 12 } else { 0 };
        for (at, word) in [self.max_pfn, root, 0, cr3, VADDR, self.generation].into_iter().enumerate() {
            page[3088 + at * 8..3096 + at * 8].copy_from_slice(&word.to_le_bytes());
        }
        page
    }

    /// Whether the frame of `pfn` can be read this time. Those of the p2m always can.
    pub fn can_be_read(&mut self, pfn: u64) -> bool {
        let stumbles = self.clumsy && !self.suspended && pfn >= TABLES.start && self.random(8) == 0;
        if stumbles {
            self.stumbled.insert(pfn)
        } else {
            self.stumbled.remove(&pfn)
        };
        !stumbles
    }
}
