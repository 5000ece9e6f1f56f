//! The fast resume: what is written where, and that the guest goes on whatever fails after its registers were written.

use std::vec;

use zerocopy::FromZeros;

use super::script::{DOMAIN, HANDLE, domctl, expect, expect_info};
use crate::abi::domctl as raw;
use crate::abi::hvm::HvmParam;
use crate::abi::vcpu::VcpuGuestContext;
use crate::dom0::{Resumed, fast_resume};
use crate::transport::fake::Fake;
use crate::{DomHandle, Error, XenErrno};

const SUSPENDED_PVH: u32 = 0x0002_0006;
const SUSPENDED_PV: u32 = 0x0002_0004;
const STATE: &[u8] = &[7; 24];

fn expect_callback_irq(fake: &Fake, value: u64) {
    fake.expect(move |call, memory| {
        let mut op = memory.read::<HvmParam>(call.args[1]);
        assert_eq!((call.number, op.domid, op.index), (34, 7, 0));
        op.value = value;
        memory.write(call.args[1], &op);
        0
    });
}

/// vCPU 0 has [`STATE`] in the format 0xe7, of at most 32 bytes.
fn expect_extended_state(fake: &Fake) {
    expect::<raw::VcpuExtState>(fake, raw::GETVCPUEXTSTATE, |op, _| {
        assert_eq!((op.vcpu, op.xfeature_mask, op.size, op.buffer), (0, 0, 0, 0));
        (op.xfeature_mask, op.size) = (0xe7, 32);
        0
    });
    expect::<raw::VcpuExtState>(fake, raw::GETVCPUEXTSTATE, |op, memory| {
        assert_eq!((op.xfeature_mask, op.size), (0xe7, 32));
        memory.write(op.buffer, STATE);
        op.size = STATE.len() as u64;
        0
    });
}

/// Registers are read with rip 0x1234, and written back with rax 1 and nothing else changed.
fn expect_registers(fake: &Fake) {
    let mut before = VcpuGuestContext::new_zeroed();
    before.user_regs.rip = 0x1234;
    before.user_regs.rax = 29;
    expect::<raw::VcpuContext>(fake, raw::GETVCPUCONTEXT, move |op, memory| {
        assert_eq!(op.vcpu, 0);
        memory.write(op.ctxt, &before);
        0
    });
    expect::<raw::VcpuContext>(fake, raw::SETVCPUCONTEXT, move |op, memory| {
        let mut wanted = before;
        wanted.user_regs.rax = 1;
        assert!(op.vcpu == 0 && memory.read::<VcpuGuestContext>(op.ctxt) == wanted);
        0
    });
}

fn expect_resume(fake: &Fake) {
    expect::<[u8; 0]>(fake, raw::RESUMEDOMAIN, |_, _| 0);
}

#[test]
fn extended_state_survives_the_write_of_the_registers() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect_info(&fake, SUSPENDED_PVH);
    expect_callback_irq(&fake, 0x0200_0000_0000_00f3);
    expect_extended_state(&fake);
    expect_registers(&fake);
    expect::<raw::VcpuExtState>(&fake, raw::SETVCPUEXTSTATE, |op, memory| {
        assert_eq!((op.vcpu, op.xfeature_mask, op.size), (0, 0xe7, 24));
        assert_eq!(memory.bytes(op.buffer, 24), vec![7; 24]);
        0
    });
    expect_resume(&fake);
    assert_eq!(fast_resume(&domctl, DOMAIN, HANDLE), Ok(Resumed::Done));
    fake.finish();
}

#[test]
fn a_guest_without_pv_drivers_is_only_resumed() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect_info(&fake, SUSPENDED_PVH);
    expect_callback_irq(&fake, 0);
    expect_resume(&fake);
    assert_eq!(fast_resume(&domctl, DOMAIN, HANDLE), Ok(Resumed::Done));
    fake.finish();
}

#[test]
fn a_pv_guest_without_extended_state_has_none_put_back() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect_info(&fake, SUSPENDED_PV);
    expect::<raw::VcpuExtState>(&fake, raw::GETVCPUEXTSTATE, |op, _| {
        op.size = 0;
        0
    });
    expect_registers(&fake);
    expect_resume(&fake);
    assert_eq!(fast_resume(&domctl, DOMAIN, HANDLE), Ok(Resumed::Done));
    fake.finish();
}

#[test]
fn the_guest_goes_on_even_if_extended_state_cannot_be_put_back() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect_info(&fake, SUSPENDED_PV);
    expect_extended_state(&fake);
    expect_registers(&fake);
    expect::<raw::VcpuExtState>(&fake, raw::SETVCPUEXTSTATE, |_, _| -22);
    expect_resume(&fake);
    let lost = Error::Xen { call: "XEN_DOMCTL_setvcpuextstate", errno: XenErrno::EINVAL };
    assert_eq!(fast_resume(&domctl, DOMAIN, HANDLE), Ok(Resumed::ExtendedStateLost(lost)));
    fake.finish();
}

#[test]
fn a_guest_that_is_not_suspended_is_left_alone() {
    for flags in [0, 0x0003_0004, 0x0002_0005] {
        let fake = Fake::new();
        let domctl = domctl(&fake);
        expect_info(&fake, flags);
        assert!(matches!(fast_resume(&domctl, DOMAIN, HANDLE), Ok(Resumed::NotSuspended(_))), "{flags:#x}");
        fake.finish();
    }
}

#[test]
fn another_domain_at_the_same_domid_is_left_alone() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect_info(&fake, SUSPENDED_PV);
    let other = DomHandle::new([1; 16]);
    assert!(matches!(fast_resume(&domctl, DOMAIN, other), Err(Error::NotFound { .. })));
    fake.finish();
}

#[test]
fn unbelievably_large_extended_state_is_not_fetched() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect_info(&fake, SUSPENDED_PV);
    expect::<raw::VcpuExtState>(&fake, raw::GETVCPUEXTSTATE, |op, _| {
        op.size = 1 << 20;
        0
    });
    expect_registers(&fake);
    expect_resume(&fake);
    assert!(matches!(fast_resume(&domctl, DOMAIN, HANDLE), Ok(Resumed::ExtendedStateLost(_))));
    fake.finish();
}
