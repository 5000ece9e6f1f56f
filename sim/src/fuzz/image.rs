//! The image for `xl restore`: whatever a snapshot holds is refused, or makes a stream that a reader of its own takes
//! apart into the same pages. That reader is written from Xen's specifications
//! (docs/specs/libxc-migration-stream.pandoc, libxl-migration-stream.pandoc).
//!
//! An input is the lengths of the three attachments, the attachments, and gfns as steps.

use std::collections::BTreeMap;

use snapshot::export::{EachPage, ExportError, ExportOptions, Source, export};
use snapshot::ports::{PAGE_SIZE, Page};
use snapshot::stream::Sink;
use snapshot::take::Attachment;
use xen_hypercall::types::Gfn;

use super::driver::{Answer, Target};

/// Bytes before the configuration: the header of the xl file (tools/xl/xl_utils.h: 32 bytes of magic, byte order, two
/// words of flags, length of what follows).
const XL_HEADER: usize = 52;
/// libxl's stream header and the header of its LIBXC_CONTEXT record, libxc's image header and domain header.
const HEADERS: usize = 16 + 8 + 24 + 16;
/// libxc records: END, PAGE_DATA.
const END: u32 = 0;
const PAGE_DATA: u32 = 1;
/// Most pages in a PAGE_DATA record.
const BATCH: usize = 1024;

pub const STREAM: Target = Target { name: "stream", seeds, words: "", run: stream, cost: 100 };

/// A snapshot that an input describes.
struct Fuzzed<'a> {
    parts: [&'a [u8]; 3],
    /// Gfn and first byte of each page; 0 is a page of zeros.
    pages: BTreeMap<u64, u8>,
}

impl<'a> Fuzzed<'a> {
    fn of(input: &'a [u8]) -> Self {
        let (lengths, mut rest) = input.split_at_checked(3).unwrap_or((&[0; 3], &[]));
        let parts = std::array::from_fn(|part| {
            let (head, tail) = rest.split_at(usize::from(lengths[part]).min(rest.len()));
            rest = tail;
            head
        });
        let mut gfn = 0;
        let mut page = |step: &u8| {
            gfn += if step % 16 == 15 { u64::from(*step) << 8 } else { 1 + u64::from(step % 16) };
            (gfn, step / 16)
        };
        Self { parts, pages: rest.iter().take(64).map(&mut page).collect() }
    }
}

impl Source for Fuzzed<'_> {
    type Error = ();

    fn attachment(&mut self, kind: Attachment) -> Result<Option<Vec<u8>>, ()> {
        let part = match kind {
            Attachment::ConfigJson => 0,
            Attachment::StaticRecords => 1,
            Attachment::PlatformRecords => 2,
            Attachment::Stats | Attachment::Trace | Attachment::PageTypes | Attachment::Disks => return Ok(None),
        };
        Ok(Some(self.parts[part].to_vec()))
    }

    fn pages(&mut self, each: &mut EachPage<'_>) -> Result<(), ()> {
        for (gfn, byte) in &self.pages {
            let page = [*byte; PAGE_SIZE];
            if each(Gfn::new(*gfn), (*byte != 0).then_some(&page)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

struct Pipe(Vec<u8>);

impl Sink for Pipe {
    type Error = ();

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let record = |kind: u32, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap_or(0);
        let mut bytes = [&kind.to_le_bytes()[..], &length.to_le_bytes(), body].concat();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    };
    let fixed = [record(0x11, &[1; 24]), record(0x12, &[2; 16])].concat();
    let platform = [record(0x8, &[1; 24]), record(0x9, &[4; 13]), record(0xa, &[0; 8])].concat();
    let lengths = [2, fixed.len(), platform.len()].map(|length| u8::try_from(length).unwrap_or(0));
    let whole = [&lengths[..], b"{}", &fixed, &platform, &[1, 2, 3, 0xff, 0x10, 0x20]].concat();
    vec![whole, Vec::new()]
}

fn stream(input: &[u8]) -> Answer {
    let mut source = Fuzzed::of(input);
    let mut pipe = Pipe(Vec::new());
    match export(&mut source, &mut pipe, &ExportOptions::default()) {
        Err(ExportError::Unusable(why)) => Ok(why.to_owned()),
        Err(error) => Err(format!("{error:?}")),
        Ok(_) => match take_apart(&pipe.0, source.parts[0]) {
            Some(found) if found == source.pages => Ok(format!("{} pages", found.len().ilog2())),
            Some(found) => Err(format!("{} pages of {}", found.len(), source.pages.len())),
            None => Err("a stream that cannot be taken apart".to_owned()),
        },
    }
}

/// The pages of a stream that ends where it must.
fn take_apart(bytes: &[u8], config: &[u8]) -> Option<BTreeMap<u64, u8>> {
    let mut rest = bytes.get(XL_HEADER..)?.strip_prefix(config)?.strip_prefix(&[0])?.get(HEADERS..)?;
    let mut pages = BTreeMap::new();
    loop {
        let kind = u32::from_le_bytes(*rest.first_chunk()?);
        let length = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?) as usize;
        let body = rest.get(8..8 + length)?;
        let padding = rest.get(8 + length..8 + length.next_multiple_of(8))?;
        rest = rest.get(8 + length.next_multiple_of(8)..)?;
        match kind {
            _ if padding.iter().any(|byte| *byte != 0) => return None,
            PAGE_DATA => page_data(body, &mut pages)?,
            // libxl's END follows.
            END => return (length == 0 && rest == [0; 8]).then_some(pages),
            _ => {}
        }
    }
}

fn page_data(body: &[u8], pages: &mut BTreeMap<u64, u8>) -> Option<()> {
    let count = u32::from_le_bytes(*body.first_chunk()?) as usize;
    let reserved = u32::from_le_bytes(*body.get(4..)?.first_chunk()?);
    let (pfns, data) = body.get(8..)?.split_at_checked(8 * count)?;
    let whole = data.len() == count * PAGE_SIZE && (1..=BATCH).contains(&count) && reserved == 0;
    for (pfn, page) in pfns.as_chunks::<8>().0.iter().zip(data.as_chunks::<PAGE_SIZE>().0) {
        let page: &Page = page;
        if page.iter().any(|byte| *byte != page[0]) || pages.insert(u64::from_le_bytes(*pfn), page[0]).is_some() {
            return None;
        }
    }
    whole.then_some(())
}
