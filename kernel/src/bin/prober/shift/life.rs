//! Suspend, and what a PV guest has to set up anew if it wakes up in another domain (xen/include/public/sched.h and
//! xen.h).

use core::mem::offset_of;
use core::ptr::NonNull;

use livesave_stubdom::boot::StartInfo;
use livesave_stubdom::mm::{self, DATA, entry, layout};
use livesave_stubdom::platform::Xen;
use livesave_stubdom::serve::Store;
use livesave_stubdom::{console, hv, machine, panic};
use xen_drivers::ring::shared::SharedPage;
use xen_drivers::xenstore::Client;
use xen_drivers::xenstore::ring::RingWire;
use xen_hypercall::abi::sched::{SCHEDOP_SHUTDOWN, SchedShutdown};
use xen_hypercall::abi::start_info::StartInfo as Raw;
use xen_hypercall::abi::xen::HYPERVISOR_SCHED_OP;
use xen_hypercall::types::ShutdownReason;
use xen_hypercall::{Loan, Pfn, Transport};
use zerocopy::IntoBytes as _;

use super::tree;

/// What SCHEDOP_shutdown gives back to a guest that goes on in its own domain.
const CANCELLED: i64 = 1;

/// What is of this domain alone.
pub struct Life {
    /// As the builder or the restorer left it.
    pub start: StartInfo,
    /// xenstore, without grants: they would be lost with the domain.
    pub store: Store,
    /// Domains that this guest has lived in.
    pub count: u64,
    page: *const u8,
    console: u64,
    ring: u64,
}

impl Life {
    /// The first one.
    pub fn begin(page: *const u8, start: StartInfo) -> Self {
        let own = |mfn| mm::address_of_mfn(mfn).unwrap_or_else(|| panic::die(&"a ring is not ours"));
        let (console, ring) = (own(start.console), own(start.store));
        let store = open(ring, &start);
        Self { start, store, count: 1, page, console, ring }
    }

    /// Stands until somebody resumes or restores us. What maps a frame that is not ours must be gone: a page table
    /// that has one cannot be saved. The rings are named by pfns meanwhile (Linux, xen_pv_pre_suspend; libxc's
    /// process_start_info wants them so). Nothing here may look at the time or write to the console in between.
    pub fn suspend(&mut self) {
        self.name_rings(|address| layout::pfn_of(address).map_or(u64::MAX, Pfn::raw));
        let unmapped = hv::update_va_mapping(layout::SHARED_INFO, 0);
        let mut reason = SchedShutdown { reason: ShutdownReason::SUSPEND.raw().into() };
        let xen = hv::xen();
        let (Ok(()), Ok(loan)) = (unmapped, xen.lend_mut(reason.as_mut_bytes())) else { hv::crash() };
        // The third argument is for who saves us: vCPU 0's edx names the frame of start_info.
        let frame = tree::frame_at(self.page as u64);
        // SAFETY: the argument is on loan; that the domain stands is what is asked for.
        let answer = unsafe { xen.call3(HYPERVISOR_SCHED_OP, SCHEDOP_SHUTDOWN, loan.address(), frame) };
        drop(loan);
        if answer == CANCELLED {
            self.name_rings(tree::frame_at);
        }
        // SAFETY: the page that `_start` was given; the restorer has written it, and nobody does now.
        self.start = unsafe { machine::start_info(self.page) };
        if hv::update_va_mapping(layout::SHARED_INFO, entry(self.start.shared_info, DATA)).is_err() {
            hv::crash();
        }
        match answer {
            CANCELLED => {}
            0 => self.reborn(),
            error => panic::die(&format_args!("suspend: {error}")),
        }
    }

    fn name_rings(&self, name: impl Fn(u64) -> u64) {
        let page = self.page as u64;
        tree::put(page + offset_of!(Raw, store_mfn) as u64, name(self.ring));
        tree::put(page + offset_of!(Raw, console_mfn) as u64, name(self.console));
    }

    /// New ports for the same pages.
    fn reborn(&mut self) {
        self.count += 1;
        console::attach(self.console, self.start.console_port);
        self.store = open(self.ring, &self.start);
    }
}

fn open(ring: u64, start: &StartInfo) -> Store {
    let Some(page) = NonNull::new(ring as *mut u8) else { hv::crash() };
    // SAFETY: the builder's xenstore page, which is ours, mapped for ever and used by nothing else.
    let page = unsafe { SharedPage::from_raw(page) };
    Client::new(RingWire::attach(Xen, page, start.store_port))
}
