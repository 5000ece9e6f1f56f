//! A backend that breaks the protocol: the outcome is an error that stays, in bounded time, and never a wrong byte.

use super::super::fake_backend::{Mischief, Order};
use super::*;
use crate::xenbus::Failure;
use alloc::borrow::ToOwned;
use alloc::vec;

/// What the caller does when the backend strikes.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Write,
    Read,
    Flush,
}

const ALL: [Doing; 3] = [Doing::Write, Doing::Read, Doing::Flush];

fn act(blk: &mut Blkfront<FakePlatform>, doing: Doing) -> Result<(), IoError> {
    match doing {
        Doing::Write => blk.write(40, &pattern(40, 20, 9)).and_then(|()| blk.flush()),
        Doing::Read => blk.read(40, &mut vec![0; 20 * BLOCK_LEN]),
        Doing::Flush => blk.flush(),
    }
}

/// Strikes with the next response while three writes and then `doing` are under way; the error must stay.
fn struck(mischief: Mischief, doing: Doing, order: Order) -> IoError {
    let (mut rig, mut blk) = Rig::connected(Config::default(), 64);
    rig.host.set_step_ns(50_000_000);
    rig.disk.set_order(order);
    for at in [0, 10, 20] {
        blk.write(at, &pattern(at, 2, 1)).unwrap();
    }
    rig.disk.misbehave(0, mischief);
    let mut error = None;
    for _ in 0..3 {
        error = error.or(act(&mut blk, doing).err());
    }
    // Reads elsewhere may go on while a write is lost; a flush may not.
    error = error.or(blk.flush().err());
    let error = error.unwrap_or_else(|| panic!("{mischief:?} unnoticed by {doing:?}"));
    // It stays, whatever is asked.
    for again in ALL {
        assert_eq!(act(&mut blk, again), Err(blk.fault().unwrap()), "{mischief:?} {doing:?}");
    }
    assert!(blk.poll().is_err());
    let seen = rig.disk.seen().len();
    let report = rig.close(blk);
    assert!(report.drained.is_err());
    assert_eq!(rig.disk.seen().len(), seen, "requests after the fault");
    // Ports are never left; pages only if the backend sits on them.
    let (_, grants, ports) = rig.host.forgive_leaks();
    assert_eq!((grants, ports), (report.grants_held, 0));
    error
}

/// The mischief under every call and order; each must end in an error that `expected` accepts.
fn always(mischief: Mischief, expected: fn(&IoError) -> bool) {
    for doing in ALL {
        for order in [Order::Fifo, Order::Lifo, Order::Random(3)] {
            let error = struck(mischief, doing, order);
            assert!(expected(&error), "{mischief:?} {doing:?} {order:?}: {error:?}");
        }
    }
}

fn is_bad_id(error: &IoError) -> bool {
    matches!(error, IoError::Broken(Violation::BadId(_)))
}

fn is_bad_index(error: &IoError) -> bool {
    matches!(error, IoError::Broken(Violation::BadIndex { .. }))
}

#[test]
fn wild_ids_break_the_ring() {
    for change in [1 << 63, 0xff, 0x20, u64::MAX, 1 << 31] {
        always(Mischief::Id(change), is_bad_id);
    }
}

#[test]
fn stale_generations_break_the_ring() {
    for change in [1 << 32, 2 << 32, 0xffff << 32] {
        always(Mischief::Id(change), is_bad_id);
    }
}

#[test]
fn the_id_of_a_slot_that_is_not_under_way_breaks_the_ring() {
    always(Mischief::Id(16), is_bad_id);
}

#[test]
fn a_response_that_comes_twice_breaks_the_ring() {
    always(Mischief::Twice, |error| is_bad_id(error) || is_bad_index(error));
}

#[test]
fn a_wrong_operation_breaks_the_ring() {
    for operation in [2, 4, 5, 7, 0xff] {
        always(Mischief::Operation(operation), |error| matches!(error, IoError::Broken(Violation::BadOperation(_))));
    }
}

#[test]
fn the_outer_operation_fits_indirect_requests_only() {
    let (mut rig, mut blk) = Rig::connected(Config::default(), 64);
    rig.disk.misbehave(0, Mischief::Operation(6));
    blk.read(0, &mut vec![0; 12 * BLOCK_LEN]).unwrap();
    rig.disk.misbehave(0, Mischief::Operation(6));
    let error = blk.read(0, &mut vec![0; 11 * BLOCK_LEN]);
    assert_eq!(error, Err(IoError::Broken(Violation::BadOperation(6))));
    assert_eq!(rig.close(blk).grants_held, 0);
}

#[test]
fn reads_that_succeed_do_not_hide_a_write_that_is_overdue() {
    let (mut rig, mut blk) = Rig::connected(Config::default(), 64);
    rig.host.set_step_ns(SECOND_NS);
    rig.disk.misbehave(0, Mischief::Silence);
    blk.write(0, &pattern(0, 1, 1)).unwrap();
    let mut reads = 0;
    while blk.read(9, &mut vec![0; BLOCK_LEN]).is_ok() {
        reads += 1;
    }
    assert!((10..=60).contains(&reads), "{reads}");
    assert_eq!(blk.fault(), Some(IoError::Timeout));
    assert_eq!(rig.close(blk).grants_held, 0);
}

#[test]
fn a_read_answered_as_a_write_breaks_the_ring() {
    let (mut rig, mut blk) = Rig::connected(Config::default(), 8);
    rig.disk.misbehave(0, Mischief::Operation(1));
    let error = blk.read(0, &mut vec![0; BLOCK_LEN]);
    assert_eq!(error, Err(IoError::Broken(Violation::BadOperation(1))));
    assert_eq!(rig.close(blk).grants_held, 0);
}

#[test]
fn statuses_that_do_not_exist_break_the_ring() {
    for status in [1, -3, i16::MIN, i16::MAX, 256] {
        always(Mischief::Status(status), |error| matches!(error, IoError::Broken(Violation::BadStatus(_))));
    }
}

#[test]
fn producer_jumps_break_the_ring() {
    for by in [31, 32, 33, 1000, 1 << 31, u32::MAX - 40] {
        always(Mischief::Jump(by), is_bad_index);
    }
    // One that stays within what is under way shows an old slot: a response to nothing.
    always(Mischief::Jump(1), |error| matches!(error, IoError::Broken(_)));
    // Backwards, to where it was: the response is never seen.
    always(Mischief::Jump(u32::MAX), |error| matches!(error, IoError::Timeout | IoError::Broken(_)));
}

#[test]
fn silence_is_a_timeout_within_its_bound() {
    always(Mischief::Silence, |error| *error == IoError::Timeout);
    let (mut rig, mut blk) = Rig::connected(Config::default(), 8);
    rig.disk.stall(true);
    let before = rig.host.now_ns();
    assert_eq!(blk.read(0, &mut vec![0; BLOCK_LEN]), Err(IoError::Timeout));
    let waited = rig.host.now_ns() - before;
    assert!((60 * SECOND_NS..61 * SECOND_NS).contains(&waited), "{waited}");
    assert!(rig.close(blk).drained.is_err());
}

#[test]
fn a_storm_of_events_without_an_answer_is_a_timeout() {
    always(Mischief::Storm, |error| *error == IoError::Timeout);
}

#[test]
fn a_write_that_need_not_wait_notices_what_is_overdue() {
    let (mut rig, mut blk) = Rig::connected(Config { indirect: None, ..Config::default() }, 64);
    rig.disk.stall(true);
    blk.write(0, &pattern(0, 11, 1)).unwrap();
    rig.host.advance_to(rig.host.now_ns() + 60 * SECOND_NS - 1);
    blk.write(20, &pattern(20, 1, 1)).unwrap();
    rig.host.advance_to(rig.host.now_ns() + 1);
    assert_eq!(blk.write(30, &pattern(30, 1, 1)), Err(IoError::Timeout));
    assert_eq!(rig.close(blk).drained, Err(IoError::Timeout));
}

#[test]
fn an_answer_that_nobody_looked_at_is_not_overdue() {
    let (rig, mut blk) = Rig::connected(Config { indirect: None, ..Config::default() }, 64);
    blk.write(0, &pattern(0, 11, 1)).unwrap();
    blk.poll().unwrap();
    // The backend answers while the device is idle, for longer than a request may take.
    while rig.host.step() {}
    rig.host.advance_to(rig.host.now_ns() + 600 * SECOND_NS);
    blk.write(20, &pattern(20, 1, 1)).unwrap();
    blk.flush().unwrap();
    rig.finish(blk);
}

#[test]
fn poll_notices_what_is_overdue() {
    let (mut rig, mut blk) = Rig::connected(Config::default(), 8);
    rig.disk.stall(true);
    blk.write(0, &pattern(0, 1, 1)).unwrap();
    blk.poll().unwrap();
    rig.host.advance_to(rig.host.now_ns() + 60 * SECOND_NS);
    assert_eq!(blk.poll(), Err(IoError::Timeout));
    assert_eq!(rig.close(blk).drained, Err(IoError::Timeout));
}

#[test]
fn an_error_of_a_write_stays() {
    let (mut rig, mut blk) = Rig::connected(Config::default(), 64);
    rig.disk.misbehave(1, Mischief::Status(-1));
    blk.write(0, &pattern(0, 2, 1)).unwrap();
    blk.write(7, &pattern(7, 2, 1)).unwrap();
    blk.write(11, &pattern(11, 2, 1)).unwrap();
    let error = Err(IoError::Device { op: Op::Write, at: 7 });
    assert_eq!(blk.flush(), error);
    assert_eq!(blk.write(0, &pattern(0, 1, 2)), error);
    assert_eq!(blk.read(0, &mut vec![0; BLOCK_LEN]), error);
    assert_eq!(rig.close(blk), CloseReport { drained: error, handshake: Ok(()), grants_held: 0 });
}

#[test]
fn an_unsupported_write_is_a_failed_write() {
    let (mut rig, mut blk) = Rig::connected(Config::default(), 64);
    rig.disk.misbehave(0, Mischief::Status(-2));
    blk.write(7, &pattern(7, 1, 1)).unwrap();
    assert_eq!(blk.flush(), Err(IoError::Device { op: Op::Write, at: 7 }));
    assert_eq!(rig.close(blk).grants_held, 0);
}

#[test]
fn an_error_of_a_read_concerns_that_read_only() {
    let (rig, mut blk) = Rig::connected(Config { indirect: None, ..Config::default() }, 64);
    rig.disk.put(3, 0x33);
    rig.disk.misbehave(1, Mischief::Status(-1));
    let mut back = vec![0; 40 * BLOCK_LEN];
    assert_eq!(blk.read(0, &mut back), Err(IoError::Device { op: Op::Read, at: 11 }));
    blk.read(3, &mut back[..BLOCK_LEN]).unwrap();
    assert!(back[..BLOCK_LEN].iter().all(|byte| *byte == 0x33));
    blk.write(5, &pattern(5, 1, 1)).unwrap();
    rig.finish(blk);
}

#[test]
fn a_flush_that_fails_or_is_unknown_after_all_stays() {
    for (status, error) in [(-1, IoError::Device { op: Op::Flush, at: 0 }), (-2, IoError::Unsupported(Op::Flush))] {
        let (mut rig, mut blk) = Rig::connected(Config::default(), 64);
        rig.disk.misbehave(0, Mischief::Status(status));
        assert_eq!(blk.flush(), Err(error));
        assert_eq!(blk.flush(), Err(error));
        assert_eq!(blk.write(0, &pattern(0, 1, 1)), Err(error));
        assert_eq!(rig.close(blk).grants_held, 0);
    }
}

#[test]
fn a_backend_that_leaves_in_mid_request_ends_the_use() {
    for (mischief, failure) in [
        (Mischief::Close, Failure::Closed),
        (Mischief::Vanish, Failure::Gone),
        (Mischief::State("6"), Failure::Closed),
        (Mischief::State("eleven"), Failure::NoState),
        (Mischief::State("2"), Failure::Unexpected(crate::xenbus::State::INIT_WAIT)),
    ] {
        let (mut rig, mut blk) = Rig::connected(Config::default(), 64);
        blk.write(0, &pattern(0, 4, 1)).unwrap();
        blk.poll().unwrap();
        rig.disk.now(mischief);
        let token = blk.watch_token().to_owned();
        assert!(rig.xs.wait_event_of(&token, 0).unwrap(), "{mischief:?}");
        assert_eq!(blk.look(&mut rig.xs), Err(ConnectError::Handshake(failure)), "{mischief:?}");
        assert_eq!(blk.flush(), Err(IoError::Closed));
        assert_eq!(blk.read(0, &mut vec![0; BLOCK_LEN]), Err(IoError::Closed));
        let before = rig.host.now_ns();
        let report = rig.close(blk);
        assert_eq!(report.drained, Err(IoError::Closed));
        assert!(rig.host.now_ns() - before <= 11 * SECOND_NS, "{mischief:?}");
        let (_, grants, ports) = rig.host.forgive_leaks();
        assert_eq!((grants, ports), (report.grants_held, 0), "{mischief:?}");
    }
}

#[test]
fn closing_unheard_of_is_a_timeout_of_what_is_under_way() {
    always(Mischief::Close, |error| *error == IoError::Timeout);
}

#[test]
fn garbage_all_over_the_ring_is_an_error_and_never_a_panic() {
    for seed in 1..150 {
        let (mut rig, mut blk) = Rig::connected(Config::default(), 16);
        rig.host.set_step_ns(1_000_000_000);
        for at in 0..(seed % 7) {
            blk.write(at * 3, &pattern(at, 1, seed)).unwrap();
        }
        blk.poll().unwrap();
        rig.disk.now(Mischief::Scribble(seed));
        let error = blk.flush().or_else(|_| blk.read(0, &mut vec![0; BLOCK_LEN]));
        assert!(matches!(error, Err(IoError::Broken(_) | IoError::Timeout)), "{seed}: {error:?}");
        assert!(rig.close(blk).drained.is_err());
        rig.host.forgive_leaks();
    }
}
