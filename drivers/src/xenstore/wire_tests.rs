//! Golden bytes and properties of the codec.

use super::*;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

/// The message as hex groups would be unreadable: header words, then the payload as it stands.
fn emitted(request: &Request<'_>) -> (Header, Vec<u8>) {
    let mut out = vec![1, 2, 3];
    request.emit(0x0102_0304, 5, &mut out).unwrap();
    (Header::parse(out.first_chunk().unwrap()).unwrap(), out[HEADER_LEN..].to_vec())
}

#[test]
fn a_read_is_these_bytes() {
    let mut out = Vec::new();
    Request::Read("domid").emit(0x0102_0304, 7, &mut out).unwrap();
    assert_eq!(out, b"\x02\0\0\0\x04\x03\x02\x01\x07\0\0\0\x06\0\0\0domid\0");
}

#[test]
fn every_request_has_its_kind_and_payload() {
    let perms = [Perm::new(Rights::None, DomId::new(3)), Perm::new(Rights::Both, DomId::new(12))];
    let cases: [(Request<'_>, u32, &[u8]); 14] = [
        (Request::Directory("/local"), 1, b"/local\0"),
        (Request::DirectoryPart("/local", 4000), 22, b"/local\x004000\0"),
        (Request::Read("a/b"), 2, b"a/b\0"),
        (Request::GetPerms("@releaseDomain"), 3, b"@releaseDomain\0"),
        (Request::Watch("a", "t"), 4, b"a\0t\0"),
        (Request::Unwatch("a", "t"), 5, b"a\0t\0"),
        (Request::TransactionStart, 6, b"\0"),
        (Request::TransactionEnd(true), 7, b"T\0"),
        (Request::TransactionEnd(false), 7, b"F\0"),
        (Request::GetDomainPath(DomId::new(7)), 10, b"7\0"),
        (Request::Write("a", b"va\0lue"), 11, b"a\0va\0lue"),
        (Request::Mkdir("a"), 12, b"a\0"),
        (Request::Rm("a"), 13, b"a\0"),
        (Request::SetPerms("a", &perms), 14, b"a\0n3\0b12\0"),
    ];
    for (request, kind, payload) in cases {
        let (header, bytes) = emitted(&request);
        assert_eq!(header, Header { kind, req_id: 0x0102_0304, tx_id: 5, len: payload.len() as u32 }, "{request:?}");
        assert_eq!(bytes, payload, "{request:?}");
    }
    assert_eq!(
        emitted(&Request::Resume(DomId::new(9))),
        (Header { kind: 18, req_id: 0x0102_0304, tx_id: 5, len: 2 }, b"9\0".to_vec())
    );
}

#[test]
fn paths_that_xenstored_would_refuse_are_not_sent() {
    let long_abs = "/".to_string() + &"a".repeat(3071);
    let long_rel = "a".repeat(2048);
    for path in ["", "a b", "a\0b", "a//b", "a/", "//", "/a/", "\u{e4}", "a.b", long_abs.as_str(), long_rel.as_str()] {
        assert!(check_path(path).is_err(), "{path:?}");
    }
    for path in ["/", "a", "/a/b-c_d@1", "@introduceDomain", &long_abs[..3071], &long_rel[..2047]] {
        assert_eq!(check_path(path), Ok(()), "{path:?}");
    }
}

#[test]
fn a_payload_of_4096_bytes_passes_and_one_more_does_not() {
    let value = vec![b'x'; PAYLOAD_MAX];
    let mut out = Vec::new();
    assert_eq!(Request::Write("a", &value[2..]).emit(1, 0, &mut out), Ok(()));
    assert_eq!(out.len(), HEADER_LEN + PAYLOAD_MAX);
    assert_eq!(Request::Write("a", &value[1..]).emit(1, 0, &mut out), Err(Refused::PayloadTooLong));
    assert_eq!(Request::Watch("a", "").emit(1, 0, &mut out), Err(Refused::BadToken));
    assert_eq!(Request::Watch("a", &"t".repeat(65)).emit(1, 0, &mut out), Err(Refused::BadToken));
    assert_eq!(Request::Watch("a", "t\0u").emit(1, 0, &mut out), Err(Refused::BadToken));
}

#[test]
fn a_header_beyond_the_payload_bound_is_malformed() {
    let mut bytes = Header { kind: 2, req_id: 1, tx_id: 0, len: 4096 }.emit();
    assert!(Header::parse(&bytes).is_ok());
    bytes[12..].copy_from_slice(&4097u32.to_le_bytes());
    assert_eq!(Header::parse(&bytes), Err(Malformed));
}

#[test]
fn texts_end_in_nul_each() {
    assert_eq!(texts(b""), Ok(vec![]));
    assert_eq!(texts(b"a\0\0"), Ok(vec!["a", ""]));
    assert_eq!(texts(b"a"), Err(Malformed));
    assert_eq!(texts(b"\xff\0"), Err(Malformed));
    assert_eq!(text(b"a\0b\0"), Err(Malformed));
    assert_eq!(text(b""), Err(Malformed));
}

#[test]
fn perms_and_numbers_take_nothing_odd() {
    for odd in ["", "x1", "n", "n-1", "n+1", "n65536", "n1 ", "\u{e4}1"] {
        assert!(Perm::parse(odd).is_err(), "{odd:?}");
    }
    assert_eq!(Perm::parse("w65535"), Ok(Perm::new(Rights::Write, DomId::new(65535))));
    for odd in ["", "+1", "-1", " 1", "1a", "4294967296"] {
        assert!(parse_decimal::<u32>(odd).is_err(), "{odd:?}");
    }
}

proptest! {
    #[test]
    fn headers_round_trip(kind: u32, req_id: u32, tx_id: u32, len in 0u32..=4096) {
        let header = Header { kind, req_id, tx_id, len };
        prop_assert_eq!(Header::parse(&header.emit()), Ok(header));
    }

    #[test]
    fn no_header_bytes_panic_or_pass_the_bound(bytes: [u8; 16]) {
        if let Ok(header) = Header::parse(&bytes) {
            prop_assert!(header.len as usize <= PAYLOAD_MAX);
            prop_assert_eq!(header.emit(), bytes);
        }
    }

    #[test]
    fn no_payload_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(parts) = texts(&bytes) {
            let again: Vec<u8> = parts.iter().flat_map(|part| part.bytes().chain([0])).collect();
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn whatever_is_emitted_is_a_legal_message(
        path in "[a-z/@ ]{0,40}",
        value in proptest::collection::vec(any::<u8>(), 0..5000),
    ) {
        let mut out = Vec::new();
        if Request::Write(&path, &value).emit(9, 0, &mut out).is_ok() {
            let header = Header::parse(out.first_chunk().unwrap()).unwrap();
            prop_assert_eq!(header.len as usize + HEADER_LEN, out.len());
            prop_assert!(out[HEADER_LEN..].ends_with(&value));
            prop_assert_eq!(check_path(&path), Ok(()));
        }
    }

    #[test]
    fn perms_round_trip(domid: u16, which in 0usize..4) {
        let perm = Perm::new([Rights::None, Rights::Read, Rights::Write, Rights::Both][which], DomId::new(domid));
        let mut text = String::new();
        perm.emit(&mut text);
        prop_assert_eq!(Perm::parse(text.trim_end_matches('\0')), Ok(perm));
    }
}
