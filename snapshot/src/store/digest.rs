//! The keyed digests of the store (docs/format/store-v1.md, section 3).
//!
//! Invariant: pages and metadata have different keys, so a page that a guest wrote never passes for metadata.

use core::fmt;

use crate::ports::Page;
use crate::store::layout::Kind;

/// 16 bytes of keyed BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Digest(pub [u8; 16]);

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The keys of one store.
#[derive(Clone)]
pub struct Keys {
    page: [u8; 32],
    meta: [u8; 32],
}

impl Keys {
    /// Derived from the superblock's key.
    pub fn of(key: &[u8; 32]) -> Self {
        let derive = |context: &[u8]| *blake3::keyed_hash(key, context).as_bytes();
        Self { page: derive(b"livesave v1 page"), meta: derive(b"livesave v1 meta") }
    }

    /// Digest of a page's content.
    pub fn page(&self, page: &Page) -> Digest {
        truncated(&blake3::keyed_hash(&self.page, page))
    }

    /// Digest of metadata: its kind, its length, and whole blocks.
    pub fn meta(&self, kind: Kind, bytes: u32, blocks: &[u8]) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(&self.meta);
        hasher.update(&kind.0).update(&bytes.to_le_bytes()).update(blocks);
        truncated(&hasher.finalize())
    }
}

/// The unkeyed checksum of a superblock or heartbeat.
pub fn checksum(bytes: &[u8]) -> Digest {
    truncated(&blake3::hash(bytes))
}

fn truncated(hash: &blake3::Hash) -> Digest {
    Digest(hash.as_bytes().first_chunk().copied().unwrap_or_default())
}
