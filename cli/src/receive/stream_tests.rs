//! A migration of two pages, byte for byte as the specifications draw it, and each way of being wrong.

use super::*;

fn record_of(kind: u32, body: &[u8]) -> Vec<u8> {
    let padding = vec![0; body.len().next_multiple_of(8) - body.len()];
    [&kind.to_le_bytes()[..], &u32::try_from(body.len()).unwrap().to_le_bytes(), body, &padding].concat()
}

fn pages(entries: &[u64], contents: usize) -> Vec<u8> {
    let mut body = (entries.len() as u64).to_le_bytes().to_vec();
    entries.iter().for_each(|entry| body.extend(entry.to_le_bytes()));
    body.extend(vec![0xa5; contents * PAGE_SIZE]);
    record_of(1, &body)
}

const CONFIG: &[u8] = b"{\"c_info\":{\"name\":\"web01\"},\"b_info\":{\"max_memkb\":131072}}\0";

fn xl(config: &[u8]) -> Vec<u8> {
    let mut bytes = b"Xen saved domain, xl format\n \0 \r".to_vec();
    let length = u32::try_from(config.len()).unwrap();
    for word in [0x0102_0304, 3, 0, length + 4, length] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(config);
    bytes
}

/// The libxl stream around these records of libxc.
fn around(kind: u8, libxc: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = xl(CONFIG);
    bytes.extend(b"LibxlFmt\0\0\0\x02\0\0\0\0");
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([255; 8]);
    bytes.extend(b"XENF\0\0\0\x03\0\0\0\0\0\0\0\0");
    bytes.extend([kind, 0, 0, 0, 12, 0, 0, 0, 4, 0, 0, 0, 17, 0, 0, 0]);
    bytes.extend(libxc.concat());
    bytes
}

fn hvm() -> Vec<Vec<u8>> {
    vec![
        record_of(0x11, &[1; 24]),
        record_of(0x10, &[]),
        pages(&[7, 8 | 0xf << 60], 1),
        pages(&[7], 1),
        record_of(0x8000_0099, b"skip me"),
        record_of(0xa, &[2; 8]),
        record_of(9, &[3; 13]),
        record_of(0, &[]),
    ]
}

fn golden() -> Vec<u8> {
    let emulator = [record_of(2, b"12345"), record_of(3, &[4; 16]), record_of(0, &[])].concat();
    [around(2, &hvm()), emulator].concat()
}

fn taken(bytes: &[u8]) -> Result<(Received, Vec<u8>), Exit> {
    let mut tap = Tap::new(bytes, Vec::new(), 1 << 30);
    let received = receive(&mut tap).map_err(|failure| failure.exit)?;
    Ok((received, tap.into_file().unwrap()))
}

fn refused(bytes: &[u8]) -> Exit {
    taken(bytes).unwrap_err()
}

/// The golden stream with records of libxc changed.
fn with(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let mut records = hvm();
    change(&mut records);
    [around(2, &records), record_of(0, &[])].concat()
}

#[test]
fn what_xl_sends_becomes_the_file_byte_for_byte() {
    let golden = golden();
    let (received, file) = taken(&golden).unwrap();
    assert_eq!(file, golden);
    let bytes = golden.len() as u64;
    assert_eq!(received, Received { name: "web01".to_owned(), pv: false, pages: 2, bytes });
    let behind = [golden.clone(), b"more".to_vec()].concat();
    assert_eq!(taken(&behind).unwrap().1, golden, "what comes behind the end is not of the image");
}

#[test]
fn a_pv_guest_needs_other_records() {
    let mut records = vec![record_of(2, &[8, 4, 0, 0, 0, 0, 0, 0]), record_of(0x10, &[]), pages(&[7 | 9 << 60], 1)];
    records.extend([3, 4, 7].map(|kind| record_of(kind, &[1; 8])));
    records.push(record_of(0, &[]));
    let whole = [around(1, &records), record_of(0, &[])].concat();
    assert!(taken(&whole).unwrap().0.pv);
    for (at, kind) in [(0, 2), (3, 3), (4, 4), (5, 7)] {
        let mut fewer = records.clone();
        fewer.remove(at);
        assert_eq!(refused(&[around(1, &fewer), record_of(0, &[])].concat()), Exit::BadStream, "without {kind}");
    }
}

#[test]
fn a_sender_that_breaks_off_anywhere_is_noticed() {
    let golden = golden();
    for length in 0..golden.len() {
        assert_eq!(refused(&golden[..length]), Exit::SenderGone, "{length}");
    }
}

/// Every byte that says something changed to another value: but for what a guest may have otherwise, it is refused.
#[test]
fn a_changed_byte_is_refused_or_content() {
    let golden = golden();
    let config = 52..52 + CONFIG.len();
    let version = config.end + 16 + 8 + 24 + 8..config.end + 16 + 8 + 24 + 16;
    for at in (0..config.end + 200).filter(|at| !config.contains(at) && !version.contains(at)) {
        for flip in [1_u8, 0x10, 0xff] {
            let mut changed = golden.clone();
            changed[at] ^= flip;
            if let Ok((received, _)) = taken(&changed) {
                // A policy's content, a page's number, a record that became another of the same length.
                assert!(received.pages >= 1 && !received.pv, "{at}");
                assert!(at >= version.end, "byte {at} of the headers may be anything");
            }
        }
    }
}

#[test]
fn each_way_of_being_wrong_is_told() {
    let last = hvm().len() - 1;
    let wrong = [
        ("static data missing", with(|records| drop(records.remove(1)))),
        ("context missing", with(|records| drop(records.remove(last - 1)))),
        ("parameters missing", with(|records| drop(records.remove(last - 2)))),
        ("no page", with(|records| drop(records.drain(2..4)))),
        ("a checkpoint", with(|records| records[4] = record_of(0xe, &[]))),
        ("a list of checkpoints", with(|records| records[4] = record_of(0xf, &[0; 8]))),
        ("unknown record", with(|records| records[4] = record_of(0x13, &[0; 8]))),
        ("an end with a body", with(|records| records[last] = record_of(0, &[0; 8]))),
        ("an empty batch", with(|records| records[2] = pages(&[], 0))),
        ("a batch too long", with(|records| records[2] = pages(&[7, 8], 3))),
        ("a batch too short", with(|records| records[2] = pages(&[7, 8], 1))),
        ("no such type of page", with(|records| records[2] = pages(&[7 | 5 << 60], 1))),
        ("a page beyond 2^52", with(|records| records[2] = pages(&[7 | 1 << 52], 1))),
        ("padding", with(|records| *records[4].last_mut().unwrap() = 1)),
        ("a record too long", with(|records| records[4][4..8].copy_from_slice(&[0, 0, 0, 9]))),
        ("an endless batch", with(|records| records[2][8..12].fill(0xff))),
        ("libxl's checkpoint", [around(2, &hvm()), record_of(4, &[])].concat()),
        ("libxl without end", [around(2, &hvm()), record_of(2, &[]).repeat(9)].concat()),
        ("another kind of guest", around(3, &hvm())),
    ];
    for (what, bytes) in wrong {
        assert_eq!(refused(&bytes), Exit::BadStream, "{what}");
    }
}

#[test]
fn a_header_is_bounded_and_a_configuration_read() {
    let mut long = xl(CONFIG);
    long[44..48].copy_from_slice(&(CONFIG_BYTES_MAX + 5).to_le_bytes());
    assert_eq!(refused(&long), Exit::BadStream);
    for optional in [0_u32, 3, 4] {
        long[44..48].copy_from_slice(&optional.to_le_bytes());
        assert_eq!(refused(&long), Exit::BadStream, "{optional}");
    }
    let mut differs = xl(CONFIG);
    differs[48] ^= 1;
    assert_eq!(refused(&differs), Exit::BadStream);
    assert_eq!(refused(&xl(b"memory = 7\0")), Exit::BadConfig);
    assert_eq!(refused(b"SSH-2.0-OpenSSH_9.2 is not what was expected here...........").code(), 46);
}

#[test]
fn a_stream_without_end_has_a_limit() {
    // 64 KiB of guest: what is beyond 256 MiB and eight times that is no guest of this size.
    let small = b"{\"c_info\":{},\"b_info\":{\"max_memkb\":64}}\0";
    let mut head = xl(small);
    head.extend_from_slice(&around(2, &[record_of(0x10, &[])])[xl(CONFIG).len()..]);
    let batch = pages(&vec![7; 1024], 1024);
    let mut endless: Box<dyn Read> = Box::new(&head[..]);
    for _ in 0..70 {
        endless = Box::new(endless.chain(&batch[..]));
    }
    let mut tap = Tap::new(endless, std::io::sink(), 1 << 30);
    let failure = receive(&mut tap).unwrap_err();
    assert_eq!(failure.exit, Exit::BadStream);
    assert!(failure.what.contains("for a guest of its size"), "{failure}");
}

#[test]
fn what_livesave_exports_is_taken_as_well() {
    let path = crate::catalog::tests::sample("receive");
    let place = crate::args::Place { stub: String::new(), store: Some(path.clone()), json: false };
    let mut store = crate::catalog::open(&place).unwrap();
    let mut image = Vec::new();
    crate::image::write(&mut store.snapshot("web01@one").unwrap(), None, &mut image).unwrap();
    std::fs::remove_file(path).unwrap();
    // The sample has no state of a machine: only that is missed, so all before it was understood.
    let mut tap = Tap::new(&image[..], Vec::new(), 1 << 30);
    match receive(&mut tap) {
        Ok(received) => assert_eq!(received.pages, 3),
        Err(failure) => assert!(failure.what.contains("without HVM_"), "{failure}"),
    }
}
