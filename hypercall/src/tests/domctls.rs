//! Domctls.

use std::vec;

use zerocopy::IntoBytes;

use super::script::{DOMAIN, HANDLE, domctl, expect, expect_info, frame, payload};
use crate::abi::domctl as raw;
use crate::cap::CpuCap;
use crate::domctl::{DomainFlags, interface_version};
use crate::memory::PageType;
use crate::shadow::Pass;
use crate::transport::fake::Fake;
use crate::types::ShutdownReason;
use crate::vcpu::ExtStateFormat;
use crate::version::XenVersion;
use crate::{DomHandle, DomId, Error, EvtchnPort, Mfn, XenErrno};

#[test]
fn the_interface_version_follows_from_the_release() {
    let version = |minor| interface_version(XenVersion { major: 4, minor });
    assert_eq!([17, 18, 19, 20, 21, 22].map(|m| version(m).unwrap()), [0x15, 0x16, 0x17, 0x17, 0x17, 0x18]);
    for minor in [0, 16, 23] {
        assert_eq!(version(minor), Err(Error::UnknownVersion { major: 4, minor }));
    }
    assert!(interface_version(XenVersion { major: 5, minor: 17 }).is_err());
}

#[test]
fn a_frame_is_golden() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    fake.expect(|call, memory| {
        let bytes = memory.bytes(call.args[0], 144);
        let mut golden = vec![0; 144];
        golden[..12].copy_from_slice(&[29, 0, 0, 0, 0x15, 0, 0, 0, 7, 0, 0, 0]);
        golden[16..20].copy_from_slice(&[0xa0, 0x0f, 0, 0]);
        assert_eq!(bytes, golden);
        0
    });
    domctl.subscribe(DOMAIN, Some(EvtchnPort::new(4000))).unwrap();
    fake.finish();
}

#[test]
fn the_paging_pool_is_what_xen_writes() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect::<raw::PagingMempool>(&fake, raw::GET_PAGING_MEMPOOL_SIZE, |op, _| {
        assert_eq!(op.size, 0);
        op.size = 3 << 20;
        0
    });
    assert_eq!(domctl.paging_pool_bytes(DOMAIN), Ok(3 << 20));
    expect::<raw::PagingMempool>(&fake, raw::GET_PAGING_MEMPOOL_SIZE, |_, _| -95);
    assert_eq!(domctl.paging_pool_bytes(DOMAIN).unwrap_err().xen(), Some(XenErrno::EOPNOTSUPP));
    fake.finish();
}

#[test]
fn unsubscribing_is_port_0() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect::<raw::Subscribe>(&fake, raw::SUBSCRIBE, |op, _| {
        assert_eq!(op.port, 0);
        0
    });
    domctl.subscribe(DOMAIN, None).unwrap();
    fake.finish();
}

#[test]
fn a_cap_is_looked_for_under_both_credit_schedulers() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect::<raw::SchedulerOp>(&fake, raw::SCHEDULER_OP, |op, _| {
        assert_eq!((op.sched_id, op.cmd), (raw::SCHEDULER_CREDIT2, raw::SCHEDOP_GETINFO));
        -22
    });
    expect::<raw::SchedulerOp>(&fake, raw::SCHEDULER_OP, |op, _| {
        assert_eq!((op.sched_id, op.cmd), (raw::SCHEDULER_CREDIT, raw::SCHEDOP_GETINFO));
        (op.weight, op.cap) = (256, 70);
        0
    });
    let cap = domctl.cpu_cap(DOMAIN).unwrap();
    assert_eq!(cap, CpuCap { scheduler: raw::SCHEDULER_CREDIT, percent: 70 });
    expect::<raw::SchedulerOp>(&fake, raw::SCHEDULER_OP, |op, _| {
        assert_eq!((op.sched_id, op.cmd, op.weight, op.cap), (5, raw::SCHEDOP_PUTINFO, 0, 35), "the weight stays");
        0
    });
    domctl.set_cpu_cap(DOMAIN, CpuCap { percent: 35, ..cap }).unwrap();
    fake.finish();
}

#[test]
fn getdomaininfo_decodes_flags_and_reason() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect::<raw::GetDomainInfo>(&fake, raw::GETDOMAININFO, |info, _| {
        info.domain = 7;
        info.handle = HANDLE.raw();
        info.flags = 0x0002_0106;
        info.tot_pages = 11;
        info.shared_info_frame = 12;
        info.max_vcpu_id = raw::INVALID_MAX_VCPU_ID;
        0
    });
    let info = domctl.getdomaininfo(DOMAIN, Some(HANDLE)).unwrap();
    assert_eq!(info.flags, DomainFlags::HVM_GUEST | DomainFlags::SHUTDOWN | DomainFlags::HAP);
    assert_eq!(info.shutdown, Some(ShutdownReason::SUSPEND));
    assert!(info.is_hvm() && info.is_suspended());
    assert_eq!((info.tot_pages, info.shared_info_frame, info.max_vcpu_id), (11, Mfn::new(12), None));
    fake.finish();
}

#[test]
fn a_dying_or_crashed_domain_is_not_suspended() {
    for (flags, reason) in [(0x0002_0005, Some(ShutdownReason::SUSPEND)), (0x0003_0004, Some(ShutdownReason::CRASH))] {
        let fake = Fake::new();
        let domctl = domctl(&fake);
        expect_info(&fake, flags);
        let info = domctl.getdomaininfo(DOMAIN, None).unwrap();
        assert_eq!((info.shutdown, info.is_suspended()), (reason, false));
    }
}

#[test]
fn the_next_domain_is_not_the_one_asked_for() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect::<raw::GetDomainInfo>(&fake, raw::GETDOMAININFO, |info, _| {
        info.domain = 8;
        info.handle = HANDLE.raw();
        0
    });
    let gone = Err(Error::NotFound { domain: DOMAIN, found: None });
    assert_eq!(domctl.getdomaininfo(DOMAIN, Some(HANDLE)), gone);
    expect::<raw::GetDomainInfo>(&fake, raw::GETDOMAININFO, |_, _| -3);
    assert_eq!(domctl.getdomaininfo(DOMAIN, None), gone);
    fake.finish();
}

#[test]
fn a_reused_domid_is_found_out_by_its_handle() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect_info(&fake, 0);
    let other = DomHandle::new([1; 16]);
    let answer = domctl.getdomaininfo(DOMAIN, Some(other));
    assert_eq!(answer, Err(Error::NotFound { domain: DOMAIN, found: Some(HANDLE) }));
}

#[test]
fn a_refusal_keeps_its_errno_and_names_its_call() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    fake.answer(-13);
    let error = domctl.unpause(DOMAIN).unwrap_err();
    assert_eq!(error.xen(), Some(XenErrno::EACCES));
    assert_eq!(std::string::ToString::to_string(&error), "XEN_DOMCTL_unpausedomain: Xen answered EACCES");
}

#[test]
fn listing_ends_where_xen_finds_no_more() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect_info(&fake, 0);
    assert_eq!(domctl.next_domain(DOMAIN).unwrap().map(|info| info.domain), Some(DOMAIN));
    fake.answer(-3);
    assert_eq!(domctl.next_domain(DomId::new(8)), Ok(None));
}

#[test]
fn clean_asks_for_the_frames_and_takes_the_bits() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect::<raw::ShadowOp>(&fake, raw::SHADOW_OP, |op, memory| {
        assert_eq!((op.op, op.mode, op.pages), (11, 1, 70));
        memory.write(op.dirty_bitmap, &[0x5u8, 0, 0, 0, 0, 0, 0, 0, 0x20][..]);
        (op.fault_count, op.dirty_count) = (9, 3);
        0
    });
    let mut bitmap = [u64::MAX; 2];
    let stats = domctl.logdirty_clean(DOMAIN, &mut bitmap, 70, Pass::Final).unwrap();
    assert_eq!((bitmap, stats.fault_count, stats.dirty_count), ([5, u64::MAX << 8 | 0x20], 9, 3));
    fake.finish();
}

#[test]
fn a_bitmap_that_is_too_small_never_reaches_xen() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    for frames in [0, 129, u64::MAX] {
        let answer = domctl.logdirty_peek(DOMAIN, &mut [0; 2], frames, Pass::Live);
        assert!(matches!(answer, Err(Error::Argument { .. })), "{frames}");
    }
    fake.finish();
}

#[test]
fn fewer_frames_than_asked_for_is_an_error() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect::<raw::ShadowOp>(&fake, raw::SHADOW_OP, |op, _| {
        assert_eq!((op.op, op.mode), (12, 0));
        op.pages = 64;
        0
    });
    let answer = domctl.logdirty_peek(DOMAIN, &mut [0; 2], 128, Pass::Live);
    assert_eq!(answer, Err(Error::Short { call: "XEN_DOMCTL_shadow_op/PEEK", asked: 128, got: 64 }));
}

#[test]
fn statistics_pass_no_bitmap() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect::<raw::ShadowOp>(&fake, raw::SHADOW_OP, |op, _| {
        assert_eq!((op.op, op.dirty_bitmap, op.pages), (12, 0, 0));
        op.dirty_count = 4;
        0
    });
    assert_eq!(domctl.logdirty_stats(DOMAIN).unwrap().dirty_count, 4);
}

#[test]
fn enable_and_off_are_operations_2_and_0() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    for op in [2, 0] {
        expect::<raw::ShadowOp>(&fake, raw::SHADOW_OP, move |shadow, _| {
            assert_eq!((shadow.op, shadow.mode, shadow.dirty_bitmap), (op, 0, 0));
            -22
        });
    }
    assert_eq!(domctl.logdirty_enable(DOMAIN).unwrap_err().xen(), Some(XenErrno::EINVAL));
    assert_eq!(domctl.logdirty_off(DOMAIN).unwrap_err().xen(), Some(XenErrno::EINVAL));
}

#[test]
fn page_types_are_read_in_place() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect::<raw::GetPageFrameInfo3>(&fake, raw::GETPAGEFRAMEINFO3, |op, memory| {
        assert_eq!((op.num, memory.read::<u64>(op.array + 8)), (2, 0x11));
        memory.write(op.array, &[0xf000_0000u64, 0xc000_0000]);
        (op.num, op.array) = (0, 0);
        0
    });
    let mut frames = [0x10, 0x11];
    domctl.page_types(DOMAIN, &mut frames).unwrap();
    let [hole, table] = frames.map(PageType::from_raw);
    assert_eq!((hole, hole.has_data(), hole.table_level()), (PageType::XTAB, false, None));
    assert_eq!((table.table_level(), table.is_pinned(), table.has_data()), (Some(4), true, true));
    assert!(matches!(domctl.page_types(DOMAIN, &mut [0; 1025]), Err(Error::Argument { .. })));
}

#[test]
fn a_context_is_fetched_after_its_size() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect::<raw::HvmContext>(&fake, raw::GETHVMCONTEXT, |op, _| {
        assert_eq!((op.size, op.buffer), (0, 0));
        op.size = 6;
        0
    });
    assert_eq!(domctl.hvm_context_size(DOMAIN), Ok(6));
    expect::<raw::HvmContext>(&fake, raw::GETHVMCONTEXT, |op, memory| {
        memory.write(op.buffer, b"abcd");
        op.size = 4;
        0
    });
    let mut out = [0; 6];
    assert_eq!(domctl.gethvmcontext(DOMAIN, &mut out), Ok(4));
    assert_eq!(&out, b"abcd\0\0");
}

#[test]
fn more_than_there_was_room_for_is_not_believed() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    expect::<raw::HvmContext>(&fake, raw::GETHVMCONTEXT, |op, _| {
        op.size = 7;
        0
    });
    assert!(matches!(domctl.gethvmcontext(DOMAIN, &mut [0; 6]), Err(Error::Short { .. })));
    expect::<raw::CpuPolicy>(&fake, raw::GET_CPU_POLICY, |op, _| {
        assert_eq!((op.nr_leaves, op.nr_msrs), (1, 0));
        op.nr_leaves = 2;
        0
    });
    let leaf = raw::CpuidLeaf { leaf: 0, subleaf: 0, a: 0, b: 0, c: 0, d: 0 };
    assert!(matches!(domctl.get_cpu_policy(DOMAIN, &mut [leaf], &mut []), Err(Error::Short { .. })));
}

#[test]
fn extended_state_goes_back_in_its_own_format() {
    let fake = Fake::new();
    let domctl = domctl(&fake);
    fake.expect(|call, memory| {
        let op = payload::<raw::VcpuExtState>(&frame(call, memory));
        assert_eq!((op.vcpu, op.xfeature_mask, op.size), (3, 0xe7, 4));
        assert_eq!(memory.bytes(op.buffer, 4), b"\x01\x02\x03\x04");
        0
    });
    let format = ExtStateFormat { xfeature_mask: 0xe7, size: 100 };
    domctl.setvcpuextstate(DOMAIN, 3, format, 0x0403_0201u32.as_bytes()).unwrap();
    fake.finish();
}
