//! Leases: a reader says which generation it reads, and the writer uses nothing again that this generation reaches
//! (docs/format/store-v1.md, section 12).
//!
//! Invariants: a lease decides nothing about the content of the store; a damaged one is an absent one, and then the
//! digests notice what is used again. A reader that falls silent holds nothing for longer than [`PATIENCE_NS`]. Time is
//! handed in.

use crate::ports::{BlockDevice, BlockIdx, IoError, Page};
use crate::store::digest::{Digest, checksum};
use crate::store::error::{Result, StoreError};
use crate::store::layout::{BLOCK, LEASE_FIRST, LEASE_MAGIC, LEASES, lease as field};
use crate::store::sabotage::{Safeguard, out};
use crate::store::superblock::{Generation, StoreId};

/// How long a reader's lease holds without being renewed.
pub const PATIENCE_NS: u64 = 30_000_000_000;

/// What a reader says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Its random identity.
    pub reader: [u8; 16],
    /// What it reads was reached in this generation, or later.
    pub generation: Generation,
    /// Goes up with each renewal.
    pub sequence: u64,
    /// Its clock, in seconds; for people.
    pub unix: u64,
    /// In use, or given back.
    pub in_use: bool,
}

impl Lease {
    /// Number of leases that a store has room for.
    pub const COUNT: u32 = LEASES;

    /// Writes it into one of the places, durably. Readers agree among themselves who has which place.
    pub fn write<D: BlockDevice>(&self, device: &mut D, store: StoreId, place: u32) -> Result<()> {
        let at = LEASE_FIRST + u64::from(place.min(LEASES - 1));
        device.write(BlockIdx(at), &self.encode(store))?;
        Ok(device.flush()?)
    }

    /// All leases, by place.
    pub fn all<D: BlockDevice>(device: &mut D, store: StoreId) -> Result<[Option<Self>; LEASES as usize]> {
        let mut blocks = [0; BLOCK * LEASES as usize];
        device.read(BlockIdx(LEASE_FIRST), &mut blocks)?;
        let mut found = [None; LEASES as usize];
        for (one, raw) in found.iter_mut().zip(blocks.as_chunks().0) {
            *one = Self::decode(raw, store);
        }
        Ok(found)
    }

    fn encode(&self, store: StoreId) -> Page {
        let mut block = [0; BLOCK];
        field::MAGIC.put(&mut block, &LEASE_MAGIC);
        field::STORE_ID.put(&mut block, &store.0);
        field::READER.put(&mut block, &self.reader);
        field::GENERATION.put(&mut block, &self.generation.0.to_le_bytes());
        field::SEQUENCE.put(&mut block, &self.sequence.to_le_bytes());
        field::UNIX.put(&mut block, &self.unix.to_le_bytes());
        field::STATE.put(&mut block, &(if self.in_use { 1u32 } else { 2 }).to_le_bytes());
        let sum = checksum(block.get(..field::CHECKSUM.offset).unwrap_or(&[]));
        field::CHECKSUM.put(&mut block, &sum.0);
        block
    }

    fn decode(block: &Page, store: StoreId) -> Option<Self> {
        let sum = checksum(block.get(..field::CHECKSUM.offset)?);
        let ours = field::MAGIC.of(block) == LEASE_MAGIC
            && field::STORE_ID.of(block) == store.0
            && (Digest(field::CHECKSUM.array(block)) == sum || out(Safeguard::LeaseChecksum));
        ours.then(|| Self {
            reader: field::READER.array(block),
            generation: Generation(field::GENERATION.u64(block)),
            sequence: field::SEQUENCE.u64(block),
            unix: field::UNIX.u64(block),
            in_use: field::STATE.u32(block) == 1,
        })
    }
}

/// What the writer knows of the leases.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeaseBook {
    /// Each lease in use, and when it was last seen to move.
    seen: [Option<(Lease, u64)>; LEASES as usize],
}

impl LeaseBook {
    /// Looks at all places.
    pub fn look<D: BlockDevice>(&mut self, device: &mut D, store: StoreId, now_ns: u64) -> Result<()> {
        let all = match Lease::all(device, store) {
            // A bad sector is an absent lease: the digests still notice what is used again.
            Err(StoreError::Io(IoError::Failed { .. })) => Default::default(),
            all => all?,
        };
        for (seen, found) in self.seen.iter_mut().zip(all) {
            *seen = match (found.filter(|lease| lease.in_use), *seen) {
                (Some(lease), Some((before, since))) if lease == before => Some((lease, since)),
                (Some(lease), _) => Some((lease, now_ns)),
                (None, _) => None,
            };
        }
        Ok(())
    }

    /// The clock starts only now: what was seen before counts from here.
    pub fn start(&mut self, now_ns: u64) {
        self.seen.iter_mut().flatten().for_each(|(_, since)| *since = now_ns);
    }

    /// Does a reader that lives read something older than this generation?
    pub fn holds(&self, freed: Generation, now_ns: u64) -> bool {
        let lives = |since: u64| now_ns.saturating_sub(since) < PATIENCE_NS;
        self.seen.iter().flatten().any(|(lease, since)| lease.generation < freed && lives(*since))
    }
}

const _: () = assert!(LEASES as usize * BLOCK <= 16 << 10, "the writer reads them into its stack");
