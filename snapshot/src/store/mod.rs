//! The store: snapshots on a block device, crash-safe, checked, in constant memory.
//!
//! The format is docs/format/store-v1.md, the contract; read it first. By file, bottom up:
//!
//! * where things lie: `layout`, `kind`, `geometry`, `digest`, `pointer`
//! * the committed state: `superblock`, `meta`, `table`, `catalog`; opened: `volume`
//! * a snapshot: `entry`, `builder`, `cursor`, `root`; its pages made smaller: `squeeze`
//! * writing: `device`, `allocator`, `mark`, `appender`, `base`, `admit`, `taking`, `attach`, `seal`, `stack`, `store`;
//!   `format` makes one; `claim` says whether another writer lives
//! * space: `sizing`, `sweep` finds what is sparse, `clean` moves it, `held` waits for readers and their `lease`s
//! * reading: `reader`, `batch`, `gaps`, `pages`, `verify`; `check` proves a whole store
//!
//! `sabotage` names the safeguards, for the simulator that leaves them out one by one.
//!
//! No clock and no randomness: both are handed in.

mod admit;
mod allocator;
mod appender;
mod attach;
mod base;
mod batch;
mod bitmap;
mod builder;
mod catalog;
mod check;
mod claim;
mod clean;
mod cursor;
mod device;
mod digest;
mod entry;
mod error;
mod format;
mod gaps;
mod geometry;
mod heartbeat;
mod held;
mod kind;
pub mod layout;
mod lease;
mod mark;
mod meta;
mod pages;
mod pointer;
mod reader;
mod root;
mod sabotage;
mod seal;
mod sizing;
mod squeeze;
mod stack;
#[expect(clippy::module_inception, reason = "the writer is what the outside calls the store")]
mod store;
mod superblock;
mod sweep;
mod table;
mod taking;
mod verify;
mod volume;

pub use base::Sharing;
pub use batch::BatchSize;
pub use check::{CheckProgress, CheckReport, Flaw};
pub use claim::{Claim, Listener, PERIOD_NS as BEAT_PERIOD_NS, SILENCE_NS, STAND_NS, is_anothers};
pub use clean::Cleaned;
pub use device::Guarded;
pub(crate) use digest::Fingerprint;
pub use digest::{Digest, Keys};
pub use error::{OpenFailed, StoreError};
pub use format::{FormatOptions, Probe, format, probe};
pub use geometry::{Geometry, SegmentId, Slot};
pub use heartbeat::Heartbeat;
pub use lease::{Lease, PATIENCE_NS as LEASE_PATIENCE_NS};
pub use pages::{PageRef, Pages};
pub use reader::{Catalog, Listed, SnapshotInfo, SnapshotReader};
pub use root::{AttachmentKind, Lineage};
#[cfg(feature = "sabotage")]
pub use sabotage::Safeguard;
#[cfg(not(feature = "sabotage"))]
pub(crate) use sabotage::Safeguard;
pub(crate) use sabotage::out;
pub use sizing::device_blocks;
pub(crate) use squeeze::unpack;
pub use squeeze::{Compression, Packer};
pub use store::{Store, StoreInfo};
pub use superblock::{Generation, StoreId};
pub use taking::{NewSnapshot, SealInfo, SnapshotSummary, TAKE_RUNS_MAX, Taking};
pub use verify::VerifyReport;
