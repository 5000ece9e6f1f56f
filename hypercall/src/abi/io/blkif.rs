//! io/blkif.h: the block protocol, 64-bit layout. Requests and responses are copied into and out of the ring whole.

constants! {
    /// Operation: read.
    OP_READ: u8 = 0, "BLKIF_OP_READ";
    /// Operation: write.
    OP_WRITE: u8 = 1, "BLKIF_OP_WRITE";
    /// Operation: write with a barrier.
    OP_WRITE_BARRIER: u8 = 2, "BLKIF_OP_WRITE_BARRIER";
    /// Operation: flush the volatile cache.
    OP_FLUSH_DISKCACHE: u8 = 3, "BLKIF_OP_FLUSH_DISKCACHE";
    /// Operation: discard sectors.
    OP_DISCARD: u8 = 5, "BLKIF_OP_DISCARD";
    /// Operation: a request whose segments lie in other pages.
    OP_INDIRECT: u8 = 6, "BLKIF_OP_INDIRECT";
    /// Status: done.
    RSP_OKAY: i16 = 0, "BLKIF_RSP_OKAY";
    /// Status: failed.
    RSP_ERROR: i16 = -1, "BLKIF_RSP_ERROR";
    /// Status: not supported.
    RSP_EOPNOTSUPP: i16 = -2, "BLKIF_RSP_EOPNOTSUPP";
    /// Segments of a direct request.
    MAX_SEGMENTS_PER_REQUEST: usize = 11, "BLKIF_MAX_SEGMENTS_PER_REQUEST";
    /// Pages of segments of an indirect request.
    MAX_INDIRECT_PAGES_PER_REQUEST: usize = 8, "BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST";
    /// The backend's node `info`: a CD-ROM.
    VDISK_CDROM: u32 = 1, "VDISK_CDROM";
    /// The backend's node `info`: read-only.
    VDISK_READONLY: u32 = 4, "VDISK_READONLY";
    /// Bytes of a slot of the ring.
    SLOT_LEN: usize = 112, "sizeof(union blkif_sring_entry)";
    /// Offset of the first slot of the ring.
    SRING_SLOTS: usize = super::ring::SLOTS, "offsetof(struct blkif_sring, ring)";
    /// Offset of the producer index of requests.
    SRING_REQ_PROD: usize = super::ring::REQ_PROD, "offsetof(struct blkif_sring, req_prod)";
    /// Offset of the request index at which the backend is notified.
    SRING_REQ_EVENT: usize = super::ring::REQ_EVENT, "offsetof(struct blkif_sring, req_event)";
    /// Offset of the producer index of responses.
    SRING_RSP_PROD: usize = super::ring::RSP_PROD, "offsetof(struct blkif_sring, rsp_prod)";
    /// Offset of the response index at which the frontend is notified.
    SRING_RSP_EVENT: usize = super::ring::RSP_EVENT, "offsetof(struct blkif_sring, rsp_event)";
    /// Slots of a ring of one page.
    RING_SLOTS_ONE_PAGE: usize = super::ring::ring_size(4096, SLOT_LEN), "__CONST_RING_SIZE(blkif, 4096)";
}

/// Bytes of a sector, whatever the device's own sector size is.
pub const SECTOR_LEN: usize = 512;
/// Segments of a page of segments.
pub const SEGMENTS_PER_INDIRECT_PAGE: usize = crate::PAGE_SIZE / size_of::<Segment>();

structs! {
    /// A part of one granted page.
    Segment = "struct blkif_request_segment", 8 {
        /// The page's grant.
        gref: u32 = "gref" @ 0,
        /// First sector of the page.
        first_sect: u8 = "first_sect" @ 4,
        /// Last sector of the page, inclusive.
        last_sect: u8 = "last_sect" @ 5,
        /// Zero.
        pad: u16,
    }
    /// A direct request; for a flush it has no segments.
    Request = "struct blkif_request", 112 {
        /// `OP_*`.
        operation: u8 = "operation" @ 0,
        /// Segments in use.
        nr_segments: u8 = "nr_segments" @ 1,
        /// The device.
        handle: u16 = "handle" @ 2,
        /// Zero.
        pad: u32,
        /// The frontend's own name of the request.
        id: u64 = "id" @ 8,
        /// First sector on the device.
        sector_number: u64 = "sector_number" @ 16,
        /// The segments.
        seg: [Segment; MAX_SEGMENTS_PER_REQUEST] = "seg" @ 24,
    }
    /// A request whose segments lie in granted pages.
    RequestIndirect = "struct blkif_request_indirect", 64 {
        /// `OP_INDIRECT`.
        operation: u8 = "operation" @ 0,
        /// `OP_READ` or `OP_WRITE`.
        indirect_op: u8 = "indirect_op" @ 1,
        /// Segments in use.
        nr_segments: u16 = "nr_segments" @ 2,
        /// Zero.
        pad: u32,
        /// The frontend's own name of the request.
        id: u64 = "id" @ 8,
        /// First sector on the device.
        sector_number: u64 = "sector_number" @ 16,
        /// The device.
        handle: u16 = "handle" @ 24,
        /// Zero.
        pad1: u16,
        /// The grants of the pages of segments.
        indirect_grefs: [u32; MAX_INDIRECT_PAGES_PER_REQUEST] = "indirect_grefs" @ 28,
        /// Zero.
        pad2: u32,
    }
    /// A request to forget sectors.
    RequestDiscard = "struct blkif_request_discard", 32 {
        /// `OP_DISCARD`.
        operation: u8 = "operation" @ 0,
        /// 1: beyond recovery.
        flag: u8 = "flag" @ 1,
        /// The device.
        handle: u16 = "handle" @ 2,
        /// Zero.
        pad: u32,
        /// The frontend's own name of the request.
        id: u64 = "id" @ 8,
        /// First sector on the device.
        sector_number: u64 = "sector_number" @ 16,
        /// Sectors.
        nr_sectors: u64 = "nr_sectors" @ 24,
    }
    /// A response.
    Response = "struct blkif_response", 16 {
        /// The request's name.
        id: u64 = "id" @ 0,
        /// The request's operation.
        operation: u8 = "operation" @ 8,
        /// Whatever the backend left here.
        pad: u8,
        /// `RSP_*`.
        status: i16 = "status" @ 10,
        /// Whatever the backend left here.
        pad1: u32,
    }
}
