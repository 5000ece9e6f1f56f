//! Which ids and addresses are free, derived at open by mark and sweep (docs/format/store-v1.md, sections 1 and 11).
//!
//! Invariants: a segment is used exactly if a sealed snapshot reaches it or the running take has it. Every used id has
//! one used address, so both bitmaps have the same count. Memory: 2 bits per MiB of the device.

use crate::store::bitmap::Bitmap;
use crate::store::error::{Result, StoreError};
use crate::store::geometry::{Address, Geometry, SegmentId};
use crate::store::layout::SEGMENT_BYTES;
use crate::store::table::SegmentTable;

/// The free map.
#[derive(Clone)]
pub struct Allocator {
    ids: Bitmap,
    addresses: Bitmap,
    first_segment: u32,
    cursor: u32,
}

impl Allocator {
    /// All that is not in `reached` is free. Fails if two reached ids share an address, or one has none.
    pub fn sweep(reached: &Bitmap, table: &SegmentTable, geometry: &Geometry) -> Result<Self> {
        let mut addresses = Bitmap::new(geometry.segments);
        for id in reached.iter() {
            let address = table.address(SegmentId(id))?;
            let bit = address.0.saturating_sub(geometry.first_segment);
            if addresses.get(bit) {
                return Err(StoreError::corrupt("segment that two ids share", address.block()));
            }
            addresses.set(bit);
        }
        Ok(Self { ids: reached.clone(), addresses, first_segment: geometry.first_segment, cursor: 0 })
    }

    /// Segments free.
    pub fn free(&self) -> u32 {
        self.ids.len().saturating_sub(self.ids.count())
    }

    /// Is the id used?
    pub fn used(&self, id: SegmentId) -> bool {
        self.ids.get(id.0)
    }

    /// A free segment, unless only `keep` are left. Goes round the device, and prefers the id that equals the place.
    pub fn take(&mut self, keep: u32) -> Result<(SegmentId, Address)> {
        let free = self.free();
        let place = self.addresses.first_clear(self.cursor).filter(|_| free > keep);
        let id = place.and_then(|place| if self.ids.get(place) { self.ids.first_clear(place) } else { Some(place) });
        let (Some(place), Some(id)) = (place, id) else {
            let available = u64::from(free.saturating_sub(keep)) * SEGMENT_BYTES;
            return Err(StoreError::Full { wanted: SEGMENT_BYTES, available });
        };
        self.addresses.set(place);
        self.ids.set(id);
        self.cursor = place.saturating_add(1);
        Ok((SegmentId(id), Address(self.first_segment.saturating_add(place))))
    }

    /// Notes that a segment is in use.
    pub fn occupy(&mut self, id: SegmentId, address: Address) {
        self.ids.set(id.0);
        self.addresses.set(address.0.saturating_sub(self.first_segment));
    }

    /// Gives a segment back.
    pub fn release(&mut self, id: SegmentId, address: Address) {
        self.ids.clear(id.0);
        self.addresses.clear(address.0.saturating_sub(self.first_segment));
    }
}
