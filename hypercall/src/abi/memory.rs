//! memory.h: questions about a domain's memory.

constants! {
    /// Memory op: the highest MFN that is RAM.
    XENMEM_MAXIMUM_RAM_PAGE: u64 = 2, "XENMEM_maximum_ram_page";
    /// Memory op: pages that a domain has.
    XENMEM_CURRENT_RESERVATION: u64 = 3, "XENMEM_current_reservation";
    /// Memory op: pages that a domain may have.
    XENMEM_MAXIMUM_RESERVATION: u64 = 4, "XENMEM_maximum_reservation";
    /// Memory op: where the machine-to-physical table lies.
    XENMEM_MACHPHYS_MAPPING: u64 = 12, "XENMEM_machphys_mapping";
    /// Memory op: the highest GFN of a domain.
    XENMEM_MAXIMUM_GPFN: u64 = 14, "XENMEM_maximum_gpfn";
    /// Memory op: take pages back from a domain.
    XENMEM_DECREASE_RESERVATION: u64 = 1, "XENMEM_decrease_reservation";
    /// Memory op: the state of a domain's populate-on-demand pool.
    XENMEM_GET_POD_TARGET: u64 = 17, "XENMEM_get_pod_target";
}

structs! {
    /// The domain that a question is about.
    MemoryDomain = "struct xen_memory_domain", 2 {
        /// Its number.
        domid: u16 = "domid" @ 0,
    }
    /// Where a PV guest sees the machine-to-physical table.
    MachphysMapping = "struct xen_machphys_mapping", 24 {
        /// First virtual address.
        v_start: u64 = "v_start" @ 0,
        /// End of the window.
        v_end: u64 = "v_end" @ 8,
        /// The highest MFN that fits; not the highest that is mapped.
        max_mfn: u64 = "max_mfn" @ 16,
    }
    /// A domain's populate-on-demand pool.
    PodTarget = "struct xen_pod_target", 40 {
        /// In: the target to set. Ignored by the query.
        target_pages: u64 = "target_pages" @ 0,
        /// Pages that the domain has.
        tot_pages: u64 = "tot_pages" @ 8,
        /// Pages held for entries that are not populated yet.
        pod_cache_pages: u64 = "pod_cache_pages" @ 16,
        /// Entries that are not populated yet.
        pod_entries: u64 = "pod_entries" @ 24,
        /// The domain.
        domid: u16 = "domid" @ 32,
        /// Zero.
        pad: [u16; 3],
    }
}
