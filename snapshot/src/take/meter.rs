//! What work costs once the guest stands, measured while it runs.
//!
//! Where guest and stub share a processor the guest takes its turns in the middle of what is measured, and takes none
//! in the pause. What it took from us is at most what it ran, and at most what others took from us: on a host with a
//! processor for each it is nothing, whatever the guest does. What we waited for is no work, and is priced by itself.

use super::engine::{Engine, Target};
use super::recorder::Recorder;
use crate::ports::{Clock, Control};
use crate::session::Trouble;

/// A reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    now_ns: u64,
    stolen_ns: u64,
    blocked_ns: u64,
    guest_ns: u64,
}

impl Meter {
    /// How long the guest had run.
    pub(super) fn guest_ns(&self) -> u64 {
        self.guest_ns
    }
}

impl<T: Target, K: Control + Clock, R: Recorder> Engine<'_, T, K, R> {
    pub(super) fn meter(&mut self) -> Result<Meter, Trouble> {
        let guest_ns = self.target.info()?.cpu_time_ns;
        let stolen_ns = self.desk.control.stolen_ns();
        let blocked_ns = self.desk.control.blocked_ns();
        Ok(Meter { guest_ns, stolen_ns, blocked_ns, now_ns: self.desk.now_ns() })
    }

    /// The time since, without the guest's and without waiting, and with that of one reading.
    pub(super) fn worked_ns(&mut self, since: Meter) -> Result<u64, Trouble> {
        Ok(worked_ns(since, self.meter()?))
    }

    /// The time since for which nobody else had our processor, with that of one reading.
    pub(super) fn ran_ns(&mut self, since: Meter) -> Result<u64, Trouble> {
        let now = self.meter()?;
        let stolen_ns = now.stolen_ns.saturating_sub(since.stolen_ns);
        Ok(now.now_ns.saturating_sub(since.now_ns).saturating_sub(stolen_ns))
    }
}

fn worked_ns(from: Meter, to: Meter) -> u64 {
    let guest_ns = to.guest_ns.saturating_sub(from.guest_ns).min(to.stolen_ns.saturating_sub(from.stolen_ns));
    let waited_ns = to.blocked_ns.saturating_sub(from.blocked_ns);
    to.now_ns.saturating_sub(from.now_ns).saturating_sub(guest_ns).saturating_sub(waited_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_guest_took_from_us_is_left_out() {
        let from = Meter { now_ns: 100, stolen_ns: 10, blocked_ns: 5, guest_ns: 1_000 };
        let to = |stolen_ns, guest_ns| Meter { now_ns: 200, stolen_ns, guest_ns, ..from };
        assert_eq!(worked_ns(from, to(70, 1_040)), 60, "one processor: dom0 took the rest, and will in the pause");
        assert_eq!(worked_ns(from, to(10, 1_400)), 100, "a processor each");
        assert_eq!(worked_ns(from, to(30, 1_400)), 80, "a processor shared at times");
        assert_eq!(worked_ns(from, to(500, 5_000)), 0);
        assert_eq!(worked_ns(from, to(0, 0)), 100, "counters that went back");
        let waited = |ns: u64| Meter { blocked_ns: 5 + ns, ..to(50, 1_040) };
        assert_eq!((worked_ns(from, waited(10)), worked_ns(from, waited(60))), (50, 0), "waiting is no work");
    }
}
