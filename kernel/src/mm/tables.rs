//! Our own page tables: the builder maps only the first few MiB, so boot maps the rest of RAM, makes the image
//! write-xor-execute, takes the page below the stack away, and hangs up the window.
//!
//! PV rules (xen/arch/x86/mm.c): a frame that becomes a page table must have no writable mapping, entries hold MFNs,
//! and an entry of a live table is written by mmu_update only. A table is therefore filled while it is still an
//! ordinary page, then made read-only in the 1:1 map, then hooked into its parent. The L4 is the builder's, pinned by
//! it, which keeps everything below it pinned as well.

use xen_hypercall::abi::mmu::{PTE_ADDRESS_MASK, PteFlags};
use xen_hypercall::{Mfn, Pfn};

use super::layout::{self, ENTRIES, PAGE, address_of, index};
use super::m2p;
use super::memory::{BootMemoryError, Image};
use crate::boot::{StartInfo, VIRT_BASE};
use crate::hv::{self, PteUpdate};

/// Most entries that are written by one hypercall.
const BATCH: usize = 512;

/// The flags of an entry that points at a table.
const TABLE: PteFlags = PteFlags::PRESENT.union(PteFlags::RW).union(PteFlags::ACCESSED).union(PteFlags::USER);
/// Our data.
pub const DATA: PteFlags = READ_ONLY.union(PteFlags::RW).union(PteFlags::DIRTY);
/// What is only read: constants, page tables, frames of others.
pub const READ_ONLY: PteFlags = PteFlags::PRESENT.union(PteFlags::ACCESSED).union(PteFlags::NX);
/// Our code.
const CODE: PteFlags = PteFlags::PRESENT.union(PteFlags::ACCESSED);

/// An entry that maps `mfn`.
pub fn entry(mfn: Mfn, flags: PteFlags) -> u64 {
    (mfn.raw() << 12) & PTE_ADDRESS_MASK | flags.bits()
}

/// Boot's view of memory: what is mapped, and which frame comes next.
pub struct Tables {
    l4: u64,
    p2m: &'static [u64],
    /// The next frame that nobody uses.
    next: u64,
    /// First frame that the 1:1 map does not reach yet.
    mapped: u64,
}

/// Where an entry lives, and what it held when it was looked at.
struct Slot {
    /// Machine address, as mmu_update wants it.
    machine: u64,
    value: u64,
}

impl Slot {
    fn present(&self) -> bool {
        self.value & PteFlags::PRESENT.bits() != 0
    }

    fn update(&self, value: u64) -> PteUpdate {
        PteUpdate { ptr: self.machine, val: value }
    }
}

impl Tables {
    /// Looks at what the builder left. `used_end` is the first address after all that it placed.
    pub fn new(info: &StartInfo, p2m: &'static [u64], used_end: u64) -> Result<Self, BootMemoryError> {
        let next = layout::pfn_of(used_end.next_multiple_of(PAGE)).ok_or(BootMemoryError::Layout("used end"))?.raw();
        let mut tables = Self { l4: info.page_table, p2m, next, mapped: next };
        while tables.mapped < info.nr_pages && tables.is_mapped(address_of(Pfn::new(tables.mapped))) {
            tables.mapped += 1;
        }
        Ok(tables)
    }

    /// Frames below this one are in use; all others are free once boot is through.
    pub fn next_free(&self) -> u64 {
        self.next
    }

    fn mfn(&self, pfn: u64) -> Result<Mfn, BootMemoryError> {
        let index = usize::try_from(pfn).map_err(|_| BootMemoryError::Layout("pfn"))?;
        self.p2m.get(index).map(|&mfn| Mfn::new(mfn)).ok_or(BootMemoryError::Layout("pfn"))
    }

    /// Finds the entry of `address` in the table of `level`, or None where a higher level has nothing.
    fn slot(&self, address: u64, level: u32) -> Result<Option<Slot>, BootMemoryError> {
        let mut table = layout::pfn_of(self.l4).ok_or(BootMemoryError::Layout("L4"))?;
        for current in (level..=4).rev() {
            let place = index(address, current) * 8;
            // SAFETY: `table` is a frame of ours that the 1:1 map covers (the builder maps its page tables, ours come
            // from mapped frames), and place is inside its page. Volatile: the processor sets accessed bits.
            let value = unsafe { ((address_of(table) + place) as *const u64).read_volatile() };
            let machine = (self.mfn(table.raw())?.raw() << 12) + place;
            let slot = Slot { machine, value };
            if current == level || !slot.present() {
                return Ok((current == level).then_some(slot));
            }
            table = m2p::pfn(Mfn::new((value & PTE_ADDRESS_MASK) >> 12)).ok_or(BootMemoryError::Layout("m2p"))?;
        }
        Ok(None)
    }

    fn is_mapped(&self, address: u64) -> bool {
        matches!(self.slot(address, 1), Ok(Some(slot)) if slot.present())
    }

    /// Takes a mapped frame that nobody uses, clears it and returns it.
    fn fresh(&mut self) -> Result<Pfn, BootMemoryError> {
        if self.next >= self.mapped {
            return Err(BootMemoryError::NoRoomForTables);
        }
        let pfn = Pfn::new(self.next);
        self.next += 1;
        // SAFETY: the frame is mapped writable by the builder or by `map_chunk`, and nobody has it.
        unsafe { core::ptr::write_bytes(address_of(pfn) as *mut u8, 0, PAGE as usize) };
        Ok(pfn)
    }

    /// Makes a page table of the given entries and returns its frame, ready to be hooked up.
    fn table(&mut self, entries: &[u64]) -> Result<Mfn, BootMemoryError> {
        let pfn = self.fresh()?;
        let page = address_of(pfn) as *mut u64;
        for (at, &value) in entries.iter().take(ENTRIES as usize).enumerate() {
            // SAFETY: `fresh` gave us this page alone, and `at` stays below its 512 entries.
            let place = unsafe { page.add(at) };
            // SAFETY: as above; the page is still an ordinary writable one.
            unsafe { place.write(value) };
        }
        let mfn = self.mfn(pfn.raw())?;
        hv::update_va_mapping(address_of(pfn), entry(mfn, READ_ONLY))?;
        Ok(mfn)
    }

    /// Extends the 1:1 map over all RAM.
    pub fn map_all_ram(&mut self) -> Result<(), BootMemoryError> {
        while self.mapped < self.p2m.len() as u64 {
            let address = address_of(Pfn::new(self.mapped));
            self.ensure_l2(address)?;
            match self.slot(address, 2)? {
                Some(slot) if slot.present() => self.fill_chunk(address)?,
                Some(slot) => self.map_chunk(&slot)?,
                None => return Err(BootMemoryError::Layout("L2")),
            }
        }
        Ok(())
    }

    /// Sees to it that the L3 entry of `address` has a table below it.
    fn ensure_l2(&mut self, address: u64) -> Result<(), BootMemoryError> {
        let slot = self.slot(address, 3)?.ok_or(BootMemoryError::Layout("L3"))?;
        if !slot.present() {
            let table = self.table(&[])?;
            hv::update_own(&[slot.update(entry(table, TABLE))])?;
        }
        Ok(())
    }

    /// Frames of the 2 MiB chunk that begins or goes on at `self.mapped`.
    fn chunk_end(&self) -> u64 {
        ((self.mapped / ENTRIES + 1) * ENTRIES).min(self.p2m.len() as u64)
    }

    /// Maps a whole chunk by a new L1 table. Chunks are aligned: VIRT_BASE is a multiple of 2 MiB.
    fn map_chunk(&mut self, slot: &Slot) -> Result<(), BootMemoryError> {
        let end = self.chunk_end();
        let mut entries = [0; ENTRIES as usize];
        for pfn in self.mapped..end {
            entries[(pfn % ENTRIES) as usize] = entry(self.mfn(pfn)?, DATA);
        }
        let table = self.table(&entries)?;
        hv::update_own(&[slot.update(entry(table, TABLE))])?;
        self.mapped = end;
        Ok(())
    }

    /// Maps what is missing in a chunk that the builder began.
    fn fill_chunk(&mut self, address: u64) -> Result<(), BootMemoryError> {
        let slot = self.slot(address, 1)?.ok_or(BootMemoryError::Layout("L1"))?;
        let end = self.chunk_end();
        let mut batch = heapless::Vec::<PteUpdate, BATCH>::new();
        for pfn in self.mapped..end {
            let machine = slot.machine + (pfn - self.mapped) * 8;
            let update = PteUpdate { ptr: machine, val: entry(self.mfn(pfn)?, DATA) };
            batch.push(update).map_err(|_| BootMemoryError::Layout("batch"))?;
        }
        hv::update_own(&batch)?;
        self.mapped = end;
        Ok(())
    }

    /// Hangs up the window and returns the frames of its L1 tables.
    pub fn add_window(&mut self) -> Result<[Mfn; layout::WINDOW_TABLES as usize], BootMemoryError> {
        let mut tables = [Mfn::INVALID; layout::WINDOW_TABLES as usize];
        for table in &mut tables {
            *table = self.table(&[])?;
        }
        let l2 = self.table(&tables.map(|table| entry(table, TABLE)))?;
        let l3 = self.table(&[entry(l2, TABLE)])?;
        let slot = self.slot(layout::WINDOW, 4)?.ok_or(BootMemoryError::Layout("L4"))?;
        hv::update_own(&[slot.update(entry(l3, TABLE))])?;
        Ok(tables)
    }

    /// Code executable and read-only, constants read-only, everything else not executable, nothing below the stack.
    pub fn protect(&self, image: &Image) -> Result<(), BootMemoryError> {
        let mut batch = heapless::Vec::<PteUpdate, BATCH>::new();
        for address in (VIRT_BASE..address_of(Pfn::new(self.mapped))).step_by(PAGE as usize) {
            let slot = self.slot(address, 1)?.ok_or(BootMemoryError::Layout("L1"))?;
            let value = match image.flags(address) {
                Some(flags) if flags.is_empty() => 0,
                Some(flags) => slot.value & PTE_ADDRESS_MASK | flags.bits(),
                None => slot.value | PteFlags::NX.bits(),
            };
            if value != slot.value {
                batch.push(slot.update(value)).map_err(|_| BootMemoryError::Layout("batch"))?;
            }
            if batch.is_full() {
                hv::update_own(&batch)?;
                batch.clear();
            }
        }
        hv::update_own(&batch)?;
        hv::flush_tlb()?;
        Ok(())
    }
}

impl Image {
    /// What a page of the image may be used for; empty flags mean unmapped, None means "not the image's".
    fn flags(&self, address: u64) -> Option<PteFlags> {
        if address == self.guard {
            Some(PteFlags::empty())
        } else if self.text.contains(&address) {
            Some(CODE)
        } else if self.constants.contains(&address) {
            Some(READ_ONLY)
        } else {
            self.data.contains(&address).then_some(DATA)
        }
    }
}
