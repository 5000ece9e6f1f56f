//! The stub's way to Xen: its hypercall page, and the calls of the machine layer that touch this domain's own state.
//!
//! Calls on other domains go through `xen_hypercall`'s typed calls with [`xen`]. What is unsafe about the calls here
//! (they change our own address space, exceptions and life) is discharged here or passed on, never hidden.

use xen_hypercall::abi::mmu::{MMUEXT_TLB_FLUSH_LOCAL, MmuUpdate, MmuextOp, UVMF_INVLPG};
use xen_hypercall::abi::xen::TrapInfo;
use xen_hypercall::transport::pv::HypercallPage;
use xen_hypercall::types::ShutdownReason;
use xen_hypercall::{DomId, Error, EvtchnPort, console, event, memory, mmu, sched, traps};

use crate::{shared_info, time};

/// Why a call failed.
pub type HvError = Error;
/// One page table entry to be written.
pub type PteUpdate = MmuUpdate;

unsafe extern "C" {
    static hypercall_page: u8;
}

/// The transport.
pub fn xen() -> HypercallPage {
    // SAFETY: boot/entry.S reserves the page, the ELF note has the builder fill it, and it stays mapped and executable.
    unsafe { HypercallPage::new(&raw const hypercall_page) }
}

/// Writes entries of our page tables that map our own frames, or nothing.
pub fn update_own(updates: &[PteUpdate]) -> Result<(), HvError> {
    if updates.is_empty() {
        return Ok(());
    }
    // SAFETY: only mm calls this, under its rule that a 1:1 address never changes its frame; the window's addresses are
    // read through raw pointers by a batch that is gone when its entries change.
    unsafe { mmu::update(&xen(), updates, None) }.map_err(|stopped| stopped.error)
}

/// Writes entries of the window that map frames of `owner`, and forgets what the processor remembers of what was there;
/// says how many are done where Xen stopped.
pub fn map_foreign(updates: &[PteUpdate], owner: DomId) -> Result<(), (usize, HvError)> {
    // SAFETY: only mm::window calls this, with entries of its own slots, no batch being out, and treats the memory
    // behind them as something that its owner writes at any time.
    unsafe { mmu::update_and_flush(&xen(), updates, Some(owner)) }.map_err(|stopped| (stopped.done, stopped.error))
}

/// Writes the entry of one of our addresses.
pub fn update_va_mapping(address: u64, entry: u64) -> Result<(), HvError> {
    // SAFETY: as for `update_own`.
    unsafe { mmu::update_va_mapping(&xen(), address, entry, UVMF_INVLPG) }
}

/// Forgets what the processor remembers of our page tables.
pub fn flush_tlb() -> Result<(), HvError> {
    let flush = MmuextOp { cmd: MMUEXT_TLB_FLUSH_LOCAL, pad: 0, arg1: 0, arg2: 0 };
    // SAFETY: a flush changes no mapping.
    unsafe { mmu::extended(&xen(), &[flush], None) }.map_err(|stopped| stopped.error)
}

/// First MFN that is no RAM.
pub fn maximum_ram_page() -> Result<u64, HvError> {
    memory::maximum_ram_page(&xen()).map(|mfn| mfn.raw())
}

/// Registers exception handlers.
pub fn set_trap_table(table: &[TrapInfo]) -> Result<(), HvError> {
    // SAFETY: traps::install passes the entries of traps/entry.S, which never return to what they interrupted.
    unsafe { traps::set_trap_table(&xen(), table) }
}

/// Writes to the hypervisor's console; FLASK may forbid it, and then there is nobody to tell.
pub fn console_write(text: &[u8]) {
    _ = console::write(&xen(), text);
}

/// Sends an event. An error means that the port is gone, which its user notices by the silence.
pub fn notify(port: EvtchnPort) {
    _ = event::send(&xen(), port);
}

/// Sleeps until `port` is pending or the deadline has passed, and clears the pending bit.
pub fn wait_and_clear(port: EvtchnPort, deadline_ns: u64) {
    if !shared_info::take_pending(port) && time::now_ns() < deadline_ns {
        _ = sched::poll(&xen(), &[port], deadline_ns);
        shared_info::take_pending(port);
    }
}

/// Ends the domain as crashed.
pub fn crash() -> ! {
    end(ShutdownReason::CRASH)
}

/// Ends the domain in good order.
pub fn power_off() -> ! {
    end(ShutdownReason::POWEROFF)
}

/// Ends the domain and asks the toolstack to start it again.
pub fn reboot() -> ! {
    end(ShutdownReason::REBOOT)
}

fn end(reason: ShutdownReason) -> ! {
    loop {
        _ = sched::shutdown(&xen(), reason);
    }
}
