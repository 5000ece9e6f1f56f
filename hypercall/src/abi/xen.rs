//! xen.h: hypercall numbers, virtual interrupts, and the page that Xen shares with every domain.
//!
//! `SharedInfo` is memory that Xen writes at any time: map it, read single fields with volatile or atomic reads, and
//! never hold a Rust reference to a `SharedInfo` that is live.

constants! {
    /// Number of the hypercall set_trap_table.
    HYPERVISOR_SET_TRAP_TABLE: u32 = 0, "__HYPERVISOR_set_trap_table";
    /// Number of the hypercall mmu_update.
    HYPERVISOR_MMU_UPDATE: u32 = 1, "__HYPERVISOR_mmu_update";
    /// Number of the hypercall set_gdt.
    HYPERVISOR_SET_GDT: u32 = 2, "__HYPERVISOR_set_gdt";
    /// Number of the hypercall stack_switch.
    HYPERVISOR_STACK_SWITCH: u32 = 3, "__HYPERVISOR_stack_switch";
    /// Number of the hypercall set_callbacks.
    HYPERVISOR_SET_CALLBACKS: u32 = 4, "__HYPERVISOR_set_callbacks";
    /// Number of the hypercall fpu_taskswitch.
    HYPERVISOR_FPU_TASKSWITCH: u32 = 5, "__HYPERVISOR_fpu_taskswitch";
    /// Number of the hypercall memory_op.
    HYPERVISOR_MEMORY_OP: u32 = 12, "__HYPERVISOR_memory_op";
    /// Number of the hypercall multicall.
    HYPERVISOR_MULTICALL: u32 = 13, "__HYPERVISOR_multicall";
    /// Number of the hypercall update_va_mapping.
    HYPERVISOR_UPDATE_VA_MAPPING: u32 = 14, "__HYPERVISOR_update_va_mapping";
    /// Number of the hypercall set_timer_op.
    HYPERVISOR_SET_TIMER_OP: u32 = 15, "__HYPERVISOR_set_timer_op";
    /// Number of the hypercall xen_version.
    HYPERVISOR_XEN_VERSION: u32 = 17, "__HYPERVISOR_xen_version";
    /// Number of the hypercall console_io.
    HYPERVISOR_CONSOLE_IO: u32 = 18, "__HYPERVISOR_console_io";
    /// Number of the hypercall grant_table_op.
    HYPERVISOR_GRANT_TABLE_OP: u32 = 20, "__HYPERVISOR_grant_table_op";
    /// Number of the hypercall vm_assist.
    HYPERVISOR_VM_ASSIST: u32 = 21, "__HYPERVISOR_vm_assist";
    /// Number of the hypercall update_va_mapping_otherdomain.
    HYPERVISOR_UPDATE_VA_MAPPING_OTHERDOMAIN: u32 = 22, "__HYPERVISOR_update_va_mapping_otherdomain";
    /// Number of the hypercall iret.
    HYPERVISOR_IRET: u32 = 23, "__HYPERVISOR_iret";
    /// Number of the hypercall vcpu_op.
    HYPERVISOR_VCPU_OP: u32 = 24, "__HYPERVISOR_vcpu_op";
    /// Number of the hypercall set_segment_base.
    HYPERVISOR_SET_SEGMENT_BASE: u32 = 25, "__HYPERVISOR_set_segment_base";
    /// Number of the hypercall mmuext_op.
    HYPERVISOR_MMUEXT_OP: u32 = 26, "__HYPERVISOR_mmuext_op";
    /// Number of the hypercall xsm_op (FLASK).
    HYPERVISOR_XSM_OP: u32 = 27, "__HYPERVISOR_xsm_op";
    /// Number of the hypercall sched_op.
    HYPERVISOR_SCHED_OP: u32 = 29, "__HYPERVISOR_sched_op";
    /// Number of the hypercall event_channel_op.
    HYPERVISOR_EVENT_CHANNEL_OP: u32 = 32, "__HYPERVISOR_event_channel_op";
    /// Number of the hypercall hvm_op.
    HYPERVISOR_HVM_OP: u32 = 34, "__HYPERVISOR_hvm_op";
    /// Number of the hypercall sysctl.
    HYPERVISOR_SYSCTL: u32 = 35, "__HYPERVISOR_sysctl";
    /// Number of the hypercall domctl.
    HYPERVISOR_DOMCTL: u32 = 36, "__HYPERVISOR_domctl";
    /// The virtual interrupt of the one-shot and periodic timers.
    VIRQ_TIMER: u32 = 0, "VIRQ_TIMER";
    /// The virtual interrupt that tells dom0 of a domain's exceptional event.
    VIRQ_DOM_EXC: u32 = 3, "VIRQ_DOM_EXC";
    /// console_io: write bytes to the hypervisor's console.
    CONSOLEIO_WRITE: u64 = 0, "CONSOLEIO_write";
    /// vcpu_time_info.flags: the TSC runs alike on all CPUs.
    PVCLOCK_TSC_STABLE_BIT: u8 = 1, "XEN_PVCLOCK_TSC_STABLE_BIT";
    /// vCPUs that have their `vcpu_info` inside the shared_info page.
    LEGACY_MAX_VCPUS: usize = 32, "XEN_LEGACY_MAX_VCPUS";
    /// Event channels of the 2-level layout.
    EVTCHN_2L_NR_CHANNELS: usize = 4096, "EVTCHN_2L_NR_CHANNELS";
    /// The domain that stands for Xen itself.
    DOMID_XEN: u16 = 0x7ff2, "DOMID_XEN";
    /// The caller itself.
    DOMID_SELF: u16 = crate::DomId::SELF.raw(), "DOMID_SELF";
    /// The first number that is no ordinary domain.
    DOMID_FIRST_RESERVED: u16 = crate::DomId::FIRST_RESERVED.raw(), "DOMID_FIRST_RESERVED";
    /// No domain.
    DOMID_INVALID: u16 = crate::DomId::INVALID.raw(), "DOMID_INVALID";
    /// Where a PV guest sees the machine-to-physical table, one `u64` for each MFN (arch-x86/xen-x86_64.h).
    MACH2PHYS_VIRT_START: u64 = 0xffff_8000_0000_0000, "__MACH2PHYS_VIRT_START";
    /// Where that window ends.
    MACH2PHYS_VIRT_END: u64 = 0xffff_8040_0000_0000, "__MACH2PHYS_VIRT_END";
    /// The kernel's code selector at the start of a 64-bit PV guest.
    FLAT_KERNEL_CS64: u16 = 0xe033, "FLAT_KERNEL_CS64";
    /// The kernel's stack selector.
    FLAT_KERNEL_SS64: u16 = 0xe02b, "FLAT_KERNEL_SS64";
}

structs! {
    /// Time of one vCPU; consistent only between two equal even reads of `version`.
    VcpuTimeInfo = "struct vcpu_time_info", 32 {
        /// Odd while Xen updates the rest.
        version: u32 = "version" @ 0,
        /// Zero.
        pad0: u32 = "pad0" @ 4,
        /// TSC at the last update.
        tsc_timestamp: u64 = "tsc_timestamp" @ 8,
        /// Nanoseconds since boot at the last update.
        system_time: u64 = "system_time" @ 16,
        /// Nanoseconds for a (shifted) tick, as a 0.32 fixed-point fraction.
        tsc_to_system_mul: u32 = "tsc_to_system_mul" @ 24,
        /// Left shift of the TSC difference; right if negative.
        tsc_shift: i8 = "tsc_shift" @ 28,
        /// `PVCLOCK_*`.
        flags: u8 = "flags" @ 29,
        /// Zero.
        pad1: [u8; 2] = "pad1" @ 30,
    }
    /// What Xen shares with one vCPU.
    VcpuInfo = "struct vcpu_info", 64 {
        /// Not zero: an unmasked event is pending.
        evtchn_upcall_pending: u8 = "evtchn_upcall_pending" @ 0,
        /// Not zero: no upcall is made (PV).
        evtchn_upcall_mask: u8 = "evtchn_upcall_mask" @ 1,
        /// Zero.
        pad: [u8; 6],
        /// One bit for each word of `evtchn_pending` in which a bit was set.
        evtchn_pending_sel: u64 = "evtchn_pending_sel" @ 8,
        /// The address of the last page fault (PV).
        cr2: u64 = "arch.cr2" @ 16,
        /// Zero.
        arch_pad: u64,
        /// The clock.
        time: VcpuTimeInfo = "time" @ 32,
    }
    /// The x86 part of the shared page. For a PV guest all of it is the guest's word.
    ArchSharedInfo = "struct arch_shared_info", 48 {
        /// Entries of the p2m.
        max_pfn: u64 = "max_pfn" @ 0,
        /// MFN of the root of the 3-level p2m; 0 or !0: there is none.
        pfn_to_mfn_frame_list_list: u64 = "pfn_to_mfn_frame_list_list" @ 8,
        /// Why an NMI was sent.
        nmi_reason: u64 = "nmi_reason" @ 16,
        /// Not zero: the page table (in cr3 form) in which `p2m_vaddr` is the linear p2m.
        p2m_cr3: u64 = "p2m_cr3" @ 24,
        /// Virtual address of the linear p2m.
        p2m_vaddr: u64 = "p2m_vaddr" @ 32,
        /// Counts changes of the p2m's mapping; odd while one is in progress.
        p2m_generation: u64 = "p2m_generation" @ 40,
    }
    /// The shared page, as far as it is defined.
    SharedInfo = "struct shared_info", 3136 {
        /// The first vCPUs.
        vcpu_info: [VcpuInfo; LEGACY_MAX_VCPUS] = "vcpu_info" @ 0,
        /// One bit for each port: an event is pending.
        evtchn_pending: [u64; 64] = "evtchn_pending" @ 2048,
        /// One bit for each port: no upcall for it.
        evtchn_mask: [u64; 64] = "evtchn_mask" @ 2560,
        /// Odd while Xen updates the wall clock.
        wc_version: u32 = "wc_version" @ 3072,
        /// Wall clock at boot, seconds since 1970, low half.
        wc_sec: u32 = "wc_sec" @ 3076,
        /// Wall clock at boot, nanoseconds.
        wc_nsec: u32 = "wc_nsec" @ 3080,
        /// Wall clock at boot, seconds since 1970, high half.
        wc_sec_hi: u32 = "wc_sec_hi" @ 3084,
        /// The x86 part.
        arch: ArchSharedInfo = "arch" @ 3088,
    }
    /// One entry of a virtual interrupt table (arch-x86/xen.h); the table ends with one whose address is zero.
    TrapInfo = "struct trap_info", 16 {
        /// The exception's number.
        vector: u8 = "vector" @ 0,
        /// Privilege level in bits 0-1; bit 2: mask events on entry.
        flags: u8 = "flags" @ 1,
        /// Code selector.
        cs: u16 = "cs" @ 2,
        /// Zero.
        pad: u32,
        /// The handler.
        address: u64 = "address" @ 8,
    }
    /// One call of a multicall.
    MulticallEntry = "struct multicall_entry", 64 {
        /// The hypercall's number.
        op: u64 = "op" @ 0,
        /// Its return value.
        result: u64 = "result" @ 8,
        /// Its arguments.
        args: [u64; 6] = "args" @ 16,
    }
}
