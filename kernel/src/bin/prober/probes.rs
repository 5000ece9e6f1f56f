//! The probes: one hypercall each, and Xen's errno as the outcome.
//!
//! A refusal by FLASK is 13 (EACCES) whatever else would have been wrong with the call, since FLASK is asked first; so
//! most calls carry arguments that do little if they are allowed after all. Those that cannot come last.

extern crate alloc;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use livesave_stubdom::hv;
use livesave_stubdom::mm::layout::FOREIGN;
use livesave_stubdom::mm::{DATA, READ_ONLY, entry};
use xen_hypercall::abi::domctl as raw;
use xen_hypercall::abi::hvm::{HVMOP_SET_PARAM, HvmParam, PARAM_CALLBACK_IRQ};
use xen_hypercall::abi::mmu::UVMF_INVLPG;
use xen_hypercall::abi::vcpu::VcpuGuestContext;
use xen_hypercall::abi::xen::{HYPERVISOR_DOMCTL, HYPERVISOR_HVM_OP, HYPERVISOR_SYSCTL};
use xen_hypercall::shadow::Pass;
use xen_hypercall::transport::pv::HypercallPage;
use xen_hypercall::types::ShutdownReason;
use xen_hypercall::{DomId, Domctl, Error, Mfn, Transport, event, hvm, memory, mmu, sched};
use zerocopy::{FromZeros, IntoBytes};

use super::sweep;

/// A frame that every guest of 16 MiB has; for a PV owner some MFN.
const FRAME: u64 = 0x800;
/// XEN_DOMCTL_max_mem, not among the calls that the product makes (domctl.h).
const MAX_MEM: u32 = 11;
/// XEN_DOMCTL_sethvmcontext (domctl.h).
const SETHVMCONTEXT: u32 = 34;
/// XEN_DOMCTL_settscinfo (domctl.h).
const SETTSCINFO: u32 = 60;
/// XEN_DOMCTL_SHADOW_OP_ENABLE (domctl.h).
const SHADOW_OP_ENABLE: u32 = 32;
/// XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION (domctl.h).
const SHADOW_OP_GET_ALLOCATION: u32 = 30;
/// XEN_SYSCTL_physinfo and its interface version in Xen 4.17 (sysctl.h).
const PHYSINFO: (u32, u32) = (3, 0x15);

/// Name and outcome: 0, Xen's errno, or -1 for an error that is not Xen's.
pub type Outcome = (&'static str, i32);

pub(crate) fn outcome<T>(result: Result<T, Error>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.xen().map_or(-1, |errno| errno.raw()),
    }
}

/// Tries everything on `target`.
pub fn all(target: DomId) -> Vec<(String, i32)> {
    let Ok(domctl) = Domctl::probe(hv::xen()) else { return vec![(String::from("version"), -1)] };
    let mut outcomes = reading(&domctl, target);
    outcomes.extend(writing(&domctl, target));
    outcomes.extend(ruling(&domctl, target));
    let named = outcomes.into_iter().map(|(name, outcome)| (String::from(name), outcome));
    named.chain(sweep::all(&domctl, target)).collect()
}

/// What the stub needs of a target.
fn reading(domctl: &Domctl<HypercallPage>, target: DomId) -> Vec<Outcome> {
    let mut context = Box::new(VcpuGuestContext::new_zeroed());
    let mut bitmap = vec![0; 32768 / 64];
    let xen = hv::xen();
    vec![
        ("getdomaininfo", outcome(domctl.getdomaininfo(target, None))),
        ("getaddrsize", outcome(domctl.get_address_size(target))),
        ("getvcpuinfo", outcome(domctl.getvcpuinfo(target, 0))),
        ("getvcpucontext", outcome(domctl.getvcpucontext(target, 0, &mut context))),
        ("gettsc", outcome(domctl.gettscinfo(target))),
        ("get_cpu_policy", outcome(domctl.cpu_policy_size(target))),
        ("pageinfo", outcome(domctl.page_types(target, &mut [FRAME]))),
        ("stat", outcome(memory::maximum_gpfn(&xen, target))),
        ("gethvmc", outcome(domctl.hvm_context_size(target))),
        ("getparam", outcome(hvm::get_param(&xen, target, PARAM_CALLBACK_IRQ))),
        ("map_read", map(target, entry(Mfn::new(FRAME), READ_ONLY))),
        ("logdirty_enable", outcome(domctl.logdirty_enable(target))),
        ("logdirty_clean", outcome(domctl.logdirty_clean(target, &mut bitmap, 32768, Pass::Live))),
        ("logdirty_peek", outcome(domctl.logdirty_stats(target))),
        ("logdirty_off", outcome(domctl.logdirty_off(target))),
    ]
}

/// What would change the target's memory or registers, or who hears of it.
fn writing(domctl: &Domctl<HypercallPage>, target: DomId) -> Vec<Outcome> {
    let context = Box::new(VcpuGuestContext::new_zeroed());
    let shadow = |op| raw_domctl(domctl, raw::SHADOW_OP, target, &[u64::from(op)]);
    vec![
        ("map_write", map(target, entry(Mfn::new(FRAME), DATA))),
        ("shadow_enable", shadow(SHADOW_OP_ENABLE)),
        ("shadow_get_allocation", shadow(SHADOW_OP_GET_ALLOCATION)),
        ("setvcpucontext", outcome(domctl.setvcpucontext(target, 0, &context))),
        ("sethvmc", raw_domctl(domctl, SETHVMCONTEXT, target, &[0, 0])),
        ("settsc", raw_domctl(domctl, SETTSCINFO, target, &[0; 3])),
        ("setparam", set_param(target)),
        ("subscribe", outcome(domctl.subscribe(target, None))),
        ("setdomainmaxmem", raw_domctl(domctl, MAX_MEM, target, &[1 << 20])),
        ("alloc_unbound_in", outcome(event::alloc_unbound_in(&hv::xen(), target, DomId::SELF))),
        ("physinfo", physinfo()),
    ]
}

/// What would stop, continue or end the target.
fn ruling(domctl: &Domctl<HypercallPage>, target: DomId) -> Vec<Outcome> {
    vec![
        ("resume", outcome(domctl.resumedomain(target))),
        ("unpause", outcome(domctl.unpause(target))),
        ("pause", outcome(domctl.pause(target))),
        ("shutdown", outcome(sched::remote_shutdown(&hv::xen(), target, ShutdownReason::CRASH))),
        ("destroy", outcome(domctl.destroydomain(target))),
    ]
}

/// Maps a frame of the target and lets go of it.
fn map(target: DomId, value: u64) -> i32 {
    // SAFETY: the window's first foreign slot is used by nobody else in this kernel, and nothing reads what is mapped.
    let mapped = unsafe { mmu::update_va_mapping_otherdomain(&hv::xen(), FOREIGN, value, UVMF_INVLPG, target) };
    _ = hv::update_va_mapping(FOREIGN, 0);
    outcome(mapped)
}

/// Issues a domctl that the product has no call for; no address is in its payload.
fn raw_domctl(domctl: &Domctl<HypercallPage>, cmd: u32, domain: DomId, words: &[u64]) -> i32 {
    let mut payload = [0; raw::PAYLOAD_LEN / 8];
    payload[..words.len()].copy_from_slice(words);
    let interface_version = domctl.interface_version();
    let mut frame = raw::Domctl { cmd, interface_version, domain: domain.raw(), pad: [0; 3], payload };
    // SAFETY: Xen reads and writes the frame, which lives until the call has returned; no other memory is named.
    let value = unsafe { hv::xen().call1(HYPERVISOR_DOMCTL, frame.as_mut_bytes().as_mut_ptr() as u64) };
    errno(value)
}

fn set_param(target: DomId) -> i32 {
    let mut op = HvmParam { domid: target.raw(), pad: 0, index: PARAM_CALLBACK_IRQ, value: 0 };
    // SAFETY: Xen reads the argument, which lives until the call has returned.
    let value = unsafe { hv::xen().call2(HYPERVISOR_HVM_OP, HVMOP_SET_PARAM, op.as_mut_bytes().as_mut_ptr() as u64) };
    errno(value)
}

/// A question about the host, which is nobody's target.
fn physinfo() -> i32 {
    let mut op = [0u64; 32];
    op[0] = u64::from(PHYSINFO.1) << 32 | u64::from(PHYSINFO.0);
    // SAFETY: Xen reads and writes at most the 136 bytes of its structure (sysctl.h), of which there are 256.
    let value = unsafe { hv::xen().call1(HYPERVISOR_SYSCTL, op.as_mut_ptr() as u64) };
    errno(value)
}

pub(crate) fn errno(value: i64) -> i32 {
    if value < 0 { i32::try_from(-value).unwrap_or(i32::MAX) } else { 0 }
}
