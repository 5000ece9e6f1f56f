//! Connecting, refusing, closing.

use super::*;
use crate::xenbus::Failure;
use crate::xenstore::fake::Mischief as XsMischief;
use crate::xenstore::{Event, XsError};
use xen_hypercall::XenErrno;
use xen_hypercall::abi::io::xs_wire as abi;

fn refused(config: Config) -> (Rig, ConnectError) {
    let mut rig = Rig::new(config);
    let Err(error) = rig.connect_with(&Options { pool_pages: 8, ..Options::default() }) else { panic!("connected") };
    assert_eq!((rig.host.held(), rig.store.held(), rig.disk.mapped()), ((0, 0, 0), (0, 0), 0), "{error}");
    (rig, error)
}

#[test]
fn a_device_connects_works_and_closes_within_few_requests() {
    let (rig, blk) = Rig::connected(Config::default(), 512);
    let geometry = *blk.geometry();
    assert_eq!((geometry.blocks(), geometry.sector_len, geometry.flush, geometry.read_only), (1024, 512, true, false));
    assert_eq!((blk.blocks_per_request(), blk.vdev(), blk.watch_token()), (256, VDEV, "vbd-51712"));
    // The whole boot shall need at most 25 to 40.
    assert!(rig.xs.stats().requests <= 18, "{:?}", rig.xs.stats());
    assert_eq!(rig.store.get("/local/domain/5/device/vbd/51712/state").unwrap(), "4");
    rig.finish(blk);
}

#[test]
fn devices_are_listed_in_order_and_none_is_no_error() {
    let mut rig = Rig::new(Config::default());
    rig.store.set("/local/domain/5/device/vbd/768", "");
    assert_eq!(list(&mut rig.xs), Ok(alloc::vec![768, VDEV]));
    rig.store.set("/local/domain/5/device/vbd/junk", "");
    assert_eq!(list(&mut rig.xs), Err(ConnectError::BadNode("device/vbd")));
    rig.store.remove("/local/domain/5/device");
    assert_eq!(list(&mut rig.xs), Ok(Vec::new()));
    let deadline_ns = SECOND_NS;
    let missing = connect(FakePlatform::clone(&rig.host), &mut rig.xs, 768, &Options::default(), deadline_ns);
    assert_eq!(missing.err(), Some(ConnectError::NoDevice));
}

#[test]
fn the_ring_and_requests_follow_what_the_backend_offers() {
    let offers = [
        (Some("256"), Some("4"), 256, 32, None),
        (Some("32"), None, 32, 32, None),
        (Some("11"), Some("4"), 11, 64, Some("1")),
        (None, Some("1"), 11, 64, Some("1")),
        (None, None, 11, 32, None),
        (Some("0"), Some("0"), 11, 32, None),
        (Some("4294967295"), Some("4294967295"), 256, 32, None),
    ];
    for (indirect, ring_order, segments, slots, order_node) in offers {
        let (rig, blk) = Rig::connected(Config { indirect, ring_order, ..Config::default() }, 512);
        assert_eq!(blk.blocks_per_request(), segments);
        assert_eq!(blk.parts.ring.size(), slots);
        assert_eq!(rig.store.get("/local/domain/5/device/vbd/51712/ring-page-order").as_deref(), order_node);
        rig.finish(blk);
    }
}

#[test]
fn lies_about_the_geometry_are_refused_and_everything_is_given_back() {
    let good = Config::default;
    let lies = [
        (Config { sectors_text: Some("0"), ..good() }, "sectors"),
        (Config { sectors_text: Some("-1"), ..good() }, "sectors"),
        (Config { sectors_text: Some("99999999999999999999"), ..good() }, "sectors"),
        (Config { sector_size: "513", ..good() }, "sector-size"),
        (Config { sector_size: "0", ..good() }, "sector-size"),
        (Config { physical_sector_size: Some("3"), ..good() }, "physical-sector-size"),
        (Config { info: "1", ..good() }, "info"),
        (Config { info: "read-only", ..good() }, "info"),
        (Config { flush: Some("maybe"), ..good() }, "feature-flush-cache"),
    ];
    for (config, name) in lies {
        assert_eq!(refused(config).1, ConnectError::Geometry(GeometryError(name)));
    }
    for indirect in ["many", "-1", "99999999999"] {
        let (_, error) = refused(Config { indirect: Some(indirect), ..good() });
        assert_eq!(error, ConnectError::Geometry(GeometryError("feature-max-indirect-segments")));
    }
}

#[test]
fn states_out_of_turn_are_refused() {
    let good = Config::default;
    let cases = [
        (Config { first_state: "9", ..good() }, Failure::NoState),
        (Config { first_state: "", ..good() }, Failure::NoState),
        (Config { first_state: "4", ..good() }, Failure::Unexpected(crate::xenbus::State::CONNECTED)),
        (Config { connected_state: "5", ..good() }, Failure::Closed),
        (Config { connected_state: "6", ..good() }, Failure::Closed),
        (Config { connected_state: "1", ..good() }, Failure::Unexpected(crate::xenbus::State::INITIALISING)),
        (Config { connected_state: "connected", ..good() }, Failure::NoState),
    ];
    for (config, failure) in cases {
        let mut rig = Rig::new(config.clone());
        let error = rig.connect_with(&Options { pool_pages: 8, ..Options::default() }).err();
        assert_eq!(error, Some(ConnectError::Handshake(failure)), "{config:?}");
        // The backend may sit on the ring; then its pages are lost, and only they.
        let (_, grants, ports) = rig.host.forgive_leaks();
        assert!(grants <= 1 && ports == 0, "{config:?}");
    }
}

#[test]
fn a_backend_that_never_gets_ready_times_out() {
    let (rig, error) = refused(Config { first_state: "1", ..Config::default() });
    assert_eq!(error, ConnectError::Timeout);
    assert!(rig.host.now_ns() < 20 * SECOND_NS);
    assert_eq!(refused(Config { first_state: "0", ..Config::default() }).1, ConnectError::Timeout);
}

#[test]
fn a_former_life_of_the_device_is_reset() {
    for first_state in ["5", "6"] {
        let (rig, blk) = Rig::connected(Config { first_state, ..Config::default() }, 8);
        rig.finish(blk);
    }
}

#[test]
fn every_failure_of_the_platform_is_clean() {
    let mut budget = 0;
    loop {
        let mut rig = Rig::new(Config::default());
        rig.host.set_budget(Some(budget));
        match rig.connect_with(&Options { pool_pages: 4, ..Options::default() }) {
            Err(error) => assert!(matches!(error, ConnectError::Platform(_)), "{error}"),
            Ok(blk) => {
                rig.host.set_budget(None);
                rig.finish(blk);
                break;
            }
        }
        assert_eq!((rig.host.held(), rig.store.held()), ((0, 0, 0), (0, 0)), "{budget}");
        budget += 1;
    }
    // Ring page, 4 data pages and 32 tables with a grant each, and the port.
    assert_eq!(budget, 2 * (1 + 4 + 32) + 1);
}

#[test]
fn every_failure_of_xenstore_is_clean() {
    let kinds = [(abi::XS_READ, 9), (abi::XS_WRITE, 6), (abi::XS_WATCH, 1)];
    for (kind, count) in kinds {
        for nth in 0..count {
            let mut rig = Rig::new(Config::default());
            rig.store.misbehave_later(kind, nth, XsMischief::Error("ENOSPC"));
            let error = rig.connect_with(&Options { pool_pages: 4, ..Options::default() }).err();
            assert_eq!(error, Some(ConnectError::Xenstore(XsError::Denied(XenErrno::ENOSPC))), "{kind} {nth}");
            assert_eq!((rig.host.held(), rig.store.held()), ((0, 0, 0), (0, 0)), "{kind} {nth}");
        }
    }
}

#[test]
fn events_of_other_watches_survive_the_handshake() {
    let mut rig = Rig::new(Config::default());
    rig.store.set("/local/domain/5/data", "");
    rig.xs.watch("data", "requests").unwrap();
    let blk = rig.connect_with(&Options { pool_pages: 4, ..Options::default() }).unwrap();
    let event = rig.xs.next_event(0).unwrap();
    assert_eq!(event, Some(Event::Fired { path: "data".into(), token: "requests".into() }));
    rig.xs.unwatch("data", "requests").unwrap();
    rig.finish(blk);
}

#[test]
fn grants_that_the_backend_keeps_are_counted_and_their_pages_lost() {
    let (mut rig, mut blk) = Rig::connected(Config::default(), 8);
    blk.write(0, &pattern(0, 3, 1)).unwrap();
    rig.disk.hold_grants();
    let report = rig.close(blk);
    // Three data pages and the ring; three segments need no table.
    assert_eq!(report, CloseReport { drained: Ok(()), handshake: Ok(()), grants_held: 4 });
    assert_eq!(rig.host.forgive_leaks(), (4, 4, 0));
}

#[test]
fn a_silent_backend_does_not_keep_a_close_waiting_beyond_the_deadline() {
    let (mut rig, blk) = Rig::connected(Config::default(), 8);
    rig.disk.now(super::super::fake_backend::Mischief::State("7"));
    let before = rig.host.now_ns();
    let report = rig.close(blk);
    assert_eq!((report.handshake, report.grants_held), (Err(ConnectError::Timeout), 1));
    assert!(rig.host.now_ns() <= before + 11 * SECOND_NS);
    rig.host.forgive_leaks();
}
