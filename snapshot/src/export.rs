//! A snapshot as an image for `xl restore`: one pass over the pages in gfn order, each once, never a seek.
//!
//! The order of records is the least that restores a guest faithfully (tools/libs/guest/xg_sr_restore.c). PVH:
//! headers, CPUID and MSR policy, STATIC_DATA_END, pages, TSC, HVM context, HVM parameters, END. PV: headers,
//! X86_PV_INFO, the policies, STATIC_DATA_END, the frames of the p2m, pages with their types, TSC, shared_info, vCPUs,
//! END. What is stored is checked before it goes out; holes are left out, zero pages go out as pages.

use alloc::vec::Vec;
use core::fmt;

use xen_hypercall::types::Gfn;

use crate::ports::{PAGE_SIZE, Page, RecordKind, Stop};
use crate::pv::TypeRanges;
use crate::stream::{self, DomainType, PageData, Sink};
use crate::take::Attachment;

const ZERO_PAGE: Page = [0; PAGE_SIZE];

/// Kinds of a PV guest that belong before the pages.
const PV_STATIC_KINDS: &[RecordKind] =
    &[RecordKind::X86_PV_INFO, RecordKind::X86_CPUID_POLICY, RecordKind::X86_MSR_POLICY];

/// Kinds of a PV guest's state: the frames of its p2m, which belong before the pages, and what belongs behind them.
const PV_PLATFORM_KINDS: &[RecordKind] = &[
    RecordKind::X86_PV_P2M_FRAMES,
    RecordKind::X86_TSC_INFO,
    RecordKind::SHARED_INFO,
    RecordKind::X86_PV_VCPU_BASIC,
    RecordKind::X86_PV_VCPU_EXTENDED,
    RecordKind::X86_PV_VCPU_XSAVE,
    RecordKind::X86_PV_VCPU_MSRS,
];

/// Kinds that belong before the pages.
const STATIC_KINDS: &[RecordKind] = &[RecordKind::X86_CPUID_POLICY, RecordKind::X86_MSR_POLICY];

/// Kinds that belong behind the pages.
const PLATFORM_KINDS: &[RecordKind] = &[RecordKind::X86_TSC_INFO, RecordKind::HVM_CONTEXT, RecordKind::HVM_PARAMS];

/// A sealed snapshot, as the export reads it.
pub trait Source {
    /// Why it cannot be read.
    type Error;
    /// An attachment, verified; `None` if there is none of that kind.
    fn attachment(&mut self, kind: Attachment) -> Result<Option<Vec<u8>>, Self::Error>;
    /// Hands out every populated gfn once, ascending, verified; `None` is a page of zeros. `Stop` ends the reading.
    fn pages(&mut self, each: &mut EachPage<'_>) -> Result<(), Self::Error>;
}

/// Takes the pages of a [`Source`].
pub type EachPage<'a> = dyn FnMut(Gfn, Option<&Page>) -> Result<(), Stop> + 'a;

/// What the image is to say beyond the snapshot.
#[derive(Clone, Copy, Default, Debug)]
pub struct ExportOptions<'a> {
    /// Configuration (JSON of libxl_domain_config) instead of the recorded one: a clone, other disks.
    pub config: Option<&'a [u8]>,
    /// Xen's version for the domain header, which a restore reports and does not judge. Default 4.17.
    pub xen: Option<(u32, u32)>,
}

/// Why an export ended early.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExportError<R, W> {
    /// The store cannot be read, or is damaged.
    Source(R),
    /// The reader of the stream has gone, or the file is full.
    Sink(W),
    /// The snapshot lacks what a restore needs, or holds what no stream may hold. Nothing can be done with it.
    Unusable(&'static str),
    /// No memory for the batch.
    NoMemory,
}

impl<R: fmt::Display, W: fmt::Display> fmt::Display for ExportError<R, W> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => error.fmt(out),
            Self::Sink(error) => write!(out, "cannot write the image: {error}"),
            Self::Unusable(what) => write!(out, "the snapshot cannot be restored: {what}"),
            Self::NoMemory => out.write_str("not enough memory"),
        }
    }
}

/// What an export has written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Exported {
    /// Pages, zero pages included.
    pub pages: u64,
}

/// Writes the image of `source` to `sink`.
pub fn export<R: Source, W: Sink>(
    source: &mut R,
    sink: &mut W,
    options: &ExportOptions<'_>,
) -> Result<Exported, ExportError<R::Error, W::Error>> {
    let mut parts = Parts::read(source, options)?;
    parts.write_head(sink, options).map_err(ExportError::Sink)?;
    let exported = write_pages(source, &mut parts.types, sink)?;
    if exported.pages == 0 {
        return Err(ExportError::Unusable("it holds no page"));
    }
    parts.write_tail(sink).map_err(ExportError::Sink)?;
    Ok(exported)
}

/// Everything but the pages, read and checked before the first byte goes out.
struct Parts {
    file_header: [u8; 52],
    config: Vec<u8>,
    domain: DomainType,
    fixed: Vec<u8>,
    platform: Vec<u8>,
    types: TypeRanges,
}

impl Parts {
    fn read<R: Source, W>(source: &mut R, options: &ExportOptions<'_>) -> Result<Self, ExportError<R::Error, W>> {
        let config = match options.config {
            Some(config) => config.to_vec(),
            None => read(source, Attachment::ConfigJson, "it has no configuration")?,
        };
        if config.is_empty() || config.contains(&0) {
            return Err(ExportError::Unusable("its configuration is no text"));
        }
        let file_header =
            stream::file_header(config.len()).ok_or(ExportError::Unusable("its configuration is too long"))?;
        let fixed = read(source, Attachment::StaticRecords, "it has no CPU policy")?;
        let platform = read(source, Attachment::PlatformRecords, "it has no machine state")?;
        let domain = domain_of(&fixed, &platform).ok_or(ExportError::Unusable("its machine state is malformed"))?;
        let types = source.attachment(Attachment::PageTypes).map_err(ExportError::Source)?.unwrap_or_default();
        let types = TypeRanges::parse(types).ok_or(ExportError::Unusable("its page types are malformed"))?;
        Ok(Self { file_header, config, domain, fixed, platform, types })
    }

    fn write_head<W: Sink>(&self, sink: &mut W, options: &ExportOptions<'_>) -> Result<(), W::Error> {
        sink.write_all(&self.file_header)?;
        sink.write_all(&self.config)?;
        sink.write_all(&[0])?;
        sink.write_all(&stream::stream_header())?;
        sink.write_all(&stream::context_record())?;
        sink.write_all(&stream::image_header())?;
        sink.write_all(&stream::domain_header(self.domain, options.xen.unwrap_or((4, 17))))?;
        sink.write_all(&self.fixed)?;
        sink.write_all(&stream::static_data_end())?;
        sink.write_all(stream::split_first(&self.platform, RecordKind::X86_PV_P2M_FRAMES).0)
    }

    fn write_tail<W: Sink>(&self, sink: &mut W) -> Result<(), W::Error> {
        sink.write_all(stream::split_first(&self.platform, RecordKind::X86_PV_P2M_FRAMES).1)?;
        sink.write_all(&stream::end())?;
        sink.write_all(&stream::end_record())
    }
}

/// Which kind of guest the records are of; None if they are not whole, or of no one kind.
fn domain_of(fixed: &[u8], platform: &[u8]) -> Option<DomainType> {
    let (pv_info, _) = stream::split_first(fixed, RecordKind::X86_PV_INFO);
    let (domain, static_kinds, platform_kinds) = if pv_info.is_empty() {
        (DomainType::Hvm, STATIC_KINDS, PLATFORM_KINDS)
    } else {
        (DomainType::Pv, PV_STATIC_KINDS, PV_PLATFORM_KINDS)
    };
    let whole = stream::check_records(fixed, static_kinds) && stream::check_records(platform, platform_kinds);
    let has_frames = !stream::split_first(platform, RecordKind::X86_PV_P2M_FRAMES).0.is_empty();
    (whole && has_frames == (domain == DomainType::Pv)).then_some(domain)
}

fn read<R: Source, W>(
    source: &mut R,
    kind: Attachment,
    lack: &'static str,
) -> Result<Vec<u8>, ExportError<R::Error, W>> {
    source.attachment(kind).map_err(ExportError::Source)?.ok_or(ExportError::Unusable(lack))
}

fn write_pages<R: Source, W: Sink>(
    source: &mut R,
    types: &mut TypeRanges,
    sink: &mut W,
) -> Result<Exported, ExportError<R::Error, W::Error>> {
    let mut batch = PageData::try_new().ok_or(ExportError::NoMemory)?;
    let mut exported = Exported::default();
    let mut failed = None;
    let answer = source.pages(&mut |gfn, page| {
        exported.pages += 1;
        batch.push(gfn, types.kind_of(gfn), page.unwrap_or(&ZERO_PAGE), sink).map_err(|error| {
            failed = Some(error);
            Stop
        })
    });
    if let Some(error) = failed {
        return Err(ExportError::Sink(error));
    }
    answer.map_err(ExportError::Source)?;
    batch.flush(sink).map_err(ExportError::Sink)?;
    Ok(exported)
}
