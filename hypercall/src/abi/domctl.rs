//! domctl.h: one domain's control operations. The interface version differs from release to release; the layouts of
//! the operations here are the same from 4.17 (0x15) to 4.22 (0x18).

constants! {
    /// Operation: destroy the domain.
    DESTROYDOMAIN: u32 = 2, "XEN_DOMCTL_destroydomain";
    /// Operation: pause; counted.
    PAUSEDOMAIN: u32 = 3, "XEN_DOMCTL_pausedomain";
    /// Operation: undo one pause.
    UNPAUSEDOMAIN: u32 = 4, "XEN_DOMCTL_unpausedomain";
    /// Operation: what a domain is and does.
    GETDOMAININFO: u32 = 5, "XEN_DOMCTL_getdomaininfo";
    /// Operation: log-dirty mode and its bitmap.
    SHADOW_OP: u32 = 10, "XEN_DOMCTL_shadow_op";
    /// Operation: write a vCPU's registers.
    SETVCPUCONTEXT: u32 = 12, "XEN_DOMCTL_setvcpucontext";
    /// Operation: read a vCPU's registers.
    GETVCPUCONTEXT: u32 = 13, "XEN_DOMCTL_getvcpucontext";
    /// Operation: whether a vCPU is online, and its time.
    GETVCPUINFO: u32 = 14, "XEN_DOMCTL_getvcpuinfo";
    /// Operation: a domain's share of processor time.
    SCHEDULER_OP: u32 = 16, "XEN_DOMCTL_scheduler_op";
    /// Operation: continue a suspended domain.
    RESUMEDOMAIN: u32 = 27, "XEN_DOMCTL_resumedomain";
    /// Operation: who is told of a suspend.
    SUBSCRIBE: u32 = 29, "XEN_DOMCTL_subscribe";
    /// Operation: the context of a PVH or HVM domain.
    GETHVMCONTEXT: u32 = 33, "XEN_DOMCTL_gethvmcontext";
    /// Operation: 32 or 64 bits (PV).
    GET_ADDRESS_SIZE: u32 = 36, "XEN_DOMCTL_get_address_size";
    /// Operation: a vCPU's 32-bit entry points and machine-check state.
    GET_EXT_VCPUCONTEXT: u32 = 43, "XEN_DOMCTL_get_ext_vcpucontext";
    /// Operation: one record of the context of a PVH or HVM domain.
    GETHVMCONTEXT_PARTIAL: u32 = 55, "XEN_DOMCTL_gethvmcontext_partial";
    /// Operation: how the TSC is presented.
    GETTSCINFO: u32 = 59, "XEN_DOMCTL_gettscinfo";
    /// Operation: the types of frames.
    GETPAGEFRAMEINFO3: u32 = 61, "XEN_DOMCTL_getpageframeinfo3";
    /// Operation: write a vCPU's extended state.
    SETVCPUEXTSTATE: u32 = 62, "XEN_DOMCTL_setvcpuextstate";
    /// Operation: read a vCPU's extended state.
    GETVCPUEXTSTATE: u32 = 63, "XEN_DOMCTL_getvcpuextstate";
    /// Operation: a PV vCPU's model-specific registers.
    GET_VCPU_MSRS: u32 = 72, "XEN_DOMCTL_get_vcpu_msrs";
    /// Operation: the CPUID and MSR policy.
    GET_CPU_POLICY: u32 = 82, "XEN_DOMCTL_get_cpu_policy";
    /// Operation: the size of the paging pool.
    GET_PAGING_MEMPOOL_SIZE: u32 = 85, "XEN_DOMCTL_get_paging_mempool_size";
    /// Scheduler operation: set.
    SCHEDOP_PUTINFO: u32 = 0, "XEN_DOMCTL_SCHEDOP_putinfo";
    /// Scheduler operation: get.
    SCHEDOP_GETINFO: u32 = 1, "XEN_DOMCTL_SCHEDOP_getinfo";
    /// The credit scheduler.
    SCHEDULER_CREDIT: u32 = 5, "XEN_SCHEDULER_CREDIT";
    /// The credit2 scheduler.
    SCHEDULER_CREDIT2: u32 = 6, "XEN_SCHEDULER_CREDIT2";
    /// The interface version of the headers in use.
    INTERFACE_VERSION_4_17: u32 = 0x15, "XEN_DOMCTL_INTERFACE_VERSION";
    /// Shadow operation: log-dirty off.
    SHADOW_OP_OFF: u32 = 0, "XEN_DOMCTL_SHADOW_OP_OFF";
    /// Shadow operation: log-dirty on.
    SHADOW_OP_ENABLE_LOGDIRTY: u32 = 2, "XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY";
    /// Shadow operation: fetch the bitmap and clear it.
    SHADOW_OP_CLEAN: u32 = 11, "XEN_DOMCTL_SHADOW_OP_CLEAN";
    /// Shadow operation: fetch the bitmap.
    SHADOW_OP_PEEK: u32 = 12, "XEN_DOMCTL_SHADOW_OP_PEEK";
    /// Mode of CLEAN and PEEK: include what Xen itself keeps mapped for writing.
    SHADOW_LOGDIRTY_FINAL: u32 = 1, "XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL";
    /// getdomaininfo.flags: being destroyed.
    DOMINF_DYING: u32 = 1, "XEN_DOMINF_dying";
    /// getdomaininfo.flags: PVH or HVM.
    DOMINF_HVM_GUEST: u32 = 2, "XEN_DOMINF_hvm_guest";
    /// getdomaininfo.flags: shut down.
    DOMINF_SHUTDOWN: u32 = 4, "XEN_DOMINF_shutdown";
    /// getdomaininfo.flags: paused by a control domain.
    DOMINF_PAUSED: u32 = 8, "XEN_DOMINF_paused";
    /// getdomaininfo.flags: all vCPUs wait for an event.
    DOMINF_BLOCKED: u32 = 16, "XEN_DOMINF_blocked";
    /// getdomaininfo.flags: a vCPU runs.
    DOMINF_RUNNING: u32 = 32, "XEN_DOMINF_running";
    /// getdomaininfo.flags: under a debugger.
    DOMINF_DEBUGGED: u32 = 64, "XEN_DOMINF_debugged";
    /// getdomaininfo.flags: runs xenstored.
    DOMINF_XS_DOMAIN: u32 = 128, "XEN_DOMINF_xs_domain";
    /// getdomaininfo.flags: hardware-assisted paging.
    DOMINF_HAP: u32 = 256, "XEN_DOMINF_hap";
    /// Where the shutdown reason stands in getdomaininfo.flags.
    DOMINF_SHUTDOWN_SHIFT: u32 = 16, "XEN_DOMINF_shutdownshift";
    /// getdomaininfo.max_vcpu_id of a domain without vCPUs.
    INVALID_MAX_VCPU_ID: u32 = u32::MAX, "XEN_INVALID_MAX_VCPU_ID";
    /// Where the type stands in an answer of getpageframeinfo3.
    PFINFO_LTAB_SHIFT: u32 = 28, "XEN_DOMCTL_PFINFO_LTAB_SHIFT";
    /// Frame type: ordinary.
    PFINFO_NOTAB: u64 = 0, "XEN_DOMCTL_PFINFO_NOTAB";
    /// Frame type: L1 table.
    PFINFO_L1TAB: u64 = 1 << 28, "XEN_DOMCTL_PFINFO_L1TAB";
    /// Frame type: L4 table.
    PFINFO_L4TAB: u64 = 4 << 28, "XEN_DOMCTL_PFINFO_L4TAB";
    /// Frame type: the bits that say which table.
    PFINFO_LTABTYPE_MASK: u64 = 7 << 28, "XEN_DOMCTL_PFINFO_LTABTYPE_MASK";
    /// Frame type: a pinned table.
    PFINFO_LPINTAB: u64 = 1 << 31, "XEN_DOMCTL_PFINFO_LPINTAB";
    /// Frame type: nothing that can be saved.
    PFINFO_XTAB: u64 = 0xf << 28, "XEN_DOMCTL_PFINFO_XTAB";
    /// Frame type: to be allocated, without contents.
    PFINFO_XALLOC: u64 = 0xe << 28, "XEN_DOMCTL_PFINFO_XALLOC";
    /// Frame type: broken memory.
    PFINFO_BROKEN: u64 = 0xd << 28, "XEN_DOMCTL_PFINFO_BROKEN";
}

/// Bytes of the union in [`Domctl`].
pub const PAYLOAD_LEN: usize = 128;

structs! {
    /// The frame of every domctl.
    Domctl = "struct xen_domctl", 144 {
        /// The operation.
        cmd: u32 = "cmd" @ 0,
        /// The interface version.
        interface_version: u32 = "interface_version" @ 4,
        /// The domain.
        domain: u16 = "domain" @ 8,
        /// Zero.
        pad: [u16; 3] = "_pad" @ 10,
        /// The operation's own structure, then zeros.
        payload: [u64; PAYLOAD_LEN / 8] = "u" @ 16,
    }
    /// What a domain is and does.
    GetDomainInfo = "struct xen_domctl_getdomaininfo", 112 {
        /// Out: the domain that this is about; on some versions the next one after the one asked for.
        domain: u16 = "domain" @ 0,
        /// Zero.
        pad1: u16 = "pad1" @ 2,
        /// `DOMINF_*`, and the shutdown reason.
        flags: u32 = "flags" @ 4,
        /// Pages that the domain has.
        tot_pages: u64 = "tot_pages" @ 8,
        /// Pages that it may have.
        max_pages: u64 = "max_pages" @ 16,
        /// Pages claimed for it but not given yet.
        outstanding_pages: u64 = "outstanding_pages" @ 24,
        /// Pages that it shares.
        shr_pages: u64 = "shr_pages" @ 32,
        /// Pages that are paged out.
        paged_pages: u64 = "paged_pages" @ 40,
        /// PV: MFN of shared_info.
        shared_info_frame: u64 = "shared_info_frame" @ 48,
        /// CPU time in nanoseconds.
        cpu_time: u64 = "cpu_time" @ 56,
        /// vCPUs that are online.
        nr_online_vcpus: u32 = "nr_online_vcpus" @ 64,
        /// The highest vCPU number, or `INVALID_MAX_VCPU_ID`.
        max_vcpu_id: u32 = "max_vcpu_id" @ 68,
        /// The security label, as a number.
        ssidref: u32 = "ssidref" @ 72,
        /// The handle.
        handle: [u8; 16] = "handle" @ 76,
        /// The CPU pool.
        cpupool: u32 = "cpupool" @ 92,
        /// Width of guest physical addresses.
        gpaddr_bits: u8 = "gpaddr_bits" @ 96,
        /// Zero.
        pad2: [u8; 7] = "pad2" @ 97,
        /// Emulated devices.
        emulation_flags: u32 = "arch_config.emulation_flags" @ 104,
        /// Other x86 settings.
        misc_flags: u32 = "arch_config.misc_flags" @ 108,
    }
    /// Argument of getpageframeinfo3. Xen advances both fields when it is preempted: fill them before every call.
    GetPageFrameInfo3 = "struct xen_domctl_getpageframeinfo3", 16 {
        /// Frames; at most 1024.
        num: u64 = "num" @ 0,
        /// Address of the frames, `u64` each, overwritten by their types.
        array: u64 = "array" @ 8,
    }
    /// Argument of shadow_op.
    ShadowOp = "struct xen_domctl_shadow_op", 40 {
        /// `SHADOW_OP_*`.
        op: u32 = "op" @ 0,
        /// `SHADOW_LOGDIRTY_FINAL` or zero.
        mode: u32 = "mode" @ 4,
        /// Zero.
        mb: u32 = "mb" @ 8,
        /// Zero.
        pad: u32,
        /// Address of the bitmap; 0: statistics only.
        dirty_bitmap: u64 = "dirty_bitmap" @ 16,
        /// In: bits of the bitmap. Out: bits that were written.
        pages: u64 = "pages" @ 24,
        /// Out: faults since the last CLEAN (shadow only).
        fault_count: u32 = "stats.fault_count" @ 32,
        /// Out: pages made dirty since the last CLEAN.
        dirty_count: u32 = "stats.dirty_count" @ 36,
    }
    /// Argument of getvcpucontext and setvcpucontext.
    VcpuContext = "struct xen_domctl_vcpucontext", 16 {
        /// The vCPU.
        vcpu: u32 = "vcpu" @ 0,
        /// Zero.
        pad: u32,
        /// Address of a `VcpuGuestContext`.
        ctxt: u64 = "ctxt" @ 8,
    }
    /// Argument of getvcpuinfo.
    GetVcpuInfo = "struct xen_domctl_getvcpuinfo", 24 {
        /// The vCPU.
        vcpu: u32 = "vcpu" @ 0,
        /// Out: not unplugged.
        online: u8 = "online" @ 4,
        /// Out: waits for an event.
        blocked: u8 = "blocked" @ 5,
        /// Out: on a CPU now.
        running: u8 = "running" @ 6,
        /// Zero.
        pad: u8,
        /// Out: CPU time in nanoseconds.
        cpu_time: u64 = "cpu_time" @ 8,
        /// Out: its CPU.
        cpu: u32 = "cpu" @ 16,
        /// Zero.
        pad1: u32,
    }
    /// Argument of gethvmcontext.
    HvmContext = "struct xen_domctl_hvmcontext", 16 {
        /// In: bytes of the buffer. Out: bytes written, or needed if the buffer is 0.
        size: u32 = "size" @ 0,
        /// Zero.
        pad: u32,
        /// Address of the buffer.
        buffer: u64 = "buffer" @ 8,
    }
    /// Argument of gethvmcontext_partial.
    HvmContextPartial = "struct xen_domctl_hvmcontext_partial", 24 {
        /// `hvm::SAVE_*`.
        typecode: u32 = "type" @ 0,
        /// Which one of its type.
        instance: u32 = "instance" @ 4,
        /// Bytes of the buffer.
        bufsz: u64 = "bufsz" @ 8,
        /// Address of the buffer.
        buffer: u64 = "buffer" @ 16,
    }
    /// Argument of get_address_size.
    AddressSize = "struct xen_domctl_address_size", 4 {
        /// Out: 32 or 64.
        size: u32 = "size" @ 0,
    }
    /// Argument of get_ext_vcpucontext.
    ExtVcpuContext = "struct xen_domctl_ext_vcpucontext", 64 {
        /// The vCPU.
        vcpu: u32 = "vcpu" @ 0,
        /// Out: bytes that Xen filled.
        size: u32 = "size" @ 4,
        /// Out: entry of 32-bit syscall.
        syscall32_callback_eip: u64 = "syscall32_callback_eip" @ 8,
        /// Out: entry of sysenter.
        sysenter_callback_eip: u64 = "sysenter_callback_eip" @ 16,
        /// Out: its code selector.
        syscall32_callback_cs: u16 = "syscall32_callback_cs" @ 24,
        /// Out: its code selector.
        sysenter_callback_cs: u16 = "sysenter_callback_cs" @ 26,
        /// Out: whether events are masked on entry.
        syscall32_disables_events: u8 = "syscall32_disables_events" @ 28,
        /// Out: whether events are masked on entry.
        sysenter_disables_events: u8 = "sysenter_disables_events" @ 29,
        /// Zero.
        pad: u16,
        /// Out: the machine-check state (`hvm_vmce_vcpu`).
        vmce: [u64; 4] = "vmce" @ 32,
    }
    /// Argument of getvcpuextstate and setvcpuextstate.
    VcpuExtState = "struct xen_domctl_vcpuextstate", 32 {
        /// The vCPU.
        vcpu: u32 = "vcpu" @ 0,
        /// Zero.
        pad: u32,
        /// The features of the format.
        xfeature_mask: u64 = "xfeature_mask" @ 8,
        /// Bytes of the buffer.
        size: u64 = "size" @ 16,
        /// Address of the buffer; 0: a question for mask and size.
        buffer: u64 = "buffer" @ 24,
    }
    /// Argument of get_vcpu_msrs.
    VcpuMsrs = "struct xen_domctl_vcpu_msrs", 16 {
        /// The vCPU.
        vcpu: u32 = "vcpu" @ 0,
        /// In: room. Out: entries.
        msr_count: u32 = "msr_count" @ 4,
        /// Address of the entries; 0: a question for the count.
        msrs: u64 = "msrs" @ 8,
    }
    /// One entry of get_vcpu_msrs.
    VcpuMsr = "struct xen_domctl_vcpu_msr", 16 {
        /// The register.
        index: u32 = "index" @ 0,
        /// Zero.
        reserved: u32 = "reserved" @ 4,
        /// Its value.
        value: u64 = "value" @ 8,
    }
    /// Argument of gettscinfo.
    TscInfo = "struct xen_domctl_tsc_info", 24 {
        /// How the TSC is presented.
        tsc_mode: u32 = "tsc_mode" @ 0,
        /// Its frequency.
        gtsc_khz: u32 = "gtsc_khz" @ 4,
        /// How often the domain was restored.
        incarnation: u32 = "incarnation" @ 8,
        /// Zero.
        pad: u32 = "pad" @ 12,
        /// Nanoseconds of guest time.
        elapsed_nsec: u64 = "elapsed_nsec" @ 16,
    }
    /// Argument of get_cpu_policy.
    CpuPolicy = "struct xen_domctl_cpu_policy", 40 {
        /// In: room. Out: leaves.
        nr_leaves: u32 = "nr_leaves" @ 0,
        /// In: room. Out: registers.
        nr_msrs: u32 = "nr_msrs" @ 4,
        /// Address of the leaves; 0: a question for the counts.
        leaves: u64 = "leaves" @ 8,
        /// Address of the registers.
        msrs: u64 = "msrs" @ 16,
        /// Out, of set_cpu_policy only.
        err_leaf: u32 = "err_leaf" @ 24,
        /// Out, of set_cpu_policy only.
        err_subleaf: u32 = "err_subleaf" @ 28,
        /// Out, of set_cpu_policy only.
        err_msr: u32 = "err_msr" @ 32,
        /// Zero.
        pad: u32,
    }
    /// One CPUID leaf of a policy (arch-x86/xen.h).
    CpuidLeaf = "struct xen_cpuid_leaf", 24 {
        /// The leaf.
        leaf: u32 = "leaf" @ 0,
        /// The subleaf, or !0.
        subleaf: u32 = "subleaf" @ 4,
        /// eax.
        a: u32 = "a" @ 8,
        /// ebx.
        b: u32 = "b" @ 12,
        /// ecx.
        c: u32 = "c" @ 16,
        /// edx.
        d: u32 = "d" @ 20,
    }
    /// One register of a policy (arch-x86/xen.h).
    MsrEntry = "struct xen_msr_entry", 16 {
        /// The register.
        idx: u32 = "idx" @ 0,
        /// Zero.
        flags: u32 = "flags" @ 4,
        /// Its value.
        val: u64 = "val" @ 8,
    }
    /// Argument of get_paging_mempool_size.
    PagingMempool = "struct xen_domctl_paging_mempool", 8 {
        /// Out: bytes.
        size: u64 = "size" @ 0,
    }
    /// Argument of scheduler_op; the credit schedulers have the same two numbers in the same places.
    SchedulerOp = "struct xen_domctl_scheduler_op", 24 {
        /// Which scheduler is meant.
        sched_id: u32 = "sched_id" @ 0,
        /// Set or get.
        cmd: u32 = "cmd" @ 4,
        /// Weight; 0 when set: as it is.
        weight: u16 = "u.credit.weight" @ 8,
        /// Percent of one processor; 0: no cap.
        cap: u16 = "u.credit.cap" @ 10,
        /// The rest of the union.
        pad0: u32,
        /// The rest of the union.
        pad1: u64,
    }
    /// Argument of subscribe.
    Subscribe = "struct xen_domctl_subscribe", 4 {
        /// A port of the domain itself; 0: nobody.
        port: u32 = "port" @ 0,
    }
}
