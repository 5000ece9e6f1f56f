//! What guests needed to suspend when they were taken before: how much one is likely to write until it stands depends
//! on it, and it differs between hosts and guests by a factor of a hundred. For predictions only: a guest suspends when
//! it likes.

use heapless::Vec;
use xen_hypercall::types::DomHandle;

use crate::session::limits::{SUSPEND_LIKELY_NS, SUSPEND_WAIT_NS};

/// Guests that are remembered; the one that was not taken for longest is forgotten.
const GUESTS_MAX: usize = 16;
/// A guest may need so many times what it needed before: three times was seen between takes of one guest.
const MARGIN: u64 = 2;

/// The guests, the one that was taken last at the end.
#[derive(Debug, Default)]
pub struct Habits {
    guests: Vec<(DomHandle, u64), GUESTS_MAX>,
}

impl Habits {
    /// What the guest needed from our wish to its suspend, if that is known. Nanoseconds.
    pub fn freeze_ns(&self, guest: DomHandle) -> Option<u64> {
        self.guests.iter().find(|(known, _)| *known == guest).map(|(_, freeze_ns)| *freeze_ns)
    }

    /// What it needed this time. One quick suspend does not make a slow guest quick: of what is known, half stays.
    pub fn learn(&mut self, guest: DomHandle, freeze_ns: u64) {
        let known = self.guests.iter().position(|(known, _)| *known == guest);
        let before_ns = known.map_or(0, |at| self.guests.remove(at).1);
        if self.guests.is_full() {
            self.guests.remove(0);
        }
        // There is room: see above.
        let _ = self.guests.push((guest, freeze_ns.max(before_ns / 2)));
    }
}

/// What a guest is likely to need now.
pub(super) fn likely_ns(known_ns: Option<u64>) -> u64 {
    known_ns.map_or(SUSPEND_LIKELY_NS, |known_ns| known_ns.saturating_mul(MARGIN).min(SUSPEND_WAIT_NS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(id: u8) -> DomHandle {
        DomHandle::new([id; 16])
    }

    #[test]
    fn a_slow_guest_stays_slow_for_a_while() {
        let mut habits = Habits::default();
        assert_eq!(habits.freeze_ns(guest(1)), None);
        habits.learn(guest(1), 800);
        habits.learn(guest(2), 7);
        let known = [100, 100, 100, 100, 300].map(|freeze_ns| {
            habits.learn(guest(1), freeze_ns);
            habits.freeze_ns(guest(1)).unwrap()
        });
        assert_eq!((known, habits.freeze_ns(guest(2))), ([400, 200, 100, 100, 300], Some(7)));
    }

    #[test]
    fn who_was_not_taken_for_longest_is_forgotten() {
        let mut habits = Habits::default();
        (0..16).for_each(|id| habits.learn(guest(id), u64::from(id)));
        habits.learn(guest(0), 50);
        habits.learn(guest(16), 16);
        assert_eq!((habits.freeze_ns(guest(0)), habits.freeze_ns(guest(1))), (Some(50), None));
        assert_eq!((habits.freeze_ns(guest(2)), habits.freeze_ns(guest(16))), (Some(2), Some(16)));
    }

    #[test]
    fn what_is_likely_is_bounded() {
        assert_eq!(likely_ns(None), SUSPEND_LIKELY_NS);
        assert_eq!((likely_ns(Some(10_000_000)), likely_ns(Some(u64::MAX))), (20_000_000, SUSPEND_WAIT_NS));
    }
}
