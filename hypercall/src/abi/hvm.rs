//! hvm/hvm_op.h, hvm/params.h, hvm/save.h and arch-x86/hvm/save.h: parameters and the saved context of PVH and HVM.

constants! {
    /// hvm_op: set a parameter.
    HVMOP_SET_PARAM: u64 = 0, "HVMOP_set_param";
    /// hvm_op: read a parameter.
    HVMOP_GET_PARAM: u64 = 1, "HVMOP_get_param";
    /// hvm_op: Xen's system time.
    HVMOP_GET_TIME: u64 = 10, "HVMOP_get_time";
    /// Bytes of the answer to HVMOP_get_time.
    GET_TIME_LEN: usize = 8, "sizeof(struct xen_hvm_get_time)";
    /// Parameter: how event channel upcalls are delivered; 0: no PV drivers.
    PARAM_CALLBACK_IRQ: u32 = 0, "HVM_PARAM_CALLBACK_IRQ";
    /// Parameter: GFN of the xenstore ring.
    PARAM_STORE_PFN: u32 = 1, "HVM_PARAM_STORE_PFN";
    /// Parameter: port of the xenstore ring.
    PARAM_STORE_EVTCHN: u32 = 2, "HVM_PARAM_STORE_EVTCHN";
    /// Parameter: GFN of the ioreq page.
    PARAM_IOREQ_PFN: u32 = 5, "HVM_PARAM_IOREQ_PFN";
    /// Parameter: GFN of the buffered ioreq page.
    PARAM_BUFIOREQ_PFN: u32 = 6, "HVM_PARAM_BUFIOREQ_PFN";
    /// Parameter: Viridian features.
    PARAM_VIRIDIAN: u32 = 9, "HVM_PARAM_VIRIDIAN";
    /// Parameter: address of the identity page table.
    PARAM_IDENT_PT: u32 = 12, "HVM_PARAM_IDENT_PT";
    /// Parameter: GFN of the console ring.
    PARAM_CONSOLE_PFN: u32 = 17, "HVM_PARAM_CONSOLE_PFN";
    /// Parameter: port of the console ring.
    PARAM_CONSOLE_EVTCHN: u32 = 18, "HVM_PARAM_CONSOLE_EVTCHN";
    /// Parameter: where the ACPI ports lie.
    PARAM_ACPI_IOPORTS_LOCATION: u32 = 19, "HVM_PARAM_ACPI_IOPORTS_LOCATION";
    /// Parameter: GFN of the paging ring.
    PARAM_PAGING_RING_PFN: u32 = 27, "HVM_PARAM_PAGING_RING_PFN";
    /// Parameter: GFN of the monitor ring.
    PARAM_MONITOR_RING_PFN: u32 = 28, "HVM_PARAM_MONITOR_RING_PFN";
    /// Parameter: GFN of the sharing ring.
    PARAM_SHARING_RING_PFN: u32 = 29, "HVM_PARAM_SHARING_RING_PFN";
    /// Parameter: first GFN for ioreq servers.
    PARAM_IOREQ_SERVER_PFN: u32 = 32, "HVM_PARAM_IOREQ_SERVER_PFN";
    /// Parameter: pages for ioreq servers.
    PARAM_NR_IOREQ_SERVER_PAGES: u32 = 33, "HVM_PARAM_NR_IOREQ_SERVER_PAGES";
    /// Parameter: address of the generation id.
    PARAM_VM_GENERATION_ID_ADDR: u32 = 34, "HVM_PARAM_VM_GENERATION_ID_ADDR";
    /// Parameter: width of the x87 instruction pointer.
    PARAM_X87_FIP_WIDTH: u32 = 36, "HVM_PARAM_X87_FIP_WIDTH";
    /// Parameter: address and size of the vm86 TSS.
    PARAM_VM86_TSS_SIZED: u32 = 37, "HVM_PARAM_VM86_TSS_SIZED";
    /// Parameter: machine-check capabilities.
    PARAM_MCA_CAP: u32 = 38, "HVM_PARAM_MCA_CAP";
    /// Parameters that there are.
    NR_PARAMS: u32 = 39, "HVM_NR_PARAMS";
    /// Record: the end of a context.
    SAVE_END: u16 = 0, "HVM_SAVE_CODE(END)";
    /// Record: the header of a context, the first record.
    SAVE_HEADER: u16 = 1, "HVM_SAVE_CODE(HEADER)";
    /// Record: a vCPU.
    SAVE_CPU: u16 = 2, "HVM_SAVE_CODE(CPU)";
    /// Record: an interrupt controller (8259).
    SAVE_PIC: u16 = 3, "HVM_SAVE_CODE(PIC)";
    /// Record: an IO-APIC.
    SAVE_IOAPIC: u16 = 4, "HVM_SAVE_CODE(IOAPIC)";
    /// Record: a local APIC.
    SAVE_LAPIC: u16 = 5, "HVM_SAVE_CODE(LAPIC)";
    /// Record: the registers of a local APIC.
    SAVE_LAPIC_REGS: u16 = 6, "HVM_SAVE_CODE(LAPIC_REGS)";
    /// Record: the PCI interrupts.
    SAVE_PCI_IRQ: u16 = 7, "HVM_SAVE_CODE(PCI_IRQ)";
    /// Record: the ISA interrupts.
    SAVE_ISA_IRQ: u16 = 8, "HVM_SAVE_CODE(ISA_IRQ)";
    /// Record: the PCI interrupt links.
    SAVE_PCI_LINK: u16 = 9, "HVM_SAVE_CODE(PCI_LINK)";
    /// Record: the timer (8254).
    SAVE_PIT: u16 = 10, "HVM_SAVE_CODE(PIT)";
    /// Record: the real-time clock.
    SAVE_RTC: u16 = 11, "HVM_SAVE_CODE(RTC)";
    /// Record: the HPET.
    SAVE_HPET: u16 = 12, "HVM_SAVE_CODE(HPET)";
    /// Record: the ACPI timer.
    SAVE_PMTIMER: u16 = 13, "HVM_SAVE_CODE(PMTIMER)";
    /// Record: the MTRRs of a vCPU.
    SAVE_MTRR: u16 = 14, "HVM_SAVE_CODE(MTRR)";
    /// Record: the extended state of a vCPU.
    SAVE_CPU_XSAVE: u16 = 16, "CPU_XSAVE_CODE";
    /// Record: the machine-check state of a vCPU.
    SAVE_VMCE_VCPU: u16 = 18, "HVM_SAVE_CODE(VMCE_VCPU)";
    /// Record: TSC_ADJUST of a vCPU.
    SAVE_TSC_ADJUST: u16 = 19, "HVM_SAVE_CODE(TSC_ADJUST)";
    /// Record: model-specific registers of a vCPU.
    SAVE_CPU_MSR: u16 = 20, "CPU_MSR_CODE";
    /// What the field `magic` of a context's header holds.
    FILE_MAGIC: u32 = 0x5438_1286, "HVM_FILE_MAGIC";
    /// Bytes of a CPU record.
    HW_CPU_LEN: usize = 1032, "sizeof(struct hvm_hw_cpu)";
    /// Where rax stands in a CPU record.
    HW_CPU_RAX: usize = 512, "offsetof(struct hvm_hw_cpu, rax)";
    /// Where rip stands in a CPU record.
    HW_CPU_RIP: usize = 640, "offsetof(struct hvm_hw_cpu, rip)";
    /// Where the TSC stands in a CPU record; it counts on while the guest stands still.
    HW_CPU_TSC: usize = 1008, "offsetof(struct hvm_hw_cpu, tsc)";
    /// Where cr3 stands in a CPU record.
    HW_CPU_CR3: usize = 672, "offsetof(struct hvm_hw_cpu, cr3)";
}

structs! {
    /// Argument of HVMOP_get_param and HVMOP_set_param.
    HvmParam = "struct xen_hvm_param", 16 {
        /// The domain.
        domid: u16 = "domid" @ 0,
        /// Zero.
        pad: u16 = "pad" @ 2,
        /// `PARAM_*`.
        index: u32 = "index" @ 4,
        /// The value.
        value: u64 = "value" @ 8,
    }
    /// What precedes each record of a saved context.
    SaveDescriptor = "struct hvm_save_descriptor", 8 {
        /// `SAVE_*`.
        typecode: u16 = "typecode" @ 0,
        /// Which one of its type; for records of a vCPU its number.
        instance: u16 = "instance" @ 2,
        /// Bytes that follow.
        length: u32 = "length" @ 4,
    }
    /// The record `SAVE_HEADER`.
    SaveHeader = "struct hvm_save_header", 24 {
        /// `FILE_MAGIC`.
        magic: u32 = "magic" @ 0,
        /// The format's version.
        version: u32 = "version" @ 4,
        /// Xen's changeset.
        changeset: u64 = "changeset" @ 8,
        /// CPUID[1].eax of the host.
        cpuid: u32 = "cpuid" @ 16,
        /// Frequency of the guest's TSC.
        gtsc_khz: u32 = "gtsc_khz" @ 20,
    }
}
