//! The store behind the engine's [`Recorder`] and the export's [`Source`]: the one place where the two meet.
//!
//! It translates, nothing else: errors of the store become the session's causes, attachments their kinds on disk.

use alloc::string::ToString;
use alloc::vec::Vec;

use xen_hypercall::types::Gfn;

use super::recorder::{Attachment, Ground, NewTake, Recorder};
use crate::export::{EachPage, Source};
use crate::fault::Fault;
use crate::fields::Line;
use crate::ports::{BlockDevice, Pace, Page};
use crate::request::Kind;
use crate::session::Trouble;
use crate::status::Counters;
use crate::store::{
    AttachmentKind, Digest, NewSnapshot, PageRef, SealInfo, Sharing, SnapshotReader, Store, StoreError, Taking,
};

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        let fault = match error {
            StoreError::Full { .. } | StoreError::TooManySnapshots { .. } | StoreError::HeldByReaders => Fault::NoSpace,
            StoreError::NameTaken => Fault::NameUsed,
            StoreError::NotFound => Fault::NoSuchSnapshot,
            _ => Fault::Store,
        };
        Self::new(fault, error)
    }
}

impl Attachment {
    /// How the store knows it.
    pub fn kind(self) -> AttachmentKind {
        match self {
            Self::ConfigJson => AttachmentKind::CONFIG_JSON,
            Self::StaticRecords => AttachmentKind::STATIC_RECORDS,
            Self::PlatformRecords => AttachmentKind::PLATFORM_RECORDS,
            Self::Stats => AttachmentKind::STATS,
            Self::Trace => AttachmentKind::TRACE,
            Self::PageTypes => AttachmentKind::PAGE_TYPES,
            Self::Disks => AttachmentKind::DISKS,
        }
    }
}

/// A snapshot in the making on a store that is open for writing.
pub struct StoreRecorder<'s, D: BlockDevice> {
    /// There until `begin`.
    store: Option<&'s mut Store<D>>,
    taking: Option<Taking<'s, D>>,
    created_unix: u64,
    sealed: Option<(u64, Digest)>,
    written: u64,
    /// What the device had done before.
    before: Pace,
}

impl<'s, D: BlockDevice> StoreRecorder<'s, D> {
    /// A recorder for one take.
    pub fn new(store: &'s mut Store<D>) -> Self {
        Self { store: Some(store), taking: None, created_unix: 0, sealed: None, written: 0, before: Pace::default() }
    }

    fn taking(&mut self) -> Result<&mut Taking<'s, D>, Trouble> {
        self.taking.as_mut().ok_or_else(|| Trouble::new(Fault::Store, "no snapshot was begun"))
    }
}

/// What the store has of the guest already, as far as it is wanted.
fn ground<D: BlockDevice>(store: &mut Store<D>, new: &NewTake<'_>) -> Result<(Sharing, Ground), Trouble> {
    if new.take.kind == Kind::Full {
        return Ok((Sharing::Nothing, Ground::default()));
    }
    if let Some(id) = new.on_top {
        let (name, _) = store.named(id)?;
        return Ok((Sharing::Since(id), Ground { base: Line::of(name), ..Ground::default() }));
    }
    let found = store.newest_of(&new.take.handle.raw())?;
    Ok(match found {
        Some((id, name)) => (Sharing::Equal(id), Ground { base: Line::of(name), why_full: Line::of(new.why_full) }),
        None if !new.why_full.is_empty() => {
            (Sharing::Nothing, Ground { why_full: Line::of(new.why_full), ..Ground::default() })
        }
        None => {
            let why_full = Line::of("the store has no older snapshot of this guest");
            (Sharing::Nothing, Ground { why_full, ..Ground::default() })
        }
    })
}

impl<D: BlockDevice> Recorder for StoreRecorder<'_, D> {
    fn begin(&mut self, new: &NewTake<'_>) -> Result<Ground, Trouble> {
        let store = self.store.take().ok_or_else(|| Trouble::new(Fault::Store, "a snapshot was begun already"))?;
        let (sharing, ground) = ground(store, new)?;
        self.created_unix = new.take.created_unix;
        self.before = store.device_mut().pace();
        self.taking = Some(store.begin(&NewSnapshot {
            name: &new.take.name.to_string(),
            guest_name: new.take.name.guest.as_str(),
            guest_uuid: new.take.handle.raw(),
            mode: new.take.mode.as_str(),
            created_unix: new.take.created_unix,
            max_gfn: new.max_gfn,
            reserve_bytes: new.reserve_bytes,
            compression: new.take.compression,
            sharing,
            why_full: ground.why_full.as_str(),
        })?);
        Ok(ground)
    }

    fn knows(&mut self, snapshot: u64, content: &Digest) -> Result<bool, Trouble> {
        let Some(store) = &mut self.store else { return Ok(false) };
        match store.named(snapshot) {
            Ok((_, found)) => Ok(found == *content),
            Err(error) if matches!(error, StoreError::NotFound) || error.is_damage() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn room(&self) -> u64 {
        self.taking.as_ref().map_or(0, Taking::space_left)
    }

    fn sealed(&self) -> Option<(u64, Digest)> {
        self.sealed
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn shared(&self) -> u64 {
        self.taking.as_ref().map_or(0, Taking::shared_pages)
    }

    fn run_begin(&mut self) -> Result<(), Trouble> {
        Ok(self.taking()?.run_begin()?)
    }

    fn page(&mut self, gfn: Gfn, page: &Page) -> Result<(), Trouble> {
        Ok(self.taking()?.page(gfn, page)?)
    }

    fn zero(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        Ok(self.taking()?.zero(gfn)?)
    }

    fn hole(&mut self, gfn: Gfn) -> Result<(), Trouble> {
        Ok(self.taking()?.hole(gfn)?)
    }

    fn run_end(&mut self) -> Result<(), Trouble> {
        Ok(self.taking()?.run_end()?)
    }

    fn settle(&mut self) -> Result<(), Trouble> {
        Ok(self.taking()?.settle()?)
    }

    fn pace(&mut self) -> Pace {
        self.taking.as_mut().map_or_else(Pace::default, |taking| taking.pace().counted_since(self.before))
    }

    fn attach(&mut self, kind: Attachment, bytes: &[u8]) -> Result<(), Trouble> {
        // The store keeps no empty attachments; an absent one means the same.
        if bytes.is_empty() {
            return Ok(());
        }
        Ok(self.taking()?.attach(kind.kind(), bytes)?)
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        Ok(self.taking()?.sync()?)
    }

    fn seal(&mut self, counters: &Counters) -> Result<(), Trouble> {
        let taking = self.taking.take().ok_or_else(|| Trouble::new(Fault::Store, "no snapshot was begun"))?;
        let sealed = taking.seal(&SealInfo {
            sealed_unix: self.created_unix.saturating_add(counters.elapsed_us / 1_000_000),
            rounds: counters.round_number(),
            pages_sent: counters.pages + counters.zero,
            pause_us: counters.pause_us,
            elapsed_us: counters.elapsed_us,
        })?;
        self.sealed = Some((sealed.id, sealed.root_digest));
        self.written = sealed.bytes_written;
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Trouble> {
        if let Some(taking) = self.taking.take() {
            taking.abort();
        }
        Ok(())
    }
}

impl<D: BlockDevice> Source for SnapshotReader<'_, D> {
    type Error = StoreError;

    fn attachment(&mut self, kind: Attachment) -> Result<Option<Vec<u8>>, StoreError> {
        SnapshotReader::attachment(self, kind.kind())
    }

    fn pages(&mut self, each: &mut EachPage<'_>) -> Result<(), StoreError> {
        let mut pages = SnapshotReader::pages(self)?;
        while let Some((gfn, page)) = pages.next_page()? {
            let content = match page {
                PageRef::Zero => None,
                PageRef::Data(page) => Some(page),
            };
            if each(gfn, content).is_err() {
                break;
            }
        }
        Ok(())
    }
}
