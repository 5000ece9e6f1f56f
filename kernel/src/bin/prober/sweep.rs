//! What no list of single probes covers: every domctl by its number, ways to talk to the target, and the host.
//!
//! Arguments are zero or bogus, so that a call that is allowed after all fails on them if it can.

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use livesave_stubdom::hv;
use livesave_stubdom::mm::layout::{FOREIGN, PAGE};
use xen_hypercall::abi::xen::{HYPERVISOR_DOMCTL, HYPERVISOR_GRANT_TABLE_OP, HYPERVISOR_SYSCTL, HYPERVISOR_XSM_OP};
use xen_hypercall::transport::pv::HypercallPage;
use xen_hypercall::{DomId, Domctl, Loan, Transport, event};

/// The highest number of domctl.h in Xen 4.17, but for the debugger's from 1000 on.
const DOMCTL_MAX: u32 = 86;
/// XEN_SYSCTL_readconsole and XEN_SYSCTL_debug_keys, and the interface version of Xen 4.17 (sysctl.h).
const SYSCTLS: [(&str, u32); 2] = [("readconsole", 1), ("debug_keys", 7)];
const SYSCTL_VERSION: u32 = 0x15;
/// Permissive mode, since the mode that is in force is granted to anybody: FLASK_SETENFORCE and
/// XEN_FLASK_INTERFACE_VERSION (flask_op.h).
const FLASK_SETENFORCE: u32 = 3;
const FLASK_VERSION: u32 = 1;
/// GNTTABOP_map_grant_ref (grant_table.h), a host mapping, read-only, of the first reference that is not the
/// toolstack's.
const GNTTABOP_MAP_GRANT_REF: u64 = 0;
const GNTMAP_HOST_MAP_READONLY: u32 = 0b110;
const FIRST_GRANT: u32 = 8;
/// Where the status stands in struct gnttab_map_grant_ref.
const MAP_STATUS: core::ops::Range<usize> = 18..20;

/// Name and outcome as for the single probes; a grant's outcome is its negated status.
pub fn all(domctl: &Domctl<HypercallPage>, target: DomId) -> Vec<(String, i32)> {
    let mut outcomes = Vec::new();
    outcomes.push((String::from("event_channel"), super::probes::outcome(event::alloc_unbound(&hv::xen(), target))));
    outcomes.push((String::from("grant_map"), map_grant(target)));
    for (name, command) in SYSCTLS {
        outcomes.push((String::from(name), issue::<136>(HYPERVISOR_SYSCTL, [command, SYSCTL_VERSION, 0])));
    }
    outcomes.push((String::from("setenforce"), issue::<256>(HYPERVISOR_XSM_OP, [FLASK_SETENFORCE, FLASK_VERSION, 0])));
    let version = domctl.interface_version();
    for command in 1..=DOMCTL_MAX {
        let outcome = issue::<144>(HYPERVISOR_DOMCTL, [command, version, u32::from(target.raw())]);
        outcomes.push((format!("domctl-{command}"), outcome));
    }
    outcomes
}

/// A call whose argument is a structure of `N` bytes, zero but for the first three words.
fn issue<const N: usize>(number: u32, words: [u32; 3]) -> i32 {
    let mut frame = [0; N];
    for (bytes, word) in frame.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let xen = hv::xen();
    let Ok(loan) = xen.lend_mut(&mut frame) else { return 0 };
    // SAFETY: the frame is on loan, and every address in it is null.
    let value = unsafe { xen.call1(number, loan.address()) };
    super::probes::errno(value)
}

/// Maps what the target may have granted, into a page of the window that nothing uses.
fn map_grant(target: DomId) -> i32 {
    let mut op = [0u8; 32];
    op[0..8].copy_from_slice(&(FOREIGN + PAGE).to_le_bytes());
    op[8..12].copy_from_slice(&GNTMAP_HOST_MAP_READONLY.to_le_bytes());
    op[12..16].copy_from_slice(&FIRST_GRANT.to_le_bytes());
    op[16..18].copy_from_slice(&target.raw().to_le_bytes());
    let xen = hv::xen();
    let Ok(loan) = xen.lend_mut(&mut op) else { return 0 };
    // SAFETY: the argument is on loan, and nothing refers to the page.
    let value = unsafe { xen.call3(HYPERVISOR_GRANT_TABLE_OP, GNTTABOP_MAP_GRANT_REF, loan.address(), 1) };
    drop(loan);
    let status = i16::from_le_bytes([op[MAP_STATUS.start], op[MAP_STATUS.start + 1]]);
    if value < 0 { super::probes::errno(value) } else { -i32::from(status) }
}
