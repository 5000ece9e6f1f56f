//! The heartbeat block: a second writer sees that the first one lives (docs/format/store-v1.md, section 5).
//!
//! Invariants: it decides nothing about the content of the store, and a damaged one is an absent one. Whether another
//! writer lives is decided in [`super::claim`].

use crate::ports::{BlockDevice, BlockIdx, Page};
use crate::store::digest::{Digest, checksum};
use crate::store::error::Result;
use crate::store::layout::{BLOCK, HEARTBEAT_BLOCK, HEARTBEAT_MAGIC, heartbeat as field};
use crate::store::sabotage::{Safeguard, out};
use crate::store::superblock::StoreId;

/// What a writer says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// Its random identity.
    pub writer: [u8; 16],
    /// Goes up with each beat.
    pub sequence: u64,
    /// Its clock, in seconds.
    pub unix: u64,
    /// In use, or closed in order.
    pub in_use: bool,
}

impl Heartbeat {
    /// The last beat of any writer of this store, if there is one.
    pub fn read<D: BlockDevice>(device: &mut D, store: StoreId) -> Result<Option<Self>> {
        let mut block = [0; BLOCK];
        device.read(BlockIdx(HEARTBEAT_BLOCK), &mut block)?;
        Ok(Self::decode(&block, store))
    }

    /// Writes it, without a flush.
    pub fn write<D: BlockDevice>(&self, device: &mut D, store: StoreId) -> Result<()> {
        Ok(device.write(BlockIdx(HEARTBEAT_BLOCK), &self.encode(store))?)
    }

    /// The sequence of the beat after this one. It goes round: one that stood still at its end would look dead.
    pub fn following(sequence: u64) -> u64 {
        sequence.wrapping_add(1)
    }

    fn encode(&self, store: StoreId) -> Page {
        let mut block = [0; BLOCK];
        field::MAGIC.put(&mut block, &HEARTBEAT_MAGIC);
        field::STORE_ID.put(&mut block, &store.0);
        field::WRITER.put(&mut block, &self.writer);
        field::SEQUENCE.put(&mut block, &self.sequence.to_le_bytes());
        field::UNIX.put(&mut block, &self.unix.to_le_bytes());
        field::STATE.put(&mut block, &(if self.in_use { 1u32 } else { 2 }).to_le_bytes());
        let sum = checksum(block.get(..field::CHECKSUM.offset).unwrap_or(&[]));
        field::CHECKSUM.put(&mut block, &sum.0);
        block
    }

    fn decode(block: &Page, store: StoreId) -> Option<Self> {
        let sum = checksum(block.get(..field::CHECKSUM.offset)?);
        let ours = field::MAGIC.of(block) == HEARTBEAT_MAGIC
            && field::STORE_ID.of(block) == store.0
            && (Digest(field::CHECKSUM.array(block)) == sum || out(Safeguard::BeatChecksum));
        ours.then(|| Self {
            writer: field::WRITER.array(block),
            sequence: field::SEQUENCE.u64(block),
            unix: field::UNIX.u64(block),
            in_use: field::STATE.u32(block) == 1,
        })
    }
}
