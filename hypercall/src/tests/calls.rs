//! Calls that are no domctls.

use std::string::String;

use zerocopy::IntoBytes;

use super::script::DOMAIN;
use crate::abi::grant::SetupTable;
use crate::abi::hvm::HvmParam;
use crate::abi::mmu::{MmuUpdate, MmuextOp};
use crate::abi::sched::SchedPoll;
use crate::abi::xen::{MulticallEntry, TrapInfo};
use crate::transport::fake::Fake;
use crate::types::ShutdownReason;
use crate::{
    Error, EvtchnPort, Gfn, Mfn, XenErrno, console, event, grant, hvm, memory, mmu, sched, traps, vcpu, version,
};

const REQUESTS: [MmuUpdate; 2] = [MmuUpdate { ptr: 0x1000, val: 1 }, MmuUpdate { ptr: 0x1008, val: 2 }];

#[test]
fn mmu_update_names_the_owner_of_the_frames() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        assert_eq!((call.number, call.args[1], call.args[3]), (1, 2, 7));
        assert_eq!(memory.read::<[MmuUpdate; 2]>(call.args[0]), REQUESTS);
        memory.write(call.args[2], &2u32);
        0
    });
    // SAFETY: there is no machine behind the script.
    assert_eq!(unsafe { mmu::update(&fake, &REQUESTS, Some(DOMAIN)) }, Ok(()));
    fake.finish();
}

#[test]
fn mmu_update_says_which_request_failed() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        assert_eq!(call.args[3], 0x7ff0);
        memory.write(call.args[2], &1u32);
        -22
    });
    // SAFETY: there is no machine behind the script.
    let stopped = unsafe { mmu::update(&fake, &REQUESTS, None) }.unwrap_err();
    assert_eq!((stopped.done, stopped.error.xen()), (1, Some(XenErrno::EINVAL)));
}

#[test]
fn extended_operations_use_their_own_hypercall() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        assert_eq!((call.number, call.args[1]), (26, 1));
        assert_eq!(memory.read::<MmuextOp>(call.args[0]).cmd, 6);
        0
    });
    let flush = MmuextOp { cmd: 6, pad: 0, arg1: 0, arg2: 0 };
    // SAFETY: there is no machine behind the script.
    assert_eq!(unsafe { mmu::extended(&fake, &[flush], None) }, Ok(()));
}

#[test]
fn one_mapping_takes_its_arguments_in_order() {
    let fake = Fake::new();
    fake.answer(0).answer(0);
    // SAFETY: there is no machine behind the script.
    unsafe { mmu::update_va_mapping(&fake, 1, 2, 3) }.unwrap();
    // SAFETY: as above.
    unsafe { mmu::update_va_mapping_otherdomain(&fake, 1, 2, 3, DOMAIN) }.unwrap();
    let calls = fake.calls();
    assert_eq!((calls[0].number, calls[0].args.as_slice()), (14, &[1, 2, 3][..]));
    assert_eq!((calls[1].number, calls[1].args.as_slice()), (22, &[1, 2, 3, 7][..]));
}

#[test]
fn poll_lists_ports_and_deadline() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        assert_eq!((call.number, call.args[0]), (29, 3));
        let op = memory.read::<SchedPoll>(call.args[1]);
        assert_eq!((op.nr_ports, op.timeout), (2, 99));
        assert_eq!(memory.read::<[u32; 2]>(op.ports), [5, 6]);
        0
    });
    sched::poll(&fake, &[EvtchnPort::new(5), EvtchnPort::new(6)], 99).unwrap();
    let many = [EvtchnPort::new(1); 129];
    assert!(matches!(sched::poll(&fake, &many, 0), Err(Error::Argument { .. })));
    fake.finish();
}

#[test]
fn shutdown_passes_the_reason_and_returns_a_cancelled_suspend() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        assert_eq!((call.number, call.args[0], memory.read::<u32>(call.args[1])), (29, 2, 2));
        1
    });
    assert_eq!(sched::shutdown(&fake, ShutdownReason::SUSPEND), Ok(1));
}

#[test]
fn a_port_is_allocated_and_notified() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        assert_eq!((call.number, call.args[0]), (32, 6));
        assert_eq!(memory.read::<[u16; 2]>(call.args[1]), [0x7ff0, 7]);
        memory.write(call.args[1] + 4, &12u32);
        0
    });
    let port = event::alloc_unbound(&fake, DOMAIN).unwrap();
    assert_eq!(port, EvtchnPort::new(12));
    fake.expect(|call, memory| {
        assert_eq!((call.args[0], memory.read::<u32>(call.args[1])), (4, 12));
        0
    });
    event::send(&fake, port).unwrap();
    fake.finish();
}

#[test]
fn bind_interdomain_returns_the_local_port() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        assert_eq!((call.args[0], memory.read::<[u32; 3]>(call.args[1])), (0, [7, 40, 0]));
        memory.write(call.args[1] + 8, &3u32);
        0
    });
    assert_eq!(event::bind_interdomain(&fake, DOMAIN, EvtchnPort::new(40)), Ok(EvtchnPort::new(3)));
}

#[test]
fn the_grant_table_is_set_up_and_its_status_checked() {
    for status in [0i16, -1] {
        let fake = Fake::new();
        fake.expect(move |call, memory| {
            assert_eq!((call.number, call.args[0], call.args[2]), (20, 2, 1));
            let op = memory.read::<SetupTable>(call.args[1]);
            assert_eq!((op.dom, op.nr_frames), (0x7ff0, 2));
            memory.write(op.frame_list, &[8u64, 9]);
            memory.write(call.args[1] + 8, &status);
            0
        });
        let mut frames = [Mfn::INVALID; 2];
        let done = grant::setup_table(&fake, &mut frames);
        assert_eq!(frames, [Mfn::new(8), Mfn::new(9)]);
        let error = Error::Grant { call: "GNTTABOP_setup_table", status };
        assert_eq!(done, if status == 0 { Ok(()) } else { Err(error) });
        fake.finish();
    }
}

#[test]
fn another_grant_version_than_asked_for_is_an_error() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        memory.write(call.args[1], &2u32);
        0
    });
    assert!(matches!(grant::set_version(&fake, 1), Err(Error::Short { asked: 1, got: 2, .. })));
}

#[test]
fn memory_is_asked_about_by_domain() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        assert_eq!((call.number, call.args[0], memory.read::<u16>(call.args[1])), (12, 14, 7));
        0xfefff
    });
    assert_eq!(memory::maximum_gpfn(&fake, DOMAIN), Ok(Gfn::new(0xfefff)));
    fake.answer(0x7ffff);
    assert_eq!(memory::maximum_ram_page(&fake), Ok(Mfn::new(0x7ffff)));
    assert_eq!(fake.calls()[1].args, [2, 0]);
}

#[test]
fn a_parameter_is_named_by_domain_and_index() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        assert_eq!((call.number, call.args[0]), (34, 1));
        let mut op = memory.read::<HvmParam>(call.args[1]);
        assert_eq!((op.domid, op.index, op.value), (7, 17, 0));
        op.value = 0xfeffc;
        memory.write(call.args[1], &op);
        0
    });
    assert_eq!(hvm::get_param(&fake, DOMAIN, 17), Ok(0xfeffc));
}

/// The entries of a multicall.
fn entries(call: &crate::transport::fake::Call, memory: &mut crate::transport::fake::Memory) -> Vec<MulticallEntry> {
    assert_eq!(call.number, 13);
    let at = |index: u64| call.args[0] + index * 64;
    (0..call.args[1]).map(|index| memory.read(at(index))).collect()
}

#[test]
fn several_parameters_come_in_one_call() {
    let fake = Fake::new();
    let answer_with = |refused: Option<usize>| {
        move |call: &crate::transport::fake::Call, memory: &mut crate::transport::fake::Memory| {
            for (at, mut entry) in entries(call, memory).into_iter().enumerate() {
                assert_eq!((entry.op, entry.args[0]), (34, 1));
                let mut op: HvmParam = memory.read(entry.args[1]);
                assert_eq!((op.domid, op.index), (7, [17, 5][at]));
                op.value = 0x100 + at as u64;
                memory.write(entry.args[1], &op);
                entry.result = if refused == Some(at) { -22_i64 as u64 } else { 0 };
                memory.write(call.args[0] + at as u64 * 64, &entry);
            }
            0
        }
    };
    fake.expect(answer_with(None));
    assert_eq!(hvm::get_params(&fake, DOMAIN, [17, 5]), Ok([0x100, 0x101]));
    fake.expect(answer_with(Some(1)));
    assert_eq!(hvm::get_params(&fake, DOMAIN, [17, 5]).unwrap_err().xen(), Some(XenErrno::EINVAL));
    fake.answer(-38);
    assert!(hvm::get_params(&fake, DOMAIN, [17, 5]).is_err(), "none was done");
}

#[test]
fn entries_are_written_and_forgotten_in_one_call() {
    for (results, done, expected) in
        [([0, 0], 2, Ok(())), ([-22, 0], 1, Err((1, XenErrno::EINVAL))), ([0, -22], 2, Err((2, XenErrno::EINVAL)))]
    {
        let fake = Fake::new();
        fake.expect(move |call, memory| {
            let [mut update, mut flush]: [MulticallEntry; 2] = entries(call, memory).try_into().unwrap();
            assert_eq!((update.op, update.args[1], update.args[3]), (1, 2, 7));
            assert_eq!(memory.read::<[MmuUpdate; 2]>(update.args[0]), REQUESTS);
            assert_eq!((flush.op, flush.args[1..4].to_vec()), (26, vec![1, 0, 0x7ff0]));
            assert_eq!(memory.read::<MmuextOp>(flush.args[0]).cmd, 6);
            memory.write(update.args[2], &(done as u32));
            (update.result, flush.result) = (i64::from(results[0]) as u64, i64::from(results[1]) as u64);
            memory.write(call.args[0], &[update, flush]);
            0
        });
        // SAFETY: there is no machine behind the script.
        let answer = unsafe { mmu::update_and_flush(&fake, &REQUESTS, Some(DOMAIN)) };
        assert_eq!(answer.map_err(|stopped| (stopped.done, stopped.error.xen().unwrap())), expected);
    }
}

#[test]
fn the_system_time_is_written_to_the_argument() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        assert_eq!((call.number, call.args[0]), (34, 10));
        memory.write(call.args[1], &0x0102_0304_0506_0708_u64);
        0
    });
    assert_eq!(hvm::system_time(&fake), Ok(0x0102_0304_0506_0708));
    fake.expect(|_, _| -38);
    assert!(hvm::system_time(&fake).is_err());
}

#[test]
fn a_trap_table_needs_its_end_mark() {
    let fake = Fake::new();
    let entry = TrapInfo { vector: 14, flags: 0, cs: 0xe033, pad: 0, address: 0x1234 };
    let end = TrapInfo { vector: 0, flags: 0, cs: 0, pad: 0, address: 0 };
    // SAFETY: there is no machine behind the script.
    assert!(matches!(unsafe { traps::set_trap_table(&fake, &[entry]) }, Err(Error::Argument { .. })));
    fake.expect(move |call, memory| {
        let golden = [14, 0, 0x33, 0xe0, 0, 0, 0, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0];
        assert_eq!((call.number, memory.bytes(call.args[0], 16)), (0, golden.to_vec()));
        0
    });
    // SAFETY: as above.
    unsafe { traps::set_trap_table(&fake, &[entry, end]) }.unwrap();
    fake.finish();
}

#[test]
fn plain_calls_pass_plain_numbers() {
    let fake = Fake::new();
    fake.answer(0).answer(0).answer(0).answer(0);
    sched::yield_now(&fake).unwrap();
    sched::set_timer(&fake, 77).unwrap();
    vcpu::stop_periodic_timer(&fake, 0).unwrap();
    // SAFETY: there is no machine behind the script.
    unsafe { traps::stack_switch(&fake, 0xe02b, 0x8000) }.unwrap();
    let calls = fake.calls().into_iter().map(|call| (call.number, call.args));
    let wanted = [(29, [0, 0].to_vec()), (15, [77].to_vec()), (24, [7, 0, 0].to_vec()), (3, [0xe02b, 0x8000].to_vec())];
    assert!(calls.eq(wanted));
}

#[test]
fn what_others_took_of_our_time_is_one_of_four_states() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        assert_eq!((call.number, &call.args[..2]), (24, &[4, 0][..]));
        let mut info = [0; 48];
        info[16..24].copy_from_slice(&7_u64.to_le_bytes());
        info[24..32].copy_from_slice(&1234_u64.to_le_bytes());
        memory.write(call.args[2], &info);
        0
    });
    assert_eq!(vcpu::stolen_ns(&fake, 0), Ok(1234));
    fake.finish();
}

#[test]
fn last_words_are_read_by_xen() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        assert_eq!((call.number, call.args[0], call.args[1]), (18, 0, 5));
        assert_eq!(memory.bytes(call.args[2], 5), b"oops\n");
        0
    });
    console::write(&fake, b"oops\n").unwrap();
}

#[test]
fn the_version_is_two_halves() {
    let fake = Fake::new();
    fake.answer(0x0004_0016);
    let version = version::xen_version(&fake).unwrap();
    assert_eq!((version.major, version.minor), (4, 22));
    fake.expect(|call, memory| {
        assert_eq!((call.number, call.args[0]), (17, 1));
        memory.write(call.args[1], b".5\0");
        0
    });
    assert_eq!(version::extraversion(&fake).unwrap()[..3], *b".5\0");
}

/// The message with which `body` ends.
fn panic_of(body: impl FnOnce()) -> String {
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_err();
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn the_fake_lets_nobody_write_what_is_lent_for_reading() {
    let fake = Fake::new();
    fake.expect(|call, memory| {
        memory.write(call.args[2], &1u8);
        0
    });
    assert!(
        panic_of(|| {
            let _ = console::write(&fake, b"x");
        })
        .contains("reading only")
    );
}

#[test]
fn the_fake_knows_no_call_that_is_not_in_the_script() {
    let fake = Fake::new();
    assert!(
        panic_of(|| {
            let _ = event::send(&fake, EvtchnPort::new(1));
        })
        .contains("unexpected hypercall")
    );
}

#[test]
fn the_fake_ends_a_loan_where_it_ends() {
    let fake = Fake::new();
    fake.expect(|call, memory| i64::from(memory.read::<u64>(call.args[1]).as_bytes()[0]));
    assert!(
        panic_of(|| {
            let _ = memory::maximum_gpfn(&fake, DOMAIN);
        })
        .contains("exceed a loan")
    );
}
