//! The keeper's vocabulary: what it may see, what it may ask for, how it judges.
//!
//! Nothing here decides. Every value that came from a peer has been read once and checked before it becomes one of
//! these.

use crate::status::State;
use core::time::Duration;

/// The target domain, as Xen showed it last. The caller compared domid *and* handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Not shut down (a controller pause counts as running: it is not ours).
    Running,
    /// Shut down with the code "suspend".
    Suspended,
    /// Shut down for another reason.
    Stopped,
    /// Dying, destroyed, or its domid belongs to another domain now.
    Gone,
}

/// The stub, as its status node and Xen show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stub {
    /// No final word, and the guest is not wanted yet.
    Working,
    /// The copy in rounds is over: it asks for the suspend.
    WantsSuspend,
    /// Everything needed from the guest is in the stub's hands (or already on its way to disk).
    Captured,
    /// Refused, void or failed: it will not seal this take.
    GaveUp,
    /// The stub's domain is dead or gone.
    Gone,
}

/// The stub's state, as the keeper needs it. `sealed` before our verdict would be a breach: then nothing is sure.
impl From<State> for Stub {
    fn from(state: State) -> Self {
        match state {
            State::Preparing | State::Copying => Self::Working,
            State::WantSuspend | State::Capturing => Self::WantsSuspend,
            State::Captured | State::Flushing => Self::Captured,
            State::Refused | State::Sealed | State::Void | State::Failed | State::Done => Self::GaveUp,
        }
    }
}

/// `control/shutdown` of the target, as seen since our request was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Not seen yet.
    Unknown,
    /// Still holds our word.
    Standing,
    /// Empty: the guest took the request (or somebody withdrew it).
    Empty,
    /// Holds another word: somebody wrote over ours.
    Other,
}

/// The program that started us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cli {
    /// Its end of the socket is open.
    Present,
    /// It asked to stop the take.
    Cancels,
    /// Its end is closed: it died or left.
    Gone,
}

/// The hook of the pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// None was asked for, or it was not started yet.
    Idle,
    /// It runs.
    Running,
    /// It ended with status 0.
    Done,
    /// It could not start, or ended otherwise.
    Failed,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Ok,
    /// `AskSuspend`: the node held another request, nothing was written.
    Busy,
    /// `ReadControl`, `Withdraw`: our word is no longer there.
    Taken,
    /// `ReadControl`: our word still stands, so the guest never saw it.
    Standing,
    /// Refused, or no answer: unknown whether it took effect.
    Failed,
}

/// The end of a command, by the number under which it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// Number from [`Action::Do`].
    pub seq: u32,
    /// How it ended.
    pub outcome: Outcome,
}

/// All that the keeper sees in one step, one completion at a time. The caller drains events first and looks at
/// `target` last: then an edge that follows a suspend is never seen before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// The target.
    pub target: Target,
    /// The stub.
    pub stub: Stub,
    /// Changes with every new status of the stub.
    pub stub_stamp: u32,
    /// The suspend request's node.
    pub control: Control,
    /// The release port has fired.
    pub released: bool,
    /// The CLI.
    pub cli: Cli,
    /// Another tool began to save or migrate the target.
    pub saver: bool,
    /// The hook.
    pub hook: Hook,
    /// The last command that ended.
    pub done: Option<Completion>,
}

/// What the keeper can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `XEN_DOMCTL_subscribe` to a port that is never bound: xl and xenstored do not notice the suspend.
    Silence,
    /// In a transaction: if `control/shutdown` is empty, write "suspend".
    AskSuspend,
    /// Read `control/shutdown` afresh.
    ReadControl,
    /// Tell the stub that the guest took the request.
    TellAcked,
    /// In a transaction: if `control/shutdown` still holds "suspend", empty it.
    Withdraw,
    /// Start the hook.
    StartHook,
    /// Kill the hook.
    StopHook,
    /// Fast resume, after one more look that domid, handle and suspend code are right.
    Resume,
    /// `XEN_DOMCTL_subscribe` to port 0.
    Unsilence,
    /// `XS_RESUME`, so that xenstored announces the next shutdown.
    TellXenstore,
    /// Publish the verdict.
    Announce(Verdict),
}

impl Command {
    /// Whether the record on disk has to be brought up to date before this command runs.
    pub const fn needs_record(self) -> bool {
        matches!(self, Self::Silence | Self::AskSuspend | Self::StartHook)
    }
}

/// How soon to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// The guest stands or is about to: look every millisecond.
    Tight,
    /// Nothing presses.
    Easy,
}

impl Pace {
    /// The longest sleep before the next look.
    pub const fn sleep(self) -> Duration {
        match self {
            Self::Tight => Duration::from_millis(1),
            Self::Easy => Duration::from_millis(10),
        }
    }
}

/// The machine's answer to one observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Look again soon.
    Wait(Pace),
    /// Do this; the end is reported under the number.
    Do(u32, Command),
    /// The guest is no longer ours to care for.
    Finish,
}

/// The judgement of a take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The suspend was ours and the resume came after all was captured.
    Resumed,
    /// The snapshot must not be sealed.
    Void(Reason),
}

/// Why a take is void. The words are part of the protocol (`verdict` node) and of the exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The CLI died.
    CliGone,
    /// The operator cancelled.
    Cancelled,
    /// The stub's domain died.
    StubGone,
    /// The stub published nothing for too long.
    StubSilent,
    /// The stub refused, failed, or let the guest go.
    StubGaveUp,
    /// The target was destroyed.
    TargetGone,
    /// The target powered off, rebooted or crashed.
    TargetStopped,
    /// Somebody else suspended the target.
    ForeignSuspend,
    /// Another request stood in `control/shutdown`.
    ForeignRequest,
    /// Somebody else resumed the target.
    ForeignResume,
    /// Somebody else began to save or migrate the target.
    ForeignSave,
    /// `XEN_DOMCTL_subscribe` was refused.
    NotSilenced,
    /// The suspend request could not be written.
    NotAsked,
    /// The guest did not take the request.
    NotAcked,
    /// The guest took the request and did not suspend.
    NotSuspended,
    /// The pause budget was spent.
    PauseSpent,
    /// The hook failed.
    HookFailed,
    /// The hook took too long.
    HookSlow,
    /// The stub let the guest go without saying that all was captured.
    NotCaptured,
    /// Xen refused to resume the guest.
    NotResumed,
    /// The take took too long.
    TookTooLong,
}

impl Reason {
    /// Every reason, for tables and tests.
    pub const ALL: [Self; 21] = [
        Self::CliGone,
        Self::Cancelled,
        Self::StubGone,
        Self::StubSilent,
        Self::StubGaveUp,
        Self::TargetGone,
        Self::TargetStopped,
        Self::ForeignSuspend,
        Self::ForeignRequest,
        Self::ForeignResume,
        Self::ForeignSave,
        Self::NotSilenced,
        Self::NotAsked,
        Self::NotAcked,
        Self::NotSuspended,
        Self::PauseSpent,
        Self::HookFailed,
        Self::HookSlow,
        Self::NotCaptured,
        Self::NotResumed,
        Self::TookTooLong,
    ];

    /// The word of the protocol.
    pub const fn word(self) -> &'static str {
        match self {
            Self::CliGone => "cli-gone",
            Self::Cancelled => "cancelled",
            Self::StubGone => "stub-gone",
            Self::StubSilent => "stub-silent",
            Self::StubGaveUp => "stub-gave-up",
            Self::TargetGone => "target-gone",
            Self::TargetStopped => "target-stopped",
            Self::ForeignSuspend => "foreign-suspend",
            Self::ForeignRequest => "foreign-request",
            Self::ForeignResume => "foreign-resume",
            Self::ForeignSave => "foreign-save",
            Self::NotSilenced => "not-silenced",
            Self::NotAsked => "not-asked",
            Self::NotAcked => "not-acked",
            Self::NotSuspended => "not-suspended",
            Self::PauseSpent => "pause-spent",
            Self::HookFailed => "hook-failed",
            Self::HookSlow => "hook-slow",
            Self::NotCaptured => "not-captured",
            Self::NotResumed => "not-resumed",
            Self::TookTooLong => "took-too-long",
        }
    }

    /// The reason of a word, if it is one of ours.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}
