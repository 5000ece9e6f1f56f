//! The grant table: which of our frames a peer may map (xen/include/public/grant_table.h, version 1).
//!
//! An entry is opened by writing domid and frame first, the flags last, and closed by a compare-and-swap that fails
//! while the peer has it mapped; both orders are Xen's protocol. Xen writes the in-use bits at any time, so every
//! access is one atomic operation. References below 8 belong to the toolstack.

use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use spin::Mutex;
use xen_hypercall::abi::grant::{
    ENTRIES_PER_FRAME, GTF_INVALID, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING, NR_RESERVED_ENTRIES,
};
use xen_hypercall::{DomId, Error, GrantRef, Mfn, grant};

use crate::hv;
use crate::mm::layout::{GRANT_FRAMES, GRANT_TABLE, PAGE};
use crate::mm::{DATA, entry};

/// Entries that the mapped part of the table can have at most.
const MAX_ENTRIES: usize = GRANT_FRAMES as usize * ENTRIES_PER_FRAME;
/// Bytes of an entry.
const ENTRY: u64 = 8;

/// Why a grant cannot be made or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantError {
    /// The table is full, or the frame does not fit its 32-bit field.
    Full,
    /// The peer still has it mapped.
    InUse,
    /// Not a grant of ours.
    Unknown,
}

/// The references below [`NR_RESERVED_ENTRIES`], as bits of the first word.
const RESERVED: u64 = (1 << NR_RESERVED_ENTRIES) - 1;

static TABLE: Mutex<Table> = Mutex::new(Table::new(0));

/// Which references are handed out.
struct Table {
    /// Entries that are mapped; 0 before [`init`].
    entries: usize,
    /// One bit for each reference; those of the toolstack count as used.
    used: [u64; MAX_ENTRIES / 64],
    count: usize,
}

/// Maps the table: as many frames as Xen allows us, up to what the window has room for.
pub fn init() -> Result<usize, Error> {
    let xen = hv::xen();
    let (_, max) = grant::query_size(&xen)?;
    let count = (max as usize).min(GRANT_FRAMES as usize);
    let mut frames = [Mfn::INVALID; GRANT_FRAMES as usize];
    grant::setup_table(&xen, &mut frames[..count])?;
    for (slot, &frame) in (0u64..).zip(&frames[..count]) {
        hv::update_va_mapping(GRANT_TABLE + slot * PAGE, entry(frame, DATA))?;
    }
    TABLE.lock().entries = count * ENTRIES_PER_FRAME;
    Ok(count * ENTRIES_PER_FRAME)
}

/// Grants that are open now; none may be left when the stub is idle but those of its disk.
pub fn in_use() -> usize {
    TABLE.lock().count
}

/// The flags of an entry: what Xen changes under us.
fn flags(reference: u32) -> &'static AtomicU16 {
    let place = (GRANT_TABLE + u64::from(reference) * ENTRY) as *mut u16;
    // SAFETY: callers pass references below `entries`, which `init` mapped for ever; aligned to 8; atomics only.
    unsafe { AtomicU16::from_ptr(place) }
}

/// The whole entry, to be written while its flags are clear.
fn whole(reference: u32) -> &'static AtomicU64 {
    let place = (GRANT_TABLE + u64::from(reference) * ENTRY) as *mut u64;
    // SAFETY: as in `flags`.
    unsafe { AtomicU64::from_ptr(place) }
}

/// Lets `peer` map `frame`.
pub fn open(peer: DomId, frame: Mfn, read_only: bool) -> Result<GrantRef, GrantError> {
    let narrow = u32::try_from(frame.raw()).map_err(|_| GrantError::Full)?;
    let reference = TABLE.lock().take().ok_or(GrantError::Full)?;
    let contents = u64::from(narrow) << 32 | u64::from(peer.raw()) << 16;
    whole(reference).store(contents, Ordering::Release);
    let permit = if read_only { GTF_PERMIT_ACCESS | GTF_READONLY } else { GTF_PERMIT_ACCESS };
    flags(reference).store(permit, Ordering::SeqCst);
    Ok(GrantRef::new(reference))
}

/// Takes a grant back.
pub fn close(reference: GrantRef) -> Result<(), GrantError> {
    let mut table = TABLE.lock();
    let number = reference.raw();
    if !table.is_used(number) {
        return Err(GrantError::Unknown);
    }
    let before = flags(number).load(Ordering::SeqCst);
    if before & (GTF_READING | GTF_WRITING) != 0 {
        return Err(GrantError::InUse);
    }
    // A peer that maps it between the two loses the race or wins it: the exchange says which.
    let swapped = flags(number).compare_exchange(before, GTF_INVALID, Ordering::SeqCst, Ordering::SeqCst);
    swapped.map_err(|_| GrantError::InUse)?;
    table.give(number);
    Ok(())
}

impl Table {
    const fn new(entries: usize) -> Self {
        let mut used = [0; MAX_ENTRIES / 64];
        used[0] = RESERVED;
        Self { entries, used, count: 0 }
    }

    fn take(&mut self) -> Option<u32> {
        let words = self.used.iter_mut().take(self.entries / 64);
        let (at, word) = (0u32..).zip(words).find(|(_, word)| **word != u64::MAX)?;
        let bit = word.trailing_ones();
        *word |= 1 << bit;
        self.count += 1;
        Some(at * 64 + bit)
    }

    fn give(&mut self, number: u32) {
        self.used[number as usize / 64] &= !(1 << (number % 64));
        self.count -= 1;
    }

    fn is_used(&self, number: u32) -> bool {
        (NR_RESERVED_ENTRIES as usize..self.entries).contains(&(number as usize))
            && self.used[number as usize / 64] >> (number % 64) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_every_entry_once_and_never_a_reserved_one() {
        let mut table = Table::new(512);
        let all: Vec<u32> = core::iter::from_fn(|| table.take()).collect();
        assert_eq!(all, (NR_RESERVED_ENTRIES..512).collect::<Vec<_>>());
        table.give(100);
        assert!(!table.is_used(100));
        assert_eq!((table.take(), table.take()), (Some(100), None));
        assert_eq!(table.count, 504);
    }

    #[test]
    fn what_is_beyond_the_table_is_not_used() {
        let table = Table { entries: 512, used: [u64::MAX; MAX_ENTRIES / 64], count: 0 };
        assert!(table.is_used(511));
        assert!(!table.is_used(512));
        assert!(!table.is_used(NR_RESERVED_ENTRIES - 1));
        assert!(!table.is_used(u32::MAX));
    }
}
