//! The window onto frames of other domains: fixed virtual pages whose entries are written over, batch by batch.
//!
//! Read-only always. Xen checks the owner and FLASK each time an entry is written, and each entry holds a reference on
//! the frame, so `clear` is part of every path out of a take: a dead guest whose pages are mapped stays a zombie. An
//! entry is written anew for every batch, since what an older one shows may be a frame that the guest has given up.
//!
//! Beside the batches lie *held* frames: the p2m of a PV guest, read word by word while its pages are copied. They stay
//! until others are held or all is cleared.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Mutex;
use xen_hypercall::{DomId, Mfn};

use super::layout::{self, ENTRIES, FOREIGN, FOREIGN_PAGES, FOREIGN_TABLES, HELD, HELD_PAGES, HELD_TABLES, PAGE};
use super::tables::{READ_ONLY, entry};
use crate::hv::{self, HvError, PteUpdate};

/// Pages that one call maps at most.
pub const MAX_BATCH: usize = FOREIGN_PAGES as usize;
/// Entries that one hypercall writes: a batch.
const CALL: usize = MAX_BATCH;
/// Entries of an L1 table.
const TABLE: usize = ENTRIES as usize;

/// Frames that can be held.
pub const MAX_HELD: usize = HELD_PAGES as usize;

static WINDOW: Mutex<Area<{ FOREIGN_TABLES as usize }>> = Mutex::new(Area::new());
static HOLD: Mutex<Area<{ HELD_TABLES as usize }>> = Mutex::new(Area::new());
/// What the next hypercall writes: too much for the stack.
static LIST: Mutex<heapless::Vec<PteUpdate, CALL>> = Mutex::new(heapless::Vec::new());
/// Words of held frames that can be read.
static HELD_WORDS: AtomicU64 = AtomicU64::new(0);

/// Slots with mappings of other domains' frames.
struct Area<const TABLES: usize> {
    /// The L1 tables, in address order.
    tables: [Mfn; TABLES],
    /// Slots that may hold a mapping: all below this one.
    used: usize,
}

/// Tells the window its tables, in address order.
pub fn init(tables: [Mfn; layout::WINDOW_TABLES as usize]) {
    let [_fixed, tables @ ..] = tables;
    let (foreign, held) = tables.split_at(FOREIGN_TABLES as usize);
    WINDOW.lock().tables.copy_from_slice(foreign);
    HOLD.lock().tables.copy_from_slice(held);
}

/// A batch that is mapped. The next `map` and `clear` end it, which is why both need it gone.
pub struct Batch<'w> {
    window: spin::MutexGuard<'w, Area<{ FOREIGN_TABLES as usize }>>,
    errnos: &'w [u16],
}

impl Batch<'_> {
    /// Frames in it, those that could not be mapped included.
    pub fn count(&self) -> usize {
        self.errnos.len()
    }

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
    let stale = count..window.used.max(count);
    window.used = stale.end;
    window.write(domain, stale, 0, frames[..count].iter().copied().map(Mfn::new), &mut errnos[..count])?;
    window.used = count;
    Ok(Batch { window, errnos: &errnos[..count] })
}

/// Lets go of the batch that was mapped last, so that the next `map` need not.
pub fn let_go() -> Result<(), HvError> {
    WINDOW.lock().clear_from(0)?;
    hv::flush_tlb()
}

/// Holds `frames` of `domain`, at most [`MAX_HELD`], in the place of all that were held before. If Xen refuses one, its
/// errno is the answer and none is held.
pub fn hold(domain: DomId, frames: &[Mfn]) -> Result<Result<(), u16>, HvError> {
    HELD_WORDS.store(0, Ordering::Relaxed);
    let mut area = HOLD.lock();
    area.clear_from(0)?;
    let mut errnos = [0; TABLE];
    for start in (0..frames.len().min(MAX_HELD)).step_by(TABLE) {
        let part = &frames[start..frames.len().min(MAX_HELD).min(start + TABLE)];
        area.used = start + part.len();
        area.write(domain, 0..0, start, part.iter().copied(), &mut errnos[..part.len()])?;
        if let Some(&errno) = errnos[..part.len()].iter().find(|errno| **errno != 0) {
            area.clear_from(0)?;
            hv::flush_tlb()?;
            return Ok(Err(errno));
        }
    }
    HELD_WORDS.store(area.used as u64 * ENTRIES, Ordering::Relaxed);
    Ok(Ok(()))
}

/// Word `index` of the held frames, read once; all ones beyond them.
pub fn held_word(index: u64) -> u64 {
    if index >= HELD_WORDS.load(Ordering::Relaxed) {
        return u64::MAX;
    }
    // SAFETY: the slots of HELD_WORDS map frames of the guest until `hold` or `clear` set it to 0, on this one vCPU.
    // The guest may write meanwhile: one volatile read of an aligned word.
    unsafe { ((HELD + index * 8) as *const u64).read_volatile() }
}

/// How many words that are.
pub fn held_words() -> u64 {
    HELD_WORDS.load(Ordering::Relaxed)
}

/// Lets go of every frame.
pub fn clear() -> Result<(), HvError> {
    HELD_WORDS.store(0, Ordering::Relaxed);
    WINDOW.lock().clear_from(0)?;
    HOLD.lock().clear_from(0)?;
    hv::flush_tlb()
}

/// Slots that may hold a mapping now.
pub fn in_use() -> usize {
    WINDOW.lock().used + HOLD.lock().used
}

impl<const TABLES: usize> Area<TABLES> {
    const fn new() -> Self {
        Self { tables: [Mfn::INVALID; TABLES], used: 0 }
    }

    fn update(&self, slot: usize, value: u64) -> PteUpdate {
        PteUpdate { ptr: (self.tables[slot / TABLE].raw() << 12) + (slot % TABLE) as u64 * 8, val: value }
    }

    /// Writes at most [`CALL`] entries, and has older ones forgotten. Xen stops at the first that it refuses: that one
    /// is cleared, and on it goes. What the processor remembers of a refused one is nothing, or what nobody reads. The
    /// slots of `stale` are cleared with them, beside those of the frames.
    fn write(
        &self,
        domain: DomId,
        stale: Range<usize>,
        first: usize,
        frames: impl Iterator<Item = Mfn>,
        errnos: &mut [u16],
    ) -> Result<(), HvError> {
        let mut batch = LIST.lock();
        batch.clear();
        for (slot, frame) in (first..).zip(frames) {
            _ = batch.push(self.update(slot, entry(frame, READ_ONLY)));
        }
        let wanted = batch.len();
        batch.extend(stale.map(|slot| self.update(slot, 0)));
        errnos.fill(0);
        let mut done = 0;
        while done < batch.len() {
            let Err((good, refused)) = hv::map_foreign(&batch[done..], domain) else { break };
            done += good;
            // Nothing is asked of Xen that it can refuse where an entry is cleared.
            if done >= wanted {
                return Err(refused);
            }
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
            let mut batch = LIST.lock();
            batch.clear();
            batch.extend((start..self.used).map(|slot| self.update(slot, 0)));
            hv::update_own(&batch)?;
            self.used = start;
        }
        Ok(())
    }
}
