//! version.h and features.h: what this hypervisor is.

constants! {
    /// Version op: major in bits 16-31, minor in bits 0-15.
    XENVER_VERSION: u64 = 0, "XENVER_version";
    /// Version op: the rest of the version, such as ".5".
    XENVER_EXTRAVERSION: u64 = 1, "XENVER_extraversion";
    /// Version op: the kinds of guest that can run.
    XENVER_CAPABILITIES: u64 = 3, "XENVER_capabilities";
    /// Version op: a word of the feature map.
    XENVER_GET_FEATURES: u64 = 6, "XENVER_get_features";
    /// Version op: the caller's own handle.
    XENVER_GUEST_HANDLE: u64 = 8, "XENVER_guest_handle";
    /// Version op: Xen's command line.
    XENVER_COMMANDLINE: u64 = 9, "XENVER_commandline";
    /// Bytes of the answer to XENVER_extraversion.
    EXTRAVERSION_LEN: usize = 16, "XEN_EXTRAVERSION_LEN";
    /// Bytes of the answer to XENVER_capabilities.
    CAPABILITIES_INFO_LEN: usize = 1024, "XEN_CAPABILITIES_INFO_LEN";
    /// Bytes of the answer to XENVER_commandline.
    COMMANDLINE_LEN: usize = 1024, "sizeof(xen_commandline_t)";
    /// Feature bit: page tables may be written directly.
    FEATURE_WRITABLE_PAGE_TABLES: u32 = 0, "XENFEAT_writable_page_tables";
}

structs! {
    /// Argument of XENVER_get_features.
    FeatureInfo = "struct xen_feature_info", 8 {
        /// Which word.
        submap_idx: u32 = "submap_idx" @ 0,
        /// Out: its bits.
        submap: u32 = "submap" @ 4,
    }
}
