//! Whether a store may be written: is there another writer that lives (docs/format/store-v1.md, section 5)?
//!
//! Pure but for the read of one block; time is an argument. Invariants: a store whose heartbeat another writer moves
//! is never claimed; one that was closed in order, or by this writer itself, is claimed without waiting for silence.
//! What cannot be read is not claimed. A claim is a beat, and holds only if it still stands [`STAND_NS`] later: of
//! several that claim at the same moment the last to write is the one (L. Lamport, "A fast mutual exclusion algorithm",
//! 1987, which names M. Fischer). A writer that was silent for [`SILENCE_NS`] and comes back afterwards is not seen: it
//! has to look ([`is_anothers`]) before it beats again.

use crate::ports::BlockDevice;
use crate::store::error::Result;
use crate::store::heartbeat::Heartbeat;
use crate::store::sabotage::{Safeguard, out};
use crate::store::superblock::StoreId;

/// Between two beats of a writer.
pub const PERIOD_NS: u64 = 2_000_000_000;
/// How long another writer must be silent before it counts as dead.
pub const SILENCE_NS: u64 = 4 * PERIOD_NS;
/// Between two looks at another writer's beat.
pub const LOOK_NS: u64 = PERIOD_NS / 4;
/// Looks that must have found no movement. A machine that stood still as a whole, the other writer with it, shows a
/// long time between two looks; that is no silence.
pub const LOOKS: u32 = 16;

/// How long a claim has to stand before the store is touched: longer than anybody needs from a look to the claim that
/// follows from it.
pub const STAND_NS: u64 = LOOK_NS;
/// Claims that others have written over, after which it is given up.
pub const CLAIMS_MAX: u32 = 4;

const _: () = assert!(LOOKS as u64 * LOOK_NS == SILENCE_NS, "as many looks as fit");

/// What is known of the store's writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// Nobody else writes: to be claimed by a beat after this sequence ([`Listener::wrote`]).
    Free {
        /// Of the last beat.
        sequence: u64,
    },
    /// The claim has to stand until then: to be looked at again.
    Stand {
        /// When.
        next_ns: u64,
    },
    /// The claim has stood: the store is this writer's.
    Ours,
    /// Not known yet: to be looked at again then.
    Listen {
        /// When.
        next_ns: u64,
    },
    /// Another writer lives.
    Taken,
}

/// The beat that is watched.
#[derive(Clone, Copy, Debug)]
struct Watched {
    beat: Heartbeat,
    until_ns: u64,
    /// When it is to be looked at again; a look before that is none.
    next_ns: u64,
    looks: u32,
}

/// Listens for another writer.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    writer: [u8; 16],
    watched: Option<Watched>,
    /// Until when a claim of its own has to stand.
    stands_ns: Option<u64>,
    claims: u32,
}

/// Is it the beat of another writer than this one? No beat is nobody's.
pub fn is_anothers(found: Option<Heartbeat>, writer: [u8; 16]) -> bool {
    found.is_some_and(|beat| beat.writer != writer)
}

impl Listener {
    /// For the writer of this identity, before the first look.
    pub fn new(writer: [u8; 16]) -> Self {
        Self { writer, watched: None, stands_ns: None, claims: 0 }
    }

    /// The store was free, and the writer's own beat was written.
    pub fn wrote(&mut self, now_ns: u64) {
        self.stands_ns = Some(now_ns.saturating_add(STAND_NS));
        self.claims = self.claims.saturating_add(1);
    }

    /// Reads the heartbeat, and says what follows from it. An error is one of the device.
    pub fn look<D: BlockDevice>(&mut self, device: &mut D, store: StoreId, now_ns: u64) -> Result<Claim> {
        let found = Heartbeat::read(device, store)?;
        Ok(self.judge(found, now_ns))
    }

    /// What follows from the beat that was found now.
    fn judge(&mut self, found: Option<Heartbeat>, now_ns: u64) -> Claim {
        if let Some(until_ns) = self.stands_ns {
            return self.judge_claim(found, until_ns, now_ns);
        }
        let Some(watched) = &mut self.watched else { return self.begin(found, now_ns) };
        // A torn beat says nothing, the next one does.
        let moved = found.filter(|beat| (beat.writer, beat.sequence) != (watched.beat.writer, watched.beat.sequence));
        match moved.filter(|_| !out(Safeguard::OneWriter)) {
            Some(beat) if beat.in_use => return Claim::Taken,
            Some(closed) => return Claim::Free { sequence: closed.sequence },
            None if now_ns < watched.next_ns => return Claim::Listen { next_ns: watched.next_ns },
            None => watched.looks = watched.looks.saturating_add(1),
        }
        if watched.looks >= LOOKS && now_ns >= watched.until_ns {
            return Claim::Free { sequence: watched.beat.sequence };
        }
        watched.next_ns = now_ns.saturating_add(LOOK_NS);
        Claim::Listen { next_ns: watched.next_ns }
    }

    fn judge_claim(&mut self, found: Option<Heartbeat>, until_ns: u64, now_ns: u64) -> Claim {
        let lost = is_anothers(found, self.writer) && !out(Safeguard::ClaimStands);
        if !lost {
            return if now_ns < until_ns { Claim::Stand { next_ns: until_ns } } else { Claim::Ours };
        }
        (self.stands_ns, self.watched) = (None, None);
        if self.claims < CLAIMS_MAX { self.begin(found, now_ns) } else { Claim::Taken }
    }

    fn begin(&mut self, found: Option<Heartbeat>, now_ns: u64) -> Claim {
        let Some(beat) = found else { return Claim::Free { sequence: 0 } };
        if !beat.in_use || beat.writer == self.writer {
            return Claim::Free { sequence: beat.sequence };
        }
        let (until_ns, next_ns) = (now_ns.saturating_add(SILENCE_NS), now_ns.saturating_add(LOOK_NS));
        self.watched = Some(Watched { beat, until_ns, next_ns, looks: 0 });
        Claim::Listen { next_ns }
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;
    use crate::ports::{BlockIdx, IoError, PAGE_SIZE, Page};
    use crate::store::error::StoreError;

    const STORE: StoreId = StoreId([1; 16]);
    const ME: [u8; 16] = [7; 16];
    const OTHER: [u8; 16] = [8; 16];
    const START: u64 = 1_000_000_000_000;

    /// A disk of one block, the heartbeat's.
    struct OneBlock {
        block: Page,
        fails: bool,
    }

    impl BlockDevice for OneBlock {
        fn blocks(&self) -> u64 {
            2
        }

        fn read_only(&self) -> bool {
            false
        }

        fn write(&mut self, _: BlockIdx, data: &[u8]) -> core::result::Result<(), IoError> {
            self.block.copy_from_slice(data);
            Ok(())
        }

        fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> core::result::Result<(), IoError> {
            into.copy_from_slice(&self.block);
            if self.fails { Err(IoError::Failed { at }) } else { Ok(()) }
        }

        fn flush(&mut self) -> core::result::Result<(), IoError> {
            Ok(())
        }
    }

    fn disk(beat: Option<Heartbeat>) -> OneBlock {
        let mut disk = OneBlock { block: [0; PAGE_SIZE], fails: false };
        beat.iter().for_each(|beat| beat.write(&mut disk, STORE).unwrap());
        disk
    }

    fn beat(writer: [u8; 16], sequence: u64) -> Heartbeat {
        Heartbeat { writer, sequence, unix: 5, in_use: true }
    }

    /// Listens to the end while `others` happens before each look, which is told the time since the start. Returns what
    /// it came to, and when.
    fn listen(disk: &mut OneBlock, mut others: impl FnMut(&mut OneBlock, u64)) -> (Result<Claim>, u64) {
        let (mut listener, mut now) = (Listener::new(ME), START);
        for _ in 0..1000 {
            others(disk, now - START);
            match listener.look(disk, STORE, now) {
                Ok(Claim::Listen { next_ns }) => {
                    assert!(next_ns > now && next_ns <= now + LOOK_NS);
                    now = next_ns;
                }
                end => return (end, now - START),
            }
        }
        panic!("it comes to no end");
    }

    #[test]
    fn an_empty_a_closed_and_the_own_store_are_free_at_once() {
        assert_eq!(listen(&mut disk(None), |_, _| {}), (Ok(Claim::Free { sequence: 0 }), 0));
        let closed = Heartbeat { in_use: false, ..beat(OTHER, 41) };
        assert_eq!(listen(&mut disk(Some(closed)), |_, _| {}), (Ok(Claim::Free { sequence: 41 }), 0));
        assert_eq!(listen(&mut disk(Some(beat(ME, 9))), |_, _| {}), (Ok(Claim::Free { sequence: 9 }), 0));
    }

    #[test]
    fn a_writer_that_died_is_waited_for_as_long_as_the_document_says() {
        let (end, took) = listen(&mut disk(Some(beat(OTHER, 41))), |_, _| {});
        assert_eq!((end, took), (Ok(Claim::Free { sequence: 41 }), SILENCE_NS));
        let document = include_str!("../../../docs/format/store-v1.md");
        for (name, value) in [("period", PERIOD_NS), ("silence", SILENCE_NS)] {
            let words = format!("{name} of {} seconds", value / 1_000_000_000);
            assert!(document.contains(&words), "{words}");
        }
    }

    #[test]
    fn a_writer_that_lives_is_noticed_whenever_it_beats() {
        for phase in (0..PERIOD_NS).step_by(usize::try_from(LOOK_NS / 3).unwrap()) {
            let (end, took) = listen(&mut disk(Some(beat(OTHER, 41))), |disk, now| {
                beat(OTHER, 41 + (now + phase) / PERIOD_NS).write(disk, STORE).unwrap();
            });
            assert_eq!(end, Ok(Claim::Taken), "{phase}");
            assert!(took <= PERIOD_NS + LOOK_NS, "{took}");
        }
    }

    #[test]
    fn a_beat_at_the_deadline_is_seen_and_one_behind_it_is_not() {
        for (at, end) in [(SILENCE_NS, Claim::Taken), (SILENCE_NS + 1, Claim::Free { sequence: 41 })] {
            let found = listen(&mut disk(Some(beat(OTHER, 41))), |disk, now| {
                beat(OTHER, 41 + u64::from(now >= at)).write(disk, STORE).unwrap();
            });
            assert_eq!(found, (Ok(end), SILENCE_NS));
        }
    }

    #[test]
    fn a_machine_that_stood_still_is_no_silence() {
        let (mut listener, mut disk) = (Listener::new(ME), disk(Some(beat(OTHER, 41))));
        assert!(matches!(listener.look(&mut disk, STORE, START), Ok(Claim::Listen { .. })));
        assert_eq!(listener.look(&mut disk, STORE, START + 1), Ok(Claim::Listen { next_ns: START + LOOK_NS }), "early");
        let later = START + 100 * SILENCE_NS;
        assert_eq!(listener.look(&mut disk, STORE, later), Ok(Claim::Listen { next_ns: later + LOOK_NS }));
        beat(OTHER, 42).write(&mut disk, STORE).unwrap();
        assert_eq!(listener.look(&mut disk, STORE, later + LOOK_NS), Ok(Claim::Taken));
    }

    #[test]
    fn another_writer_is_a_movement_even_with_the_same_sequence() {
        let found = listen(&mut disk(Some(beat(OTHER, 41))), |disk, now| {
            let writer = if now < PERIOD_NS { OTHER } else { [9; 16] };
            beat(writer, 41).write(disk, STORE).unwrap();
        });
        assert_eq!(found, (Ok(Claim::Taken), PERIOD_NS));
    }

    #[test]
    fn a_writer_that_closes_meanwhile_leaves_it_free() {
        let found = listen(&mut disk(Some(beat(OTHER, 41))), |disk, now| {
            if now >= LOOK_NS {
                Heartbeat { in_use: false, ..beat(OTHER, 42) }.write(disk, STORE).unwrap();
            }
        });
        assert_eq!(found, (Ok(Claim::Free { sequence: 42 }), LOOK_NS));
    }

    #[test]
    fn what_cannot_be_read_is_not_claimed() {
        for from in [0, 3 * LOOK_NS] {
            let (end, took) = listen(&mut disk(Some(beat(OTHER, 41))), |disk, now| disk.fails = now >= from);
            assert!(matches!(end, Err(StoreError::Io(IoError::Failed { .. }))), "{end:?}");
            assert_eq!(took, from);
        }
    }

    #[test]
    fn a_torn_beat_is_nothing_but_the_next_one_counts() {
        let found = listen(&mut disk(Some(beat(OTHER, 41))), |disk, now| {
            beat(OTHER, 41 + u64::from(now > PERIOD_NS)).write(disk, STORE).unwrap();
            if now == PERIOD_NS {
                disk.block[40] ^= 1;
            }
        });
        assert_eq!(found, (Ok(Claim::Taken), PERIOD_NS + LOOK_NS));
    }

    #[test]
    fn the_sequence_goes_round() {
        assert_eq!(Heartbeat::following(u64::MAX), 0);
        let found = listen(&mut disk(Some(beat(OTHER, u64::MAX))), |disk, now| {
            if now >= PERIOD_NS {
                beat(OTHER, Heartbeat::following(u64::MAX)).write(disk, STORE).unwrap();
            }
        });
        assert_eq!(found, (Ok(Claim::Taken), PERIOD_NS));
    }

    /// Two that start one after the other on the disk of a dead one: the first one's beat ends the second one's wait.
    #[test]
    fn of_two_that_listen_only_the_first_claims() {
        let mut disk = disk(Some(beat(OTHER, 41)));
        let (mut first, mut second) = (Listener::new(ME), Listener::new([9; 16]));
        let (mut ends, mut now) = ([None, None], START);
        while ends.contains(&None) && now < START + 4 * SILENCE_NS {
            if ends[0].is_none() {
                ends[0] = Some(first.look(&mut disk, STORE, now).unwrap()).filter(|end| *end != listening(now));
                if ends[0].is_some() {
                    beat(ME, 42).write(&mut disk, STORE).unwrap();
                }
            }
            if ends[1].is_none() {
                ends[1] = Some(second.look(&mut disk, STORE, now).unwrap()).filter(|end| *end != listening(now));
            }
            now += LOOK_NS;
        }
        assert_eq!(ends, [Some(Claim::Free { sequence: 41 }), Some(Claim::Taken)]);
    }

    /// Two that find it closed, and do what follows in every order: one of them has it in the end, the other knows.
    #[test]
    fn of_two_that_claim_at_once_one_has_it() {
        let orders = [[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0], [1, 1, 0, 0]];
        for order in orders {
            let mut disk = disk(Some(Heartbeat { in_use: false, ..beat(OTHER, 41) }));
            let mut listeners = [ME, [9; 16]].map(|writer| (writer, Listener::new(writer), None));
            let mut now = START;
            let rest = (0..100).map(|at| at % 2);
            for (at, one) in order.into_iter().chain(rest).enumerate() {
                // The first four within the time for which a claim has to stand.
                now += if at < order.len() { STAND_NS / 8 } else { STAND_NS / 2 };
                let (writer, listener, last) = &mut listeners[one];
                match last {
                    Some(Claim::Taken) => continue,
                    Some(Claim::Free { .. } | Claim::Ours) => beat(*writer, now).write(&mut disk, STORE).unwrap(),
                    _ => {}
                }
                match last {
                    Some(Claim::Free { .. }) => {
                        listener.wrote(now);
                        *last = None;
                    }
                    Some(Claim::Ours) => {}
                    _ => *last = Some(listener.look(&mut disk, STORE, now).unwrap()),
                }
            }
            let mut ends = listeners.map(|(.., last)| last);
            ends.sort_by_key(|end| *end == Some(Claim::Taken));
            assert_eq!(ends, [Some(Claim::Ours), Some(Claim::Taken)], "{order:?}");
        }
    }

    #[test]
    fn a_claim_that_is_written_over_again_and_again_is_given_up() {
        let (mut listener, mut disk, mut now) = (Listener::new(ME), disk(None), START);
        for _ in 0..CLAIMS_MAX {
            assert!(matches!(listener.look(&mut disk, STORE, now), Ok(Claim::Free { .. })));
            listener.wrote(now);
            Heartbeat { in_use: false, ..beat(OTHER, 41) }.write(&mut disk, STORE).unwrap();
            now += STAND_NS;
            if listener.claims < CLAIMS_MAX {
                assert_eq!(listener.look(&mut disk, STORE, now), Ok(Claim::Free { sequence: 41 }));
            }
        }
        assert_eq!(listener.look(&mut disk, STORE, now), Ok(Claim::Taken));
    }

    #[test]
    fn a_claim_is_ours_when_it_has_stood_and_not_before() {
        let (mut listener, mut disk) = (Listener::new(ME), disk(None));
        assert!(matches!(listener.look(&mut disk, STORE, START), Ok(Claim::Free { .. })));
        listener.wrote(START);
        beat(ME, 1).write(&mut disk, STORE).unwrap();
        let next_ns = START + STAND_NS;
        assert_eq!(listener.look(&mut disk, STORE, next_ns - 1), Ok(Claim::Stand { next_ns }));
        assert_eq!(listener.look(&mut disk, STORE, next_ns), Ok(Claim::Ours));
    }

    fn listening(now: u64) -> Claim {
        Claim::Listen { next_ns: now + LOOK_NS }
    }
}
