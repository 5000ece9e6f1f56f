//! The root of a snapshot: its runs, its attachments, its description (docs/format/store-v1.md, section 9).
//!
//! Invariants: a parsed root names at most `RUNS_MAX` runs and `PARTS_MAX` attachment parts, every pointer stays inside
//! an existing segment, and no gfn reaches `GFN_LIMIT`. The metadata describes; nothing in it says where data lies.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::store::builder::Tree;
use crate::store::catalog::CatalogEntry;
use crate::store::cursor::{MergeCursor, RunCursor};
use crate::store::digest::Digest;
use crate::store::error::{Result, StoreError};
use crate::store::geometry::Geometry;
use crate::store::layout::{
    GFN_LIMIT, Kind, LEVEL_MAX, METADATA_MAX, PART_BYTES, PARTS_MAX, ROOT_MAGIC, RUNS_MAX, attachment_record as part,
    index, length32, root as field, run_record as run,
};
use crate::store::pointer::Ptr;
use crate::store::sabotage::{Safeguard, out};
use crate::store::superblock::Generation;

/// What an attachment is. A newtype: later versions add kinds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AttachmentKind(pub u32);

impl AttachmentKind {
    /// The domain's configuration as `xl list -l` prints it.
    pub const CONFIG_JSON: Self = Self(1);
    /// Records that do not change while the guest runs (CPUID and MSR policy).
    pub const STATIC_RECORDS: Self = Self(2);
    /// Records fetched in the pause (vCPU and platform state).
    pub const PLATFORM_RECORDS: Self = Self(3);
    /// What the take counted.
    pub const STATS: Self = Self(4);
    /// The rounds of the take ([`crate::trace`]).
    pub const TRACE: Self = Self(5);
    /// Which pages of a PV guest are page tables.
    pub const PAGE_TYPES: Self = Self(6);
    /// Where the guest's disks were kept ([`crate::verdict::Disks`]).
    pub const DISKS: Self = Self(7);
}

/// Descriptive part of a root. Fields are only ever added at the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Metadata {
    /// The guest's name.
    pub guest_name: String,
    /// Its uuid.
    pub guest_uuid: [u8; 16],
    /// Policy of the take.
    pub mode: String,
    /// When it was sealed, in seconds.
    pub sealed_unix: u64,
    /// Rounds of the take.
    pub rounds: u32,
    /// Pages sent in all rounds.
    pub pages_sent: u64,
    /// Our share of the pause, in microseconds.
    pub pause_us: u64,
    /// The whole take, in microseconds.
    pub elapsed_us: u64,
}

/// What a snapshot was made beside: descriptive too, behind the [`Metadata`], absent where there is nothing to say.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Lineage {
    /// `diff`, `incremental`, or `full` for one that should have been incremental.
    pub kind: String,
    /// The snapshot that it was compared with or builds on; empty: none.
    pub base: String,
    /// Why it is no incremental one, although it should have been.
    pub why_full: String,
    /// Pages of the base that were found again, and not written.
    pub shared_pages: u64,
}

/// A run of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunRecord {
    /// Its index.
    pub tree: Tree,
    /// The set of segments that it reaches.
    pub segments: Ptr,
    /// Its number, never used twice.
    pub run_id: u64,
}

/// A part of an attachment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartRecord {
    /// Of which attachment.
    pub kind: AttachmentKind,
    /// Its number.
    pub part: u32,
    /// Bytes of all parts together.
    pub total_bytes: u64,
    /// Its bytes.
    pub data: Ptr,
}

/// A root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Root {
    /// The snapshot.
    pub snapshot_id: u64,
    /// The commit that sealed it.
    pub generation: Generation,
    /// When the take began, in seconds.
    pub created_unix: u64,
    /// One more than the highest gfn.
    pub gfn_end: u64,
    /// Pages with data.
    pub data_pages: u64,
    /// Zero pages.
    pub zero_pages: u64,
    /// Bytes that sealing kept.
    pub stored_bytes: u64,
    /// Digest of the content; zeros in a root that was sealed before there was one.
    pub content: Digest,
    /// Newest first.
    pub runs: Vec<RunRecord>,
    /// In order of kind and part.
    pub parts: Vec<PartRecord>,
    /// Description.
    pub metadata: Metadata,
    /// Description, continued.
    pub lineage: Lineage,
}

impl Root {
    /// Reads its pages, before the first of them.
    pub fn cursor(&self) -> MergeCursor {
        let runs = self.runs.iter().map(|run| RunCursor::new(run.tree.top, run.tree.level, self.gfn_end));
        MergeCursor::new(runs.collect())
    }

    /// As it is written.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let too_long = StoreError::TooLong { what: "description of a snapshot", limit: METADATA_MAX as u64 };
        let mut metadata = postcard::to_allocvec(&self.metadata).map_err(|_| too_long)?;
        if self.lineage != Lineage::default() {
            metadata = postcard::to_extend(&self.lineage, metadata).map_err(|_| too_long)?;
        }
        if metadata.len() > METADATA_MAX && !out(Safeguard::DescriptionLimit) {
            return Err(too_long);
        }
        let mut out = vec![0; field::SIZE];
        field::MAGIC.put(&mut out, &ROOT_MAGIC);
        field::SNAPSHOT_ID.put(&mut out, &self.snapshot_id.to_le_bytes());
        field::GENERATION.put(&mut out, &self.generation.0.to_le_bytes());
        field::CREATED_UNIX.put(&mut out, &self.created_unix.to_le_bytes());
        field::GFN_END.put(&mut out, &self.gfn_end.to_le_bytes());
        field::DATA_PAGES.put(&mut out, &self.data_pages.to_le_bytes());
        field::ZERO_PAGES.put(&mut out, &self.zero_pages.to_le_bytes());
        field::STORED_BYTES.put(&mut out, &self.stored_bytes.to_le_bytes());
        field::RUN_COUNT.put(&mut out, &length32(self.runs.len()).to_le_bytes());
        field::ATTACHMENT_COUNT.put(&mut out, &length32(self.parts.len()).to_le_bytes());
        field::METADATA_BYTES.put(&mut out, &length32(metadata.len()).to_le_bytes());
        field::CONTENT.put(&mut out, &self.content.0);
        self.runs.iter().for_each(|one| out.extend_from_slice(&encode_run(one)));
        self.parts.iter().for_each(|one| out.extend_from_slice(&encode_part(one)));
        out.extend_from_slice(&metadata);
        Ok(out)
    }

    /// Checked, against the catalog's entry as well.
    pub fn decode(raw: &[u8], geometry: &Geometry, entry: &CatalogEntry) -> Option<Self> {
        let runs = usize::from(field::RUN_COUNT.u16(raw));
        let parts = usize::from(field::ATTACHMENT_COUNT.u16(raw));
        let metadata = index(u64::from(field::METADATA_BYTES.u32(raw)));
        let gfn_end = field::GFN_END.u64(raw);
        let pages = [field::DATA_PAGES.u64(raw), field::ZERO_PAGES.u64(raw)];
        let right = field::MAGIC.of(raw) == ROOT_MAGIC
            && pages.iter().all(|pages| *pages <= GFN_LIMIT)
            && field::SNAPSHOT_ID.u64(raw) == entry.id
            && field::CREATED_UNIX.u64(raw) == entry.created_unix
            && (runs <= RUNS_MAX && parts <= PARTS_MAX && metadata <= METADATA_MAX && gfn_end <= GFN_LIMIT)
            && raw.len() == field::SIZE + runs * run::SIZE + parts * part::SIZE + metadata;
        if !right {
            return None;
        }
        let (run_bytes, rest) = raw.get(field::SIZE..)?.split_at_checked(runs * run::SIZE)?;
        let (part_bytes, metadata) = rest.split_at_checked(parts * part::SIZE)?;
        let (metadata, lineage) = postcard::take_from_bytes(metadata).ok()?;
        let lineage = postcard::take_from_bytes(lineage).map(|(lineage, _)| lineage).unwrap_or_default();
        Some(Self {
            snapshot_id: entry.id,
            generation: Generation(field::GENERATION.u64(raw)),
            created_unix: entry.created_unix,
            gfn_end,
            data_pages: field::DATA_PAGES.u64(raw),
            zero_pages: field::ZERO_PAGES.u64(raw),
            stored_bytes: field::STORED_BYTES.u64(raw),
            content: Digest(field::CONTENT.array(raw)),
            runs: run_bytes.chunks(run::SIZE).map(|raw| decode_run(raw, geometry)).collect::<Option<_>>()?,
            parts: part_bytes.chunks(part::SIZE).map(|raw| decode_part(raw, geometry)).collect::<Option<_>>()?,
            metadata,
            lineage,
        })
    }
}

fn encode_run(one: &RunRecord) -> [u8; run::SIZE] {
    let mut raw = [0; run::SIZE];
    run::TREE.put(&mut raw, &one.tree.top.encode());
    run::SEGMENTS.put(&mut raw, &one.segments.encode());
    run::ENTRIES.put(&mut raw, &one.tree.entries.to_le_bytes());
    run::DATA_PAGES.put(&mut raw, &one.tree.data_pages.to_le_bytes());
    run::ZERO_PAGES.put(&mut raw, &one.tree.zero_pages.to_le_bytes());
    run::RUN_ID.put(&mut raw, &one.run_id.to_le_bytes());
    run::LEVEL.put(&mut raw, &one.tree.level.to_le_bytes());
    raw
}

fn decode_run(raw: &[u8], geometry: &Geometry) -> Option<RunRecord> {
    let level = run::LEVEL.u16(raw);
    let kind = if level == 0 { Kind::RUN_LEAF } else { Kind::RUN_NODE };
    let tree = Tree {
        top: Ptr::parse(run::TREE.of(raw), &[kind], geometry)?,
        level,
        entries: run::ENTRIES.u64(raw),
        data_pages: run::DATA_PAGES.u64(raw),
        zero_pages: run::ZERO_PAGES.u64(raw),
    };
    let segments = Ptr::parse(run::SEGMENTS.of(raw), &[Kind::SEGMENT_SET], geometry)?;
    // No more of anything than there can be gfns: sums of these are taken without further checks.
    let right = level <= LEVEL_MAX && [tree.entries, tree.data_pages, tree.zero_pages].iter().all(|n| *n <= GFN_LIMIT);
    right.then_some(RunRecord { tree, segments, run_id: run::RUN_ID.u64(raw) })
}

fn encode_part(one: &PartRecord) -> [u8; part::SIZE] {
    let mut raw = [0; part::SIZE];
    part::KIND.put(&mut raw, &one.kind.0.to_le_bytes());
    part::PART.put(&mut raw, &one.part.to_le_bytes());
    part::TOTAL_BYTES.put(&mut raw, &one.total_bytes.to_le_bytes());
    part::DATA.put(&mut raw, &one.data.encode());
    raw
}

fn decode_part(raw: &[u8], geometry: &Geometry) -> Option<PartRecord> {
    let data = Ptr::parse(part::DATA.of(raw), &[Kind::ATTACHMENT], geometry)?;
    let (kind, part, total_bytes) =
        (AttachmentKind(part::KIND.u32(raw)), part::PART.u32(raw), part::TOTAL_BYTES.u64(raw));
    let limit = (PARTS_MAX * PART_BYTES) as u64;
    (index(u64::from(data.bytes)) <= PART_BYTES && total_bytes <= limit).then_some(PartRecord {
        kind,
        part,
        total_bytes,
        data,
    })
}
