//! Which takes are begun: what could not be sealed, or read afterwards, is refused before anything is written.
//!
//! Invariants: nothing here writes; a name is legal and used once, and the catalog has room for it.

use alloc::string::{String, ToString};

use crate::names::SnapshotName;
use crate::ports::BlockDevice;
use crate::store::error::{Result, StoreError};
use crate::store::layout::{BLOCK, GFN_LIMIT, SEGMENT_BYTES, length32};
use crate::store::sabotage::{Safeguard, out};
use crate::store::store::Store;
use crate::store::taking::{INDEX_BYTES, NewSnapshot, SEAL_SEGMENTS};
use crate::store::volume::Volume;

/// Most bytes in the guest's name.
const GUEST_NAME_MAX: usize = 256;
/// Most bytes in the name of a mode.
const MODE_MAX: usize = 16;
/// What the ends of segments may leave empty: 3 blocks of 256, where a leaf of an index did not fit.
const TAIL_SHARE: u64 = 64;

/// The name of a take that may begin, as far as that is known without the allocator.
pub(super) fn named(volume: &Volume, new: &NewSnapshot<'_>) -> Result<String> {
    let name = new.name.parse::<SnapshotName>().map_err(StoreError::BadName)?.to_string();
    if volume.find(&name).is_ok() && !out(Safeguard::NameTaken) {
        return Err(StoreError::NameTaken);
    }
    let limit = volume.superblock.geometry.snapshots;
    if volume.entries.len() as u64 >= limit {
        return Err(StoreError::TooManySnapshots { limit });
    }
    within("guest name", new.guest_name, GUEST_NAME_MAX)?;
    within("mode", new.mode, MODE_MAX)?;
    if new.max_gfn.raw() >= GFN_LIMIT && !out(Safeguard::MaxGfn) {
        return Err(StoreError::OutOfOrder { gfn: new.max_gfn });
    }
    Ok(name)
}

fn within(what: &'static str, text: &str, limit: usize) -> Result<()> {
    if text.len() > limit { Err(StoreError::TooLong { what, limit: u64::from(length32(limit)) }) } else { Ok(()) }
}

/// What a take of so many bytes of pages may need: pages, their indexes, and what sealing needs.
pub(super) fn reserved_bytes(pages: u64) -> u64 {
    let index = pages.div_ceil(BLOCK as u64).saturating_mul(INDEX_BYTES);
    let wanted = pages.saturating_add(index);
    wanted.saturating_add(wanted / TAIL_SHARE).saturating_add(SEAL_SEGMENTS * SEGMENT_BYTES)
}

/// Refuses a take that cannot fit: pages, their indexes, and what sealing needs.
pub(super) fn room<D: BlockDevice>(store: &Store<D>, reserve: u64, index: u64) -> Result<()> {
    let wanted = reserved_bytes(reserve).saturating_add(index);
    let available = u64::from(store.usable()) * SEGMENT_BYTES;
    if wanted > available { Err(StoreError::Full { wanted, available }) } else { Ok(()) }
}
