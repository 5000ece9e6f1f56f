//! The client against the fake xenstored, honest and otherwise.

use super::fake::{FakeStore, FakeWire, Mischief};
use super::ring::RingWire;
use super::*;
use crate::platform::Platform;
use crate::platform::fake::{FakeHost, FakePlatform};
use crate::ring::bytes::BadIndex;
use crate::ring::shared::SharedPage;
use crate::types::{DomId, EvtchnPort};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use xen_hypercall::XenErrno;
use xen_hypercall::abi::io::xs_wire as abi;

const DOM0: DomId = DomId::new(0);
const STUB: DomId = DomId::new(5);

fn dom0() -> (FakeHost, FakeStore, Client<FakeWire>) {
    let (host, store) = (FakeHost::default(), FakeStore::default());
    let client = Client::new(store.connect(&host, DOM0, 4096));
    (host, store, client)
}

fn fired(path: &str, token: &str) -> Event {
    Event::Fired { path: path.to_owned(), token: token.to_owned() }
}

#[test]
fn nodes_are_written_read_listed_and_removed() {
    let (_host, _store, mut xs) = dom0();
    xs.write("/a/b", "1").unwrap();
    xs.mkdir("/a/c").unwrap();
    assert_eq!(xs.read_text("/a/b").unwrap(), "1");
    assert_eq!(xs.directory("/a").unwrap(), ["b", "c"]);
    assert_eq!(xs.directory("/a/c").unwrap(), [""; 0]);
    xs.rm("/a").unwrap();
    assert_eq!(xs.find_text("/a/b").unwrap(), None);
    assert!(xs.read("/a").unwrap_err().is_missing());
    assert_eq!(xs.stats().requests, 8);
}

#[test]
fn a_long_directory_comes_in_parts() {
    let (_host, store, mut xs) = dom0();
    let names: vec::Vec<String> = (0..600).map(|i| format!("node-{i:04}")).collect();
    names.iter().for_each(|name| store.set(&format!("/d/{name}"), ""));
    assert_eq!(xs.directory("/d").unwrap(), names);
}

#[test]
fn permissions_are_set_read_and_felt() {
    let (host, store, mut xs) = dom0();
    store.set("/local/domain/5/data", "");
    let perms = [Perm::new(Rights::None, DOM0), Perm::new(Rights::Read, STUB)];
    xs.write("/secret", "x").unwrap();
    xs.set_perms("/secret", &perms).unwrap();
    assert_eq!(xs.get_perms("/secret").unwrap(), perms);
    let mut stub = Client::new(store.connect(&host, STUB, 4096));
    assert_eq!(stub.read_text("/secret").unwrap(), "x");
    assert_eq!(stub.write("/secret", "y"), Err(XsError::Denied(XenErrno::EACCES)));
    assert_eq!(stub.write("data/x", "y"), Err(XsError::Denied(XenErrno::EACCES)));
    store.chmod("/local/domain/5/data", &[Perm::new(Rights::None, STUB)]);
    stub.write("data/x", "y").unwrap();
    assert_eq!(store.get("/local/domain/5/data/x").unwrap(), "y");
    assert_eq!(stub.resume(STUB), Err(XsError::Denied(XenErrno::EACCES)));
    xs.resume(STUB).unwrap();
    assert_eq!(store.resumed(), [5]);
    assert_eq!(xs.get_domain_path(DomId::new(12)).unwrap(), "/local/domain/12");
}

#[test]
fn watches_fire_at_once_and_for_children_and_stop() {
    let (host, store, mut xs) = dom0();
    xs.watch("/a", "tok").unwrap();
    assert_eq!(xs.next_event(0).unwrap(), Some(fired("/a", "tok")));
    assert_eq!(xs.next_event(0).unwrap(), None);
    store.set("/a/b", "1");
    // A reply in between does not lose the event.
    assert_eq!(xs.read_text("/a/b").unwrap(), "1");
    assert_eq!(xs.next_event(0).unwrap(), Some(fired("/a/b", "tok")));
    let before = host.now_ns();
    assert_eq!(xs.next_event(before + 1_000_000).unwrap(), None);
    assert!(host.now_ns() >= before + 1_000_000);
    xs.unwatch("/a", "tok").unwrap();
    store.set("/a/b", "2");
    assert_eq!(xs.next_event(0).unwrap(), None);
    assert_eq!(store.held(), (0, 0));
}

#[test]
fn equal_events_become_one_and_too_many_become_a_rescan() {
    let (_host, store, mut xs) = dom0();
    for _ in 0..1000 {
        store.send_event("/a", "t");
    }
    assert_eq!(xs.next_event(u64::MAX).unwrap(), Some(fired("/a", "t")));
    assert_eq!(xs.next_event(0).unwrap(), None);
    for i in 0..EVENTS_MAX {
        store.send_event(&format!("/{i}"), "t");
    }
    for i in 0..EVENTS_MAX {
        assert_eq!(xs.next_event(u64::MAX).unwrap(), Some(fired(&format!("/{i}"), "t")));
    }
    for i in 0..=EVENTS_MAX {
        store.send_event(&format!("/{i}"), "t");
    }
    assert_eq!(xs.next_event(u64::MAX).unwrap(), Some(Event::Rescan));
    assert_eq!(xs.next_event(0).unwrap(), None);
    store.send_event("/later", "t");
    assert_eq!(xs.next_event(0).unwrap(), Some(fired("/later", "t")));
}

#[test]
fn a_transaction_is_seen_whole_and_tried_again_after_a_conflict() {
    let (_host, store, mut xs) = dom0();
    store.conflict(3);
    let mut runs = 0;
    let both = xs.transaction(|tx| {
        runs += 1;
        tx.write("/t/a", "1")?;
        tx.write("/t/b", "2")?;
        assert_eq!(store.get("/t/a"), None);
        Ok(tx.directory("/t")?.len())
    });
    assert_eq!((both, runs), (Ok(2), 4));
    assert_eq!(store.get("/t/b").unwrap(), "2");
    assert_eq!(store.held(), (0, 0));
}

#[test]
fn a_transaction_gives_up_after_its_bound_and_aborts_on_error() {
    let (_host, store, mut xs) = dom0();
    store.conflict(u32::MAX);
    let mut runs = 0;
    let outcome = xs.transaction(|tx| {
        runs += 1;
        tx.write("/t", "1")
    });
    assert_eq!((outcome, runs), (Err(XsError::Conflict), TRANSACTION_TRIES));
    store.conflict(0);
    let outcome = xs.transaction(|tx| {
        tx.write("/t", "1")?;
        tx.read("/missing").map(drop)
    });
    assert!(outcome.unwrap_err().is_missing());
    assert_eq!((store.get("/t"), store.held()), (None, (0, 0)));
    store.misbehave(abi::XS_TRANSACTION_START, Mischief::Payload(b"0\0".to_vec()));
    assert_eq!(xs.transaction(|tx| tx.write("/t", "1")), Err(XsError::BadContent));
}

#[test]
fn linux_device_replies_without_id_are_taken_for_watches_only() {
    let (host, store) = (FakeHost::default(), FakeStore::default());
    let mut xs = Client::new(store.connect(&host, DOM0, 4096).with_device_quirk());
    xs.watch("/a", "t").unwrap();
    assert_eq!(xs.next_event(0).unwrap(), Some(fired("/a", "t")));
    xs.unwatch("/a", "t").unwrap();
    store.misbehave(abi::XS_READ, Mischief::WrongId(0));
    assert!(matches!(xs.read("/"), Err(XsError::Broken(_))));
}

#[test]
fn silence_ends_at_the_deadline_and_a_late_reply_is_dropped() {
    let (host, store, mut xs) = dom0();
    store.set("/a", "1");
    store.misbehave(abi::XS_READ, Mischief::Late);
    xs.set_timeout_ns(5_000_000);
    let before = host.now_ns();
    assert_eq!(xs.read("/a"), Err(XsError::Timeout));
    assert_eq!(host.now_ns(), before + 5_000_000);
    store.release_late();
    store.set("/a", "2");
    assert_eq!(xs.read_text("/a").unwrap(), "2");
    // Too many of them and the connection counts as stuck, for good.
    for _ in 0..8 {
        store.misbehave(abi::XS_READ, Mischief::Silence);
        assert_eq!(xs.read("/a"), Err(XsError::Timeout));
    }
    store.misbehave(abi::XS_READ, Mischief::Silence);
    assert_eq!(xs.read("/a"), Err(XsError::Broken(Fault::Stuck)));
    assert_eq!(xs.read("/a"), Err(XsError::Broken(Fault::Stuck)));
}

#[test]
fn a_request_given_up_does_not_excuse_a_reply_to_nothing() {
    let (_host, store, mut xs) = dom0();
    store.misbehave(abi::XS_READ, Mischief::Silence);
    assert_eq!(xs.read("/"), Err(XsError::Timeout));
    store.misbehave(abi::XS_READ, Mischief::WrongId(77));
    let stray = Fault::UnexpectedReply { kind: abi::XS_READ, req_id: 77 };
    assert_eq!(xs.read("/"), Err(XsError::Broken(stray)));
}

#[test]
fn a_flood_of_events_does_not_outlast_the_deadline() {
    let (host, store, mut xs) = dom0();
    xs.set_timeout_ns(1_000_000);
    let flood = store.clone();
    host.add_peer(alloc::boxed::Box::new(move || {
        flood.send_event("/a", "t");
        true
    }));
    store.misbehave(abi::XS_READ, Mischief::Silence);
    assert_eq!(xs.read("/a"), Err(XsError::Timeout));
}

#[test]
fn replies_that_answer_nothing_break_the_connection() {
    let cases = [
        Mischief::WrongId(77),
        Mischief::WrongId(0),
        Mischief::WrongKind(abi::XS_WRITE),
        Mischief::WrongKind(9999),
        Mischief::WrongLen(4097),
        Mischief::WrongLen(u32::MAX),
    ];
    for case in cases {
        let (_host, store, mut xs) = dom0();
        store.set("/a", "1");
        store.misbehave(abi::XS_READ, case.clone());
        let first = xs.read("/a").unwrap_err();
        assert!(matches!(first, XsError::Broken(_)), "{case:?}: {first:?}");
        assert_eq!(xs.read("/a"), Err(first), "{case:?}");
        assert_eq!(xs.next_event(0), Err(first), "{case:?}");
    }
}

#[test]
fn a_second_reply_breaks_the_connection_at_the_next_request() {
    let (_host, store, mut xs) = dom0();
    store.set("/a", "1");
    store.misbehave(abi::XS_READ, Mischief::Twice);
    assert_eq!(xs.read("/a").unwrap(), b"1");
    assert!(matches!(xs.read("/a"), Err(XsError::Broken(Fault::UnexpectedReply { .. }))));
}

#[test]
fn bad_content_is_an_error_of_that_request_only() {
    let (_host, store, mut xs) = dom0();
    store.misbehave(abi::XS_READ, Mischief::Payload(vec![0xff, 0xfe]));
    assert_eq!(xs.read_text("/"), Err(XsError::BadContent));
    store.misbehave(abi::XS_GET_PERMS, Mischief::Payload(b"x9\0".to_vec()));
    assert_eq!(xs.get_perms("/"), Err(XsError::BadContent));
    store.misbehave(abi::XS_DIRECTORY, Mischief::Payload(b"unterminated".to_vec()));
    assert_eq!(xs.directory("/"), Err(XsError::BadContent));
    store.misbehave(abi::XS_READ, Mischief::Error("EWHATEVER"));
    assert_eq!(xs.read("/"), Err(XsError::Denied(XenErrno::EIO)));
    store.misbehave(abi::XS_READ, Mischief::Error("ENOSPC"));
    assert_eq!(xs.read("/"), Err(XsError::Denied(XenErrno::ENOSPC)));
    assert_eq!(xs.read_text("/").unwrap(), "");
    store.send_raw(&[0; 15]);
    assert_eq!(xs.next_event(0).unwrap(), None);
}

#[test]
fn malformed_events_break_the_connection() {
    for payload in [&b"/a\0"[..], b"/a\0t\0u\0", b"/a\0t", b"\xff\0t\0", b""] {
        let (_host, store, mut xs) = dom0();
        let header = wire::Header { kind: abi::XS_WATCH_EVENT, req_id: 0, tx_id: 0, len: payload.len() as u32 };
        store.send_raw(&header.emit());
        store.send_raw(payload);
        assert_eq!(xs.next_event(0), Err(XsError::Broken(Fault::Malformed)), "{payload:?}");
    }
}

#[test]
fn a_message_in_single_bytes_is_a_message() {
    let (host, store) = (FakeHost::default(), FakeStore::default());
    let mut xs = Client::new(store.connect(&host, DOM0, 1));
    xs.write("/a", "x".repeat(300)).unwrap();
    assert_eq!(xs.read("/a").unwrap(), [b'x'; 300]);
}

/// A stub connected over a real ring page, served by steps of at most `piece` bytes.
struct OverRing {
    host: FakeHost,
    store: FakeStore,
    page: SharedPage,
    port: EvtchnPort,
    xs: Client<RingWire<FakePlatform>>,
}

fn over_ring(piece: usize) -> OverRing {
    let (host, store) = (FakeHost::default(), FakeStore::default());
    let page = host.alloc_page().unwrap();
    let port = host.alloc_unbound(DOM0).unwrap();
    store.set("/local/domain/5/data", "");
    store.chmod("/local/domain/5/data", &[Perm::new(Rights::None, STUB)]);
    if piece > 0 {
        store.serve_ring(&host, page.alias(), port, STUB, piece);
    }
    let xs = Client::new(RingWire::attach(FakePlatform::clone(&host), page.alias(), port));
    OverRing { host, store, page, port, xs }
}

impl OverRing {
    fn finish(self) {
        self.host.free_page(self.page);
        self.host.close_port(self.port);
    }
}

#[test]
fn messages_longer_than_the_ring_pass_through_it() {
    for piece in [1024, 100, 7] {
        let mut t = over_ring(piece);
        let value: vec::Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
        t.xs.write("data/long", &value).unwrap();
        assert_eq!(t.xs.read("data/long").unwrap(), value);
        t.xs.watch("data", "w").unwrap();
        assert_eq!(t.xs.next_event(0).unwrap(), Some(fired("data", "w")));
        t.store.set("/local/domain/5/data/x", "1");
        let soon = t.host.now_ns() + 1_000_000;
        assert_eq!(t.xs.next_event(soon).unwrap(), Some(fired("data/x", "w")));
        t.finish();
    }
}

#[test]
fn a_hostile_response_index_breaks_the_connection() {
    for theirs in [1025, 1 << 31, u32::MAX] {
        let mut t = over_ring(0);
        t.page.store_u32(2060, theirs);
        let broken = Err(XsError::Broken(Fault::BadIndex(BadIndex { ours: 0, theirs })));
        assert_eq!(t.xs.read("data"), broken);
        assert_eq!(t.xs.read("data"), broken);
        t.finish();
    }
}

#[test]
fn a_hostile_request_index_breaks_the_connection() {
    let mut t = over_ring(0);
    t.page.store_u32(2048, 1);
    let broken = Err(XsError::Broken(Fault::BadIndex(BadIndex { ours: 0, theirs: 1 })));
    assert_eq!(t.xs.write("data", "x"), broken);
    t.finish();
}

#[test]
fn a_daemon_that_reads_nothing_times_out_and_a_half_sent_request_is_stuck() {
    let mut t = over_ring(0);
    t.xs.set_timeout_ns(1_000_000);
    assert_eq!(t.xs.read("data"), Err(XsError::Timeout));
    assert_eq!(t.xs.write("data", [0; 3000]), Err(XsError::Broken(Fault::Stuck)));
    t.finish();
}
