//! `store check`: proves what the format promises of a whole store, and repairs nothing.
//!
//! Every segment is free or reachable, never both; every pointer, digest and count holds; every second copy is there.
//! Invariants: nothing here writes; what is wrong is a [`Flaw`] with a place, never an error that hides the rest.
//! Memory: two bits per MiB of the device and a bounded list of flaws.

use alloc::vec::Vec;
use core::fmt;

use xen_hypercall::types::Gfn;

use crate::ports::BlockDevice;
use crate::store::bitmap::Bitmap;
use crate::store::builder::Tree;
use crate::store::catalog::CatalogEntry;
use crate::store::cursor::RunCursor;
use crate::store::entry::What;
use crate::store::error::{Result, StoreError};
use crate::store::geometry::{SegmentId, Slot};
use crate::store::layout::Kind;
use crate::store::mark::read_root;
use crate::store::meta;
use crate::store::reader::{Catalog, SnapshotReader};
use crate::store::root::{Root, RunRecord};
use crate::store::superblock::{Generation, SlotState, Slots};
use crate::store::volume::Volume;

/// Flaws that a report names; the others are counted.
const NAMED_MAX: usize = 64;
/// How often a check with flaws starts over because a writer committed meanwhile.
const TRIES: u32 = 3;

/// Something that is not as it must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Flaw {
    /// A superblock slot is damaged, or older than a commit that was cut off leaves it ([`CheckReport::unsettled`]).
    /// The next open for writing sets it right.
    Slot(Slot),
    /// One of the two copies of an object in the meta areas does not match. Its next write sets it right.
    Copy {
        /// The structure.
        what: &'static str,
        /// Where the bad copy starts.
        block: u64,
    },
    /// Two ids that are reached lie at one address.
    Shared {
        /// The second of them.
        segment: SegmentId,
        /// Where they lie.
        block: u64,
    },
    /// A run uses a segment that its set does not list, which a writer would take for free.
    Unlisted {
        /// The snapshot.
        snapshot: u64,
        /// The segment.
        segment: SegmentId,
    },
    /// What a run says of itself does not match what is in it.
    Counts {
        /// The snapshot.
        snapshot: u64,
    },
    /// A page is damaged.
    Page {
        /// The snapshot.
        snapshot: u64,
        /// The guest's frame.
        gfn: Gfn,
        /// What is wrong.
        error: StoreError,
    },
    /// A snapshot is damaged beyond single pages.
    Snapshot {
        /// The snapshot.
        snapshot: u64,
        /// What is wrong.
        error: StoreError,
    },
}

impl Flaw {
    /// The snapshot that it concerns.
    pub fn snapshot(&self) -> Option<u64> {
        match self {
            Self::Unlisted { snapshot, .. } | Self::Counts { snapshot } => Some(*snapshot),
            Self::Page { snapshot, .. } | Self::Snapshot { snapshot, .. } => Some(*snapshot),
            _ => None,
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot(slot) => write!(out, "superblock slot {slot:?} is damaged or old: one copy is left"),
            Self::Copy { what, block } => write!(out, "damaged copy of the {what} at block {block}: one copy is left"),
            Self::Shared { segment, block } => {
                write!(out, "segment {} lies at block {block}, where another one lies", segment.0)
            }
            Self::Unlisted { segment, .. } => {
                write!(out, "segment {} is used, but its run does not list it", segment.0)
            }
            Self::Counts { .. } => out.write_str("a run does not hold what it says"),
            Self::Page { error, .. } | Self::Snapshot { error, .. } => error.fmt(out),
        }
    }
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckReport {
    /// The generation that was checked.
    pub generation: u64,
    /// Segments for snapshots.
    pub segments: u32,
    /// Those that a snapshot reaches. The others are free.
    pub reached: u32,
    /// Free ids that the segment table maps still: harmless, and cleared by the next commit of a writer.
    pub stale: u32,
    /// Slot B is one generation behind: a commit was cut off between its two slots, where it is safe already. The next
    /// open for writing ends it before it does anything else (docs/format/store-v1.md, "Every crash point").
    pub unsettled: bool,
    /// Snapshots.
    pub snapshots: u32,
    /// Pages compared with their digests.
    pub pages: u64,
    /// Flaws.
    pub flaws: u64,
    /// The first of them.
    pub first: Vec<Flaw>,
}

impl CheckReport {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.flaws == 0
    }

    fn note(&mut self, flaw: Flaw) {
        self.flaws += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push(flaw);
        }
    }
}

/// Gets the snapshots done and in all, and within the running one the pages done and in all.
pub type CheckProgress<'a> = dyn FnMut((u32, u32), (u64, u64)) + 'a;

impl<D: BlockDevice> Catalog<D> {
    /// Checks the whole store; with `pages` every page too. An error is a device that fails altogether.
    pub fn check(&mut self, pages: bool, progress: &mut CheckProgress<'_>) -> Result<CheckReport> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut report = check(&mut self.device, &self.volume, pages, progress)?;
            if report.is_clean() || !self.refresh()? || tries >= TRIES {
                report.note_slots(&mut self.device, self.volume.superblock.generation)?;
                return Ok(report);
            }
        }
    }
}

impl CheckReport {
    /// Both slots must hold the generation. A writer in the middle of a commit shows two, for a moment; one that died
    /// there, until the next one comes.
    fn note_slots<D: BlockDevice>(&mut self, device: &mut D, checked: Generation) -> Result<()> {
        let mut wrong = Vec::new();
        for _ in 0..TRIES {
            let [a, b] = Slots::read(device)?.states();
            let fine = |state: &SlotState| match state {
                SlotState::Valid(found) => found.generation >= checked,
                _ => false,
            };
            wrong = [(Slot::A, &a), (Slot::B, &b)]
                .into_iter()
                .filter(|(_, state)| !fine(state))
                .map(|(at, _)| at)
                .collect();
            let moved = matches!((&a, &b), (SlotState::Valid(a), SlotState::Valid(b)) if a.generation != b.generation);
            self.unsettled = matches!((&a, &b), (SlotState::Valid(a), SlotState::Valid(b))
                if a.id == b.id && b.generation.0.checked_add(1) == Some(a.generation.0));
            if wrong.is_empty() && !moved {
                return Ok(());
            }
            if wrong.is_empty() {
                wrong = alloc::vec![Slot::B];
            }
        }
        if self.unsettled {
            return Ok(());
        }
        wrong.into_iter().for_each(|slot| self.note(Flaw::Slot(slot)));
        Ok(())
    }
}

fn check<D: BlockDevice>(
    device: &mut D,
    volume: &Volume,
    pages: bool,
    progress: &mut CheckProgress<'_>,
) -> Result<CheckReport> {
    let superblock = &volume.superblock;
    let mut report = CheckReport {
        generation: superblock.generation.0,
        segments: superblock.geometry.segments,
        snapshots: crate::store::layout::length32(volume.entries.len()),
        ..CheckReport::default()
    };
    copies(device, volume, &mut report);
    let mut reached = Bitmap::new(superblock.geometry.segments);
    let mut all_known = true;
    for (number, entry) in (0..).zip(&volume.entries) {
        let total = report.snapshots;
        let mut inner = |done, all| progress((number, total), (done, all));
        match one(device, volume, entry, &mut report) {
            Ok(found) => reached.merge(&found),
            Err(error) => {
                all_known = false;
                report.note(Flaw::Snapshot { snapshot: entry.id, error: damage(error)? });
                continue;
            }
        }
        if pages {
            every_page(device, volume, entry, &mut report, &mut inner)?;
        }
    }
    report.reached = reached.count();
    segments(volume, &reached, all_known, &mut report);
    Ok(report)
}

/// An error of one snapshot is a flaw; a device that is gone is the end of the check.
fn damage(error: StoreError) -> Result<StoreError> {
    if error.is_damage() { Ok(error) } else { Err(error) }
}

/// Both copies of everything in the meta areas.
fn copies<D: BlockDevice>(device: &mut D, volume: &Volume, report: &mut CheckReport) {
    let (geometry, keys) = (&volume.superblock.geometry, &volume.keys);
    let fixed = [(Kind::CATALOG, volume.superblock.catalog), (Kind::DIRECTORY, volume.superblock.directory)];
    let leaves = volume.table.leaves().map(|leaf| (Kind::TABLE_LEAF, leaf));
    for (kind, pointer) in fixed.into_iter().chain(leaves) {
        for block in [pointer.block, geometry.mirror(pointer.block)] {
            if !meta::copy_holds(device, keys, kind, &pointer, block) {
                report.note(Flaw::Copy { what: kind.name(), block });
            }
        }
    }
}

/// The segments that a snapshot reaches, after its structure was checked.
fn one<D: BlockDevice>(
    device: &mut D,
    volume: &Volume,
    entry: &CatalogEntry,
    report: &mut CheckReport,
) -> Result<Bitmap> {
    let root = read_root(device, volume, entry)?;
    let reached = crate::store::mark::reach(device, volume, entry)?;
    let mut sums = (0, 0);
    for run in &root.runs {
        let (data, zero) = one_run(device, volume, (&root, run), entry.id, report)?;
        sums = (sums.0 + data, sums.1 + zero);
    }
    // With several runs the newer ones hide pages of the older ones; every_page counts those.
    if root.runs.len() == 1 && sums != (root.data_pages, root.zero_pages) {
        report.note(Flaw::Counts { snapshot: entry.id });
    }
    Ok(reached)
}

/// Walks the index of one run. Returns its pages with data and its zero pages.
fn one_run<D: BlockDevice>(
    device: &mut D,
    volume: &Volume,
    (root, run): (&Root, &RunRecord),
    snapshot: u64,
    report: &mut CheckReport,
) -> Result<(u64, u64)> {
    let segments = volume.superblock.geometry.segments;
    let (raw, at) = volume.read_blob(device, &run.segments)?;
    let listed = Bitmap::decode(&raw, segments).ok_or(StoreError::corrupt(Kind::SEGMENT_SET.name(), at))?;
    let mut unlisted = Bitmap::new(segments);
    let mut cursor = RunCursor::new(run.tree.top, run.tree.level, root.gfn_end).watched();
    let mut counted = Tree { entries: 0, data_pages: 0, zero_pages: 0, ..run.tree };
    while let Some(found) = cursor.peek(device, volume)? {
        cursor.advance();
        counted.entries += 1;
        match found.what {
            What::Data { place, .. } => {
                counted.data_pages += 1;
                unlisted.set(place.segment.0);
            }
            What::Zero => counted.zero_pages += found.count(),
            What::Hole => {}
        }
        cursor.take_visited().iter().for_each(|pointer| unlisted.set(pointer.segment.0));
    }
    if counted != run.tree {
        report.note(Flaw::Counts { snapshot });
    }
    for segment in unlisted.iter().filter(|segment| !listed.get(*segment)) {
        report.note(Flaw::Unlisted { snapshot, segment: SegmentId(segment) });
    }
    Ok((counted.data_pages, counted.zero_pages))
}

/// Every page and attachment of a snapshot whose structure is sound.
fn every_page<D: BlockDevice>(
    device: &mut D,
    volume: &Volume,
    entry: &CatalogEntry,
    report: &mut CheckReport,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let verified = SnapshotReader::open(device, volume, &entry.name).and_then(|mut reader| reader.verify(progress));
    match verified {
        Ok(found) => {
            report.pages += found.data_pages;
            for (gfn, error) in &found.first_damaged {
                report.note(Flaw::Page { snapshot: entry.id, gfn: *gfn, error: *error });
            }
            report.flaws += found.damaged.saturating_sub(found.first_damaged.len() as u64);
        }
        Err(error) => report.note(Flaw::Snapshot { snapshot: entry.id, error: damage(error)? }),
    }
    Ok(())
}

/// Every segment is free or reachable, never both. What a damaged snapshot reaches is unknown: nothing is stale then.
fn segments(volume: &Volume, reached: &Bitmap, all_known: bool, report: &mut CheckReport) {
    let geometry = &volume.superblock.geometry;
    let mut used = Bitmap::new(geometry.segments);
    for id in reached.iter().map(SegmentId) {
        // An id without an address was noted with its snapshot.
        let Ok(address) = volume.table.address(id) else { continue };
        let bit = address.0.saturating_sub(geometry.first_segment);
        if used.get(bit) {
            report.note(Flaw::Shared { segment: id, block: address.block() });
        }
        used.set(bit);
    }
    if all_known {
        let stale = volume.table.mapped().filter(|id| !reached.get(id.0)).count();
        report.stale = crate::store::layout::length32(stale);
    }
}
