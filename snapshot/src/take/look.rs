//! Looks at the guest: is it there, does it run, now and then while it is read.

use super::engine::Target;
use crate::fault::Fault;
use crate::ports::{DomainInfo, ShutdownCode};
use crate::session::{Trouble, limits};

/// The guest must be running now. Its suspend, before we asked for one, is somebody else's.
pub(super) fn running(info: DomainInfo) -> Result<DomainInfo, Trouble> {
    match info.shutdown {
        _ if info.dying => Err(Trouble::new(Fault::Gone, "the guest is being destroyed")),
        None => Ok(info),
        Some(ShutdownCode::SUSPEND) => {
            Err(Trouble::new(Fault::ForeignSuspend, "the guest was suspended by somebody else"))
        }
        Some(code) => Err(Trouble::new(Fault::GuestEnded, format_args!("the guest has ended ({code})"))),
    }
}

/// Looks at the guest now and then while it is read.
pub(super) struct Look {
    looked_ns: u64,
}

impl Look {
    pub(super) fn new(now_ns: u64) -> Self {
        Self { looked_ns: now_ns }
    }

    /// Is it time? Then the next time is later.
    pub(super) fn is_due(&mut self, now_ns: u64) -> bool {
        let due = now_ns.saturating_sub(self.looked_ns) >= limits::LOOK_NS;
        if due {
            self.looked_ns = now_ns;
        }
        due
    }

    pub(super) fn at_running(&mut self, target: &mut impl Target, now_ns: u64) -> Result<(), Trouble> {
        if self.is_due(now_ns) {
            running(target.info()?)?;
        }
        Ok(())
    }
}
