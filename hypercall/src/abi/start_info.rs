//! xen.h: the page that the domain builder hands to a PV kernel, and (elfnote.h) the notes by which the kernel asks.
//!
//! The builder runs in dom0, which this project trusts; even so, the command line is text from outside.

constants! {
    /// start_info.flags: the domain is privileged.
    SIF_PRIVILEGED: u32 = 1, "SIF_PRIVILEGED";
    /// start_info.flags: the domain is dom0.
    SIF_INITDOMAIN: u32 = 2, "SIF_INITDOMAIN";
    /// start_info.flags: mod_start is a PFN.
    SIF_MOD_START_PFN: u32 = 8, "SIF_MOD_START_PFN";
    /// start_info.flags: the tools understand a linear p2m.
    SIF_VIRT_P2M_4TOOLS: u32 = 16, "SIF_VIRT_P2M_4TOOLS";
    /// Bytes of the command line, its NUL included.
    MAX_GUEST_CMDLINE: usize = 1024, "MAX_GUEST_CMDLINE";
    /// ELF note: virtual address of the entry point.
    ELFNOTE_ENTRY: u32 = 1, "XEN_ELFNOTE_ENTRY";
    /// ELF note: virtual address of the page that the builder fills with hypercall stubs.
    ELFNOTE_HYPERCALL_PAGE: u32 = 2, "XEN_ELFNOTE_HYPERCALL_PAGE";
    /// ELF note: the virtual address of pseudo-physical address 0.
    ELFNOTE_VIRT_BASE: u32 = 3, "XEN_ELFNOTE_VIRT_BASE";
    /// ELF note: what the ELF's physical addresses start from.
    ELFNOTE_PADDR_OFFSET: u32 = 4, "XEN_ELFNOTE_PADDR_OFFSET";
    /// ELF note: the interface version, "xen-3.0".
    ELFNOTE_XEN_VERSION: u32 = 5, "XEN_ELFNOTE_XEN_VERSION";
    /// ELF note: the guest's name.
    ELFNOTE_GUEST_OS: u32 = 6, "XEN_ELFNOTE_GUEST_OS";
    /// ELF note: the guest's version.
    ELFNOTE_GUEST_VERSION: u32 = 7, "XEN_ELFNOTE_GUEST_VERSION";
    /// ELF note: the loader, "generic".
    ELFNOTE_LOADER: u32 = 8, "XEN_ELFNOTE_LOADER";
    /// ELF note: features, separated by `|`.
    ELFNOTE_FEATURES: u32 = 10, "XEN_ELFNOTE_FEATURES";
    /// ELF note: the guest understands a cancelled suspend.
    ELFNOTE_SUSPEND_CANCEL: u32 = 14, "XEN_ELFNOTE_SUSPEND_CANCEL";
}

structs! {
    /// What a PV kernel finds at the address in rsi.
    StartInfo = "struct start_info", 1168 {
        /// "xen-3.0-x86_64", NUL-terminated.
        magic: [u8; 32] = "magic" @ 0,
        /// Pages of the domain.
        nr_pages: u64 = "nr_pages" @ 32,
        /// Machine address of the shared_info page.
        shared_info: u64 = "shared_info" @ 40,
        /// `SIF_*`.
        flags: u32 = "flags" @ 48,
        /// Zero.
        pad0: u32,
        /// MFN of the xenstore ring.
        store_mfn: u64 = "store_mfn" @ 56,
        /// Port of the xenstore ring.
        store_evtchn: u32 = "store_evtchn" @ 64,
        /// Zero.
        pad1: u32,
        /// MFN of the console ring.
        console_mfn: u64 = "console.domU.mfn" @ 72,
        /// Port of the console ring.
        console_evtchn: u32 = "console.domU.evtchn" @ 80,
        /// Zero.
        pad2: u32,
        /// Virtual address of the initial L4 table.
        pt_base: u64 = "pt_base" @ 88,
        /// Frames of the initial page tables.
        nr_pt_frames: u64 = "nr_pt_frames" @ 96,
        /// Virtual address of the initial p2m list.
        mfn_list: u64 = "mfn_list" @ 104,
        /// Virtual address (or PFN, see flags) of the module.
        mod_start: u64 = "mod_start" @ 112,
        /// Bytes of the module.
        mod_len: u64 = "mod_len" @ 120,
        /// The command line, NUL-terminated.
        cmd_line: [u8; MAX_GUEST_CMDLINE] = "cmd_line" @ 128,
        /// First PFN of the initial p2m.
        first_p2m_pfn: u64 = "first_p2m_pfn" @ 1152,
        /// Frames of the initial p2m.
        nr_p2m_frames: u64 = "nr_p2m_frames" @ 1160,
    }
}
