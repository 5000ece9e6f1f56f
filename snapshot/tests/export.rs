//! The export against golden bytes and against a parser of its own, written from Xen's specifications.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use snapshot::export::{EachPage, ExportError, ExportOptions, Source, export};
use snapshot::ports::{PAGE_SIZE, Page, RecordKind};
use snapshot::stream::Sink;
use snapshot::take::{Attachment, Records};
use xen_hypercall::types::Gfn;

#[derive(Clone)]
struct Fake {
    config: Option<Vec<u8>>,
    fixed: Option<Vec<u8>>,
    platform: Option<Vec<u8>>,
    types: Option<Vec<u8>>,
    /// First byte of each page; 0 is a page of zeros.
    pages: BTreeMap<u64, u8>,
}

/// Mode, kHz, nanoseconds, incarnation, and four reserved bytes.
const TSC: [u8; 24] = [1, 0, 0, 0, 0, 9, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];

fn records(list: &[(RecordKind, &[u8])]) -> Vec<u8> {
    let mut records = Records::try_new(16384).unwrap();
    list.iter().for_each(|(kind, body)| records.push(*kind, body));
    records.bytes().unwrap().to_vec()
}

fn fake(pages: impl IntoIterator<Item = (u64, u8)>) -> Fake {
    Fake {
        config: Some(b"{}".to_vec()),
        fixed: Some(records(&[(RecordKind::X86_CPUID_POLICY, &[1; 24]), (RecordKind::X86_MSR_POLICY, &[2; 16])])),
        platform: Some(records(&[
            (RecordKind::X86_TSC_INFO, &TSC),
            (RecordKind::HVM_CONTEXT, &[4; 13]),
            (RecordKind::HVM_PARAMS, &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]),
        ])),
        types: None,
        pages: pages.into_iter().collect(),
    }
}

/// A PV guest whose pfn 3 is a pinned L4 table and whose pfns 4 and 5 are L1 tables.
fn fake_pv() -> Fake {
    Fake {
        fixed: Some(records(&[
            (RecordKind::X86_PV_INFO, &[8, 4, 0, 0, 0, 0, 0, 0]),
            (RecordKind::X86_MSR_POLICY, &[]),
        ])),
        platform: Some(records(&[
            (RecordKind::X86_PV_P2M_FRAMES, &[0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
            (RecordKind::X86_TSC_INFO, &TSC),
            (RecordKind::SHARED_INFO, &[6; PAGE_SIZE]),
            (RecordKind::X86_PV_VCPU_BASIC, &[0; 5176]),
            (RecordKind::X86_PV_VCPU_EXTENDED, &[0; 72]),
            (RecordKind::X86_PV_VCPU_XSAVE, &[0; 584]),
            (RecordKind::X86_PV_VCPU_MSRS, &[0; 24]),
        ])),
        types: Some([3 | 0xc << 56, 4 | 1 << 40 | 1 << 56].map(u64::to_le_bytes).concat()),
        ..fake([(1, 1), (3, 0), (4, 2), (5, 2), (6, 1)])
    }
}

impl Source for Fake {
    type Error = &'static str;

    fn attachment(&mut self, kind: Attachment) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(match kind {
            Attachment::ConfigJson => self.config.clone(),
            Attachment::StaticRecords => self.fixed.clone(),
            Attachment::PlatformRecords => self.platform.clone(),
            Attachment::Stats | Attachment::Trace | Attachment::Disks => None,
            Attachment::PageTypes => self.types.clone(),
        })
    }

    fn pages(&mut self, each: &mut EachPage<'_>) -> Result<(), Self::Error> {
        for (&gfn, &byte) in &self.pages {
            let page = [byte; PAGE_SIZE];
            if each(Gfn::new(gfn), (byte != 0).then_some(&page)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

struct Pipe {
    bytes: Vec<u8>,
    room: usize,
}

impl Sink for Pipe {
    type Error = &'static str;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        if self.bytes.len() + bytes.len() > self.room {
            return Err("broken pipe");
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

fn image(mut source: Fake) -> Vec<u8> {
    let mut pipe = Pipe { bytes: Vec::new(), room: usize::MAX };
    export(&mut source, &mut pipe, &ExportOptions::default()).unwrap();
    pipe.bytes
}

/// Reads the stream by the specification, asserting everything that a restorer checks.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(length);
        self.0 = rest;
        head
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }

    fn record(&mut self) -> (u32, &'a [u8]) {
        let (kind, length) = (self.u32(), self.u32() as usize);
        let body = self.take(length);
        assert!(self.take(length.next_multiple_of(8) - length).iter().all(|byte| *byte == 0));
        (kind, body)
    }
}

fn parse_pages(body: &[u8], pages: &mut BTreeMap<u64, Page>) {
    let mut reader = Reader(body);
    let (count, reserved) = (reader.u32() as usize, reader.u32());
    assert!(reserved == 0 && count > 0 && count <= 1024);
    // Bits 60 to 63 are the type, which the tests of PV look at.
    let pfns: Vec<u64> = (0..count).map(|_| reader.u64() & ((1 << 60) - 1)).collect();
    assert!(pfns.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(pfns[0] / 1024, pfns[count - 1] / 1024, "one aligned window");
    for pfn in pfns {
        let page = reader.take(PAGE_SIZE).try_into().unwrap();
        assert!(pages.last_key_value().is_none_or(|(last, _)| *last < pfn), "each page once, in order");
        pages.insert(pfn, page);
    }
    assert!(reader.0.is_empty());
}

fn parse(bytes: &[u8]) -> (Vec<u8>, Vec<u32>, BTreeMap<u64, Page>) {
    let mut reader = Reader(bytes);
    assert_eq!(reader.take(32), b"Xen saved domain, xl format\n \0 \r");
    assert_eq!((reader.u32(), reader.u32(), reader.u32()), (0x0102_0304, 3, 0));
    let (optional, config_length) = (reader.u32(), reader.u32());
    assert_eq!(optional, config_length + 4);
    let config = reader.take(config_length as usize).to_vec();
    assert_eq!(reader.take(16), b"LibxlFmt\0\0\0\x02\0\0\0\0");
    assert_eq!((reader.u32(), reader.u32()), (1, 0));
    assert_eq!(reader.take(24), b"\xff\xff\xff\xff\xff\xff\xff\xffXENF\0\0\0\x03\0\0\0\0\0\0\0\0");
    assert!(matches!(reader.u32(), 1 | 2));
    assert_eq!((reader.u32(), reader.u32(), reader.u32()), (12, 4, 17));
    let (mut kinds, mut pages) = (Vec::new(), BTreeMap::new());
    loop {
        let (kind, body) = reader.record();
        if kind == 1 {
            parse_pages(body, &mut pages);
        }
        if kinds.last() != Some(&kind) || kind != 1 {
            kinds.push(kind);
        }
        if kind == 0 {
            assert!(body.is_empty());
            break;
        }
    }
    assert_eq!(reader.take(8), [0; 8], "libxl END");
    assert!(reader.0.is_empty(), "nothing behind the end");
    (config, kinds, pages)
}

#[test]
fn the_smallest_image_byte_for_byte() {
    let mut source = fake([(1, 7)]);
    source.fixed = Some(Vec::new());
    source.platform = Some(records(&[(RecordKind::X86_TSC_INFO, &[3; 24])]));
    let mut expected =
        b"Xen saved domain, xl format\n \0 \r\x04\x03\x02\x01\x03\0\0\0\0\0\0\0\x07\0\0\0\x03\0\0\0{}\0".to_vec();
    expected.extend(b"LibxlFmt\0\0\0\x02\0\0\0\0\x01\0\0\0\0\0\0\0");
    expected.extend(
        b"\xff\xff\xff\xff\xff\xff\xff\xffXENF\0\0\0\x03\0\0\0\0\0\0\0\0\x02\0\0\0\x0c\0\0\0\x04\0\0\0\x11\0\0\0",
    );
    expected.extend(b"\x10\0\0\0\0\0\0\0");
    expected.extend(b"\x01\0\0\0\x10\x10\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
    expected.extend([7; PAGE_SIZE]);
    expected.extend(b"\x08\0\0\0\x18\0\0\0");
    expected.extend([3; 24]);
    expected.extend([0; 16]);
    assert_eq!(image(source), expected);
}

#[test]
fn records_come_in_the_order_that_a_restore_needs() {
    let (config, kinds, _) = parse(&image(fake([(0, 1), (5000, 0)])));
    assert_eq!(config, b"{}\0");
    assert_eq!(kinds, [0x11, 0x12, 0x10, 1, 8, 9, 0xa, 0]);
}

#[test]
fn a_pv_guest_has_its_own_order_and_its_page_types() {
    let bytes = image(fake_pv());
    let (_, kinds, pages) = parse(&bytes);
    assert_eq!(kinds, [2, 0x12, 0x10, 3, 1, 8, 7, 4, 5, 6, 0xc, 0]);
    assert_eq!(pages.len(), 5);
    // Behind file header, libxl's header, image header: a domain header of type 1.
    assert_eq!(bytes[55 + 24 + 24..][..16], [1, 0, 0, 0, 12, 0, 0, 0, 4, 0, 0, 0, 17, 0, 0, 0]);
    // PAGE_DATA: five entries, then five pages.
    let page_data = [[1, 0, 0, 0, 0x30, 0x50, 0, 0], [5, 0, 0, 0, 0, 0, 0, 0]].concat();
    let at = bytes.windows(16).position(|window| window == page_data).unwrap() + 16;
    let entries = [[1, 0, 0, 0, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 0, 0xc0], [4, 0, 0, 0, 0, 0, 0, 0x10]];
    assert_eq!(bytes[at..at + 24], entries.concat());
    assert_eq!(bytes[at + 24..at + 40], [[5, 0, 0, 0, 0, 0, 0, 0x10], [6, 0, 0, 0, 0, 0, 0, 0]].concat());
}

#[test]
fn another_configuration_can_stand_for_the_recorded_one() {
    let mut pipe = Pipe { bytes: Vec::new(), room: usize::MAX };
    let options = ExportOptions { config: Some(b"{\"clone\":1}"), ..ExportOptions::default() };
    export(&mut fake([(1, 1)]), &mut pipe, &options).unwrap();
    assert_eq!(parse(&pipe.bytes).0, b"{\"clone\":1}\0");
}

#[test]
fn what_no_restore_can_use_is_refused_before_the_first_byte() {
    let good = fake([(1, 1)]);
    for broken in [
        Fake { config: None, ..good.clone() },
        Fake { config: Some(b"a\0b".to_vec()), ..good.clone() },
        Fake { config: Some(Vec::new()), ..good.clone() },
        Fake { fixed: None, ..good.clone() },
        Fake { platform: None, ..good.clone() },
        Fake { platform: Some(vec![9, 0, 0, 0, 255, 0, 0, 0]), ..good.clone() },
        Fake { platform: Some(vec![1, 0, 0, 0, 0, 0, 0, 0]), ..good.clone() },
        Fake { fixed: good.platform.clone(), ..good.clone() },
        Fake { fixed: good.fixed.clone(), ..fake_pv() },
        Fake { platform: good.platform.clone(), ..fake_pv() },
        Fake { types: Some(vec![1; 9]), ..fake_pv() },
        Fake { types: Some(vec![1, 0, 0, 0, 0, 0, 0, 5]), ..fake_pv() },
    ] {
        let mut pipe = Pipe { bytes: Vec::new(), room: usize::MAX };
        let answer = export(&mut broken.clone(), &mut pipe, &ExportOptions::default());
        assert!(matches!(answer, Err(ExportError::Unusable(_))), "{answer:?}");
        assert!(pipe.bytes.is_empty());
    }
}

#[test]
fn a_pipe_that_breaks_anywhere_ends_the_export() {
    let whole = image(fake([(1, 1), (1024, 0)])).len();
    for room in (0..whole).step_by(97) {
        let mut pipe = Pipe { bytes: Vec::new(), room };
        let answer = export(&mut fake([(1, 1), (1024, 0)]), &mut pipe, &ExportOptions::default());
        assert_eq!(answer, Err(ExportError::Sink("broken pipe")), "{room}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn every_page_comes_out_once_as_it_was(pages in prop::collection::btree_map(0u64..6000, 0u8..3, 1..1500)) {
        let (_, _, found) = parse(&image(fake(pages.clone())));
        prop_assert_eq!(found.len(), pages.len());
        for (gfn, byte) in pages {
            prop_assert_eq!(found[&gfn], [byte; PAGE_SIZE]);
        }
    }
}
