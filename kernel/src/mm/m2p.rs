//! The machine-to-physical table: which pfn a machine frame is for its owner (xen/include/public/arch-x86/xen.h).
//!
//! Xen maps it read-only into every PV domain, in 2 MiB pieces, and leaves out pieces without RAM: a read may fault
//! anywhere below the bound. `m2p_read` (traps/entry.S) is the only code of this kernel that may fault and go on. What
//! the table says about a frame of another domain is that domain's word.

use core::sync::atomic::{AtomicU64, Ordering};

use xen_hypercall::abi::xen::MACH2PHYS_VIRT_START;
use xen_hypercall::{Mfn, Pfn};

/// First MFN beyond the machine's RAM (XENMEM_maximum_ram_page); 0 until boot asked Xen.
static LIMIT: AtomicU64 = AtomicU64::new(0);
/// Entries with this bit are "no pfn" (`INVALID_M2P_ENTRY`, `SHARED_M2P_ENTRY`).
const NO_PFN: u64 = 1 << 63;

unsafe extern "C" {
    /// Reads `*address` into `*value`: 1 if it could be read.
    fn m2p_read(address: u64, value: *mut u64) -> u64;
}

/// Sets the bound of later reads.
pub fn set_limit(pages: u64) {
    LIMIT.store(pages, Ordering::Relaxed);
}

/// First MFN beyond the machine's RAM.
pub fn limit() -> u64 {
    LIMIT.load(Ordering::Relaxed)
}

/// The pfn of a machine frame; None beyond RAM, in a hole of the table, and where the entry names no pfn.
pub fn pfn(mfn: Mfn) -> Option<Pfn> {
    entry(mfn).filter(|value| value & NO_PFN == 0).map(Pfn::new)
}

/// What the table says of a machine frame; None beyond RAM and in a hole of the table.
pub fn entry(mfn: Mfn) -> Option<u64> {
    if mfn.raw() >= limit() {
        return None;
    }
    let address = MACH2PHYS_VIRT_START + mfn.raw() * 8;
    let mut value = 0;
    // SAFETY: the routine may read any address, since its fault is caught once traps are installed, and RAM's bound
    // keeps the address inside the table; `value` is ours.
    let read = unsafe { m2p_read(address, &raw mut value) };
    (read == 1).then_some(value)
}
