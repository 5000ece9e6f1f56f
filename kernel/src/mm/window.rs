//! The window onto frames of other domains: fixed virtual pages whose entries are written over, batch by batch.
//!
//! Read-only always. Xen checks the owner and FLASK each time an entry is written, and each entry holds a reference on
//! the frame, so `clear` is part of every path out of a take: a dead guest whose pages are mapped stays a zombie. An
//! entry is written anew for every batch, since what an older one shows may be a frame that the guest has given up.

use spin::Mutex;
use xen_hypercall::{DomId, Mfn};

use super::layout::{ENTRIES, FOREIGN, FOREIGN_PAGES, PAGE, WINDOW_TABLES};
use super::tables::{READ_ONLY, entry};
use crate::hv::{self, HvError, PteUpdate};

/// Pages that one call maps at most.
pub const MAX_BATCH: usize = FOREIGN_PAGES as usize;
/// Entries that one hypercall writes: one L1 table.
const CALL: usize = ENTRIES as usize;

static WINDOW: Mutex<Window> = Mutex::new(Window { tables: [Mfn::INVALID; FOREIGN_TABLES], used: 0 });
const FOREIGN_TABLES: usize = WINDOW_TABLES as usize - 1;

struct Window {
    /// The L1 tables, in address order.
    tables: [Mfn; FOREIGN_TABLES],
    /// Slots that may hold a mapping: all below this one.
    used: usize,
}

/// Tells the window its tables; the first is that of the fixed slots.
pub fn init(tables: [Mfn; WINDOW_TABLES as usize]) {
    let mut window = WINDOW.lock();
    window.tables.copy_from_slice(&tables[1..]);
}

/// A batch that is mapped. The next `map` and `clear` end it, which is why both need it gone.
pub struct Batch<'w> {
    window: spin::MutexGuard<'w, Window>,
    errnos: &'w [u16],
}

impl Batch<'_> {
    /// Copies page `index` to private memory: once, since the guest may write it meanwhile.
    ///
    /// # Errors
    /// Xen's errno if the page could not be mapped.
    pub fn copy(&self, index: usize, into: &mut [u8; PAGE as usize]) -> Result<(), u16> {
        if self.errnos[index] != 0 {
            return Err(self.errnos[index]);
        }
        debug_assert!(index < self.window.used);
        let source = (FOREIGN + index as u64 * PAGE) as *const u8;
        // SAFETY: slot `index` maps a frame of the guest for as long as this batch lives (its errno says so).
        // The guest may write meanwhile: the copy is of plain bytes through raw pointers, with no reference to them.
        unsafe { core::ptr::copy_nonoverlapping(source, into.as_mut_ptr(), PAGE as usize) };
        Ok(())
    }
}

/// Maps `frames` of `domain` (GFNs of a translated guest, MFNs of a PV one), at most [`MAX_BATCH`]. `errnos` gets for
/// each frame Xen's errno, 0 if it is mapped.
pub fn map<'w>(domain: DomId, frames: &[u64], errnos: &'w mut [u16]) -> Result<Batch<'w>, HvError> {
    let count = frames.len().min(MAX_BATCH).min(errnos.len());
    let mut window = WINDOW.lock();
    window.used = window.used.max(count);
    for start in (0..count).step_by(CALL) {
        let end = count.min(start + CALL);
        window.write(domain, start, &frames[start..end], &mut errnos[start..end])?;
    }
    window.clear_from(count)?;
    hv::flush_tlb()?;
    Ok(Batch { window, errnos: &errnos[..count] })
}

/// Lets go of every frame.
pub fn clear() -> Result<(), HvError> {
    let mut window = WINDOW.lock();
    window.clear_from(0)?;
    hv::flush_tlb()
}

/// Slots that may hold a mapping now.
pub fn in_use() -> usize {
    WINDOW.lock().used
}

impl Window {
    fn update(&self, slot: usize, value: u64) -> PteUpdate {
        PteUpdate { ptr: (self.tables[slot / CALL].raw() << 12) + (slot % CALL) as u64 * 8, val: value }
    }

    /// Writes the entries of one L1 table. Xen stops at the first that it refuses: that one is cleared, and on it goes.
    fn write(&self, domain: DomId, first: usize, frames: &[u64], errnos: &mut [u16]) -> Result<(), HvError> {
        let mut batch = heapless::Vec::<PteUpdate, CALL>::new();
        for (slot, &frame) in (first..).zip(frames) {
            _ = batch.push(self.update(slot, entry(Mfn::new(frame), READ_ONLY)));
        }
        errnos.fill(0);
        let mut done = 0;
        while done < batch.len() {
            let Err((good, refused)) = hv::map_foreign(&batch[done..], domain) else { break };
            done += good;
            let slot = self.update(first + done, 0);
            hv::update_own(&[slot])?;
            // What is no errno of Xen's is a bug of ours: the whole call fails, not one page.
            let errno = refused.xen().and_then(|errno| u16::try_from(errno.raw()).ok()).ok_or(refused)?;
            errnos[done] = errno.max(1);
            done += 1;
        }
        Ok(())
    }

    /// Clears the slots from `first` on that may hold a mapping.
    fn clear_from(&mut self, first: usize) -> Result<(), HvError> {
        while self.used > first {
            let start = ((self.used - 1) / CALL * CALL).max(first);
            let batch: heapless::Vec<PteUpdate, CALL> = (start..self.used).map(|slot| self.update(slot, 0)).collect();
            hv::update_own(&batch)?;
            self.used = start;
        }
        Ok(())
    }
}
