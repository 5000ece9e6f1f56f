//! The protocol's text: exact round trips, one error for each way of being wrong, and hostile bytes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use snapshot::fault::Fault;
use snapshot::fields::{Key, Line, NODE_MAX, ParseError};
use snapshot::names::{Name, NameError, SnapshotName, Token};
use snapshot::policy::Busy;
use snapshot::request::{Kind, Mode, Remove, Request, Take};
use snapshot::status::{Counters, State, Status, StubNode, StubState};
use snapshot::store::Compression;
use snapshot::verdict::{Cancel, Verdict};
use xen_hypercall::types::{DomHandle, DomId, EvtchnPort};

const TAKE: &str = "protocol=1\ntoken=00112233445566778899aabbccddeeff\nop=take\ndomid=7\n\
    handle=0f1f2f3f-4f5f-6f7f-8f9f-afbfcfdfefff\nguest=web01\nname=2026-11-22T15:00:00Z\nmode=live\n\
    created=1795359600\nrelease-port=42\nmax-pause-ms=10000\nround1-skip=0\nh-milli=5100\ntarget-pause-ms=300\n\
    staging-kib=65536\non-busy=accept\nconfig-chunks=3\ncompress=none\nkind=diff\nparent=\n";

fn take() -> Take {
    Take {
        token: Token([0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]),
        domid: DomId::new(7),
        handle: DomHandle::new(core::array::from_fn(|at| (at as u8) << 4 | 0xf)),
        name: "web01@2026-11-22T15:00:00Z".parse().unwrap(),
        mode: Mode::Live,
        created_unix: 1_795_359_600,
        release_port: EvtchnPort::new(42),
        max_pause_ms: Some(10_000),
        round1_skip: false,
        h_milli: 5100,
        target_pause_ms: 300,
        staging_kib: Some(65536),
        on_busy: Busy::Accept,
        config_chunks: 3,
        compression: Compression::None,
        kind: Kind::Diff,
        parent: None,
        pv_tracking: false,
    }
}

fn key(text: &str) -> Key {
    Key::try_from(text).unwrap()
}

#[test]
fn a_take_is_written_and_read_byte_for_byte() {
    assert_eq!(take().to_string(), TAKE);
    assert_eq!(Request::parse(TAKE.as_bytes()), Ok(Request::Take(take())));
    assert_eq!(Request::parse(TAKE.trim_end().as_bytes()), Ok(Request::Take(take())));
    let default = Request::Take(Take { compression: Compression::Lz4, kind: Kind::Full, ..take() });
    assert_eq!(
        Request::parse(TAKE.replace("compress=none\nkind=diff\nparent=\n", "").as_bytes()),
        Ok(default),
        "the default"
    );
}

#[test]
fn each_way_of_being_wrong_has_its_own_error() {
    let wrong = |from: &str, to: &str| Request::parse(TAKE.replace(from, to).as_bytes()).unwrap_err();
    assert_eq!(wrong("protocol=1", "protocol=2"), ParseError::WrongVersion);
    assert_eq!(wrong("protocol=1\n", ""), ParseError::MissingKey(key("protocol")));
    assert_eq!(wrong("domid=7\n", ""), ParseError::MissingKey(key("domid")));
    assert_eq!(wrong("domid=7\n", "domid=7\ndomid=7\n"), ParseError::DuplicateKey(key("domid")));
    assert_eq!(wrong("domid=7\n", "colour=red\ndomid=7\n"), ParseError::UnknownKey(key("colour")));
    assert_eq!(wrong("domid=7\n", "domid\n"), ParseError::NotKeyValue);
    assert_eq!(wrong("domid=7\n", "\ndomid=7\n"), ParseError::NotKeyValue);
    assert_eq!(wrong("web01", "we\tb01"), ParseError::ControlCharacter);
    for (good, bad, name) in [
        ("domid=7", "domid=0", "domid"),
        ("compress=none", "compress=zip", "compress"),
        ("domid=7", "domid=32752", "domid"),
        ("domid=7", "domid=65543", "domid"),
        ("domid=7", "domid=+7", "domid"),
        ("domid=7", "domid=07", "domid"),
        ("op=take", "op=shred", "op"),
        ("mode=live", "mode=LIVE", "mode"),
        ("token=00", "token=0", "token"),
        ("token=00", "token=0G", "token"),
        ("handle=0f", "handle=0F", "handle"),
        ("4f5f-6f7f", "4f5f6-f7f", "handle"),
        ("guest=web01", "guest=", "guest"),
        ("guest=web01", "guest=a/b", "guest"),
        ("release-port=42", "release-port=0", "release-port"),
        ("max-pause-ms=10000", "max-pause-ms=3600001", "max-pause-ms"),
        ("round1-skip=0", "round1-skip=yes", "round1-skip"),
        ("mode=live", "mode=stage", "mode"),
        ("h-milli=5100", "h-milli=1000001", "h-milli"),
        ("target-pause-ms=300", "target-pause-ms=0", "target-pause-ms"),
        ("target-pause-ms=300", "target-pause-ms=10001", "target-pause-ms"),
        ("staging-kib=65536", "staging-kib=4294967296", "staging-kib"),
        ("on-busy=accept", "on-busy=panic", "on-busy"),
        ("config-chunks=3", "config-chunks=65", "config-chunks"),
        ("created=1795359600", "created=18446744073709551616", "created"),
    ] {
        assert_eq!(wrong(good, bad), ParseError::BadValue(key(name)), "{bad}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    assert_eq!(Request::parse(b"protocol=1\nguest=\xff\xfe"), Err(ParseError::NotUtf8));
    assert_eq!(Request::parse(&vec![b'a'; NODE_MAX + 1]), Err(ParseError::TooLong));
    assert_eq!(Request::parse(b""), Err(ParseError::NotKeyValue));
}

#[test]
fn the_token_of_a_malformed_request_is_found() {
    assert_eq!(Request::token_of(TAKE.replace("mode=live", "mode=\u{e9}").as_bytes()), Some(take().token));
    assert_eq!(Request::token_of(b"protocol=1\nop=take\n"), None);
    assert_eq!(Request::token_of(b"\xfftoken=00112233445566778899aabbccddeeff"), None);
}

#[test]
fn a_removal_has_its_own_keys() {
    let remove = Remove { token: take().token, name: take().name };
    assert_eq!(Request::parse(remove.to_string().as_bytes()), Ok(Request::Remove(remove.clone())));
    let extra = format!("{remove}domid=7\n");
    assert_eq!(Request::parse(extra.as_bytes()), Err(ParseError::UnknownKey(key("domid"))));
}

#[test]
fn names_hold_nothing_that_needs_quoting() {
    assert_eq!("".parse::<Name>(), Err(NameError::Empty));
    assert_eq!("a".repeat(65).parse::<Name>(), Err(NameError::TooLong));
    assert_eq!("a b".parse::<Name>(), Err(NameError::BadCharacter));
    assert_eq!("..".parse::<Name>(), Err(NameError::BadStart));
    assert_eq!("-x".parse::<Name>(), Err(NameError::BadStart));
    assert_eq!("web01".parse::<SnapshotName>(), Err(NameError::NotGuestAtName));
    assert_eq!("a@b@c".parse::<SnapshotName>(), Err(NameError::NotGuestAtName));
    assert_eq!("web01@daily".parse::<SnapshotName>().unwrap().to_string(), "web01@daily");
}

#[test]
fn states_and_faults_have_distinct_words() {
    for state in State::ALL {
        assert_eq!(state.word().parse(), Ok(state));
    }
    for &fault in Fault::ALL {
        assert_eq!(fault.word().parse(), Ok(fault));
    }
    assert_eq!(State::ALL.iter().filter(|state| state.is_final()).count(), 5);
}

#[test]
fn the_longest_status_fits_a_node() {
    let counters = Counters {
        round: u64::MAX,
        rounds: u64::MAX,
        memory: u64::MAX,
        pages: u64::MAX,
        zero: u64::MAX,
        skipped: u64::MAX,
        dirty: u64::MAX,
        bytes: u64::MAX,
        cleans: u64::MAX,
        peeks: u64::MAX,
        pause_calls: u64::MAX,
        pause_pages: u64::MAX,
        pause_us: u64::MAX,
        staging: u64::MAX,
        staged: u64::MAX,
        packed: u64::MAX,
        predicted_us: u64::MAX,
        renewed_us: u64::MAX,
        throttle: u64::MAX,
        shared: u64::MAX,
        written: u64::MAX,
        requests: u64::MAX,
        notifications: u64::MAX,
        elapsed_us: u64::MAX,
    };
    let longest = Status::refused(take().token, Fault::NoSuchSnapshot, "x".repeat(500));
    let (base, why_full) = (Line::of("x".repeat(500)), Line::of("x".repeat(500)));
    let longest = Status { counters, base, why_full, ..longest };
    let text = longest.to_string();
    assert!(text.len() <= NODE_MAX, "{}", text.len());
    assert_eq!(Status::parse(text.as_bytes()), Ok(longest));
}

#[test]
fn a_reason_cannot_forge_a_line() {
    let status = Status::refused(take().token, Fault::BadRequest, "no\nstate=sealed");
    let read = Status::parse(status.to_string().as_bytes()).unwrap();
    assert_eq!((read.state, read.reason.as_str()), (State::Refused, "no?state=sealed"));
}

#[test]
fn the_stub_node_round_trips_and_checks_its_version() {
    let node = StubNode {
        version: Line::of("0.1.0"),
        state: StubState::Failed,
        reason: Line::of("no disk"),
        memory_total: 1 << 26,
        memory_free: 5,
        xenstore_requests: 25,
        store_id: Some(take().token),
        generation: 9,
        device: Line::of("51712"),
        blocks: 1 << 20,
        armed: Line::of("5 7"),
    };
    let text = node.to_string();
    assert_eq!(StubNode::parse(text.as_bytes()), Ok(node.clone()));
    let without = StubNode { store_id: None, ..node };
    assert_eq!(StubNode::parse(without.to_string().as_bytes()), Ok(without));
    let newer = text.replace("protocol=1", "protocol=2");
    assert_eq!(StubNode::parse(newer.as_bytes()), Err(ParseError::WrongVersion));
}

#[test]
fn verdict_and_cancel_round_trip() {
    for resumed in [true, false] {
        let disks = if resumed { "xvda=/dev/vg0/a;xvdb=/dev/vg0/b" } else { "" }.into();
        let verdict = Verdict { token: take().token, resumed, reason: Line::of(""), disks };
        assert_eq!(Verdict::parse(verdict.to_string().as_bytes()), Ok(verdict));
    }
    let cancel = Cancel { token: take().token };
    assert_eq!(Cancel::parse(cancel.to_string().as_bytes()), Ok(cancel));
    assert!(Verdict::parse(cancel.to_string().as_bytes()).is_err());
}

prop_compose! {
    fn any_take()(
        token: [u8; 16], handle: [u8; 16], domid in 1u16..0x7ff0, guest in "[A-Za-z0-9_][A-Za-z0-9._+:-]{0,63}",
        name in "[A-Za-z0-9_][A-Za-z0-9._+:-]{0,63}", created_unix: u64, port in 1u32..,
        pause in 0u32..=3_600_000, round1_skip: bool, config_chunks in 0u16..=64, packs: bool,
        (mode, busy, h_milli, kib) in (0..Mode::ALL.len(), 0..Busy::ALL.len(), 0u32..=1_000_000, any::<u32>()),
    ) -> Take {
        Take {
            token: Token(token), domid: DomId::new(domid), handle: DomHandle::new(handle),
            name: SnapshotName { guest: guest.parse().unwrap(), name: name.parse().unwrap() },
            mode: Mode::ALL[mode].0, created_unix, release_port: EvtchnPort::new(port),
            max_pause_ms: Some(pause).filter(|&pause| pause > 0), round1_skip, config_chunks,
            h_milli, staging_kib: Some(kib).filter(|&kib| kib > 0), on_busy: Busy::ALL[busy].0,
            target_pause_ms: (pause / 2).max(1),
            compression: if packs { Compression::Lz4 } else { Compression::None },
            kind: Kind::ALL[mode % 3].0,
            parent: (mode % 3 == 2 && packs).then(|| "daily".parse().unwrap()),
            pv_tracking: mode % 3 == 2 && round1_skip,
        }
    }
}

proptest! {
    #[test]
    fn every_legal_take_round_trips(take in any_take()) {
        let text = take.to_string();
        prop_assert!(text.len() <= NODE_MAX);
        prop_assert_eq!(Request::parse(text.as_bytes()), Ok(Request::Take(take)));
    }

    /// A parser may refuse, never panic; what it takes, it must write back to a text that means the same.
    #[test]
    fn hostile_bytes_are_refused_or_mean_themselves(bytes in prop::collection::vec(any::<u8>(), 0..2100)) {
        if let Ok(request) = Request::parse(&bytes) {
            prop_assert_eq!(Request::parse(request.to_string().as_bytes()), Ok(request));
        }
        let _ = (Status::parse(&bytes), StubNode::parse(&bytes), Verdict::parse(&bytes), Cancel::parse(&bytes));
        let _ = Request::token_of(&bytes);
    }

    /// Mutations of a good request reach the deeper checks.
    #[test]
    fn a_mutated_take_is_refused_or_means_itself(at in 0..TAKE.len(), byte: u8) {
        let mut bytes = TAKE.as_bytes().to_vec();
        bytes[at] = byte;
        match Request::parse(&bytes) {
            Ok(request) => {
                let written = request.to_string();
                prop_assert_eq!(written.as_bytes().trim_ascii_end(), bytes.trim_ascii_end());
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

/// The rows `| a | b | ...` of a document, cells trimmed.
fn rows(document: &str) -> impl Iterator<Item = Vec<&str>> {
    document.lines().filter(|line| line.starts_with('|')).map(|line| line.split('|').skip(1).map(str::trim).collect())
}

#[test]
fn the_document_lists_every_word() {
    let document = include_str!("../../docs/protocol/xenstore.md");
    let first: Vec<&str> = rows(document).map(|cells| cells[0]).collect();
    let listed = |word: &str| first.iter().any(|cell| cell.split(", ").any(|name| name == format!("`{word}`")));
    for fault in Fault::ALL {
        assert!(listed(fault.word()), "{fault}");
    }
    for state in State::ALL {
        assert!(listed(state.word()), "{state}");
    }
    for line in TAKE.lines().chain(Status::new(take().token, State::Done).to_string().lines()) {
        let key = line.split('=').next().unwrap();
        assert!(listed(key), "{key}");
    }
}

#[test]
fn the_document_has_the_bounds_of_the_code() {
    use snapshot::session::limits::*;
    let document = include_str!("../../docs/protocol/failures.md");
    let value = |name: &str| {
        let row = rows(document).find(|cells| cells[0] == format!("`{name}`")).expect(name);
        row[1].trim_end_matches(" ms").parse::<u64>().expect(name)
    };
    for (name, ns) in [
        ("SUSPEND_WAIT_NS", SUSPEND_WAIT_NS),
        ("SUSPEND_POLL_NS", SUSPEND_POLL_NS),
        ("LOOK_NS", LOOK_NS),
        ("SUSPEND_LIKELY_NS", SUSPEND_LIKELY_NS),
        ("VERDICT_WAIT_NS", VERDICT_WAIT_NS),
        ("VERDICT_POLL_NS", VERDICT_POLL_NS),
        ("OFF_RETRY_NS", OFF_RETRY_NS),
        ("PROGRESS_NS", PROGRESS_NS),
        ("THROTTLE_SETTLE_NS", THROTTLE_SETTLE_NS),
        ("SETTLE_NS", SETTLE_NS),
    ] {
        assert_eq!(value(name) * 1_000_000, ns, "{name}");
    }
    assert_eq!(value("SETTLE_LOOKS_MAX"), u64::from(SETTLE_LOOKS_MAX));
    assert_eq!(value("OFF_ATTEMPTS"), u64::from(OFF_ATTEMPTS));
    assert_eq!(value("FULL_PASSES_MAX"), u64::from(FULL_PASSES_MAX));
    assert_eq!(value("MESSAGES_MAX"), MESSAGES_MAX as u64);
}
