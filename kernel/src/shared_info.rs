//! The page that Xen shares with the domain: event channel bits, the last fault's address, the clocks.
//!
//! Xen writes it at any time. Every access is one volatile read or one atomic operation on one field; there is never a
//! reference to the structure. Upcalls stay masked for ever (the mask byte is 1 at boot and nobody clears it).

use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use xen_hypercall::EvtchnPort;
use xen_hypercall::abi::xen::{EVTCHN_2L_NR_CHANNELS, SharedInfo, VcpuInfo, VcpuTimeInfo};

use crate::mm::layout::SHARED_INFO;

/// Whether the page is mapped.
static MAPPED: AtomicBool = AtomicBool::new(false);

/// Says that the page is mapped at [`SHARED_INFO`] from now on.
pub fn mapped() {
    MAPPED.store(true, Ordering::Release);
}

/// Reads the field of type `T` at `offset`; None before the page is mapped.
fn field<T: Copy>(offset: usize) -> Option<T> {
    if !MAPPED.load(Ordering::Acquire) {
        return None;
    }
    let place = (SHARED_INFO as usize + offset) as *const T;
    // SAFETY: the page is mapped for ever, `offset` is that of a field of plain integers inside it, aligned by the ABI.
    Some(unsafe { place.read_volatile() })
}

/// Where the last page fault went.
pub fn cr2() -> u64 {
    field(offset_of!(VcpuInfo, cr2)).unwrap_or(0)
}

/// The version of the clock's parameters; None before the page is mapped.
pub fn time_version() -> Option<u32> {
    field(offset_of!(VcpuInfo, time))
}

/// The clock's parameters, possibly torn: compare versions around.
pub fn time() -> VcpuTimeInfo {
    field(offset_of!(VcpuInfo, time)).unwrap_or(VcpuTimeInfo {
        version: 0,
        pad0: 0,
        tsc_timestamp: 0,
        system_time: 0,
        tsc_to_system_mul: 0,
        tsc_shift: 0,
        flags: 0,
        pad1: [0; 2],
    })
}

/// Wall clock at Xen's boot: seconds since 1970, nanoseconds.
pub fn wall_clock_base() -> (u64, u32) {
    let low: u32 = field(offset_of!(SharedInfo, wc_sec)).unwrap_or(0);
    let high: u32 = field(offset_of!(SharedInfo, wc_sec_hi)).unwrap_or(0);
    (u64::from(high) << 32 | u64::from(low), field(offset_of!(SharedInfo, wc_nsec)).unwrap_or(0))
}

/// Clears the pending bit of a port and says whether it was set. False for a port that does not exist.
pub fn take_pending(port: EvtchnPort) -> bool {
    let number = port.raw() as usize;
    if number >= EVTCHN_2L_NR_CHANNELS || !MAPPED.load(Ordering::Acquire) {
        return false;
    }
    let place = SHARED_INFO as usize + offset_of!(SharedInfo, evtchn_pending) + number / 64 * 8;
    // SAFETY: an aligned word of the mapped page, which Xen and we only touch atomically.
    let word = unsafe { AtomicU64::from_ptr(place as *mut u64) };
    let bit = 1 << (number % 64);
    word.fetch_and(!bit, Ordering::SeqCst) & bit != 0
}

/// Whether a port is pending; changes nothing.
pub fn is_pending(port: EvtchnPort) -> bool {
    let number = port.raw() as usize;
    let offset = offset_of!(SharedInfo, evtchn_pending) + number / 64 * 8;
    number < EVTCHN_2L_NR_CHANNELS && field::<u64>(offset).unwrap_or(0) >> (number % 64) & 1 != 0
}
