//! event_channel.h: event channels, 2-level layout.

constants! {
    /// Event op: connect to another domain's unbound port.
    EVTCHNOP_BIND_INTERDOMAIN: u64 = 0, "EVTCHNOP_bind_interdomain";
    /// Event op: bind a virtual interrupt to a port.
    EVTCHNOP_BIND_VIRQ: u64 = 1, "EVTCHNOP_bind_virq";
    /// Event op: close a port.
    EVTCHNOP_CLOSE: u64 = 3, "EVTCHNOP_close";
    /// Event op: notify the other end.
    EVTCHNOP_SEND: u64 = 4, "EVTCHNOP_send";
    /// Event op: what a port is bound to.
    EVTCHNOP_STATUS: u64 = 5, "EVTCHNOP_status";
    /// Event op: a new port to which another domain may bind.
    EVTCHNOP_ALLOC_UNBOUND: u64 = 6, "EVTCHNOP_alloc_unbound";
    /// Event op: unmask, and raise again if pending.
    EVTCHNOP_UNMASK: u64 = 9, "EVTCHNOP_unmask";
    /// Status: not in use.
    EVTCHNSTAT_CLOSED: u32 = 0, "EVTCHNSTAT_closed";
    /// Status: waits for the other domain.
    EVTCHNSTAT_UNBOUND: u32 = 1, "EVTCHNSTAT_unbound";
    /// Status: connected to another domain.
    EVTCHNSTAT_INTERDOMAIN: u32 = 2, "EVTCHNSTAT_interdomain";
    /// Status: bound to a virtual interrupt.
    EVTCHNSTAT_VIRQ: u32 = 4, "EVTCHNSTAT_virq";
}

structs! {
    /// Argument of EVTCHNOP_alloc_unbound.
    AllocUnbound = "struct evtchn_alloc_unbound", 8 {
        /// The domain that gets the port.
        dom: u16 = "dom" @ 0,
        /// The domain that may bind to it.
        remote_dom: u16 = "remote_dom" @ 2,
        /// Out: the port.
        port: u32 = "port" @ 4,
    }
    /// Argument of EVTCHNOP_bind_interdomain.
    BindInterdomain = "struct evtchn_bind_interdomain", 12 {
        /// The other domain.
        remote_dom: u16 = "remote_dom" @ 0,
        /// Zero.
        pad: u16,
        /// Its unbound port.
        remote_port: u32 = "remote_port" @ 4,
        /// Out: the caller's port.
        local_port: u32 = "local_port" @ 8,
    }
    /// Argument of EVTCHNOP_bind_virq.
    BindVirq = "struct evtchn_bind_virq", 12 {
        /// `VIRQ_*`.
        virq: u32 = "virq" @ 0,
        /// The vCPU that is notified.
        vcpu: u32 = "vcpu" @ 4,
        /// Out: the port.
        port: u32 = "port" @ 8,
    }
    /// Argument of EVTCHNOP_close, EVTCHNOP_send and EVTCHNOP_unmask.
    Port = "struct evtchn_send", 4 {
        /// The port.
        port: u32 = "port" @ 0,
    }
    /// Argument of EVTCHNOP_status.
    Status = "struct evtchn_status", 24 {
        /// The domain that is asked about.
        dom: u16 = "dom" @ 0,
        /// Zero.
        pad: u16,
        /// Its port.
        port: u32 = "port" @ 4,
        /// Out: `EVTCHNSTAT_*`.
        status: u32 = "status" @ 8,
        /// Out: the vCPU that is notified.
        vcpu: u32 = "vcpu" @ 12,
        /// Out: the other domain, if unbound or interdomain.
        remote_dom: u16 = "u.interdomain.dom" @ 16,
        /// Zero.
        pad1: u16,
        /// Out: the other end's port, if interdomain.
        remote_port: u32 = "u.interdomain.port" @ 20,
    }
}
