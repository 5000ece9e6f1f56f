//! Linux's xen/privcmd.h and xen/evtchn.h (in Debian's libxen-dev: xen/sys/): how a process in dom0 reaches Xen.

/// `_IOC(_IOC_NONE, kind, number, size)` of asm-generic/ioctl.h.
const fn ioc(kind: u8, number: u8, size: usize) -> u64 {
    (size as u64) << 16 | (kind as u64) << 8 | number as u64
}

constants! {
    /// privcmd: issue a hypercall.
    IOCTL_PRIVCMD_HYPERCALL: u64 = ioc(b'P', 0, size_of::<PrivcmdHypercall>()), "IOCTL_PRIVCMD_HYPERCALL";
    /// privcmd: map frames of a domain.
    IOCTL_PRIVCMD_MMAPBATCH_V2: u64 = ioc(b'P', 4, size_of::<MmapBatchV2>()), "IOCTL_PRIVCMD_MMAPBATCH_V2";
    /// evtchn: bind a virtual interrupt.
    IOCTL_EVTCHN_BIND_VIRQ: u64 = ioc(b'E', 0, 4), "IOCTL_EVTCHN_BIND_VIRQ";
    /// evtchn: connect to another domain's port.
    IOCTL_EVTCHN_BIND_INTERDOMAIN: u64 = ioc(b'E', 1, 8), "IOCTL_EVTCHN_BIND_INTERDOMAIN";
    /// evtchn: a new port to which a domain may bind.
    IOCTL_EVTCHN_BIND_UNBOUND_PORT: u64 = ioc(b'E', 2, 4), "IOCTL_EVTCHN_BIND_UNBOUND_PORT";
    /// evtchn: close a port.
    IOCTL_EVTCHN_UNBIND: u64 = ioc(b'E', 3, 4), "IOCTL_EVTCHN_UNBIND";
    /// evtchn: notify the other end.
    IOCTL_EVTCHN_NOTIFY: u64 = ioc(b'E', 4, 4), "IOCTL_EVTCHN_NOTIFY";
}

structs! {
    /// Argument of IOCTL_PRIVCMD_HYPERCALL.
    PrivcmdHypercall = "struct privcmd_hypercall", 48 {
        /// The hypercall's number.
        op: u64 = "op" @ 0,
        /// Its arguments.
        arg: [u64; 5] = "arg" @ 8,
    }
    /// Argument of IOCTL_PRIVCMD_MMAPBATCH_V2.
    MmapBatchV2 = "struct privcmd_mmapbatch_v2", 32 {
        /// Pages to map.
        num: u32 = "num" @ 0,
        /// Their owner.
        dom: u16 = "dom" @ 4,
        /// Zero.
        pad: u16,
        /// Where, in a mapping of the device.
        addr: u64 = "addr" @ 8,
        /// Address of the frame numbers, `u64` each.
        arr: u64 = "arr" @ 16,
        /// Address of an error for each page, `i32` each, 0 or negative.
        err: u64 = "err" @ 24,
    }
    /// Argument of IOCTL_EVTCHN_BIND_INTERDOMAIN.
    EvtchnBindInterdomain = "struct ioctl_evtchn_bind_interdomain", 8 {
        /// The other domain.
        remote_domain: u32 = "remote_domain" @ 0,
        /// Its port.
        remote_port: u32 = "remote_port" @ 4,
    }
}
