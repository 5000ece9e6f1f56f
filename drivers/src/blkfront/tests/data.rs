//! Honest data: what is written is read, flushed, batched and bounded.

use super::super::fake_backend::{Order, Seen};
use super::*;
use alloc::vec;
use proptest::prelude::*;

const ORDERS: [Order; 4] = [Order::Fifo, Order::Lifo, Order::Random(7), Order::Random(0x1234_5678)];

fn request(operation: u8, block: u64, segments: usize) -> Seen {
    Seen { operation, sector: block * 8, segments, indirect: segments > 11 }
}

#[test]
fn a_mebibyte_is_one_request_each_way() {
    let (rig, mut blk) = Rig::connected(Config::default(), 512);
    let data = pattern(256, 256, 1);
    blk.write(256, &data).unwrap();
    let mut back = vec![0; data.len()];
    blk.read(256, &mut back).unwrap();
    assert_eq!(back, data);
    assert_eq!(rig.disk.seen(), [request(1, 256, 256), request(0, 256, 256)]);
    let stats = blk.stats();
    assert_eq!((stats.requests, stats.written_bytes, stats.read_bytes), (2, 1 << 20, 1 << 20));
    rig.finish(blk);
}

#[test]
fn writes_and_reads_agree_whatever_the_backend_offers_and_in_any_order() {
    for order in ORDERS {
        for (indirect, ring_order, pool) in
            [(Some("256"), None, 512), (Some("32"), None, 40), (None, Some("2"), 100), (None, None, 5), (None, None, 1)]
        {
            let (rig, mut blk) = Rig::connected(Config { indirect, ring_order, ..Config::default() }, pool);
            rig.disk.set_order(order);
            for (at, blocks) in [(0, 1), (1, 11), (12, 12), (100, 256), (600, 300), (1023, 1), (101, 7)] {
                blk.write(at, &pattern(at, blocks, 3)).unwrap();
            }
            for (at, blocks) in [(1023, 1), (600, 300), (0, 24), (99, 258)] {
                let mut back = vec![0xff; blocks * BLOCK_LEN];
                blk.read(at, &mut back).unwrap();
                let written = |b: u64| b < 24 || (100..356).contains(&b) || (600..900).contains(&b) || b == 1023;
                for (index, got) in back.chunks(BLOCK_LEN).enumerate() {
                    let block = at + index as u64;
                    let expected = if written(block) { pattern(block, 1, 3) } else { vec![0; BLOCK_LEN] };
                    assert_eq!(got, expected, "block {block}");
                }
            }
            rig.finish(blk);
        }
    }
}

#[test]
fn adjacent_small_writes_grow_into_large_requests() {
    let (rig, mut blk) = Rig::connected(Config::default(), 512);
    for at in 0..512 {
        blk.write(at, &pattern(at, 1, 2)).unwrap();
    }
    blk.write(600, &pattern(600, 4, 2)).unwrap();
    blk.flush().unwrap();
    let expected = [request(1, 0, 256), request(1, 256, 256), request(1, 600, 4), request(3, 0, 0)];
    assert_eq!(rig.disk.seen(), expected);
    assert_eq!(rig.disk.durable(511), pattern(511, 1, 2));
    rig.finish(blk);
}

#[test]
fn a_single_block_elsewhere_does_not_cut_a_request_in_two() {
    for pool in [512, 130] {
        let (rig, mut blk) = Rig::connected(Config::default(), pool);
        blk.write(0, &pattern(0, 128, 2)).unwrap();
        blk.write(700, &pattern(700, 1, 2)).unwrap();
        blk.write(700, &pattern(700, 1, 3)).unwrap();
        blk.write(128, &pattern(128, 128, 2)).unwrap();
        blk.flush().unwrap();
        if pool == 512 {
            let single = request(1, 700, 1);
            assert_eq!(rig.disk.seen(), [single, single, request(1, 0, 256), request(3, 0, 0)]);
        }
        assert_eq!((rig.disk.durable(700), rig.disk.durable(255)), (pattern(700, 1, 3), pattern(255, 1, 2)));
        rig.finish(blk);
    }
}

#[test]
fn a_pool_that_runs_dry_does_not_make_requests_small() {
    let (rig, mut blk) = Rig::connected(Config { indirect: Some("32"), ..Config::default() }, 64);
    for at in (0..512).step_by(16) {
        blk.write(at, &pattern(at, 16, 2)).unwrap();
        if at % 64 == 0 {
            blk.write(1000, &pattern(1000, 1, at)).unwrap();
        }
    }
    blk.flush().unwrap();
    let seen = rig.disk.seen();
    assert_eq!(seen.iter().filter(|one| one.segments == 32).count(), 16, "{seen:?}");
    assert_eq!(seen.len(), 16 + 8 + 1, "heartbeats and the flush");
    rig.finish(blk);
}

#[test]
fn a_full_request_goes_out_at_once_and_a_partial_one_at_the_next_poll() {
    let (rig, mut blk) = Rig::connected(Config::default(), 512);
    blk.write(0, &pattern(0, 256, 1)).unwrap();
    assert_eq!(blk.in_flight(), 1);
    blk.write(300, &pattern(300, 255, 1)).unwrap();
    assert_eq!(blk.in_flight(), 1);
    blk.poll().unwrap();
    assert_eq!(blk.in_flight(), 2);
    rig.finish(blk);
}

/// The pace is what comes from the first answer to the last one, without idleness between.
#[test]
fn a_device_is_paced_from_answer_to_answer() {
    let (rig, mut blk) = Rig::connected(Config::default(), 512);
    assert_eq!((blk.look_again().paced_ns, blk.pool_blocks()), (0, 512));
    rig.disk.stall(true);
    (0..2).for_each(|at| blk.write(at * 300, &pattern(at * 300, 256, 1)).unwrap());
    blk.poll().unwrap();
    rig.disk.answer(1);
    rig.host.advance_to(rig.host.now_ns() + 5_000);
    while rig.host.step() {}
    let (first, first_ns) = (blk.look_again(), rig.host.now_ns());
    assert_eq!((first.paced_ns, first.paced_bytes, first.done_bytes), (0, 0, 256 * 4096), "the first says nothing");
    rig.host.advance_to(first_ns + 5_000);
    assert_eq!(blk.look_again(), first, "nor does time without an answer");
    rig.disk.stall(false);
    blk.rest().unwrap();
    let seen = blk.look_again();
    assert_eq!((seen.paced_ns, seen.paced_bytes), (rig.host.now_ns() - first_ns, 256 * 4096));
    rig.host.advance_to(rig.host.now_ns() + 7_000);
    assert_eq!(blk.look_again(), seen, "idle time does not count");
    blk.read(0, &mut pattern(0, 4, 0)).unwrap();
    assert_eq!(blk.look_again().paced_bytes, seen.paced_bytes, "nor does a read");
    rig.finish(blk);
}

#[test]
fn nothing_is_durable_before_a_flush_and_everything_after() {
    for order in ORDERS {
        let (rig, mut blk) = Rig::connected(Config::default(), 64);
        rig.disk.set_order(order);
        for at in (0..200).step_by(2) {
            blk.write(at, &pattern(at, 1, 4)).unwrap();
        }
        assert!((0..200).all(|at| rig.disk.durable(at).iter().all(|byte| *byte == 0)));
        blk.flush().unwrap();
        assert!((0..200).step_by(2).all(|at| rig.disk.durable(at as usize) == pattern(at, 1, 4)));
        rig.finish(blk);
    }
}

#[test]
fn without_a_cache_a_flush_only_waits() {
    for flush in [None, Some("0")] {
        let (rig, mut blk) = Rig::connected(Config { flush, ..Config::default() }, 64);
        blk.write(3, &pattern(3, 2, 5)).unwrap();
        blk.flush().unwrap();
        assert_eq!((rig.disk.durable(4), rig.disk.seen().len(), blk.in_flight()), (pattern(4, 1, 5), 1, 0));
        rig.finish(blk);
    }
}

#[test]
fn many_requests_are_under_way_together_and_share_events() {
    let (rig, mut blk) = Rig::connected(Config::default(), 512);
    rig.disk.stall(true);
    for i in 0..20 {
        blk.write(i * 20, &pattern(i * 20, 10, 6)).unwrap();
    }
    blk.poll().unwrap();
    while rig.host.step() {}
    assert_eq!((rig.disk.queue_max(), blk.in_flight()), (20, 20));
    assert_eq!(blk.stats().notifications, 1);
    rig.disk.stall(false);
    blk.flush().unwrap();
    assert_eq!(blk.stats().in_flight_max, 20);
    rig.finish(blk);
}

#[test]
fn a_write_waits_only_when_the_pool_is_exhausted() {
    let (rig, mut blk) = Rig::connected(Config::default(), 32);
    let before = rig.host.now_ns();
    blk.write(0, &pattern(0, 32, 7)).unwrap();
    assert_eq!(rig.host.now_ns(), before);
    blk.write(100, &pattern(100, 1, 7)).unwrap();
    assert!(rig.host.now_ns() > before);
    rig.finish(blk);
}

#[test]
fn an_overwrite_wins_even_if_the_backend_reorders() {
    for order in ORDERS {
        let (rig, mut blk) = Rig::connected(Config::default(), 512);
        rig.disk.set_order(order);
        for salt in 0..40 {
            blk.write(salt % 5, &pattern(salt % 5, 3, salt)).unwrap();
        }
        let mut back = vec![0; 7 * BLOCK_LEN];
        blk.read(0, &mut back).unwrap();
        // The last writes to reach each block: 35 at 0, 36 at 1, and so on.
        let expected: Vec<u8> =
            [35, 36, 37, 38, 39, 39, 39].iter().enumerate().flat_map(|(b, s)| pattern(b as u64, 1, *s)).collect();
        assert_eq!(back, expected);
        rig.finish(blk);
    }
}

#[test]
fn pages_are_filled_in_place() {
    let (rig, mut blk) = Rig::connected(Config::default(), 16);
    blk.write_with(9, 20, |index, mut page| {
        page.put(0, &[index as u8; 100]);
        page.put(100, &[0xee; BLOCK_LEN - 100]);
    })
    .unwrap();
    blk.flush().unwrap();
    let block = rig.disk.block(9 + 17);
    assert!(block[..100].iter().all(|byte| *byte == 17) && block[100..].iter().all(|byte| *byte == 0xee));
    rig.finish(blk);
}

#[test]
fn the_callers_mistakes_are_named_and_harm_nothing() {
    let (rig, mut blk) = Rig::connected(Config::default(), 16);
    let mut block = vec![0; BLOCK_LEN];
    assert_eq!(blk.write(1024, &block), Err(IoError::OutOfRange));
    assert_eq!(blk.write(1023, &vec![0; 2 * BLOCK_LEN]), Err(IoError::OutOfRange));
    assert_eq!(blk.read(u64::MAX, &mut block), Err(IoError::OutOfRange));
    assert_eq!(blk.write(0, &block[1..]), Err(IoError::Misaligned));
    assert_eq!(blk.read(0, &mut block[1..]), Err(IoError::Misaligned));
    assert_eq!(blk.write(1024, &[]), Ok(()));
    assert_eq!(blk.read(0, &mut []), Ok(()));
    assert_eq!((blk.fault(), rig.disk.seen().len()), (None, 0));
    rig.finish(blk);
    let (rig, mut blk) = Rig::connected(Config { info: "4", ..Config::default() }, 16);
    assert_eq!(blk.write(0, &block), Err(IoError::ReadOnly));
    assert_eq!(blk.read(0, &mut block), Ok(()));
    rig.finish(blk);
}

#[test]
fn devices_with_sectors_of_4096_bytes_work() {
    let native = Config { sector_size: "4096", physical_sector_size: None, ..Config::default() };
    let (rig, mut blk) = Rig::connected(native, 16);
    blk.write(5, &pattern(5, 1, 1)).unwrap();
    blk.flush().unwrap();
    assert_eq!((rig.disk.block(5), rig.disk.seen()[0]), (pattern(5, 1, 1), request(1, 5, 1)));
    rig.finish(blk);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Any mixture of calls behaves like an array of blocks, under any order of completion.
    #[test]
    fn the_device_is_an_array_of_blocks(
        seed in 1u64..,
        pool in 1u16..40,
        indirect in prop_oneof![Just(None), Just(Some("16")), Just(Some("256"))],
        calls in proptest::collection::vec((0u8..5, 0u64..64, 1usize..40), 1..60),
    ) {
        let (rig, mut blk) = Rig::connected(Config { indirect, sectors: 128 * 8, ..Config::default() }, pool);
        rig.disk.set_order(Order::Random(seed));
        let mut model = vec![0u8; 128 * BLOCK_LEN];
        for (salt, (call, at, blocks)) in calls.into_iter().enumerate() {
            let range = at as usize * BLOCK_LEN..(at as usize + blocks) * BLOCK_LEN;
            match call {
                0..=2 => {
                    let data = pattern(at, blocks, salt as u64);
                    blk.write(at, &data).unwrap();
                    model[range].copy_from_slice(&data);
                }
                3 => {
                    let mut back = vec![0xcc; range.len()];
                    blk.read(at, &mut back).unwrap();
                    prop_assert!(back == model[range], "read at {}", at);
                }
                _ => {
                    blk.flush().unwrap();
                    let same = (0..128).all(|b| rig.disk.durable(b) == model[b * BLOCK_LEN..][..BLOCK_LEN]);
                    prop_assert!(same, "durable after flush");
                }
            }
        }
        rig.finish(blk);
    }
}
