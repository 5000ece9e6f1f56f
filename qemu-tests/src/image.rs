//! A save image as xl writes it, read independently of everything under test: an xl header, a libxl stream version 2,
//! a libxc stream version 3 (Xen: tools/xl/xl.h, docs/specs/libxl-migration-stream.pandoc and
//! docs/specs/libxc-migration-stream.pandoc). Of a page only the digest is kept.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};

use anyhow::{Context, Result, bail, ensure};

use crate::context::{self, ContextRecord};
use crate::digest::digest;

const XL_MAGIC: &[u8; 32] = b"Xen saved domain, xl format\n \0 \r";
const LIBXL_IDENT: &[u8; 8] = b"LibxlFmt";
const LIBXC_CONTEXT: u32 = 1;
const PAGE_DATA: u32 = 1;
const P2M_FRAMES: u32 = 3;
const HVM_CONTEXT: u32 = 9;
/// Records of a PV vCPU: basic, extended, xsave, msrs.
const VCPU_RECORDS: [u32; 4] = [4, 5, 6, 12];
/// Page types from this one on (bits 60 to 63 of an entry) come without contents: BROKEN, XALLOC, XTAB.
const WITHOUT_CONTENTS: u64 = 0xd;
/// Longest record that is read into memory (REC_LENGTH_MAX).
const RECORD_MAX: usize = 128 << 20;

/// What an image holds.
#[derive(Debug, Default)]
pub struct Image {
    /// Every page's digest, by gfn.
    pub frames: BTreeMap<u64, u128>,
    /// The types of pages that are not ordinary memory: 1 to 4 page tables, with 8 pinned ones.
    pub kinds: BTreeMap<u64, u8>,
    /// The frames of a PV guest's p2m.
    pub p2m_frames: Vec<u64>,
    /// A PV guest's start_info page.
    pub start_info: Option<u64>,
    /// `type vcpu length digest` of each record of a PV vCPU.
    pub vcpus: Vec<String>,
    /// The types of all records of the libxc stream but PAGE_DATA, in order.
    pub records: Vec<u32>,
    /// The records of the HVM context.
    pub context: Vec<ContextRecord>,
    /// The contents of those records.
    pub bodies: Vec<Vec<u8>>,
    /// Whether pages without contents may be listed: Xen's own writer lists every gfn, ours those that are memory.
    pub(crate) with_holes: bool,
}

impl Image {
    /// Reads an image to its end; anything before or behind what belongs there is an error, and so is a page twice.
    pub fn read(mut from: impl Read) -> Result<Self> {
        let header = bytes(&mut from, 48).context("xl's header")?;
        ensure!(header.starts_with(XL_MAGIC), "not an image of xl");
        bytes(&mut from, word(&header, 44)? as usize).context("the configuration")?;
        let header = bytes(&mut from, 16).context("libxl's header")?;
        ensure!(header.starts_with(LIBXL_IDENT), "not a libxl stream");
        ensure!(record(&mut from)? == (LIBXC_CONTEXT, Vec::new()), "no libxc stream first");
        // Image header and domain header; verify-stream-v2 judges them.
        bytes(&mut from, 24 + 16).context("libxc's headers")?;
        let mut image = Self::default();
        image.libxc(&mut from)?;
        ensure!(record(&mut from)? == (0, Vec::new()), "the libxl stream does not end behind the libxc stream");
        let mut more = [0];
        ensure!(from.read(&mut more).context("reading")? == 0, "bytes behind the end");
        Ok(image)
    }

    /// Reads what Xen's own save helper wrote: a libxc stream alone.
    pub fn read_stock(mut from: impl Read) -> Result<Self> {
        bytes(&mut from, 24 + 16).context("libxc's headers")?;
        let mut image = Self { with_holes: true, ..Self::default() };
        image.libxc(&mut from)?;
        Ok(image)
    }

    fn libxc(&mut self, from: &mut impl Read) -> Result<()> {
        loop {
            let (kind, body) = record(from)?;
            match kind {
                0 => return Ok(()),
                PAGE_DATA => self.page_data(&body)?,
                P2M_FRAMES => {
                    self.p2m_frames.extend(body[8..].as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w)))
                }
                kind if VCPU_RECORDS.contains(&kind) => self.vcpu(kind, &body)?,
                HVM_CONTEXT => self.context.extend(context::records(&body)?),
                _ => {}
            }
            if kind != PAGE_DATA {
                self.records.push(kind);
                self.bodies.push(body);
            }
        }
    }

    fn vcpu(&mut self, kind: u32, body: &[u8]) -> Result<()> {
        let vcpu = word(body, 0)?;
        let content = body.get(8..).context("a vCPU's record without content")?;
        self.vcpus.push(format!("{kind} {vcpu} {} {:032x}", content.len(), digest(content)));
        if (kind, vcpu) == (VCPU_RECORDS[0], 0) {
            // user_regs.rdx (public/arch-x86/xen-x86_64.h).
            let rdx = content.get(616..624).context("a short context")?;
            self.start_info = Some(u64::from_le_bytes(rdx.try_into()?));
        }
        Ok(())
    }

    fn page_data(&mut self, body: &[u8]) -> Result<()> {
        let count = word(body, 0)? as usize;
        let (entries, mut pages) =
            body[8..].split_at_checked(8 * count).context("PAGE_DATA is shorter than its count")?;
        for entry in entries.as_chunks::<8>().0 {
            let entry = u64::from_le_bytes(*entry);
            if self.with_holes && entry >> 60 > WITHOUT_CONTENTS {
                continue;
            }
            ensure!(entry >> 60 < WITHOUT_CONTENTS, "a page without contents: {entry:#x}");
            let (page, rest) = pages.split_at_checked(4096).context("PAGE_DATA lacks a page")?;
            pages = rest;
            let gfn = entry & ((1 << 52) - 1);
            if entry >> 60 != 0 {
                self.kinds.insert(gfn, (entry >> 60) as u8);
            }
            if self.frames.insert(gfn, digest(page)).is_some() {
                bail!("gfn {gfn:x} comes twice");
            }
        }
        ensure!(pages.is_empty(), "{} bytes behind the pages", pages.len());
        Ok(())
    }
}

/// A record's type and body; the padding must be zero.
fn record(from: &mut impl Read) -> Result<(u32, Vec<u8>)> {
    let header = bytes(from, 8).context("a record's header")?;
    let (kind, length) = (word(&header, 0)?, word(&header, 4)? as usize);
    ensure!(length <= RECORD_MAX, "a record of {length} bytes");
    let mut body = bytes(from, length.next_multiple_of(8)).with_context(|| format!("record of type {kind}"))?;
    ensure!(body.split_off(length).iter().all(|byte| *byte == 0), "the padding of a record is not zero");
    Ok((kind, body))
}

fn bytes(from: &mut impl Read, length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.by_ref().take(length as u64).read_to_end(&mut bytes).context("reading")?;
    ensure!(bytes.len() == length, std::io::Error::from(ErrorKind::UnexpectedEof));
    Ok(bytes)
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..at + 4).context("too short")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap();
        let padding = vec![0; body.len().next_multiple_of(8) - body.len()];
        [&kind.to_le_bytes()[..], &length.to_le_bytes(), body, &padding].concat()
    }

    fn page_data(entries: &[u64]) -> Vec<u8> {
        page_data_of(entries, entries)
    }

    fn page_data_of(entries: &[u64], contents: &[u64]) -> Vec<u8> {
        let mut body = (entries.len() as u64).to_le_bytes().to_vec();
        entries.iter().for_each(|entry| body.extend(entry.to_le_bytes()));
        contents.iter().for_each(|entry| body.extend([*entry as u8; 4096]));
        record(PAGE_DATA, &body)
    }

    fn image(libxc: &[Vec<u8>]) -> Vec<u8> {
        let mut image = XL_MAGIC.to_vec();
        [0x0102_0304, 3, 0, 5].iter().for_each(|word: &u32| image.extend(word.to_le_bytes()));
        image.extend(b"{xyz}LibxlFmt\0\0\0\x02\0\0\0\0");
        image.extend(record(LIBXC_CONTEXT, &[]));
        image.extend([0; 40]);
        image.extend(libxc.concat());
        image.extend([record(0, &[]), record(0, &[])].concat());
        image
    }

    #[test]
    fn pages_and_records_are_found() {
        let context = record(HVM_CONTEXT, &[5, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
        let bytes = image(&[record(0x10, &[]), page_data(&[1, 3]), page_data(&[0x400]), context]);
        let read = Image::read(bytes.as_slice()).unwrap();
        assert_eq!(read.frames.keys().copied().collect::<Vec<_>>(), [1, 3, 0x400]);
        assert_eq!(read.frames[&3], digest(&[3; 4096]));
        assert_eq!(read.records, [0x10, HVM_CONTEXT]);
        assert_eq!(read.context[0].to_string(), "5 0 1 07");
        for length in 0..bytes.len() {
            assert!(Image::read(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Image::read([bytes, vec![0]].concat().as_slice()).is_err());
    }

    #[test]
    fn only_xens_own_writer_may_list_holes() {
        let records = [page_data_of(&[7, 0xf << 60 | 8], &[7]), record(10, &[1, 2]), record(0, &[])].concat();
        let stock = [vec![0; 40], records.clone()].concat();
        let read = Image::read_stock(stock.as_slice()).unwrap();
        assert_eq!(read.frames.keys().copied().collect::<Vec<_>>(), [7]);
        assert_eq!((read.records, read.bodies), (vec![10], vec![vec![1, 2]]));
        assert!(Image::read(image(&[records]).as_slice()).is_err());
    }

    #[test]
    fn a_page_twice_or_without_contents_is_refused() {
        for wrong in [page_data(&[4, 4]), page_data(&[0xf << 60 | 4])] {
            assert!(Image::read(image(&[wrong]).as_slice()).is_err());
        }
    }
}
