//! Takes processor time away from a guest that writes too much to be copied, and gives it back whatever happens.
//!
//! Invariants: the cap that was found stands in the record on disk before it is changed; it is put back before the
//! keeper ends, and after the resume nothing is taken away any more. A guest that cannot be throttled is not: the stub
//! sees that nothing helps and decides without.

use super::desk::Whom;
use super::record::RecordFile;
use crate::host::xen::Xen;
use serde::{Deserialize, Serialize};
use snapshot::keeper::Target;
use xen_hypercall::cap::CpuCap;

/// A cap as it was found, in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldCap {
    /// The scheduler's number.
    pub scheduler: u32,
    /// Percent of one processor; 0: no cap.
    pub percent: u16,
}

impl From<OldCap> for CpuCap {
    fn from(old: OldCap) -> Self {
        Self { scheduler: old.scheduler, percent: old.percent }
    }
}

/// Most that is taken away while the guest is to suspend. Freezing is work: with a hundredth of a processor a guest
/// does not even take the request within the keeper's patience.
const SUSPENDING_PERCENT_MAX: u64 = 80;

/// What was taken away so far.
#[derive(Debug, Default)]
pub struct Throttle {
    percent: u64,
    suspends: bool,
    over: bool,
}

/// What is left of `old` when `percent` is taken away: never nothing, which would mean no cap.
pub fn reduced(old: OldCap, vcpus: u32, percent: u64) -> OldCap {
    let all = if old.percent == 0 { u64::from(vcpus.max(1)) * 100 } else { u64::from(old.percent) };
    let left = (all * 100_u64.saturating_sub(percent) / 100).max(1);
    OldCap { percent: u16::try_from(left).unwrap_or(u16::MAX), ..old }
}

impl Throttle {
    /// The stub asks for `percent`, and now or later for the suspend; each step is taken once, and none after the end.
    pub fn ask(&mut self, xen: &Xen, target: Whom, record: &mut RecordFile, percent: u64, suspends: bool) {
        let Some(percent) = self.step(percent, suspends) else { return };
        if let Err(error) = take_away(xen, target, record, percent) {
            eprintln!("keeper: the guest cannot be throttled: {error}");
        }
    }

    /// What is to be taken away from now on, if that is something else.
    fn step(&mut self, percent: u64, suspends: bool) -> Option<u64> {
        self.suspends |= suspends;
        let wanted = percent.max(self.percent).min(if self.suspends { SUSPENDING_PERCENT_MAX } else { u64::MAX });
        let before = std::mem::replace(&mut self.percent, wanted);
        (before != wanted && !self.over).then_some(wanted)
    }

    /// The guest gets back what it had. Done once; a failure leaves the record to `livesave recover`.
    pub fn end(&mut self, xen: &Xen, (domid, handle): Whom, record: &mut RecordFile) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let Some(old) = record.cap() else { return };
        let back = xen.set_cpu_cap(domid, handle, old.into());
        if back.is_ok() || xen.target(domid, handle) == Target::Gone {
            // Only forgotten in memory if the disk fails: recovering twice is harmless.
            record.set_cap(None).unwrap_or_else(|error| eprintln!("keeper: the record: {error}"));
        } else if let Err(error) = back {
            eprintln!("keeper: the guest's CPU cap is not back: {error}");
        }
    }
}

fn take_away(xen: &Xen, (domid, handle): Whom, record: &mut RecordFile, percent: u64) -> Result<(), String> {
    let text = |error: xen_hypercall::Error| error.to_string();
    let old = match record.cap() {
        Some(old) => old,
        None => {
            let cap = xen.cpu_cap(domid, handle).map_err(text)?;
            let old = OldCap { scheduler: cap.scheduler, percent: cap.percent };
            record.set_cap(Some(old)).map_err(|error| error.to_string())?;
            old
        }
    };
    let info = xen.info(domid, Some(handle)).map_err(text)?.ok_or("it is gone")?;
    xen.set_cpu_cap(domid, handle, reduced(old, info.online_vcpus, percent).into()).map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_taken_in_steps_and_a_guest_that_is_to_suspend_can() {
        let mut throttle = Throttle::default();
        let asked =
            [(0, false), (20, false), (20, false), (99, false), (50, false), (99, true), (99, true), (99, false)];
        let steps = asked.map(|(percent, suspends)| throttle.step(percent, suspends));
        assert_eq!(steps, [None, Some(20), None, Some(99), None, Some(80), None, None]);
        let mut little = Throttle::default();
        assert_eq!((little.step(30, false), little.step(30, true)), (Some(30), None));
        let mut over = Throttle { over: true, ..Throttle::default() };
        assert_eq!(over.step(50, false), None);
    }

    #[test]
    fn what_is_left_is_a_share_of_what_there_was_and_never_no_cap() {
        let old = |percent| OldCap { scheduler: 6, percent };
        let left = |percent, vcpus, taken| reduced(old(percent), vcpus, taken).percent;
        assert_eq!((left(0, 1, 20), left(0, 4, 50), left(80, 4, 50)), (80, 200, 40));
        assert_eq!((left(0, 1, 99), left(10, 1, 99), left(0, 0, 100)), (1, 1, 1));
        assert_eq!(left(0, 10_000, 1), u16::MAX);
        assert_eq!(reduced(old(7), 1, 50).scheduler, 6);
    }
}
