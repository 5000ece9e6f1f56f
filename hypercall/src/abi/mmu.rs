//! xen.h: page table updates of PV guests, and the bits of a page table entry that this project sets.

constants! {
    /// mmu_update: write a page table entry; for a translated owner Xen translates the GFN in it.
    MMU_NORMAL_PT_UPDATE: u64 = 0, "MMU_NORMAL_PT_UPDATE";
    /// mmu_update: set the machine-to-physical entry of a frame.
    MMU_MACHPHYS_UPDATE: u64 = 1, "MMU_MACHPHYS_UPDATE";
    /// mmu_update: write an entry and keep its accessed and dirty bits.
    MMU_PT_UPDATE_PRESERVE_AD: u64 = 2, "MMU_PT_UPDATE_PRESERVE_AD";
    /// mmuext_op: pin a frame as L1 table.
    MMUEXT_PIN_L1_TABLE: u32 = 0, "MMUEXT_PIN_L1_TABLE";
    /// mmuext_op: pin a frame as L2 table.
    MMUEXT_PIN_L2_TABLE: u32 = 1, "MMUEXT_PIN_L2_TABLE";
    /// mmuext_op: pin a frame as L3 table.
    MMUEXT_PIN_L3_TABLE: u32 = 2, "MMUEXT_PIN_L3_TABLE";
    /// mmuext_op: pin a frame as L4 table.
    MMUEXT_PIN_L4_TABLE: u32 = 3, "MMUEXT_PIN_L4_TABLE";
    /// mmuext_op: undo a pin.
    MMUEXT_UNPIN_TABLE: u32 = 4, "MMUEXT_UNPIN_TABLE";
    /// mmuext_op: load cr3.
    MMUEXT_NEW_BASEPTR: u32 = 5, "MMUEXT_NEW_BASEPTR";
    /// mmuext_op: flush this CPU's TLB.
    MMUEXT_TLB_FLUSH_LOCAL: u32 = 6, "MMUEXT_TLB_FLUSH_LOCAL";
    /// mmuext_op: flush one address of this CPU's TLB.
    MMUEXT_INVLPG_LOCAL: u32 = 7, "MMUEXT_INVLPG_LOCAL";
    /// mmuext_op: flush the TLBs of all CPUs.
    MMUEXT_TLB_FLUSH_ALL: u32 = 10, "MMUEXT_TLB_FLUSH_ALL";
    /// mmuext_op: set the user page table.
    MMUEXT_NEW_USER_BASEPTR: u32 = 15, "MMUEXT_NEW_USER_BASEPTR";
    /// update_va_mapping: no flush.
    UVMF_NONE: u64 = 0, "UVMF_NONE";
    /// update_va_mapping: flush the TLB.
    UVMF_TLB_FLUSH: u64 = 1, "UVMF_TLB_FLUSH";
    /// update_va_mapping: flush this address.
    UVMF_INVLPG: u64 = 2, "UVMF_INVLPG";
    /// update_va_mapping: flush on this CPU.
    UVMF_LOCAL: u64 = 0, "UVMF_LOCAL";
    /// update_va_mapping: flush on all CPUs.
    UVMF_ALL: u64 = 4, "UVMF_ALL";
}

bitflags::bitflags! {
    /// The flags of an x86_64 page table entry (Intel SDM volume 3, 4.5).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct PteFlags: u64 {
        /// The entry maps something.
        const PRESENT = 1;
        /// Writable.
        const RW = 1 << 1;
        /// Reachable from user mode. Xen sets it for a PV kernel's pages itself.
        const USER = 1 << 2;
        /// Write-through.
        const PWT = 1 << 3;
        /// Cache disabled.
        const PCD = 1 << 4;
        /// Accessed.
        const ACCESSED = 1 << 5;
        /// Written.
        const DIRTY = 1 << 6;
        /// In L2 and above: a superpage. In L1: the PAT bit.
        const PSE = 1 << 7;
        /// Survives a load of cr3; not for PV.
        const GLOBAL = 1 << 8;
        /// Not executable.
        const NX = 1 << 63;
    }
}

/// The address bits of an entry.
pub const PTE_ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

structs! {
    /// One request of mmu_update.
    MmuUpdate = "struct mmu_update", 16 {
        /// Machine address of the entry, or'ed with `MMU_*`.
        ptr: u64 = "ptr" @ 0,
        /// The new contents.
        val: u64 = "val" @ 8,
    }
    /// One request of mmuext_op.
    MmuextOp = "struct mmuext_op", 24 {
        /// `MMUEXT_*`.
        cmd: u32 = "cmd" @ 0,
        /// Zero.
        pad: u32,
        /// An MFN or a linear address, by command.
        arg1: u64 = "arg1" @ 8,
        /// A count or an address, by command.
        arg2: u64 = "arg2" @ 16,
    }
}
