//! What the store's device makes anybody wait for: it takes on so much without a word, answers in large steps, and its
//! rate is what it was while it had something to do.

const MIB: u64 = 1 << 20;
/// A device that did less says nothing about its rate.
const TELLING_BYTES: u64 = 2 * MIB;

/// What a device has done so far, and how much it takes on before it makes anybody wait. All 0: it does not say.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Pace {
    /// Bytes of writes that were answered.
    pub done_bytes: u64,
    /// Nanoseconds from answer to answer while it always had something to do.
    pub paced_ns: u64,
    /// Bytes that were answered at their ends.
    pub paced_bytes: u64,
    /// Bytes of writes that it accepts before the first of them is answered.
    pub depth_bytes: u64,
    /// Bytes of writes that are answered together.
    pub step_bytes: u64,
    /// Bytes that whoever writes gathers before the device is given any.
    pub piece_bytes: u64,
    /// Bytes that are gathered now.
    pub gathered_bytes: u64,
    /// Requests that it was given, for counting alone.
    pub requests: u64,
    /// Events that were sent for them, likewise.
    pub notifications: u64,
}

impl Pace {
    /// Without the requests and events of `before`.
    #[must_use]
    pub fn counted_since(self, before: Self) -> Self {
        let requests = self.requests.saturating_sub(before.requests);
        Self { requests, notifications: self.notifications.saturating_sub(before.notifications), ..self }
    }

    /// Bytes that it was given, and that are gathered for it, if nothing is on its way.
    pub fn given_bytes(&self) -> u64 {
        self.done_bytes.saturating_add(self.gathered_bytes)
    }
}

/// Its price, and its shape.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Disk {
    /// Nanoseconds for a MiB. 0: not known.
    pub mib_ns: u64,
    /// Bytes that it accepts before the first of them is answered.
    pub depth_bytes: u64,
    /// Bytes that are answered together.
    pub step_bytes: u64,
    /// Bytes that are gathered before it is given any.
    pub piece_bytes: u64,
    /// Bytes that are gathered already.
    pub gathered_bytes: u64,
}

impl Disk {
    /// Nothing is known of it, nothing waits for it.
    pub const NONE: Self = Self { mib_ns: 0, depth_bytes: 0, step_bytes: 0, piece_bytes: 0, gathered_bytes: 0 };

    /// With what is learnt from two looks at the device: its rate only if it did enough between them.
    #[must_use]
    pub fn learnt(self, before: Pace, now: Pace) -> Self {
        let paced_bytes = now.paced_bytes.saturating_sub(before.paced_bytes);
        let paced_ns = now.paced_ns.saturating_sub(before.paced_ns);
        let mib_ns = if paced_bytes < TELLING_BYTES { self.mib_ns } else { share(paced_ns, MIB, paced_bytes) };
        let Pace { depth_bytes, step_bytes, piece_bytes, gathered_bytes, .. } = now;
        Self { mib_ns, depth_bytes, step_bytes, piece_bytes, gathered_bytes }
    }

    /// What so many bytes take in the long run. Nanoseconds.
    pub fn price_ns(&self, bytes: u64) -> u64 {
        share(bytes, self.mib_ns, MIB)
    }

    /// How long whoever writes so many bytes to the idle device waits for it at least. Nanoseconds. What is not a whole
    /// piece at the end stays where it is gathered; what the device has room for is not waited for; and for the rest,
    /// until the step is answered in which the last piece of it lies. Where in the step that is nobody knows: on
    /// average half of what the step has beside one piece comes with it.
    pub fn wait_ns(&self, bytes: u64) -> u64 {
        let bytes = bytes.saturating_add(if bytes == 0 { 0 } else { self.gathered_bytes });
        let given = bytes - bytes.checked_rem(self.piece_bytes).unwrap_or(0);
        let beyond = given.saturating_sub(self.depth_bytes);
        let with_it = if beyond == 0 { 0 } else { self.step_bytes.saturating_sub(self.piece_bytes) / 2 };
        self.price_ns(beyond.saturating_add(with_it))
    }
}

/// `of` x `part` / `whole`.
fn share(of: u64, part: u64, whole: u64) -> u64 {
    let share = u128::from(of) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Disk =
        Disk { mib_ns: 1_000_000, depth_bytes: 2 * MIB, step_bytes: MIB, piece_bytes: MIB / 2, gathered_bytes: 0 };

    #[test]
    fn what_is_beyond_the_depth_is_waited_for_and_half_of_what_comes_with_it() {
        let waits = [0, 2 * MIB, 2 * MIB + 1, 5 * MIB / 2 - 1, 5 * MIB / 2, 3 * MIB, 4 * MIB - 1, 10 * MIB];
        assert_eq!(waits.map(|bytes| DISK.wait_ns(bytes) / 10_000), [0, 0, 0, 0, 75, 125, 175, 825]);
        let gathered = Disk { gathered_bytes: MIB / 4, ..DISK };
        let waits = [0, 9 * MIB / 4 - 1, 9 * MIB / 4, 13 * MIB / 4 - 1].map(|bytes| gathered.wait_ns(bytes) / 10_000);
        assert_eq!(waits, [0, 0, 75, 125], "what is gathered goes with it");
        assert_eq!(Disk::NONE.wait_ns(u64::MAX), 0);
        assert_eq!(Disk { mib_ns: 1 << 20, ..Disk::NONE }.wait_ns(77), 77, "without depth or steps each byte");
    }

    #[test]
    fn a_rate_is_of_the_time_in_which_there_was_something_to_do() {
        let own = Pace { depth_bytes: 7, step_bytes: 5, piece_bytes: 3, gathered_bytes: 2, ..Pace::default() };
        let pace = |paced_bytes, paced_ns| Pace { paced_bytes, paced_ns, ..own };
        let disk = Disk::NONE.learnt(pace(MIB, 100), pace(5 * MIB, 900));
        assert_eq!(disk, Disk { mib_ns: 200, depth_bytes: 7, step_bytes: 5, piece_bytes: 3, gathered_bytes: 2 });
        assert_eq!(disk.learnt(pace(0, 0), pace(2 * MIB - 1, 1)).mib_ns, 200, "too little to tell");
        assert_eq!(disk.learnt(pace(MIB, 5), pace(0, 0)).mib_ns, 200, "counters that went back");
    }
}
