//! A snapshot in the making: runs of pages, and attachments. Sealing it is in `seal`.
//!
//! Invariants: everything goes to segments that were free; until [`Taking::seal`] commits, no superblock reaches any of
//! it, and dropping a `Taking` frees it all. Memory is constant besides one bit per MiB of the device.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use crate::ports::{BlockDevice, Pace, Page};
use crate::store::admit;
use crate::store::appender::{Appender, PIECE, Sink};
use crate::store::base::{Base, Sharing};
use crate::store::bitmap::Bitmap;
use crate::store::builder::{Tree, TreeBuilder};
use crate::store::digest::{ContentHasher, Digest};
use crate::store::entry::{Entry, Place, What};
use crate::store::error::{Result, StoreError};
use crate::store::layout::{GFN_LIMIT, INCOMPAT_LZ4, SEGMENT_BYTES, entry as entry_field};
use crate::store::root::{AttachmentKind, Metadata, PartRecord};
use crate::store::sabotage::{Safeguard, out};
use crate::store::squeeze::{Compression, Packer, Recent};
use crate::store::store::Store;
use crate::store::superblock::Generation;

/// Most runs of a take; they are merged when it is sealed.
pub const TAKE_RUNS_MAX: usize = 64;
/// Index bytes for a page while it is in a run and in the merged one.
pub(super) const INDEX_BYTES: u64 = 2 * entry_field::SIZE as u64;
/// Segments that sealing may need besides indexes: the rest of a run, attachments, root.
pub(super) const SEAL_SEGMENTS: u64 = 2;

/// What a new snapshot is to be.
pub struct NewSnapshot<'a> {
    /// `GUEST@NAME`.
    pub name: &'a str,
    /// The guest's name.
    pub guest_name: &'a str,
    /// Its uuid.
    pub guest_uuid: [u8; 16],
    /// Policy of the take, at most 16 bytes.
    pub mode: &'a str,
    /// The time in seconds.
    pub created_unix: u64,
    /// The highest gfn.
    pub max_gfn: Gfn,
    /// Upper bound of the pages' bytes; refused at once if there is no room for them.
    pub reserve_bytes: u64,
    /// How its pages are stored.
    pub compression: Compression,
    /// What it takes from an older snapshot.
    pub sharing: Sharing,
    /// Why it is not the incremental one that was asked for; empty otherwise.
    pub why_full: &'a str,
}

/// What is known only at the end of a take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SealInfo {
    /// The time in seconds.
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

/// A snapshot that was sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotSummary {
    /// Its number.
    pub id: u64,
    /// The commit that sealed it.
    pub generation: Generation,
    /// Pages with data.
    pub data_pages: u64,
    /// Zero pages.
    pub zero_pages: u64,
    /// Bytes that it keeps.
    pub stored_bytes: u64,
    /// Bytes that the take wrote, superseded pages and metadata included.
    pub bytes_written: u64,
    /// Digest of its root.
    pub root_digest: Digest,
    /// Pages that were found in the older snapshot, and not written.
    pub shared_pages: u64,
}

/// A run that is being filled.
pub(super) struct OpenRun {
    builder: TreeBuilder,
    reached: Bitmap,
}

/// A run that is complete.
pub(super) struct ClosedRun {
    pub(super) tree: Tree,
    pub(super) reached: Bitmap,
    pub(super) content: ContentHasher,
}

/// A snapshot in the making. Dropping it is aborting it.
pub struct Taking<'s, D: BlockDevice> {
    pub(super) store: &'s mut Store<D>,
    pub(super) appender: Appender,
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) metadata: Metadata,
    pub(super) created_unix: u64,
    pub(super) gfn_end: u64,
    pub(super) open: Option<OpenRun>,
    pub(super) runs: Vec<ClosedRun>,
    pub(super) parts: Vec<PartRecord>,
    /// The older snapshot, and whether this one lies on top of it.
    pub(super) base: Option<Base>,
    pub(super) since: bool,
    pub(super) own_pages: u64,
    /// Index bytes of a merge with all the runs below.
    below_bytes: u64,
    pub(super) why_full: String,
    /// Kind, bytes and digest of each attachment.
    pub(super) attached: Vec<(AttachmentKind, u64, Digest)>,
    packer: Option<Packer>,
    recent: Recent,
    /// Bytes of pages that were stored, and that were not because an equal page lies there already.
    pub(super) stored: u64,
    pub(super) shared: u64,
    /// Bytes of the pages that the merged runs name, equal ones counted each time.
    pub(super) live: Option<u64>,
    pub(super) written_before: u64,
    pub(super) sealed: bool,
}

impl<'s, D: BlockDevice> Taking<'s, D> {
    pub(super) fn begin(store: &'s mut Store<D>, new: &NewSnapshot<'_>) -> Result<Self> {
        let name = admit::named(&store.volume, new)?;
        let base = match new.sharing.base() {
            Some(id) => Some(Base::open(&mut store.device, &store.volume, store.volume.entry(id)?)?),
            None => None,
        };
        let since = matches!(new.sharing, Sharing::Since(_));
        let below_bytes = base.as_ref().filter(|_| since).map_or(0, Base::index_bytes);
        admit::room(store, new.reserve_bytes, below_bytes)?;
        store.features = 0;
        let superblock = &store.volume.superblock;
        Ok(Self {
            appender: Appender::new(&superblock.geometry),
            id: superblock.next_snapshot,
            name,
            metadata: describe(new),
            created_unix: new.created_unix,
            gfn_end: new.max_gfn.raw().saturating_add(1),
            open: None,
            runs: Vec::new(),
            parts: Vec::new(),
            base,
            since,
            own_pages: 0,
            below_bytes,
            why_full: new.why_full.to_string(),
            attached: Vec::new(),
            packer: Packer::new(new.compression),
            recent: Recent::new(),
            stored: 0,
            shared: 0,
            live: None,
            written_before: store.device.bytes_written(),
            sealed: false,
            store,
        })
    }

    /// Begins a run: one round of the take. What it says replaces what earlier runs said.
    pub fn run_begin(&mut self) -> Result<()> {
        self.store.check()?;
        if self.open.is_some() {
            return Err(StoreError::Misuse { what: "run_begin" });
        }
        if self.runs.len() >= TAKE_RUNS_MAX {
            return Err(StoreError::TooLong { what: "runs of a take", limit: TAKE_RUNS_MAX as u64 });
        }
        if let Some(base) = &mut self.base {
            base.rewind();
        }
        let reached = Bitmap::new(self.store.volume.superblock.geometry.segments);
        self.open = Some(OpenRun { builder: TreeBuilder::new(&self.store.volume.keys), reached });
        Ok(())
    }

    /// Waits until the device has answered all that it was given.
    pub fn settle(&mut self) -> Result<()> {
        self.store.check()?;
        Ok(self.store.device.settle()?)
    }

    /// What the device has done by now, and in which pieces it is given pages.
    pub fn pace(&mut self) -> Pace {
        let gathered_bytes = self.appender.gathered() as u64;
        Pace { piece_bytes: PIECE as u64, gathered_bytes, ..self.store.device.pace() }
    }

    /// Stores a page. A page of zeros takes no room: whoever has not looked for zeros pays with a digest, the others do
    /// not pay for a second look.
    pub fn page(&mut self, gfn: Gfn, page: &Page) -> Result<()> {
        let digest = self.store.volume.keys.page(page);
        if self.store.volume.keys.is_zero(&digest) {
            return self.zero(gfn);
        }
        let place = self.place(gfn, page, digest)?;
        let (keep, since) = (self.keep(), self.since);
        let (run, mut sink) = self.in_run(gfn, keep)?;
        let unlisted = if since { out(Safeguard::StackedSegments) } else { out(Safeguard::ListedSegments) };
        if !unlisted {
            sink.reached.set(place.segment.0);
        }
        let entry = Entry { gfn: gfn.raw(), end: gfn.raw() + 1, what: What::Data { place, digest } };
        run.push(entry, &mut sink)
    }

    /// Where the page lies: with an equal one, or packed, or as it is.
    fn place(&mut self, gfn: Gfn, page: &Page, digest: Digest) -> Result<Place> {
        let keep = self.keep();
        self.in_run(gfn, keep)?;
        if let Some(place) = self.recent.find(&digest) {
            self.shared += u64::from(place.stored);
            return Ok(place);
        }
        if let Some(place) = self.in_base(gfn, &digest)? {
            self.stored += u64::from(place.stored);
            self.recent.add(digest, place);
            return Ok(place);
        }
        let place = match self.packer.as_mut().and_then(|packer| packer.pack(page)) {
            Some(packed) => {
                self.store.features |= INCOMPAT_LZ4;
                self.appender.packed(self.store, packed, keep)?
            }
            None => self.appender.page(self.store, page, keep)?,
        };
        self.stored += u64::from(place.stored);
        self.recent.add(digest, place);
        Ok(place)
    }

    /// Notes a page of zeros.
    pub fn zero(&mut self, gfn: Gfn) -> Result<()> {
        self.range(gfn, What::Zero)
    }

    /// Notes that the gfn is not populated (any more).
    pub fn hole(&mut self, gfn: Gfn) -> Result<()> {
        self.range(gfn, What::Hole)
    }

    fn range(&mut self, gfn: Gfn, what: What) -> Result<()> {
        let keep = self.keep();
        let (run, mut sink) = self.in_run(gfn, keep)?;
        run.push(Entry { gfn: gfn.raw(), end: gfn.raw() + 1, what }, &mut sink)
    }

    /// The open run and the way to add to it; the gfn is legal.
    fn in_run(&mut self, gfn: Gfn, keep: u32) -> Result<(&mut TreeBuilder, Sink<'_, D>)> {
        self.store.check()?;
        if gfn.raw() >= GFN_LIMIT && !out(Safeguard::GfnLimit) {
            return Err(StoreError::OutOfOrder { gfn });
        }
        self.gfn_end = self.gfn_end.max(gfn.raw() + 1);
        let Some(OpenRun { builder, reached }) = self.open.as_mut() else {
            return Err(StoreError::Misuse { what: "page" });
        };
        builder.admits(gfn)?;
        Ok((builder, Sink { store: self.store, appender: &mut self.appender, reached, keep }))
    }

    /// Ends the run.
    pub fn run_end(&mut self) -> Result<()> {
        self.store.check()?;
        let Some(OpenRun { builder, mut reached }) = self.open.take() else {
            return Err(StoreError::Misuse { what: "run_end" });
        };
        let closed = self.close(builder, &mut reached)?;
        if let Some((tree, content)) = closed {
            // Of a snapshot that stands alone only a single run is sealed as it is; a merge makes its set anew.
            let reached = if self.runs.is_empty() || self.since { reached } else { Bitmap::new(0) };
            self.runs.push(ClosedRun { tree, reached, content });
        }
        Ok(())
    }

    pub(super) fn close(
        &mut self,
        builder: TreeBuilder,
        reached: &mut Bitmap,
    ) -> Result<Option<(Tree, ContentHasher)>> {
        let keep = self.store.volume.superblock.slop;
        let mut sink = Sink { store: self.store, appender: &mut self.appender, reached, keep };
        builder.finish(&mut sink)
    }

    /// Everything accepted so far is durable on return (and still invisible).
    pub fn sync(&mut self) -> Result<()> {
        self.store.check()?;
        self.appender.push_out(self.store)?;
        Ok(self.store.device.flush()?)
    }

    /// Bytes written since the take began.
    pub fn bytes_written(&self) -> u64 {
        self.store.device.bytes_written().saturating_sub(self.written_before)
    }

    /// Bytes that pages may still take.
    pub fn space_left(&self) -> u64 {
        u64::from(self.store.allocator.free().saturating_sub(self.keep())) * SEGMENT_BYTES
    }

    /// The device, for what is not storage.
    pub fn device_mut(&mut self) -> &mut D {
        self.store.device.inner()
    }

    /// Segments that pages leave free: the slop, and what sealing needs.
    fn keep(&self) -> u32 {
        let entries = self.runs.iter().map(|run| run.tree.entries).sum::<u64>();
        let entries = entries + self.open.as_ref().map_or(0, |open| open.builder.entries());
        let seal = if self.runs.is_empty() { 1 } else { SEAL_SEGMENTS };
        let seal = seal + (entries * INDEX_BYTES + self.below_bytes) / SEGMENT_BYTES;
        self.store.volume.superblock.slop.saturating_add(u32::try_from(seal).unwrap_or(u32::MAX))
    }

    /// Gives everything back. (Dropping does the same.)
    pub fn abort(self) {}
}

impl<D: BlockDevice> Drop for Taking<'_, D> {
    /// Nothing on the disk names what was written: forgetting it is enough.
    fn drop(&mut self) {
        if self.sealed {
            return;
        }
        self.store.forget_taken(&self.appender);
        self.store.features = 0;
    }
}

fn describe(new: &NewSnapshot<'_>) -> Metadata {
    Metadata {
        guest_name: new.guest_name.to_string(),
        guest_uuid: new.guest_uuid,
        mode: new.mode.to_string(),
        sealed_unix: 0,
        rounds: 0,
        pages_sent: 0,
        pause_us: 0,
        elapsed_us: 0,
    }
}
