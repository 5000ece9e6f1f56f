//! Opening the store for reading, and what its errors mean to the operator.

use crate::args::Place;
use crate::exit::{Exit, Failure, Outcome};
use crate::host::device::{self, Access, Device};
use crate::host::{lease, tree};
use crate::seen::{self, Sight};
use crate::stub;
use snapshot::store::{BatchSize, Catalog, StoreError};
use std::io::Write;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

/// A store, open for reading, with a lease on what is read.
pub struct Open {
    catalog: Catalog<Device>,
    _lease: Option<lease::Held>,
}

impl Deref for Open {
    type Target = Catalog<Device>;

    fn deref(&self) -> &Self::Target {
        &self.catalog
    }
}

impl DerefMut for Open {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.catalog
    }
}

/// What an error of the store means.
pub fn trouble(what: impl std::fmt::Display, error: StoreError) -> Failure {
    let (exit, hint) = match error {
        StoreError::NotFormatted => (Exit::NoStore, "`livesave store init` makes one"),
        StoreError::Foreign => (Exit::NoStore, "name the store's device with --store"),
        StoreError::NewerVersion { .. } | StoreError::UnknownFeatures { .. } => (Exit::BadStore, "upgrade livesave"),
        StoreError::TooSmall { .. } => (Exit::NoSpace, "take a larger device"),
        StoreError::Shrunk { .. } => (Exit::BadStore, "grow the device back to its old size"),
        StoreError::NotFound => (Exit::NoSnapshot, "`livesave ls` shows the snapshots"),
        StoreError::BadName(_) => (Exit::Usage, "a snapshot is named GUEST@NAME"),
        StoreError::ReadOnly => (Exit::BadStore, "make the device writable"),
        StoreError::Io(_) => (Exit::BadStore, "look at the disk: `dmesg`, smartctl"),
        StoreError::HeldByReaders => (Exit::Busy, "wait for the reader's end, or half a minute if it died"),
        StoreError::TooLong { .. } => (Exit::Usage, "shorten it"),
        _ => (Exit::BadStore, "`livesave verify` shows which snapshots are whole; other copies of the device may help"),
    };
    exit.fail(format_args!("{what}: {error}")).hint(hint)
}

/// The path of the store: `--store`, or the stub's disk.
pub fn path(place: &Place) -> Outcome<PathBuf> {
    match &place.store {
        Some(path) => Ok(path.clone()),
        None => stub::store_path(&mut tree::connect()?, place),
    }
}

/// Opens the store on this device, whatever was seen of it before.
pub fn open_at(path: &Path) -> Outcome<Open> {
    let device = Device::open(path, Access::Read)?;
    let mut catalog = Catalog::open(device).map_err(|failed| trouble(path.display(), failed.error))?;
    catalog.read_together(BatchSize::LARGE);
    let info = catalog.info();
    let lease = match lease::Held::take(path, info.id, info.generation) {
        Ok(lease) => Some(lease),
        Err(failure) => {
            // What is written over under us is noticed by its digest, so this is no reason to stop.
            let _ = writeln!(std::io::stderr(), "reading without a lease: {}", failure.what);
            None
        }
    };
    // The look after the lease is the one that counts: what it finds is not used again (store-v1.md, section 12).
    catalog.refresh().map_err(|error| trouble(path.display(), error))?;
    Ok(Open { catalog, _lease: lease })
}

/// Opens the store of this place to show what is in it, and says what speaks against it: the command shows it all the
/// same and ends with that failure, so that the operator can see what to accept.
pub fn look(place: &Place) -> Outcome<(Open, Outcome)> {
    let path = path(place)?;
    let store = open_at(&path)?;
    let doubt = seen::check(&Sight::of(&store.info(), device::lasting_name(&path)));
    Ok((store, doubt.map_or(Ok(()), Err)))
}

/// Opens the store of this place to make use of it, unless something speaks against it.
pub fn open(place: &Place) -> Outcome<Open> {
    let (store, doubt) = look(place)?;
    doubt.map(|()| store)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::host::device::tests::scratch;
    use snapshot::names::SnapshotName;
    use snapshot::store::{AttachmentKind, Compression, FormatOptions, NewSnapshot, SealInfo, Sharing, Store, format};
    use xen_hypercall::types::{DomHandle, Gfn};

    /// A store in a file, with one snapshot `web01@one` of three pages.
    pub fn sample(name: &str) -> PathBuf {
        let path = scratch(name, 64 << 20);
        let mut device = Device::open(&path, Access::Exclusive).unwrap();
        // An identity of its own: what dom0 remembers of stores is shared by all tests.
        let mut store_id = [7; 16];
        store_id.iter_mut().zip(name.bytes()).for_each(|(digit, byte)| *digit = byte);
        format(&mut device, &FormatOptions { label: "test", store_id, key: [9; 32], now_unix: 1 }).unwrap();
        let mut store = Store::open(device).unwrap_or_else(|failed| panic!("{:?}", failed.error));
        let snapshot: SnapshotName = "web01@one".parse().unwrap();
        let new = NewSnapshot {
            name: &snapshot.to_string(),
            guest_name: "web01",
            guest_uuid: DomHandle::new([5; 16]).raw(),
            mode: "live",
            created_unix: 1_795_359_600,
            max_gfn: Gfn::new(100),
            reserve_bytes: 1 << 20,
            compression: Compression::None,
            sharing: Sharing::Nothing,
            why_full: "",
        };
        let mut taking = store.begin(&new).unwrap();
        taking.run_begin().unwrap();
        taking.page(Gfn::new(1), &[1; 4096]).unwrap();
        taking.zero(Gfn::new(2)).unwrap();
        taking.page(Gfn::new(3), &[3; 4096]).unwrap();
        taking.run_end().unwrap();
        taking.attach(AttachmentKind::CONFIG_JSON, include_bytes!("../tests/data/config.json")).unwrap();
        for (kind, record) in [(AttachmentKind::STATIC_RECORDS, 0x11_u32), (AttachmentKind::PLATFORM_RECORDS, 0x8)] {
            let bytes: Vec<u8> = [record, 24, 0, 0, 0, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
            taking.attach(kind, &bytes).unwrap();
        }
        taking.seal(&SealInfo { sealed_unix: 2, rounds: 3, pages_sent: 3, pause_us: 4, elapsed_us: 5 }).unwrap();
        path
    }

    fn place(path: &std::path::Path) -> Place {
        Place { stub: "livesave".to_owned(), store: Some(path.to_owned()), json: false }
    }

    #[test]
    fn a_store_in_a_file_is_read() {
        let path = sample("catalog");
        let listed = open(&place(&path)).unwrap().list().unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].snapshot.as_ref().unwrap().data_pages, 2);
    }

    #[test]
    fn a_store_that_went_back_is_shown_but_not_used_until_it_is_accepted() {
        let path = sample("doubt");
        let place = place(&path);
        let now = Sight::of(&open(&place).unwrap().info(), device::lasting_name(&path));
        seen::check(&Sight { generation: now.generation + 3, ..now.clone() });
        let (mut store, doubt) = look(&place).unwrap();
        assert_eq!(store.list().unwrap().len(), 1);
        assert_eq!(doubt.unwrap_err().exit, Exit::StoreWentBack);
        assert_eq!(open(&place).err().unwrap().exit, Exit::StoreWentBack);
        crate::cmd::run(&crate::args::Cli { command: crate::args::Command::Store(crate::args::Store::Accept), place })
            .unwrap();
        let place = tests::place(&path);
        assert!(open(&place).is_ok());
        std::fs::remove_file(&path).unwrap();
        // Another store on the same path.
        let other = sample("other");
        std::fs::rename(other, &path).unwrap();
        assert_eq!(look(&place).unwrap().1.unwrap_err().exit, Exit::StoreSwapped);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn each_kind_of_bad_store_has_its_exit_status() {
        let empty = scratch("catalog-empty", 64 << 20);
        assert_eq!(open(&place(&empty)).err().unwrap().exit, Exit::NoStore);
        std::fs::write(&empty, vec![0x5a; 64 << 20]).unwrap();
        assert_eq!(open(&place(&empty)).err().unwrap().exit, Exit::NoStore);
        std::fs::remove_file(empty).unwrap();
        let short = sample("catalog-short");
        std::fs::File::options().write(true).open(&short).unwrap().set_len(32 << 20).unwrap();
        assert_eq!(open(&place(&short)).err().unwrap().exit, Exit::BadStore);
        std::fs::remove_file(short).unwrap();
    }

    /// The refusal says this, and the file is what it was.
    fn refused(path: &std::path::Path, exit: Exit, says: &str) {
        let before = std::fs::read(path).unwrap();
        let failure = open(&place(path)).err().unwrap();
        assert_eq!(failure.exit, exit, "{}", failure.what);
        assert!(failure.what.contains(says), "{}", failure.what);
        assert!(!failure.way_out().is_empty());
        assert!(std::fs::read(path).unwrap() == before, "{says}: something was written");
    }

    #[test]
    fn a_bad_store_is_named_and_left_as_it_is() {
        let path = scratch("catalog-bad", 8 << 20);
        refused(&path, Exit::NoStore, "holds no store");
        std::fs::write(&path, vec![0x5a; 8 << 20]).unwrap();
        refused(&path, Exit::NoStore, "something else than a store");
        std::fs::write(&path, vec![0; 4096]).unwrap();
        refused(&path, Exit::NoSpace, "a store needs");
        std::fs::remove_file(&path).unwrap();
        let path = sample("catalog-size");
        let length = |bytes: u64| std::fs::File::options().write(true).open(&path).unwrap().set_len(bytes).unwrap();
        length(80 << 20);
        assert_eq!(open(&place(&path)).unwrap().list().unwrap().len(), 1, "a device that grew");
        length(63 << 20);
        refused(&path, Exit::BadStore, "has 64512 KiB, the store 65536 KiB: it shrank");
        std::fs::remove_file(path).unwrap();
    }

    /// Stores that only a later version could make: the words of the store itself are kept.
    #[test]
    fn a_newer_store_says_that_livesave_is_too_old() {
        for (error, says) in [
            (StoreError::NewerVersion { found: 2 }, "the store has version 2"),
            (StoreError::UnknownFeatures { bits: 4 }, "features unknown here (0x4)"),
        ] {
            let failure = trouble("/dev/x", error);
            assert_eq!((failure.exit, failure.way_out()), (Exit::BadStore, "upgrade livesave"));
            assert!(failure.what.contains(says) && failure.what.starts_with("/dev/x"), "{}", failure.what);
        }
    }
}
