//! arch-x86/xen.h and vcpu.h: a vCPU's registers as get/setvcpucontext carry them, and calls on one's own vCPUs.

use super::xen::TrapInfo;

constants! {
    /// vcpu_op: stop the 100 Hz timer with which a PV vCPU starts.
    VCPUOP_STOP_PERIODIC_TIMER: u64 = 7, "VCPUOP_stop_periodic_timer";
    /// vcpu_op: how long a vCPU of one's own was in which state.
    VCPUOP_GET_RUNSTATE_INFO: u64 = 4, "VCPUOP_get_runstate_info";
    /// Such a state: it would have run, and somebody else did.
    RUNSTATE_RUNNABLE: u64 = 1, "RUNSTATE_runnable";
    /// It waits.
    RUNSTATE_BLOCKED: u64 = 2, "RUNSTATE_blocked";
    /// Context flags: the FPU area is valid.
    VGCF_I387_VALID: u64 = 1, "VGCF_i387_valid";
    /// Context flags: the vCPU is in kernel mode (PV).
    VGCF_IN_KERNEL: u64 = 4, "VGCF_in_kernel";
    /// Context flags: the vCPU is online.
    VGCF_ONLINE: u64 = 32, "VGCF_online";
    /// set_segment_base: the base of fs.
    SEGBASE_FS: u64 = 0, "SEGBASE_FS";
    /// set_segment_base: the base of gs in user mode.
    SEGBASE_GS_USER: u64 = 1, "SEGBASE_GS_USER";
    /// set_segment_base: the base of gs in kernel mode.
    SEGBASE_GS_KERNEL: u64 = 2, "SEGBASE_GS_KERNEL";
}

structs! {
    /// How long a vCPU was in which state (vcpu.h).
    RunstateInfo = "struct vcpu_runstate_info", 48 {
        /// The state now.
        state: i32 = "state" @ 0,
        /// Padding.
        pad: u32,
        /// Since when, system time.
        state_entry_time: u64 = "state_entry_time" @ 8,
        /// Nanoseconds in each state, the present one included.
        time: [u64; 4] = "time" @ 16,
    }
    /// General registers (arch-x86/xen-x86_64.h).
    CpuUserRegs = "struct cpu_user_regs", 200 {
        /// r15.
        r15: u64 = "r15" @ 0,
        /// r14.
        r14: u64 = "r14" @ 8,
        /// r13.
        r13: u64 = "r13" @ 16,
        /// r12.
        r12: u64 = "r12" @ 24,
        /// rbp.
        rbp: u64 = "rbp" @ 32,
        /// rbx.
        rbx: u64 = "rbx" @ 40,
        /// r11.
        r11: u64 = "r11" @ 48,
        /// r10.
        r10: u64 = "r10" @ 56,
        /// r9.
        r9: u64 = "r9" @ 64,
        /// r8.
        r8: u64 = "r8" @ 72,
        /// rax: the return value of a hypercall.
        rax: u64 = "rax" @ 80,
        /// rcx.
        rcx: u64 = "rcx" @ 88,
        /// rdx: in a suspended PV guest's vCPU 0 the frame of start_info.
        rdx: u64 = "rdx" @ 96,
        /// rsi.
        rsi: u64 = "rsi" @ 104,
        /// rdi.
        rdi: u64 = "rdi" @ 112,
        /// The last exception's error code.
        error_code: u32 = "error_code" @ 120,
        /// The last exception's number.
        entry_vector: u32 = "entry_vector" @ 124,
        /// rip.
        rip: u64 = "rip" @ 128,
        /// cs.
        cs: u16 = "cs" @ 136,
        /// Zero.
        pad0: u16,
        /// Whether events were masked (PV).
        saved_upcall_mask: u8 = "saved_upcall_mask" @ 140,
        /// Zero.
        pad1: [u8; 3],
        /// rflags.
        rflags: u64 = "rflags" @ 144,
        /// rsp.
        rsp: u64 = "rsp" @ 152,
        /// ss.
        ss: u16 = "ss" @ 160,
        /// Zero.
        pad2: [u16; 3],
        /// es.
        es: u16 = "es" @ 168,
        /// Zero.
        pad3: [u16; 3],
        /// ds.
        ds: u16 = "ds" @ 176,
        /// Zero.
        pad4: [u16; 3],
        /// fs.
        fs: u16 = "fs" @ 184,
        /// Zero.
        pad5: [u16; 3],
        /// gs.
        gs: u16 = "gs" @ 192,
        /// Zero.
        pad6: [u16; 3],
    }
    /// All registers of a vCPU that get/setvcpucontext carry. It is 5 KiB: keep it off small stacks.
    VcpuGuestContext = "struct vcpu_guest_context", 5168 {
        /// The FXSAVE area.
        fpu_ctxt: [u8; 512] = "fpu_ctxt" @ 0,
        /// `VGCF_*`.
        flags: u64 = "flags" @ 512,
        /// General registers.
        user_regs: CpuUserRegs = "user_regs" @ 520,
        /// The virtual interrupt table (PV).
        trap_ctxt: [TrapInfo; 256] = "trap_ctxt" @ 720,
        /// Address of the LDT (PV).
        ldt_base: u64 = "ldt_base" @ 4816,
        /// Entries of the LDT (PV).
        ldt_ents: u64 = "ldt_ents" @ 4824,
        /// MFNs of the GDT (PV).
        gdt_frames: [u64; 16] = "gdt_frames" @ 4832,
        /// Entries of the GDT (PV).
        gdt_ents: u64 = "gdt_ents" @ 4960,
        /// Stack selector on entry to the kernel (PV).
        kernel_ss: u64 = "kernel_ss" @ 4968,
        /// Stack on entry to the kernel (PV).
        kernel_sp: u64 = "kernel_sp" @ 4976,
        /// cr0 to cr7; `[1]` is the user page table (PV).
        ctrlreg: [u64; 8] = "ctrlreg" @ 4984,
        /// dr0 to dr7.
        debugreg: [u64; 8] = "debugreg" @ 5048,
        /// Where events are delivered (PV).
        event_callback_eip: u64 = "event_callback_eip" @ 5112,
        /// Where a bad segment load is reported (PV).
        failsafe_callback_eip: u64 = "failsafe_callback_eip" @ 5120,
        /// Where system calls arrive (PV).
        syscall_callback_eip: u64 = "syscall_callback_eip" @ 5128,
        /// `VMASST_*` (PV).
        vm_assist: u64 = "vm_assist" @ 5136,
        /// Base of fs.
        fs_base: u64 = "fs_base" @ 5144,
        /// Base of gs in kernel mode.
        gs_base_kernel: u64 = "gs_base_kernel" @ 5152,
        /// Base of gs in user mode.
        gs_base_user: u64 = "gs_base_user" @ 5160,
    }
}
