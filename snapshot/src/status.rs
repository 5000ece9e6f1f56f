//! The nodes that the stub writes: `stub` (who it is, is it ready), `status` (how the session goes) and `refused`
//! (the answer to a request that it did not take up).
//!
//! A status is a snapshot of the whole, never a difference: whoever reads only the last one knows all. A final state is
//! never followed by another one for the same token.

use core::fmt;
use core::str::FromStr;

use crate::fault::Fault;
use crate::fields::{Fields, Line, ParseError};
use crate::names::Token;
use crate::request::PROTOCOL;

/// Where a session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Not taken up; nothing was touched. Final.
    Refused,
    /// Checking the guest and the store, switching tracking on.
    Preparing,
    /// Copying in rounds; the guest runs.
    Copying,
    /// Waiting for the keeper to suspend the guest.
    WantSuspend,
    /// The guest is suspended; platform state and the last set are being read.
    Capturing,
    /// All is captured; the guest may run.
    Captured,
    /// Making it durable, waiting for the verdict.
    Flushing,
    /// The snapshot exists. Final.
    Sealed,
    /// The session ended without a snapshot, by a cause outside the stub and its store. Final.
    Void,
    /// The session ended without a snapshot, by an error of the stub, of its store, or of a call to Xen. Final.
    Failed,
    /// A removal is done. Final.
    Done,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 11] = [
        Self::Refused,
        Self::Preparing,
        Self::Copying,
        Self::WantSuspend,
        Self::Capturing,
        Self::Captured,
        Self::Flushing,
        Self::Sealed,
        Self::Void,
        Self::Failed,
        Self::Done,
    ];

    /// Nothing follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Refused | Self::Sealed | Self::Void | Self::Failed | Self::Done)
    }

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Preparing => "preparing",
            Self::Copying => "copying",
            Self::WantSuspend => "want-suspend",
            Self::Capturing => "capturing",
            Self::Captured => "captured",
            Self::Flushing => "flushing",
            Self::Sealed => "sealed",
            Self::Void => "void",
            Self::Failed => "failed",
            Self::Done => "done",
        }
    }
}

impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.word() == text).ok_or(())
    }
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident = $key:literal,)*) => {
        /// What a session has counted so far. Counted, not timed, unless the name says so.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct Counters { $($(#[$doc])* pub $field: u64,)* }

        const STATUS_KEYS: &[&str] = &["token", "state", "error", "reason", "base", "why-full", $($key,)*];

        impl Counters {
            fn parse(fields: &Fields<'_>) -> Result<Self, ParseError> {
                Ok(Self { $($field: fields.number_or_zero($key)?,)* })
            }
        }

        impl fmt::Display for Counters {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(out, concat!($key, "={}"), self.$field)?;)*
                Ok(())
            }
        }
    };
}

impl Counters {
    /// The round under way, as policies count.
    pub fn round_number(&self) -> u32 {
        u32::try_from(self.round).unwrap_or(u32::MAX)
    }
}

counters! {
    /// The round under way, from 1; the last set in the pause counts as one.
    round = "round",
    /// Most rounds that the policy allows, the last set included.
    rounds = "rounds",
    /// Pages of the guest that are populated.
    memory = "memory",
    /// Pages sent with content, every round added up.
    pages = "pages",
    /// Pages sent as zero, which cost nothing.
    zero = "zero",
    /// Pages left out of a round because they were dirty again already.
    skipped = "skipped",
    /// Dirty pages by Xen's count when it was last asked.
    dirty = "dirty",
    /// Bytes of page content handed to the store, before compression.
    bytes = "bytes",
    /// CLEAN calls.
    cleans = "cleans",
    /// PEEK calls.
    peeks = "peeks",
    /// Hypercalls of the stub, all of them, between the sight of the suspend and the release.
    pause_calls = "pause-calls",
    /// Pages copied between the sight of the suspend and the release.
    pause_pages = "pause-pages",
    /// Our part of the pause: from the sight of the suspend to the release, microseconds.
    pause_us = "pause-us",
    /// Pages that fit the staging memory; mode `staged`.
    staging = "staging",
    /// Pages that waited in staging for the disk at the release.
    staged = "staged",
    /// Those of them that were packed, for all of them would not have fitted as they are.
    packed = "packed",
    /// Our part of the pause as predicted before the suspend, microseconds; mode `staged`.
    predicted_us = "predicted-us",
    /// The same as predicted when the guest stood and its last set was known, microseconds; mode `staged`.
    renewed_us = "renewed-us",
    /// Percent of the guest's processor time that the keeper is asked to take away.
    throttle = "throttle",
    /// Pages sent with content that the store had already, in the guest's older snapshot: not written.
    shared = "shared",
    /// Bytes that the take wrote to the store's device, its indexes included; known when it is sealed.
    written = "written",
    /// Requests to the store's device, until the commit that seals; known when all is on it.
    requests = "requests",
    /// Events that were sent to its backend for them.
    notifications = "notifications",
    /// Since the request was taken up, microseconds.
    elapsed_us = "elapsed-us",
}

/// The `status` node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The session.
    pub token: Token,
    /// Where it stands.
    pub state: State,
    /// The cause, in the states refused, void and failed.
    pub fault: Option<Fault>,
    /// The cause for people.
    pub reason: Line,
    /// What was counted.
    pub counters: Counters,
    /// The older snapshot that this one is compared with or builds on.
    pub base: Line,
    /// Why it has none, or is not the incremental one that was asked for; for people.
    pub why_full: Line,
}

impl Status {
    /// A status without cause and counts.
    pub fn new(token: Token, state: State) -> Self {
        Self {
            token,
            state,
            fault: None,
            reason: Line::default(),
            counters: Counters::default(),
            base: Line::default(),
            why_full: Line::default(),
        }
    }

    /// The answer to a request that is not taken up.
    pub fn refused(token: Token, fault: Fault, reason: impl fmt::Display) -> Self {
        Self { fault: Some(fault), reason: Line::of(reason), ..Self::new(token, State::Refused) }
    }

    /// Reads the node's value.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let fields = Fields::parse(bytes, STATUS_KEYS)?;
        let fault = match fields.optional("error") {
            None | Some("") => None,
            Some(word) => Some(word.parse().map_err(|()| ParseError::bad("error"))?),
        };
        Ok(Self {
            token: fields.typed("token")?,
            state: fields.typed("state")?,
            fault,
            reason: fields.line("reason")?,
            counters: Counters::parse(&fields)?,
            base: fields.line("base")?,
            why_full: fields.line("why-full")?,
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "token={}\nstate={}\n{}", self.token, self.state, self.counters)?;
        write!(out, "base={}\nwhy-full={}\n", self.base, self.why_full)?;
        write!(out, "error={}\nreason={}\n", self.fault.map_or("", Fault::word), self.reason)
    }
}

/// Is the stub ready?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StubState {
    /// Booting.
    Starting,
    /// Ready for a request.
    Idle,
    /// In a session.
    Busy,
    /// It cannot serve; `reason` says why.
    Failed,
}

impl StubState {
    fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for StubState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Starting, Self::Idle, Self::Busy, Self::Failed];
        all.into_iter().find(|state| state.word() == text).ok_or(())
    }
}

/// The `stub` node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StubNode {
    /// The program's version.
    pub version: Line,
    /// Is it ready?
    pub state: StubState,
    /// Why it is not, for people.
    pub reason: Line,
    /// Bytes of memory it was given.
    pub memory_total: u64,
    /// Bytes of heap that are free.
    pub memory_free: u64,
    /// Requests to xenstore since boot.
    pub xenstore_requests: u64,
    /// The store's id, 32 hex digits, `None` while there is no store.
    pub store_id: Option<Token>,
    /// The store's generation.
    pub generation: u64,
    /// The block device it uses, as xenbus names it (`51712`).
    pub device: Line,
    /// Blocks of 4096 bytes on it.
    pub blocks: u64,
    /// Domids of the guests that stay tracked between their snapshots.
    pub armed: Line,
}

const STUB_KEYS: &[&str] = &[
    "protocol",
    "version",
    "state",
    "reason",
    "memory-total",
    "memory-free",
    "xenstore-requests",
    "store-id",
    "generation",
    "device",
    "blocks",
    "armed",
];

impl StubNode {
    /// Reads the node's value; the version is judged first.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let fields = Fields::parse(bytes, STUB_KEYS)?;
        fields.check_version()?;
        let store_id = match fields.optional("store-id") {
            None | Some("") => None,
            Some(id) => Some(id.parse().map_err(|_| ParseError::bad("store-id"))?),
        };
        Ok(Self {
            version: fields.line("version")?,
            state: fields.typed("state")?,
            reason: fields.line("reason")?,
            memory_total: fields.number_or_zero("memory-total")?,
            memory_free: fields.number_or_zero("memory-free")?,
            xenstore_requests: fields.number_or_zero("xenstore-requests")?,
            store_id,
            generation: fields.number_or_zero("generation")?,
            device: fields.line("device")?,
            blocks: fields.number_or_zero("blocks")?,
            armed: fields.line("armed")?,
        })
    }
}

impl fmt::Display for StubNode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "protocol={PROTOCOL}\nversion={}\nstate={}\n", self.version, self.state.word())?;
        write!(out, "reason={}\nmemory-total={}\n", self.reason, self.memory_total)?;
        write!(out, "memory-free={}\nxenstore-requests={}\n", self.memory_free, self.xenstore_requests)?;
        out.write_str("store-id=")?;
        self.store_id.iter().try_for_each(|id| write!(out, "{id}"))?;
        write!(out, "\ngeneration={}\ndevice={}\nblocks={}\n", self.generation, self.device, self.blocks)?;
        writeln!(out, "armed={}", self.armed)
    }
}
