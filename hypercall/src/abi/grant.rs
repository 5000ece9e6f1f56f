//! grant_table.h: the grant table, version 1.

constants! {
    /// Grant op: the frames of a domain's grant table.
    GNTTABOP_SETUP_TABLE: u64 = 2, "GNTTABOP_setup_table";
    /// Grant op: how large a grant table is and may become.
    GNTTABOP_QUERY_SIZE: u64 = 6, "GNTTABOP_query_size";
    /// Grant op: choose the table's version.
    GNTTABOP_SET_VERSION: u64 = 8, "GNTTABOP_set_version";
    /// Grant op: the table's version.
    GNTTABOP_GET_VERSION: u64 = 10, "GNTTABOP_get_version";
    /// Grant flags: grants nothing.
    GTF_INVALID: u16 = 0, "GTF_invalid";
    /// Grant flags: the domain may access the frame.
    GTF_PERMIT_ACCESS: u16 = 1, "GTF_permit_access";
    /// Grant flags: read-only.
    GTF_READONLY: u16 = 4, "GTF_readonly";
    /// Grant flags, by Xen: in use for reading.
    GTF_READING: u16 = 8, "GTF_reading";
    /// Grant flags, by Xen: in use for writing.
    GTF_WRITING: u16 = 16, "GTF_writing";
    /// References that the toolstack uses: console, xenstore and spare ones.
    NR_RESERVED_ENTRIES: u32 = 8, "GNTTAB_NR_RESERVED_ENTRIES";
    /// The toolstack's reference of the console ring.
    RESERVED_CONSOLE: u32 = 0, "GNTTAB_RESERVED_CONSOLE";
    /// The toolstack's reference of the xenstore ring.
    RESERVED_XENSTORE: u32 = 1, "GNTTAB_RESERVED_XENSTORE";
    /// Grant status: done.
    GNTST_OKAY: i16 = 0, "GNTST_okay";
    /// Grant status: failed.
    GNTST_GENERAL_ERROR: i16 = -1, "GNTST_general_error";
}

/// Entries of a grant frame.
pub const ENTRIES_PER_FRAME: usize = crate::PAGE_SIZE / size_of::<GrantEntryV1>();

structs! {
    /// One entry of the table. Xen writes the in-use flags at any time: atomics only.
    GrantEntryV1 = "struct grant_entry_v1", 8 {
        /// `GTF_*`.
        flags: u16 = "flags" @ 0,
        /// The domain that may access the frame.
        domid: u16 = "domid" @ 2,
        /// The frame: an MFN for PV.
        frame: u32 = "frame" @ 4,
    }
    /// Argument of GNTTABOP_setup_table.
    SetupTable = "struct gnttab_setup_table", 24 {
        /// Whose table.
        dom: u16 = "dom" @ 0,
        /// Zero.
        pad0: u16,
        /// Frames that are asked for.
        nr_frames: u32 = "nr_frames" @ 4,
        /// Out: `GNTST_*`.
        status: i16 = "status" @ 8,
        /// Zero.
        pad1: [u16; 3],
        /// Address of the list of frames, `u64` each.
        frame_list: u64 = "frame_list" @ 16,
    }
    /// Argument of GNTTABOP_query_size.
    QuerySize = "struct gnttab_query_size", 16 {
        /// Whose table.
        dom: u16 = "dom" @ 0,
        /// Zero.
        pad0: u16,
        /// Out: frames that it has.
        nr_frames: u32 = "nr_frames" @ 4,
        /// Out: frames that it may have.
        max_nr_frames: u32 = "max_nr_frames" @ 8,
        /// Out: `GNTST_*`.
        status: i16 = "status" @ 12,
        /// Zero.
        pad1: u16,
    }
    /// Argument of GNTTABOP_set_version.
    SetVersion = "struct gnttab_set_version", 4 {
        /// In: the version wanted. Out: the version in force.
        version: u32 = "version" @ 0,
    }
}
