//! sched.h: giving up the CPU, waiting for ports, shutting down.

constants! {
    /// Scheduler op: yield.
    SCHEDOP_YIELD: u64 = 0, "SCHEDOP_yield";
    /// Scheduler op: unmask upcalls and block.
    SCHEDOP_BLOCK: u64 = 1, "SCHEDOP_block";
    /// Scheduler op: shut this domain down.
    SCHEDOP_SHUTDOWN: u64 = 2, "SCHEDOP_shutdown";
    /// Scheduler op: wait until one of some ports is pending.
    SCHEDOP_POLL: u64 = 3, "SCHEDOP_poll";
    /// Scheduler op: shut another domain down.
    SCHEDOP_REMOTE_SHUTDOWN: u64 = 4, "SCHEDOP_remote_shutdown";
    /// Shutdown reason: power off.
    SHUTDOWN_POWEROFF: u32 = 0, "SHUTDOWN_poweroff";
    /// Shutdown reason: reboot.
    SHUTDOWN_REBOOT: u32 = 1, "SHUTDOWN_reboot";
    /// Shutdown reason: suspended.
    SHUTDOWN_SUSPEND: u32 = 2, "SHUTDOWN_suspend";
    /// Shutdown reason: crash.
    SHUTDOWN_CRASH: u32 = 3, "SHUTDOWN_crash";
    /// Shutdown reason: watchdog.
    SHUTDOWN_WATCHDOG: u32 = 4, "SHUTDOWN_watchdog";
    /// Shutdown reason: soft reset.
    SHUTDOWN_SOFT_RESET: u32 = 5, "SHUTDOWN_soft_reset";
}

structs! {
    /// Argument of SCHEDOP_shutdown.
    SchedShutdown = "struct sched_shutdown", 4 {
        /// `SHUTDOWN_*`.
        reason: u32 = "reason" @ 0,
    }
    /// Argument of SCHEDOP_poll.
    SchedPoll = "struct sched_poll", 24 {
        /// Address of the ports, `u32` each.
        ports: u64 = "ports" @ 0,
        /// How many; at most 128.
        nr_ports: u32 = "nr_ports" @ 8,
        /// Zero.
        pad: u32,
        /// Absolute system time in nanoseconds; 0: no timeout.
        timeout: u64 = "timeout" @ 16,
    }
    /// Argument of SCHEDOP_remote_shutdown.
    SchedRemoteShutdown = "struct sched_remote_shutdown", 8 {
        /// The domain to be shut down.
        domain_id: u16 = "domain_id" @ 0,
        /// Zero.
        pad: u16,
        /// `SHUTDOWN_*`.
        reason: u32 = "reason" @ 4,
    }
}
