//! Which ids and addresses are free, derived at open by mark and sweep (docs/format/store-v1.md, sections 1 and 11).
//!
//! Invariants: a segment is used exactly if a sealed snapshot reaches it or the running take has it. Every used id has
//! one used address, so both bitmaps have the same count. Memory: 2 bits per MiB of the device.

use crate::store::bitmap::Bitmap;
use crate::store::error::{Result, StoreError};
use crate::store::geometry::{Address, Geometry, SegmentId};
use crate::store::layout::SEGMENT_BYTES;
use crate::store::sabotage::{Safeguard, out};
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
            if addresses.get(bit) && !out(Safeguard::SharedAddress) {
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

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::store::layout::DEVICE_BLOCKS_MIN;

    const SEGMENTS: u32 = 4;

    fn geometry() -> Geometry {
        let geometry = Geometry::of(DEVICE_BLOCKS_MIN).unwrap();
        assert_eq!(geometry.segments, SEGMENTS);
        geometry
    }

    /// Ids that are reached, and their places; every way in which four ids may have four places, or none.
    fn every_table(mut look: impl FnMut(&Bitmap, &[Option<u32>; 4], &SegmentTable)) {
        let geometry = geometry();
        for (reached, code) in (0..16u32).flat_map(|reached| (0..625u32).map(move |code| (reached, code))) {
            let places: [Option<u32>; 4] = core::array::from_fn(|id| (code / 5u32.pow(id as u32) % 5).checked_sub(1));
            let (mut set, mut table) = (Bitmap::new(SEGMENTS), SegmentTable::empty(&geometry));
            for (id, place) in (0..).zip(places) {
                if reached >> id & 1 == 1 {
                    set.set(id);
                }
                place.into_iter().for_each(|place| table.map(SegmentId(id), Address(geometry.first_segment + place)));
            }
            look(&set, &places, &table);
        }
    }

    #[test]
    fn every_table_of_four_segments() {
        let geometry = geometry();
        let mut legal = 0;
        every_table(|reached, places, table| {
            let mut used: Vec<_> = reached.iter().map(|id| places[id as usize]).collect();
            used.sort_unstable();
            let distinct = used.iter().all(Option::is_some) && used.windows(2).all(|pair| pair[0] != pair[1]);
            let found = Allocator::sweep(reached, table, &geometry);
            assert_eq!(found.is_ok(), distinct, "{reached:?} {places:?}");
            let Ok(allocator) = found else { return };
            legal += 1;
            for (keep, cursor) in (0..=5).flat_map(|keep| (0..=SEGMENTS).map(move |cursor| (keep, cursor))) {
                exhaust(Allocator { cursor, ..allocator.clone() }, keep, &used);
            }
        });
        assert!(legal > 1000, "{legal}");
    }

    /// Takes until it is refused: what is free less what is kept, each id and each place once, none that is used.
    fn exhaust(mut allocator: Allocator, keep: u32, used: &[Option<u32>]) {
        let (free, first) = (allocator.free(), allocator.first_segment);
        let (ids, mut places) = (allocator.ids.clone(), used.iter().flatten().copied().collect::<Vec<_>>());
        let mut fresh = Bitmap::new(SEGMENTS);
        for _ in 0..free.saturating_sub(keep) {
            let (id, address) = allocator.take(keep).unwrap();
            let place = address.0 - first;
            assert!(!ids.get(id.0) && !fresh.get(id.0) && id.0 < SEGMENTS, "{id:?}");
            assert!(!places.contains(&place) && place < SEGMENTS, "{place}");
            assert!(id.0 == place || ids.get(place) || fresh.get(place), "the id that equals the place was free");
            fresh.set(id.0);
            places.push(place);
        }
        assert_eq!(allocator.free(), free.min(keep));
        assert_eq!(allocator.take(keep), Err(StoreError::Full { wanted: SEGMENT_BYTES, available: 0 }));
        assert_eq!(allocator.ids.count(), allocator.addresses.count());
    }

    /// Every sequence of eight steps, each of which takes one or gives back one of those that are held.
    #[test]
    fn every_sequence_of_takes_and_releases() {
        let table = SegmentTable::empty(&geometry());
        for code in 0..5u32.pow(8) {
            let mut allocator = Allocator::sweep(&Bitmap::new(SEGMENTS), &table, &geometry()).unwrap();
            let mut held: Vec<(SegmentId, Address)> = Vec::new();
            for step in (0..8).map(|step| code / 5u32.pow(step) % 5) {
                if step == 4 {
                    let taken = allocator.take(0);
                    assert_eq!(taken.is_ok(), held.len() < 4);
                    held.extend(taken.ok());
                } else if (step as usize) < held.len() {
                    let (id, address) = held.swap_remove(step as usize);
                    allocator.release(id, address);
                }
                assert!(held.iter().all(|(id, _)| allocator.used(*id)));
                assert_eq!(allocator.free() as usize, 4 - held.len());
                assert_eq!(allocator.ids.count(), allocator.addresses.count());
                let mut places: Vec<_> = held.iter().map(|(_, address)| *address).collect();
                places.sort_unstable();
                places.dedup();
                assert_eq!(places.len(), held.len());
            }
        }
    }
}
