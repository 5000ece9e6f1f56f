//! What can go wrong with a store, as values: what, where, and who must act.
//!
//! Invariant: nothing here is a string made at run time, so an error costs no memory when memory is short. An error of
//! the device (`Io`) is never reported as damage, and damage never as an error of the device.

use core::fmt;

use xen_hypercall::types::Gfn;

use crate::names::NameError;
use crate::ports::{BlockIdx, IoError};

/// Why a call on a store failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// Both superblock slots are zero. The operator formats the device (`store init`).
    NotFormatted,
    /// Something else is on the device. The operator names another device, or wipes this one.
    Foreign,
    /// The store was written by a newer version. The operator upgrades.
    NewerVersion {
        /// The version found.
        found: u32,
    },
    /// The store uses features that this version does not know. The operator upgrades.
    UnknownFeatures {
        /// The unknown bits of `incompat` or, for a writer, `ro_compat`.
        bits: u64,
    },
    /// The device is too small for a store. The operator grows it.
    TooSmall {
        /// Its size in blocks.
        blocks: u64,
        /// The least size in blocks.
        need: u64,
    },
    /// The device is smaller than when it was formatted. The operator grows it back.
    Shrunk {
        /// Its size in blocks.
        blocks: u64,
        /// The size in blocks when it was formatted.
        formatted: u64,
    },
    /// Bytes do not match their checksum, or make no sense. Other snapshots stay usable where the store still opens.
    Corrupt {
        /// The structure.
        what: &'static str,
        /// The block where it starts.
        at: BlockIdx,
    },
    /// One page does not match its digest, or cannot be read.
    DamagedPage {
        /// The guest's frame.
        gfn: Gfn,
        /// The block that holds it.
        at: BlockIdx,
    },
    /// A snapshot is damaged so that the writer cannot know which segments it holds. The operator removes it, or
    /// repairs the device; nothing can be taken before that.
    DamagedSnapshot {
        /// Its id (`list` shows it).
        id: u64,
    },
    /// The device is read-only. The operator attaches it for writing.
    ReadOnly,
    /// The device failed. The operator looks at the disk.
    Io(IoError),
    /// The device failed earlier: what is on it is unknown until the store is opened again.
    Poisoned,
    /// What is free may still be read by somebody who began before this writer. The operator waits, or ends the reader.
    HeldByReaders,
    /// Not enough room. The operator removes snapshots or takes a larger device.
    Full {
        /// Bytes wanted.
        wanted: u64,
        /// Bytes available.
        available: u64,
    },
    /// The catalog has no room for another snapshot. The operator removes some.
    TooManySnapshots {
        /// The most that this store can list.
        limit: u64,
    },
    /// A snapshot of this name exists. The operator picks another name, or removes it.
    NameTaken,
    /// No snapshot of this name.
    NotFound,
    /// Not a legal name.
    BadName(NameError),
    /// A value handed in is longer than the format allows.
    TooLong {
        /// Which.
        what: &'static str,
        /// The limit in bytes, or items.
        limit: u64,
    },
    /// Gfns of a run must ascend, and stay below the limit given at the start: a bug of the caller.
    OutOfOrder {
        /// The gfn.
        gfn: Gfn,
    },
    /// Called in the wrong order: a bug of the caller.
    Misuse {
        /// The call.
        what: &'static str,
    },
}

/// Most results here.
pub type Result<T> = core::result::Result<T, StoreError>;

impl From<IoError> for StoreError {
    fn from(error: IoError) -> Self {
        match error {
            IoError::ReadOnly => Self::ReadOnly,
            error => Self::Io(error),
        }
    }
}

impl StoreError {
    /// Damage in a structure that starts at a block.
    pub(crate) fn corrupt(what: &'static str, at: u64) -> Self {
        Self::Corrupt { what, at: BlockIdx(at) }
    }

    /// True if a snapshot, or a page, is lost to damage or to a bad sector, and others may be fine.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::DamagedPage { .. } | Self::Io(IoError::Failed { .. }))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFormatted => out.write_str("the device holds no store: format it with 'livesave store init'"),
            Self::Foreign => out.write_str("the device holds something else than a store"),
            Self::NewerVersion { found } => write!(out, "the store has version {found}: a newer livesave wrote it"),
            Self::UnknownFeatures { bits } => write!(out, "the store uses features unknown here ({bits:#x}): upgrade"),
            Self::TooSmall { blocks, need } => {
                write!(out, "the device has {} KiB, a store needs {} KiB", kib(*blocks), kib(*need))
            }
            Self::Shrunk { blocks, formatted } => {
                write!(out, "the device has {} KiB, the store {} KiB: it shrank", kib(*blocks), kib(*formatted))
            }
            Self::Corrupt { what, at } => write!(out, "damaged {what} at block {}", at.0),
            Self::DamagedPage { gfn, at } => write!(out, "damaged page of gfn {gfn} at block {}", at.0),
            Self::DamagedSnapshot { id } => write!(out, "snapshot number {id} is damaged: remove it first"),
            Self::ReadOnly => out.write_str("the device is read-only"),
            Self::Io(error) => write!(out, "the store's device failed: {error}"),
            Self::Poisoned => out.write_str("the device failed earlier: open the store again"),
            Self::HeldByReaders => {
                out.write_str("a reader holds what is free: wait for its end, or half a minute if it died")
            }
            Self::Full { wanted, available } => {
                write!(out, "the store is full: {wanted} bytes wanted, {available} available")
            }
            Self::TooManySnapshots { limit } => write!(out, "the store lists {limit} snapshots at most"),
            Self::NameTaken => out.write_str("a snapshot of this name exists"),
            Self::NotFound => out.write_str("no snapshot of this name"),
            Self::BadName(error) => write!(out, "{error}"),
            Self::TooLong { what, limit } => write!(out, "{what}: more than {limit}"),
            Self::OutOfOrder { gfn } => write!(out, "gfn {gfn} is out of order or out of range"),
            Self::Misuse { what } => write!(out, "{what}: called at the wrong time"),
        }
    }
}

/// Blocks as KiB, for people.
fn kib(blocks: u64) -> u64 {
    blocks.saturating_mul(4)
}

/// An open that failed; the device comes back.
#[derive(Debug)]
pub struct OpenFailed<D> {
    /// Why.
    pub error: StoreError,
    /// The device, as it was handed in.
    pub device: D,
}
