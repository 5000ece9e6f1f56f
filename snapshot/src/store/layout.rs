//! Where each field of the format lies (docs/format/store-v1.md). A test compares these tables with the document.
//!
//! Invariants: fields of a structure follow each other without a gap and fill it (checked at compile time). Whoever
//! reads through a [`Field`] has checked the length of the bytes before; a read beyond the end gives zeros, a write
//! beyond it is dropped, neither panics.

use crate::ports::PAGE_SIZE;
pub use crate::store::kind::Kind;

/// Bytes in a block.
pub const BLOCK: usize = PAGE_SIZE;
/// Blocks in a segment.
pub const SEGMENT_BLOCKS: u64 = 256;
/// Bytes in a segment.
pub const SEGMENT_BYTES: u64 = SEGMENT_BLOCKS * BLOCK as u64;
/// This version of the format.
pub const VERSION: u32 = 1;
/// Digest suite: BLAKE3 keyed, 16 bytes.
pub const DIGEST_SUITE: u16 = 1;
/// The heartbeat's block.
pub const HEARTBEAT_BLOCK: u64 = 1;
/// First block of the leases.
pub const LEASE_FIRST: u64 = 2;
/// Number of leases, one block each.
pub const LEASES: u32 = 4;
/// First block of the key area.
pub const KEY_AREA_FIRST: u64 = 8;
/// Blocks of the key area.
pub const KEY_AREA_BLOCKS: u32 = 64;
/// First block of the front meta area.
pub const META_FIRST: u64 = 72;
/// Addresses in a leaf of the segment table.
pub const TABLE_LEAF_ENTRIES: u64 = 1020;
/// Most snapshots in a store, whatever its size.
pub const SNAPSHOTS_MAX: u64 = 2048;
/// Least number of segments.
pub const SEGMENTS_MIN: u64 = 4;
/// Most segments.
pub const SEGMENTS_MAX: u64 = 4_000_000;
/// Blocks of the smallest device (the geometry's test proves it).
pub const DEVICE_BLOCKS_MIN: u64 = 1287;
/// Blocks beyond which a device is not used.
pub const DEVICE_BLOCKS_MAX: u64 = SEGMENT_BLOCKS * (SEGMENTS_MAX + 2048);
/// Most runs of a sealed snapshot.
pub const RUNS_MAX: usize = 16;
/// Most attachment parts of a snapshot.
pub const PARTS_MAX: usize = 64;
/// Bytes in an attachment part.
pub const PART_BYTES: usize = 256 << 10;
/// Most bytes of a root's metadata.
pub const METADATA_MAX: usize = 4096;
/// Most blocks of a leaf of a run.
pub const LEAF_BLOCKS: usize = 4;
/// Most entries in a leaf of a run.
pub const LEAF_ENTRIES: usize = (LEAF_BLOCKS * BLOCK - run_block::SIZE) / entry::SIZE;
/// Most children of a node of a run.
pub const NODE_CHILDREN: usize = (BLOCK - run_block::SIZE) / child::SIZE;
/// Highest level of a run's top.
pub const LEVEL_MAX: u16 = 5;
/// No gfn reaches this.
pub const GFN_LIMIT: u64 = 1 << 40;
/// Unit of an entry's place in its segment.
pub const PLACE_UNIT: u64 = 16;

/// Flag of incompat: pages are packed with LZ4.
pub const INCOMPAT_LZ4: u64 = 1;
/// The flags of incompat that this version knows.
pub const INCOMPAT_KNOWN: u64 = INCOMPAT_LZ4;

/// One field of a structure on disk.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name in the document.
    pub name: &'static str,
    /// Bytes from the start of the structure.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

impl Field {
    /// Its bytes.
    pub fn of<'a>(&self, from: &'a [u8]) -> &'a [u8] {
        from.get(self.offset..self.offset.saturating_add(self.size)).unwrap_or(&[])
    }

    /// Its first `N` bytes.
    pub fn array<const N: usize>(&self, from: &[u8]) -> [u8; N] {
        self.of(from).first_chunk().copied().unwrap_or([0; N])
    }

    /// As an integer of 2 bytes.
    pub fn u16(&self, from: &[u8]) -> u16 {
        u16::from_le_bytes(self.array(from))
    }

    /// As an integer of 4 bytes.
    pub fn u32(&self, from: &[u8]) -> u32 {
        u32::from_le_bytes(self.array(from))
    }

    /// As an integer of 8 bytes.
    pub fn u64(&self, from: &[u8]) -> u64 {
        u64::from_le_bytes(self.array(from))
    }

    /// Writes bytes at its start; what is longer than the field is dropped.
    pub fn put(&self, into: &mut [u8], bytes: &[u8]) {
        let end = self.offset.saturating_add(self.size.min(bytes.len()));
        if let Some(target) = into.get_mut(self.offset..end) {
            target.copy_from_slice(bytes.get(..target.len()).unwrap_or(&[]));
        }
    }
}

/// True if fields follow each other from 0 without a gap and fill `size`.
const fn filled(fields: &[Field], size: usize) -> bool {
    let mut next = 0;
    let mut index = 0;
    while index < fields.len() {
        if fields[index].offset != next {
            return false;
        }
        next += fields[index].size;
        index += 1;
    }
    next == size
}

macro_rules! structures {
    ($(
        $(#[$doc:meta])*
        $module:ident $size:literal { $($name:ident $field:literal $offset:literal $bytes:literal;)* }
    )*) => {
        $(
            $(#[$doc])*
            pub mod $module {
                use super::Field;
                $(
                    #[doc = concat!("Field `", $field, "`.")]
                    pub const $name: Field = Field { name: $field, offset: $offset, size: $bytes };
                )*
                /// Bytes in the structure.
                pub const SIZE: usize = $size;
                /// All fields in order.
                pub const FIELDS: &[Field] = &[$($name),*];
                const _: () = assert!(super::filled(FIELDS, SIZE));
            }
        )*
        /// Every structure: its name in the document, its size, its fields.
        pub const STRUCTURES: &[(&str, usize, &[Field])] =
            &[$((stringify!($module), $module::SIZE, $module::FIELDS)),*];
    };
}

structures! {
    /// The superblock (section 4).
    superblock 4096 {
        MAGIC "magic" 0 8;
        VERSION "version" 8 4;
        BLOCK_BYTES "block_bytes" 12 4;
        COMPAT "compat" 16 8;
        RO_COMPAT "ro_compat" 24 8;
        INCOMPAT "incompat" 32 8;
        STORE_ID "store_id" 40 16;
        GENERATION "generation" 56 8;
        DEVICE_BLOCKS "device_blocks" 64 8;
        SEGMENT_BLOCKS "segment_blocks" 72 4;
        SLOP_SEGMENTS "slop_segments" 76 4;
        META_FIRST "meta_first" 80 8;
        META_BLOCKS "meta_blocks" 88 8;
        FIRST_SEGMENT "first_segment" 96 4;
        SEGMENT_COUNT "segment_count" 100 4;
        NEXT_SNAPSHOT_ID "next_snapshot_id" 104 8;
        CREATED_UNIX "created_unix" 112 8;
        NONCE_HIGH_WATER "nonce_high_water" 120 8;
        CIPHER_SUITE "cipher_suite" 128 2;
        DIGEST_SUITE "digest_suite" 130 2;
        KEY_AREA_BLOCKS "key_area_blocks" 132 4;
        KEY_AREA_FIRST "key_area_first" 136 8;
        DIGEST_KEY "digest_key" 144 32;
        CATALOG "catalog" 176 32;
        DIRECTORY "directory" 208 32;
        LABEL "label" 240 64;
        RESERVED "reserved" 304 3776;
        CHECKSUM "checksum" 4080 16;
    }
    /// A pointer into the meta areas (section 4).
    meta_pointer 32 {
        BLOCK "block" 0 8;
        BYTES "bytes" 8 4;
        RESERVED "reserved" 12 4;
        DIGEST "digest" 16 16;
    }
    /// The heartbeat (section 5).
    heartbeat 4096 {
        MAGIC "magic" 0 8;
        STORE_ID "store_id" 8 16;
        WRITER "writer" 24 16;
        SEQUENCE "sequence" 40 8;
        UNIX "unix" 48 8;
        STATE "state" 56 4;
        RESERVED "reserved" 60 4020;
        CHECKSUM "checksum" 4080 16;
    }
    /// A reader's lease (section 12).
    lease 4096 {
        MAGIC "magic" 0 8;
        STORE_ID "store_id" 8 16;
        READER "reader" 24 16;
        GENERATION "generation" 40 8;
        SEQUENCE "sequence" 48 8;
        UNIX "unix" 56 8;
        STATE "state" 64 4;
        RESERVED "reserved" 68 4012;
        CHECKSUM "checksum" 4080 16;
    }
    /// Header of a leaf of the segment table (section 6).
    table_leaf 16 {
        MAGIC "magic" 0 4;
        INDEX "index" 4 4;
        RESERVED "reserved" 8 8;
    }
    /// Header of the directory of leaves (section 6).
    directory 16 {
        MAGIC "magic" 0 4;
        COUNT "count" 4 4;
        RESERVED "reserved" 8 8;
    }
    /// One leaf in the directory (section 6).
    directory_entry 24 {
        BLOCK "block" 0 8;
        DIGEST "digest" 8 16;
    }
    /// Header of the catalog (section 7).
    catalog 32 {
        MAGIC "magic" 0 4;
        COUNT "count" 4 4;
        GENERATION "generation" 8 8;
        RESERVED "reserved" 16 16;
    }
    /// One snapshot in the catalog (section 7).
    catalog_entry 200 {
        SNAPSHOT_ID "snapshot_id" 0 8;
        ROOT "root" 8 32;
        CREATED_UNIX "created_unix" 40 8;
        NAME_BYTES "name_bytes" 48 2;
        FLAGS "flags" 50 2;
        RESERVED "reserved" 52 4;
        NAME "name" 56 144;
    }
    /// A pointer into a segment (section 8).
    pointer 32 {
        SEGMENT "segment" 0 4;
        SLOT "slot" 4 2;
        RESERVED "reserved" 6 2;
        BYTES "bytes" 8 4;
        KIND "kind" 12 4;
        DIGEST "digest" 16 16;
    }
    /// Header of a root (section 9).
    root 128 {
        MAGIC "magic" 0 8;
        SNAPSHOT_ID "snapshot_id" 8 8;
        GENERATION "generation" 16 8;
        CREATED_UNIX "created_unix" 24 8;
        GFN_END "gfn_end" 32 8;
        DATA_PAGES "data_pages" 40 8;
        ZERO_PAGES "zero_pages" 48 8;
        STORED_BYTES "stored_bytes" 56 8;
        RUN_COUNT "run_count" 64 2;
        ATTACHMENT_COUNT "attachment_count" 66 2;
        METADATA_BYTES "metadata_bytes" 68 4;
        CONTENT "content" 72 16;
        RESERVED "reserved" 88 40;
    }
    /// A run of a snapshot (section 9).
    run_record 128 {
        TREE "tree" 0 32;
        SEGMENTS "segments" 32 32;
        ENTRIES "entries" 64 8;
        DATA_PAGES "data_pages" 72 8;
        ZERO_PAGES "zero_pages" 80 8;
        RUN_ID "run_id" 88 8;
        LEVEL "level" 96 2;
        FLAGS "flags" 98 2;
        RESERVED_A "reserved_a" 100 4;
        KEY_ID "key_id" 104 8;
        RESERVED_B "reserved_b" 112 16;
    }
    /// A part of an attachment (section 9).
    attachment_record 64 {
        KIND "kind" 0 4;
        PART "part" 4 4;
        TOTAL_BYTES "total_bytes" 8 8;
        DATA "data" 16 32;
        RESERVED "reserved" 48 16;
    }
    /// Header of a trace (section 9.1).
    trace_header 24 {
        VERSION "version" 0 2;
        ROUND_BYTES "round_bytes" 2 2;
        COUNT "count" 4 4;
        LOST "lost" 8 8;
        BEGAN_NS "began_ns" 16 8;
    }
    /// A round of a trace (section 9.1).
    trace_round 216 {
        KIND "kind" 0 4;
        PEEKS "peeks" 4 4;
        BEGAN_NS "began_ns" 8 8;
        ENDED_NS "ended_ns" 16 8;
        FETCH_NS "fetch_ns" 24 8;
        MEMORY "memory" 32 8;
        GIVEN "given" 40 8;
        PAGES "pages" 48 8;
        ZERO "zero" 56 8;
        SKIPPED "skipped" 64 8;
        BYTES "bytes" 72 8;
        DIRTY "dirty" 80 8;
        ENABLE_NS "enable_ns" 88 8;
        OFF_NS "off_ns" 96 8;
        UNSENT "unsent" 104 8;
        GROWTH "growth" 112 8;
        SPACE_LEFT "space_left" 120 8;
        STAGING "staging" 128 8;
        FIXED_NS "fixed_ns" 136 8;
        STAGE_NS "stage_ns" 144 8;
        PACK_NS "pack_ns" 152 8;
        STORED_BYTES "stored_bytes" 160 8;
        STORE_NS "store_ns" 168 8;
        MIB_NS "mib_ns" 176 8;
        DEPTH_BYTES "depth_bytes" 184 8;
        STEP_BYTES "step_bytes" 192 8;
        PIECE_BYTES "piece_bytes" 200 8;
        GATHERED_BYTES "gathered_bytes" 208 8;
    }
    /// Header of a leaf or node of a run (section 10).
    run_block 32 {
        MAGIC "magic" 0 4;
        COUNT "count" 4 4;
        LEVEL "level" 8 2;
        ENTRY_BYTES "entry_bytes" 10 2;
        RESERVED "reserved" 12 4;
        FIRST_GFN "first_gfn" 16 8;
        END_GFN "end_gfn" 24 8;
    }
    /// A child in a node of a run (section 10).
    child 48 {
        FIRST_GFN "first_gfn" 0 8;
        END_GFN "end_gfn" 8 8;
        BLOCK "block" 16 32;
    }
    /// An entry in a leaf of a run (section 10).
    entry 32 {
        GFN "gfn" 0 8;
        SEGMENT "segment" 8 4;
        PLACE "place" 12 2;
        SHAPE "shape" 14 2;
        DIGEST "digest" 16 16;
    }
    /// Header of a set of segments (section 10).
    segment_set 16 {
        MAGIC "magic" 0 4;
        COUNT "count" 4 4;
        RESERVED "reserved" 8 8;
    }
    /// 64 ids of a set of segments (section 10).
    segment_group 16 {
        GROUP "group" 0 4;
        RESERVED "reserved" 4 4;
        MASK "mask" 8 8;
    }
}

/// Magic of a superblock.
pub const SUPERBLOCK_MAGIC: [u8; 8] = *b"LIVESAVE";
/// Magic of the heartbeat.
pub const HEARTBEAT_MAGIC: [u8; 8] = *b"LSBEAT01";
/// Magic of a lease.
pub const LEASE_MAGIC: [u8; 8] = *b"LSLEASE1";
/// Magic of a root.
pub const ROOT_MAGIC: [u8; 8] = *b"LSROOT01";

/// A count or index that fits the memory of the machine; larger ones become the largest, and fail the next check.
pub(crate) fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A length as the format stores it; larger ones become the largest, and fail the next check.
pub(crate) fn length32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// `bytes` rounded up to blocks.
pub(crate) fn blocks_of(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK as u64)
}
