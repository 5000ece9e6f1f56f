//! Every wait of the keeper, by name. `docs/operating/exit-codes.md` prints the same table, and a test compares them.
//!
//! A wait without a row here must not exist.

use core::time::Duration;

/// How long the keeper waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From writing `control/shutdown` until the guest takes the request.
    pub ack: Duration,
    /// From the acknowledgement until Xen shows the domain shut down for suspend.
    pub suspend: Duration,
    /// From our first sight of the suspend until the resume; `None`: as long as the stub shows progress.
    pub pause: Option<Duration>,
    /// Without any new status of the stub.
    pub silence: Duration,
    /// For a guest that took the request and suspends only after we gave up.
    pub late: Duration,
    /// For the hook that runs beside the copy.
    pub hook: Duration,
    /// For one command to xenstore.
    pub command: Duration,
    /// For a resume that fails to be tried again.
    pub resume: Duration,
    /// From the resume until the stub's status says that all was captured.
    pub settle: Duration,
    /// For the whole take.
    pub take: Duration,
}

impl Deadlines {
    /// The defaults of a live take.
    pub const LIVE: Self = Self {
        ack: Duration::from_secs(30),
        suspend: Duration::from_secs(30),
        pause: Some(Duration::from_secs(10)),
        silence: Duration::from_secs(30),
        late: Duration::from_secs(600),
        hook: Duration::from_secs(10),
        command: Duration::from_secs(5),
        resume: Duration::from_secs(30),
        settle: Duration::from_secs(30),
        take: Duration::from_secs(24 * 3600),
    };

    /// The defaults of `save`, whose pause lasts as long as the copy.
    pub const SAVE: Self = Self { pause: None, ..Self::LIVE };
}

/// One line of the documented table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Name of the wait.
    pub name: &'static str,
    /// Its default, in seconds.
    pub seconds: u64,
    /// What happens when it is over.
    pub then: &'static str,
}

/// The table of the documents.
pub const ROWS: &[Row] = &[
    Row { name: "ack", seconds: Deadlines::LIVE.ack.as_secs(), then: "the request is withdrawn; void" },
    Row { name: "suspend", seconds: Deadlines::LIVE.suspend.as_secs(), then: "void; a late suspend is resumed" },
    Row { name: "pause (live)", seconds: 10, then: "the guest is resumed; void" },
    Row { name: "silence", seconds: Deadlines::LIVE.silence.as_secs(), then: "the guest is resumed; void" },
    Row { name: "late", seconds: Deadlines::LIVE.late.as_secs(), then: "the keeper stops watching for a late suspend" },
    Row { name: "hook", seconds: Deadlines::LIVE.hook.as_secs(), then: "the hook is killed, the guest resumed; void" },
    Row { name: "command", seconds: Deadlines::LIVE.command.as_secs(), then: "the xenstore command counts as failed" },
    Row { name: "resume", seconds: Deadlines::LIVE.resume.as_secs(), then: "the record stays for `livesave recover`" },
    Row { name: "settle", seconds: Deadlines::LIVE.settle.as_secs(), then: "void" },
    Row { name: "take", seconds: Deadlines::LIVE.take.as_secs(), then: "void" },
];
