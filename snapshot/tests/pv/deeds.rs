//! What the guest does while it runs, and how it suspends.

use std::collections::BTreeMap;

use super::guest::{Content, Entry, FOREIGN, Guest, LEAVES, PFNS, SLOTS, TABLES};

fn same_entries(entry: Entry) -> BTreeMap<usize, Entry> {
    SLOTS.map(|slot| (slot, entry)).into_iter().collect()
}

fn same(entry: Entry) -> Content {
    Content::Table(1, same_entries(entry))
}

impl Guest {
    /// A call of ours begins, or a page is about to be copied.
    pub fn runs(&mut self) {
        if self.suspended {
            return;
        }
        if let Some(mischief) = self.mischief {
            mischief(self);
        }
        for _ in 0..self.busy {
            self.acts();
        }
    }

    fn acts(&mut self) {
        let pfn = 100 + self.random(300);
        let table = TABLES.start + self.random(TABLES.end - TABLES.start);
        match self.random(12) {
            0..6 => self.writes(pfn),
            6 | 7 => self.remaps(table),
            8 => self.maps_foreign(table),
            9 => self.turns(pfn),
            10 => self.pins(table),
            _ if self.still => {}
            _ => self.moves(pfn),
        }
    }

    pub fn writes(&mut self, pfn: u64) {
        let other = self.random(PFNS) as usize;
        let word = match self.random(4) {
            0 => 0,
            // It looks like an entry of a page table.
            1 => self.p2m[other].map_or(2, |mfn| mfn << 12 | 0x67),
            _ => self.random(u64::MAX),
        };
        if let Some(Content::Data(content)) = self.pages.get_mut(&pfn) {
            *content = word;
            self.mark(pfn);
        }
    }

    fn remaps(&mut self, table: u64) {
        let (slot, entry) = (self.random(512) as usize, self.entry());
        if let Some(Content::Table(_, entries)) = self.pages.get_mut(&table) {
            entries.insert(slot, entry);
            self.mark_table(table);
        }
    }

    /// A grant of somebody else's page is mapped; it is gone when the guest suspends.
    fn maps_foreign(&mut self, table: u64) {
        if let Some(Content::Table(1, entries)) = self.pages.get_mut(&table) {
            entries.insert(500, Entry::Frame(FOREIGN, 0x67));
            self.mark_table(table);
        }
    }

    /// A page becomes a page table, or stops being one.
    pub fn turns(&mut self, pfn: u64) {
        if self.silent && self.turns_silently(pfn) {
            return;
        }
        let next = match self.pages.get(&pfn) {
            Some(Content::Data(_)) => Content::Table(1, BTreeMap::from([(9, self.entry()), (511, self.entry())])),
            Some(Content::Table(..)) => Content::Data(self.random(u64::MAX)),
            _ => return,
        };
        self.pages.insert(pfn, next);
        self.pinned.remove(&pfn);
        self.mark(pfn);
    }

    /// What is in the frame stays as it is, but is entries now, or is none any more.
    fn turns_silently(&mut self, pfn: u64) -> bool {
        let next = match &self.pages[&pfn] {
            Content::Data(word) if word & 1 == 0 => same(Entry::Raw(*word)),
            Content::Data(word) => match self.owner_pfn(word >> 12) {
                Some(there) => same(Entry::Pfn(there, word & 0xfff)),
                None => return false,
            },
            Content::Table(_, entries) => match entries.get(&0).filter(|entry| *entries == same_entries(**entry)) {
                Some(entry) => Content::Data(self.entry_word(*entry, false)),
                None => return false,
            },
            _ => return false,
        };
        self.pages.insert(pfn, next);
        self.pinned.remove(&pfn);
        true
    }

    fn pins(&mut self, table: u64) {
        if !self.pinned.remove(&table) {
            self.pinned.insert(table);
        }
        self.mark_table(table);
    }

    /// A page gets another frame (XENMEM_exchange); every table that maps it is written.
    pub fn moves(&mut self, pfn: u64) {
        let Some(old) = self.p2m[pfn as usize] else { return };
        let mfn = self.free_frame();
        (self.m2p[old as usize], self.m2p[mfn as usize], self.p2m[pfn as usize]) = (None, Some(pfn), Some(mfn));
        self.mark(pfn);
        self.mark(LEAVES.start + pfn / 512);
        let maps = |content: &Content| {
            matches!(content, Content::Table(_, entries)
                if entries.values().any(|entry| matches!(entry, Entry::Pfn(to, _) if *to == pfn)))
        };
        let tables: Vec<u64> = self.pages.iter().filter(|(_, content)| maps(content)).map(|(pfn, _)| *pfn).collect();
        tables.into_iter().for_each(|table| self.mark(table));
    }

    /// Foreign mappings go, everything is pinned; from now on nothing changes.
    pub fn suspend(&mut self, tidy: bool) {
        let tables: Vec<u64> =
            self.pages.iter().filter(|(_, c)| matches!(c, Content::Table(..))).map(|(p, _)| *p).collect();
        for table in tables {
            if let Some(Content::Table(1, entries)) = self.pages.get_mut(&table).filter(|_| tidy)
                && entries.remove(&500).is_some()
            {
                self.mark_table(table);
            }
        }
        self.suspended = true;
        self.owed = self.stumbled.difference(&self.dirty).count() as u64;
        let pages = self.pages.keys().filter(|pfn| self.p2m[**pfn as usize].is_some());
        self.truth = pages.map(|pfn| (*pfn, (self.kind(*pfn), self.bytes(*pfn, true)))).collect();
    }
}
