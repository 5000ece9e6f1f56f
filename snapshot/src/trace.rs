//! The trace of a take: what each round was given, what it did with it, when, and how dirty the guest was afterwards.
//! It is stored with the snapshot (docs/format/store-v1.md, section 9.1), for people, for policies that are to be
//! compared, and for whoever puts another measurement beside it: its times are Xen's system time.
//!
//! Invariants: all memory is had before the guest is touched, one round more than the policy allows is dropped and
//! counted, never allocated for; a round that did not end leaves no record; what comes from a disk is checked.

use alloc::vec::Vec;
use core::fmt;

use crate::policy::{Disk, Outlook, RoundStats};
use crate::status::Counters;
use crate::store::layout::{Field, length32, trace_header as header, trace_round as record};

/// Version of the encoding.
pub const VERSION: u16 = 1;

/// Bytes of a record before it had the times of ENABLE and OFF.
const ROUND_BYTES_LEAST: usize = 88;

/// Most rounds that a reader takes: more than any policy allows, few enough to be held in memory.
pub const ROUNDS_MAX: u32 = 4096;

/// Which pages a round sent. A newtype: later versions add kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundKind(pub u32);

impl RoundKind {
    /// Every populated page, while the guest runs.
    pub const FULL: Self = Self(1);
    /// What became dirty since the round before, while the guest runs.
    pub const DIRTY: Self = Self(2);
    /// What became dirty since the last round, in the pause.
    pub const LAST_SET: Self = Self(3);
    /// Every populated page, in the pause.
    pub const EVERYTHING: Self = Self(4);

    /// Does the guest stand meanwhile?
    pub fn in_pause(self) -> bool {
        matches!(self, Self::LAST_SET | Self::EVERYTHING)
    }

    /// For people and for JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::FULL => "full",
            Self::DIRTY => "dirty",
            Self::LAST_SET => "last-set",
            Self::EVERYTHING => "everything",
            _ => "unknown",
        }
    }
}

macro_rules! round {
    ($($(#[$doc:meta])* $field:ident = $at:ident,)*) => {
        /// One round. Counts are of this round alone, times in nanoseconds.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct Round {
            /// Which pages.
            pub kind: RoundKind,
            /// PEEK calls for pages that are dirty again already.
            pub peeks: u32,
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Round {
            /// One that has counted nothing.
            pub fn empty(kind: RoundKind) -> Self {
                Self { kind, peeks: 0, $($field: 0,)* }
            }

            fn encode(&self) -> [u8; record::SIZE] {
                let mut raw = [0; record::SIZE];
                record::KIND.put(&mut raw, &self.kind.0.to_le_bytes());
                record::PEEKS.put(&mut raw, &self.peeks.to_le_bytes());
                $(record::$at.put(&mut raw, &self.$field.to_le_bytes());)*
                raw
            }

            /// A record of any length: what it lacks is 0.
            fn decode_any(record: &[u8]) -> Self {
                let mut raw = [0; record::SIZE];
                raw.iter_mut().zip(record).for_each(|(to, from)| *to = *from);
                Self::decode(&raw)
            }

            fn decode(raw: &[u8]) -> Self {
                Self {
                    kind: RoundKind(record::KIND.u32(raw)),
                    peeks: record::PEEKS.u32(raw),
                    $($field: record::$at.u64(raw),)*
                }
            }
        }
    };
}

round! {
    /// When it began: before its CLEAN, or at the sight of the suspend.
    began_ns = BEGAN_NS,
    /// When it ended: after its dirty count, or at the release.
    ended_ns = ENDED_NS,
    /// How long its CLEAN, or the last PEEK, took. Xen may stop the guest for it.
    fetch_ns = FETCH_NS,
    /// Populated pages of the guest.
    memory = MEMORY,
    /// Pages that it was given to send: in the last set by Xen's count, holes included.
    given = GIVEN,
    /// Pages sent with content.
    pages = PAGES,
    /// Pages sent as zero.
    zero = ZERO,
    /// Pages left to the next round because they were dirty again already.
    skipped = SKIPPED,
    /// Bytes of page content given to the store, before compression.
    bytes = BYTES,
    /// Dirty pages by Xen's count at its end; 0 in the pause.
    dirty = DIRTY,
    /// How long ENABLE took before the first round; 0 in all others. Xen stops the guest for it.
    enable_ns = ENABLE_NS,
    /// How long OFF took, all attempts, after the last round; 0 in all others. Xen stops the guest for it.
    off_ns = OFF_NS,
    /// Pages that it was given and left to the last set, because the policy ended it.
    unsent = UNSENT,
    /// Pages that were taken to become dirty until the guest stands.
    growth = GROWTH,
    /// Pages that still fitted the space that was set aside.
    space_left = SPACE_LEFT,
    /// Pages that fit the staging memory; mode `staged`, as all that follow: what a pause was priced at.
    staging = STAGING,
    /// A pause without a page.
    fixed_ns = FIXED_NS,
    /// A page to staging.
    stage_ns = STAGE_NS,
    /// Packing one beside that; 0: none is packed.
    pack_ns = PACK_NS,
    /// Bytes that a page takes packed.
    stored_bytes = STORED_BYTES,
    /// Our work on a page to the store.
    store_ns = STORE_NS,
    /// A MiB on the store's device.
    mib_ns = MIB_NS,
    /// What the device accepts before anybody waits.
    depth_bytes = DEPTH_BYTES,
    /// What it answers together.
    step_bytes = STEP_BYTES,
    /// What is gathered before it is given any.
    piece_bytes = PIECE_BYTES,
    /// What was gathered then.
    gathered_bytes = GATHERED_BYTES,
}

impl Round {
    /// The prices after it.
    pub fn outlook(&self) -> Outlook {
        Outlook {
            staging_pages: self.staging,
            fixed_ns: self.fixed_ns,
            stage_ns: self.stage_ns,
            pack_ns: self.pack_ns,
            stored_bytes: self.stored_bytes,
            store_ns: self.store_ns,
            disk: Disk {
                mib_ns: self.mib_ns,
                depth_bytes: self.depth_bytes,
                step_bytes: self.step_bytes,
                piece_bytes: self.piece_bytes,
                gathered_bytes: self.gathered_bytes,
            },
        }
    }
}

/// The whole take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// When the request was taken up, the same clock.
    pub began_ns: u64,
    /// Rounds that had no room.
    pub lost: u64,
    /// The rounds in order; the last one is the pause's.
    pub rounds: Vec<Round>,
}

/// Why bytes are no trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TraceError {
    /// Written by a newer version.
    Version(u16),
    /// Its length or its counts contradict each other.
    Malformed,
}

impl fmt::Display for TraceError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(out, "a trace of version {version}; this program reads {VERSION}"),
            Self::Malformed => out.write_str("the trace is malformed"),
        }
    }
}

impl Trace {
    /// The bytes of the attachment.
    pub fn encode(&self) -> Vec<u8> {
        let mut head = [0; header::SIZE];
        let put = |head: &mut [u8], field: &Field, value: usize| field.put(head, &length32(value).to_le_bytes());
        header::VERSION.put(&mut head, &VERSION.to_le_bytes());
        put(&mut head, &header::ROUND_BYTES, record::SIZE);
        put(&mut head, &header::COUNT, self.rounds.len());
        header::LOST.put(&mut head, &self.lost.to_le_bytes());
        header::BEGAN_NS.put(&mut head, &self.began_ns.to_le_bytes());
        let mut bytes = Vec::with_capacity(header::SIZE + record::SIZE * self.rounds.len());
        bytes.extend_from_slice(&head);
        self.rounds.iter().for_each(|round| bytes.extend_from_slice(&round.encode()));
        bytes
    }

    /// Reads the attachment. Records may be longer than this version knows, or shorter: fields are added at the end.
    pub fn decode(bytes: &[u8]) -> Result<Self, TraceError> {
        let (head, body) = bytes.split_at_checked(header::SIZE).ok_or(TraceError::Malformed)?;
        let version = header::VERSION.u16(head);
        if version != VERSION {
            return Err(TraceError::Version(version));
        }
        let (count, round_bytes) = (header::COUNT.u32(head), usize::from(header::ROUND_BYTES.u16(head)));
        let whole = round_bytes.checked_mul(count as usize) == Some(body.len());
        if count > ROUNDS_MAX || round_bytes < ROUND_BYTES_LEAST || !whole {
            return Err(TraceError::Malformed);
        }
        let rounds = body.chunks_exact(round_bytes).map(Round::decode_any).collect();
        Ok(Self { began_ns: header::BEGAN_NS.u64(head), lost: header::LOST.u64(head), rounds })
    }
}

/// Writes the trace while the take goes on.
#[derive(Debug)]
pub(crate) struct Tape {
    trace: Trace,
    /// The round under way, and the session's counters at its begin.
    open: Option<(Round, Counters)>,
    enable_ns: u64,
    off_ns: u64,
}

impl Tape {
    /// Bytes for so many rounds.
    pub fn bytes_for(rounds: u32) -> usize {
        size_of::<Round>() * rounds as usize
    }

    /// Room for so many rounds; `None` if there is no memory for it.
    pub fn try_new(rounds: u32) -> Option<Self> {
        let mut room = Vec::new();
        room.try_reserve_exact(rounds as usize).ok()?;
        Some(Self { trace: Trace { began_ns: 0, lost: 0, rounds: room }, open: None, enable_ns: 0, off_ns: 0 })
    }

    /// A round begins. One that was under way did not end, and leaves nothing.
    pub fn begin(&mut self, kind: RoundKind, now_ns: u64, counters: &Counters) {
        self.open = Some((Round { began_ns: now_ns, ..Round::empty(kind) }, *counters));
    }

    /// Tracking was switched on.
    pub fn enabled(&mut self, took_ns: u64) {
        self.enable_ns = took_ns;
    }

    /// Tracking was switched off, or would not be.
    pub fn switched_off(&mut self, took_ns: u64) {
        self.off_ns = self.off_ns.saturating_add(took_ns);
    }

    /// A bitmap was fetched.
    pub fn fetched(&mut self, took_ns: u64) {
        if let Some((round, _)) = &mut self.open {
            round.fetch_ns = took_ns;
        }
    }

    /// The round under way was given so many pages.
    pub fn given(&mut self, pages: u64) {
        if let Some((round, _)) = &mut self.open {
            round.given = pages;
        }
    }

    /// What the policy is told after the round under way.
    pub fn told(&mut self, stats: &RoundStats) {
        let Some((round, _)) = &mut self.open else { return };
        let Outlook { staging_pages, fixed_ns, stage_ns, pack_ns, stored_bytes, store_ns, disk } = stats.outlook;
        *round = Round {
            unsent: stats.unsent,
            growth: stats.growth,
            space_left: stats.space_left,
            staging: staging_pages,
            fixed_ns,
            stage_ns,
            pack_ns,
            stored_bytes,
            store_ns,
            mib_ns: disk.mib_ns,
            depth_bytes: disk.depth_bytes,
            step_bytes: disk.step_bytes,
            piece_bytes: disk.piece_bytes,
            gathered_bytes: disk.gathered_bytes,
            ..*round
        };
    }

    /// The round is over.
    pub fn end(&mut self, now_ns: u64, now: &Counters) {
        let Some((begun, before)) = self.open.take() else { return };
        let in_pause = begun.kind.in_pause();
        let round = Round {
            ended_ns: now_ns,
            memory: now.memory,
            pages: now.pages.saturating_sub(before.pages),
            zero: now.zero.saturating_sub(before.zero),
            skipped: now.skipped.saturating_sub(before.skipped),
            bytes: now.bytes.saturating_sub(before.bytes),
            peeks: u32::try_from(now.peeks.saturating_sub(before.peeks)).unwrap_or(u32::MAX),
            dirty: if in_pause { 0 } else { now.dirty },
            ..begun
        };
        if self.trace.rounds.len() < self.trace.rounds.capacity() {
            self.trace.rounds.push(round);
        } else {
            self.trace.lost = self.trace.lost.saturating_add(1);
        }
    }

    /// All of it, of a session that began then.
    pub fn trace(&mut self, began_ns: u64) -> &Trace {
        self.trace.began_ns = began_ns;
        if let Some(first) = self.trace.rounds.first_mut() {
            first.enable_ns = self.enable_ns;
        }
        if let Some(last) = self.trace.rounds.last_mut() {
            last.off_ns = self.off_ns;
        }
        &self.trace
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
