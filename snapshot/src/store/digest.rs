//! The keyed digests of the store (docs/format/store-v1.md, section 3).
//!
//! Invariant: pages and metadata have different keys, so a page that a guest wrote never passes for metadata.

use core::fmt;

use crate::ports::Page;
use crate::store::layout::{BLOCK, Kind};

/// 16 bytes of keyed BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Digest(pub [u8; 16]);

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The keys of one store.
#[derive(Clone, PartialEq)]
pub struct Keys {
    page: [u8; 32],
    meta: [u8; 32],
    content: [u8; 32],
    /// Digest of the page of zeros.
    zero: Digest,
}

impl Keys {
    /// Derived from the superblock's key.
    pub fn of(key: &[u8; 32]) -> Self {
        let derive = |context: &[u8]| *blake3::keyed_hash(key, context).as_bytes();
        let page = derive(b"livesave v1 page");
        Self {
            page,
            meta: derive(b"livesave v1 meta"),
            content: derive(b"livesave v1 content"),
            zero: truncated(&blake3::keyed_hash(&page, &[0; BLOCK])),
        }
    }

    /// Whether a page of this digest is all zero.
    pub fn is_zero(&self, digest: &Digest) -> bool {
        *digest == self.zero
    }

    /// Digest of a page's content.
    pub fn page(&self, page: &Page) -> Digest {
        truncated(&blake3::keyed_hash(&self.page, page))
    }

    /// Digest of an attachment's whole content.
    pub fn attachment(&self, bytes: &[u8]) -> Digest {
        truncated(&blake3::keyed_hash(&self.content, bytes))
    }

    /// Digest of metadata: its kind, its length, and whole blocks.
    pub fn meta(&self, kind: Kind, bytes: u32, blocks: &[u8]) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(&self.meta);
        hasher.update(&kind.0).update(&bytes.to_le_bytes()).update(blocks);
        truncated(&hasher.finalize())
    }
}

/// The content of a snapshot: its pages by gfn, whatever runs and places hold them, then what is attached.
pub struct ContentHasher {
    hasher: blake3::Hasher,
    zero: Option<(u64, u64)>,
}

impl ContentHasher {
    /// Of nothing yet.
    pub fn new(keys: &Keys) -> Self {
        Self { hasher: blake3::Hasher::new_keyed(&keys.content), zero: None }
    }

    fn record(&mut self, first: u64, second: u64, digest: &Digest) {
        self.hasher.update(&first.to_le_bytes()).update(&second.to_le_bytes()).update(&digest.0);
    }

    fn end_zero(&mut self) {
        if let Some((gfn, end)) = self.zero.take() {
            self.record(gfn, end - gfn, &Digest::default());
        }
    }

    /// A page with data. Gfns ascend.
    pub fn page(&mut self, gfn: u64, digest: &Digest) {
        self.end_zero();
        self.record(gfn, 1, digest);
    }

    /// Zero pages; ranges that touch are one.
    pub fn zero(&mut self, gfn: u64, end: u64) {
        match &mut self.zero {
            Some(range) if range.1 == gfn => range.1 = end,
            _ => {
                self.end_zero();
                self.zero = Some((gfn, end));
            }
        }
    }

    /// All pages were seen.
    pub fn pages_end(&mut self) {
        self.end_zero();
        self.record(u64::MAX, 0, &Digest::default());
    }

    /// An attachment. In the order of the root.
    pub fn attachment(&mut self, kind: u32, bytes: u64, digest: &Digest) {
        self.record(u64::from(kind), bytes, digest);
    }

    /// The digest of all that was seen.
    pub fn finish(&self) -> Digest {
        truncated(&self.hasher.finalize())
    }
}

/// An unkeyed digest of what never lies in a store, piece by piece.
#[derive(Default)]
pub struct Fingerprint {
    hasher: blake3::Hasher,
}

impl Fingerprint {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next piece.
    pub fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The digest of all pieces.
    pub fn finish(&self) -> Digest {
        truncated(&self.hasher.finalize())
    }
}

/// The unkeyed checksum of a superblock or heartbeat.
pub fn checksum(bytes: &[u8]) -> Digest {
    truncated(&blake3::hash(bytes))
}

fn truncated(hash: &blake3::Hash) -> Digest {
    Digest(hash.as_bytes().first_chunk().copied().unwrap_or_default())
}
