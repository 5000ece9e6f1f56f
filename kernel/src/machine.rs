//! The phases of boot that every kernel of this crate goes through, before it can tell anybody but the console.
//!
//! Each phase that fails ends the domain with a message, since nothing can work without it. The order is fixed: traps
//! before memory (the M2P is read during it), memory before the shared page, the shared page before time and log.

use core::ptr::NonNull;

use xen_drivers::ring::shared::SharedPage;
use xen_drivers::xenstore::Client;
use xen_drivers::xenstore::ring::RingWire;

use crate::boot::StartInfo;
use crate::mm::{self, Budget};
use crate::platform::Xen;
use crate::serve::Store;
use crate::{console, grants, hv, info, panic, shared_info, traps};

/// Reads and checks what the builder left.
///
/// # Safety
/// `page` is what Xen left in rsi: a mapped start_info page that nobody writes.
pub unsafe fn start_info(page: *const u8) -> StartInfo {
    // SAFETY: the caller's promise.
    match unsafe { StartInfo::read(page) } {
        Ok(start) => start,
        Err(error) => panic::die(&format_args!("start_info: {error:?}: is this a 64-bit PV domain?")),
    }
}

/// From here on an exception reports itself.
pub fn exceptions() {
    if let Err(error) = traps::install() {
        panic::die(&format_args!("exceptions: {error}"));
    }
}

/// From here on all memory is ours, the clock runs, and there is a heap.
pub fn memory(start: &StartInfo, used_end: u64, heap_mib: Option<u32>) -> Budget {
    let budget = match mm::init(start, used_end, heap_mib) {
        Ok(budget) => budget,
        Err(error) => panic::die(&format_args!("memory: {error}")),
    };
    shared_info::mapped();
    _ = xen_hypercall::vcpu::stop_periodic_timer(&hv::xen(), 0);
    budget
}

/// From here on text goes to the domain's own console. dom0 has none and keeps the hypervisor's.
pub fn console(start: &StartInfo) {
    if start.initial_domain {
        return;
    }
    match mm::address_of_mfn(start.console) {
        Some(page) => console::attach(page, start.console_port),
        None => panic::die(&format_args!("console: frame {} is not ours", start.console)),
    }
}

/// From here on pages can be granted, and xenstore answers. dom0 has no xenstore ring: such a boot ends here.
pub fn xenstore(start: &StartInfo) -> Store {
    match grants::init() {
        Ok(entries) => info!("grant table: {entries} entries"),
        Err(error) => panic::die(&format_args!("grant table: {error}")),
    }
    if start.initial_domain {
        info!("this is dom0, there is no xenstore: nothing to serve");
        hv::power_off();
    }
    let Some(page) = mm::address_of_mfn(start.store).and_then(|address| NonNull::new(address as *mut u8)) else {
        panic::die(&format_args!("xenstore: frame {} is not ours", start.store));
    };
    // SAFETY: the builder's xenstore page, which is ours, mapped for ever and used by nothing else.
    let page = unsafe { SharedPage::from_raw(page) };
    Client::new(RingWire::attach(Xen, page, start.store_port))
}
