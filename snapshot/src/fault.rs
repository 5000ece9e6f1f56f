//! Why a session or a request came to nothing: one closed list of codes with a stable word each, for `error=`.
//!
//! The word is protocol: dom0 maps it to an exit status and a way out, so a word is never re-used for something else.
//! The free text beside it (`reason=`) is for people and may change.

use core::fmt;
use core::str::FromStr;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// The cause, for programs.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            /// Every fault, in the order of the document.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its word in `error=`.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }

        impl FromStr for Fault {
            type Err = ();

            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($word => Ok(Self::$name),)* _ => Err(()) }
            }
        }
    };
}

faults! {
    /// The request's text is malformed; the operator's tool is of another version or at fault.
    BadRequest = "bad-request",
    /// The protocol version is another; update stub or CLI.
    WrongVersion = "wrong-version",
    /// A session runs already; wait or cancel it.
    Busy = "busy",
    /// The stub is shutting down; start it again.
    Stopping = "stopping",
    /// The configuration slices are missing, too long or not JSON text.
    BadConfig = "bad-config",
    /// No such domain, or another handle.
    Gone = "gone",
    /// The guest is of a kind that cannot be taken: a 32-bit PV guest.
    NotHvm = "not-pvh",
    /// A PV guest's p2m or page tables make no sense, or change all the time; the guest.
    BadP2m = "bad-p2m",
    /// The guest is held by `xl pause`; unpause it.
    Paused = "paused",
    /// The guest is shut down already.
    ShutDown = "shut-down",
    /// Log-dirty is on: a migration, `xl save`, a leftover (`livesave recover`), or a passed-through device.
    LogDirtyOn = "log-dirty-on",
    /// FLASK or Xen refused a call; `livesave doctor` names it.
    Denied = "denied",
    /// Paging pool, host or stub memory is short.
    NoMemory = "no-memory",
    /// The hypervisor cannot do it for this guest.
    Unsupported = "unsupported",
    /// An unexpected errno.
    Hypercall = "hypercall",
    /// The release port cannot be bound; the keeper is gone or at fault.
    ReleasePort = "release-port",
    /// The name is used already.
    NameUsed = "name-used",
    /// An incremental snapshot cannot lie on the one that was asked for.
    BadParent = "bad-parent",
    /// The guest does not stay tracked; there is nothing to end.
    NotArmed = "not-armed",
    /// No snapshot of that name.
    NoSuchSnapshot = "no-such-snapshot",
    /// Not enough space for the upper bound of this take.
    NoSpace = "no-space",
    /// The disk failed, is read-only, or the store on it is damaged or not ours.
    Store = "store",
    /// Dom0 asked for the end.
    Cancelled = "cancelled",
    /// The guest did not suspend in time.
    NoSuspend = "no-suspend",
    /// The guest powered off, rebooted or crashed instead.
    GuestEnded = "guest-ended",
    /// The guest suspended before we asked: somebody else's.
    ForeignSuspend = "foreign-suspend",
    /// The guest ran again before all was captured: somebody else's resume, or the keeper's after the pause budget.
    ForeignResume = "foreign-resume",
    /// Somebody switched our dirty tracking off.
    ForeignOff = "foreign-off",
    /// The guest's memory changed size and did not come to rest.
    Ballooning = "ballooning",
    /// A page of the last set could not be copied.
    PageUnreadable = "page-unreadable",
    /// The pause budget ran out before all was captured.
    PauseBudget = "pause-budget",
    /// The pause that is predicted, or what a pause costs at least, is above its limit: nothing was suspended.
    PauseTooLong = "pause-too-long",
    /// The keeper's verdict is void.
    VerdictVoid = "verdict-void",
    /// No verdict came in time.
    NoVerdict = "no-verdict",
    /// The policy gave up.
    PolicyAbort = "policy-abort",
    /// The line to dom0 is down.
    ControlLost = "control-lost",
    /// Tracking could not be switched off; `livesave recover` does it.
    TrackingLeftOn = "tracking-left-on",
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

impl From<crate::ports::TargetError> for Fault {
    fn from(error: crate::ports::TargetError) -> Self {
        use crate::ports::TargetError;
        match error {
            TargetError::Gone => Self::Gone,
            TargetError::AlreadyOn => Self::LogDirtyOn,
            TargetError::Denied { .. } => Self::Denied,
            TargetError::NoMemory => Self::NoMemory,
            TargetError::Unsupported => Self::Unsupported,
            TargetError::Kind { .. } => Self::NotHvm,
            TargetError::P2m { .. } => Self::BadP2m,
            TargetError::Hypercall { .. } => Self::Hypercall,
        }
    }
}
