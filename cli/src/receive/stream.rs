//! What a migration looks like on the wire, checked while it passes: xl's header with the configuration, a libxl stream
//! version 2, a libxc stream version 3 (Xen: tools/xl/xl.h and xl_migrate.c, docs/specs/libxl-migration-stream.pandoc,
//! docs/specs/libxc-migration-stream.pandoc, tools/libs/guest/xg_sr_restore.c).
//!
//! Nothing in it is believed: every length is bounded before anything of that length is kept or let pass. What Xen's
//! restorer would refuse is refused here, while the guest that it was made of still lives.

use super::Tap;
use crate::config::Config;
use crate::exit::{Exit, Failure, Outcome};
use snapshot::ports::{PAGE_SIZE, RecordKind};
use snapshot::stream;
use std::io::{Read, Write};

/// Bytes before xl's optional data.
const XL_HEADER_BYTES: usize = 48;
/// Longest configuration. One of a guest with many devices has some 20 KiB.
const CONFIG_BYTES_MAX: u32 = 1 << 20;
/// REC_LENGTH_MAX.
const RECORD_BYTES_MAX: u32 = 128 << 20;
/// Most pages of a PAGE_DATA record. Xen's sender puts 1024 into one (MAX_BATCH_SIZE).
const BATCH_MAX: u32 = 1 << 15;
/// Records of libxl behind the libxc stream: a device model has two.
const LIBXL_RECORDS_MAX: u32 = 8;
/// A stream has each page at most six times, with xl's own policy, once more with `--debug`, and the rest.
const MEMORY_FACTOR: u64 = 8;
/// What does not grow with the memory.
const REST_BYTES: u64 = 256 << 20;
/// A configuration that does not say: 16 TiB, the most that Xen supports.
const MEMORY_KIB_MAX: u64 = 16 << 30;

/// What was received.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The guest's name, as the sender has it.
    pub name: String,
    /// PV, or HVM, which PVH is as well.
    pub pv: bool,
    /// Pages with content, each as often as it was sent.
    pub pages: u64,
    /// Bytes of the image.
    pub bytes: u64,
}

/// Records of libxl that a device model has (docs/specs/libxl-migration-stream.pandoc).
const EMULATOR_XENSTORE_DATA: RecordKind = RecordKind(0x2);
const EMULATOR_CONTEXT: RecordKind = RecordKind(0x3);

/// The last record of libxc that is known.
const LAST_KNOWN: RecordKind = RecordKind::X86_MSR_POLICY;

/// Without these there is no guest.
const NEEDED_HVM: [(RecordKind, &str); 2] =
    [(RecordKind::HVM_CONTEXT, "HVM_CONTEXT"), (RecordKind::HVM_PARAMS, "HVM_PARAMS")];
const NEEDED_PV: [(RecordKind, &str); 4] = [
    (RecordKind::X86_PV_INFO, "X86_PV_INFO"),
    (RecordKind::X86_PV_P2M_FRAMES, "X86_PV_P2M_FRAMES"),
    (RecordKind::X86_PV_VCPU_BASIC, "X86_PV_VCPU_BASIC"),
    (RecordKind::SHARED_INFO, "SHARED_INFO"),
];

/// Takes a whole migration, as the sender gives it after the banner, to its last byte and no further.
pub fn receive<R: Read, W: Write>(tap: &mut Tap<R, W>) -> Outcome<Received> {
    let config = xl_header(tap)?;
    let memory_kib = config.max_memory_kib().unwrap_or(MEMORY_KIB_MAX).min(MEMORY_KIB_MAX);
    tap.limit(memory_kib * 1024 * MEMORY_FACTOR + REST_BYTES);
    let mut received = Received { name: config.name().unwrap_or_default().to_owned(), ..Received::default() };
    libxl(tap, &mut received)?;
    received.bytes = tap.taken();
    Ok(received)
}

fn bad(what: impl std::fmt::Display) -> Failure {
    Exit::BadStream.fail(what)
}

/// struct save_file_header, and the configuration behind it.
fn xl_header<R: Read, W: Write>(tap: &mut Tap<R, W>) -> Outcome<Config> {
    let header: [u8; XL_HEADER_BYTES] = tap.array("xl's header")?;
    let optional = word(&header, XL_HEADER_BYTES - 4);
    let length = optional.checked_sub(4).filter(|length| (1..=CONFIG_BYTES_MAX).contains(length));
    let length = length.ok_or_else(|| bad(format_args!("xl's header announces {optional} bytes of configuration")))?;
    let expected = stream::file_header(length as usize - 1);
    if expected.is_none_or(|expected| expected[..XL_HEADER_BYTES] != header) {
        return Err(bad("what came is not what `xl migrate` sends (xl's header)"));
    }
    if word(&tap.array::<4>("xl's header")?, 0) != length {
        return Err(bad("xl's header contradicts itself about the configuration's length"));
    }
    Config::from_json(&tap.bytes(length as usize, "the configuration")?)
}

fn libxl<R: Read, W: Write>(tap: &mut Tap<R, W>, received: &mut Received) -> Outcome {
    if tap.array("libxl's header")? != stream::stream_header() {
        return Err(bad("libxl's header is not that of a stream of version 2"));
    }
    if tap.array("libxl's first record")? != stream::context_record() {
        return Err(bad("libxl's stream does not begin with the memory"));
    }
    libxc(tap, received)?;
    for _ in 0..LIBXL_RECORDS_MAX {
        match record(tap, "libxl's records")? {
            (RecordKind::END, 0) => return Ok(()),
            (EMULATOR_XENSTORE_DATA | EMULATOR_CONTEXT, length) => padded(tap, length, "the device model")?,
            (kind, length) => return Err(bad(format_args!("a record of libxl, type {:#x}, {length} bytes", kind.0))),
        }
    }
    Err(bad("too many records of libxl"))
}

fn libxc<R: Read, W: Write>(tap: &mut Tap<R, W>, received: &mut Received) -> Outcome {
    if tap.array("libxc's header")? != stream::image_header() {
        return Err(bad("libxc's header is not that of a stream of version 3"));
    }
    let domain: [u8; 16] = tap.array("libxc's header")?;
    let version = (word(&domain, 8), word(&domain, 12));
    received.pv = domain == stream::domain_header(stream::DomainType::Pv, version);
    if !received.pv && domain != stream::domain_header(stream::DomainType::Hvm, version) {
        return Err(bad("libxc's header names no kind of x86 guest"));
    }
    let mut seen = 0_u32;
    loop {
        let (kind, length) = record(tap, "libxc's records")?;
        match kind {
            RecordKind::END if length == 0 => return complete(received, seen),
            RecordKind::PAGE_DATA if seen & bit(RecordKind::STATIC_DATA_END) == 0 => {
                return Err(bad("pages before static data"));
            }
            RecordKind::PAGE_DATA => received.pages += page_data(tap, length)?,
            RecordKind::END | RecordKind::CHECKPOINT | RecordKind::CHECKPOINT_DIRTY_PFN_LIST => {
                return Err(bad("a stream with checkpoints (Remus, COLO) is no snapshot"));
            }
            RecordKind(known) if known <= LAST_KNOWN.0 || known & RecordKind::OPTIONAL != 0 => {
                padded(tap, length, "libxc's records")?;
            }
            RecordKind(other) => return Err(bad(format_args!("a record of libxc of unknown type {other:#x}"))),
        }
        seen |= bit(kind);
    }
}

fn bit(kind: RecordKind) -> u32 {
    1_u32.checked_shl(kind.0).unwrap_or(0)
}

/// Is all there that makes a guest?
fn complete(received: &Received, seen: u32) -> Outcome {
    let needed = if received.pv { &NEEDED_PV[..] } else { &NEEDED_HVM[..] };
    if received.pages == 0 {
        return Err(bad("the stream ended without a page"));
    }
    match needed.iter().find(|(kind, _)| seen & bit(*kind) == 0) {
        Some((_, name)) => Err(bad(format_args!("the stream ended without {name}"))),
        None => Ok(()),
    }
}

/// A record's type and the length of its body.
fn record<R: Read, W: Write>(tap: &mut Tap<R, W>, what: &str) -> Outcome<(RecordKind, u32)> {
    let header: [u8; 8] = tap.array(what)?;
    let (kind, length) = (word(&header, 0), word(&header, 4));
    if length > RECORD_BYTES_MAX {
        return Err(bad(format_args!("a record of {length} bytes (type {kind:#x})")));
    }
    Ok((RecordKind(kind), length))
}

/// A body that is not looked at, and its padding.
fn padded<R: Read, W: Write>(tap: &mut Tap<R, W>, length: u32, what: &str) -> Outcome {
    tap.pass(u64::from(length), what)?;
    let padding = length.next_multiple_of(8) - length;
    if tap.bytes(padding as usize, what)?.iter().any(|byte| *byte != 0) {
        return Err(bad("the padding of a record is not zero"));
    }
    Ok(())
}

/// A PAGE_DATA record; how many of its pages have content.
fn page_data<R: Read, W: Write>(tap: &mut Tap<R, W>, length: u32) -> Outcome<u64> {
    let count = word(&tap.array::<8>("a batch of pages")?, 0);
    if !(1..=BATCH_MAX).contains(&count) {
        return Err(bad(format_args!("a batch of {count} pages")));
    }
    let entries = tap.bytes(count as usize * 8, "a batch of pages")?;
    let mut with_content = 0_u64;
    for entry in entries.as_chunks::<8>().0 {
        with_content += u64::from(has_content(u64::from_le_bytes(*entry))?);
    }
    let content = with_content * PAGE_SIZE as u64;
    if u64::from(length) != 8 + u64::from(count) * 8 + content {
        return Err(bad(format_args!("a batch of {with_content} pages with content has {length} bytes")));
    }
    tap.pass(content, "a batch of pages")?;
    Ok(with_content)
}

/// Whether the page of this entry comes with content: BROKEN, XALLOC and XTAB do not. Types 5 to 8 are none.
fn has_content(entry: u64) -> Outcome<bool> {
    let (kind, reserved) = (entry >> 60, (entry >> 52) & 0xff);
    if reserved != 0 || (5..=8).contains(&kind) {
        return Err(bad(format_args!("a page of no known type: {entry:#x}")));
    }
    Ok(kind < 0xd)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
