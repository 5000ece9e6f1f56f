//! What CLI and keeper say to each other over their socket: one JSON value a line.
//!
//! The CLI sends one [`Job`] and, to cancel, one more line. The keeper answers with [`Note`]s. End of file is death.

use crate::exit::{Exit, Failure};
use serde::{Deserialize, Serialize};
use snapshot::keeper::{Reason, Report, Verdict};
use snapshot::names::Token;
use snapshot::request::parse_uuid;
use xen_hypercall::types::{DomHandle, DomId};

/// The line with which the CLI cancels.
pub const CANCEL: &str = "cancel";

/// One take, as the keeper needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The session, 32 hex digits.
    pub token: String,
    /// The guest's name.
    pub guest: String,
    /// The take's name.
    pub name: String,
    /// The guest.
    pub domid: u16,
    /// Its uuid.
    pub handle: String,
    /// The stub.
    pub stub_domid: u16,
    /// Its uuid.
    pub stub_handle: String,
    /// Longest pause, milliseconds; none: no limit.
    pub max_pause_ms: Option<u64>,
    /// The operator allows that the guest is throttled.
    #[serde(default)]
    pub throttle: bool,
    /// A command to run in the pause.
    pub hook: Option<String>,
    /// How long it may take, milliseconds.
    pub hook_timeout_ms: u64,
    /// The guest's writable disks, `VDEV=PATH`, for the hook.
    #[serde(default)]
    pub disks: Vec<String>,
}

impl Job {
    /// The guest.
    pub fn target(&self) -> Option<(DomId, DomHandle)> {
        Some((DomId::new(self.domid), parse_uuid(&self.handle)?))
    }

    /// The stub.
    pub fn stub(&self) -> Option<(DomId, DomHandle)> {
        Some((DomId::new(self.stub_domid), parse_uuid(&self.stub_handle)?))
    }

    /// The session.
    pub fn session(&self) -> Option<Token> {
        self.token.parse().ok()
    }
}

/// What the keeper tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "note")]
pub enum Note {
    /// Ready; the stub may bind this port.
    Ready {
        /// Port in dom0's table.
        port: u32,
    },
    /// It cannot do the job; nothing was touched.
    Refused {
        /// The exit status' word.
        exit: String,
        /// What failed.
        what: String,
        /// The way out.
        hint: Option<String>,
    },
    /// The guest is asked to suspend now.
    Asking,
    /// The guest stands.
    Suspended,
    /// The guest runs again.
    Resumed,
    /// The verdict is given.
    Over(Ending),
}

/// How it ended, for the CLI.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The reason of a void; none: resumed in order.
    pub reason: Option<String>,
    /// From the request to the first sight of the suspend, microseconds.
    pub freeze_us: Option<u64>,
    /// From there to the stub's edge.
    pub capture_us: Option<u64>,
    /// From the edge (or the end of the hook) to the end of the resume.
    pub resume_us: Option<u64>,
    /// The hook, beside the copy; not part of the sum unless the copy was done before it.
    #[serde(default)]
    pub hook_us: Option<u64>,
    /// The guest may stand, or something is left behind: `livesave recover`.
    pub stuck: bool,
    /// The guest may still suspend; the keeper stays for it.
    pub late: bool,
}

impl Ending {
    /// From the machine's report.
    pub fn of(report: &Report, late: bool) -> Self {
        let times = report.times;
        let between = |from: Option<core::time::Duration>, to: Option<core::time::Duration>| {
            Some(u64::try_from(to?.saturating_sub(from?).as_micros()).unwrap_or(u64::MAX))
        };
        Self {
            reason: match report.verdict {
                Verdict::Resumed => None,
                Verdict::Void(reason) => Some(reason.word().to_owned()),
            },
            freeze_us: between(times.asked, times.suspended),
            capture_us: between(times.suspended, times.released),
            resume_us: between(times.released.or(times.suspended), times.resumed),
            hook_us: None,
            // A keeper that stays for a late suspend keeps the subscription, and takes back a request, in its time.
            stuck: report.stuck || (!late && (report.subscribed || report.standing)),
            late,
        }
    }

    /// The machine's reason, if it is one that we know.
    pub fn cause(&self) -> Option<Reason> {
        self.reason.as_deref().and_then(Reason::from_word)
    }
}

impl From<&Failure> for Note {
    fn from(failure: &Failure) -> Self {
        Self::Refused { exit: failure.exit.word().to_owned(), what: failure.what.clone(), hint: failure.hint.clone() }
    }
}

/// The failure in a keeper's refusal.
pub fn refusal(exit: &str, what: String, hint: Option<String>) -> Failure {
    Failure { exit: Exit::from_word(exit).unwrap_or(Exit::Internal), what, hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapshot::keeper::{Deadlines, Machine};

    #[test]
    fn notes_round_trip() {
        for note in [
            Note::Ready { port: 7 },
            Note::Suspended,
            Note::from(&Exit::Busy.fail("x").hint("y")),
            Note::Over(Ending { reason: Some("pause-spent".to_owned()), freeze_us: Some(3), ..Ending::default() }),
        ] {
            let line = serde_json::to_string(&note).unwrap();
            assert_eq!(serde_json::from_str::<Note>(&line).unwrap(), note, "{line}");
        }
    }

    #[test]
    fn nothing_is_stuck_while_a_keeper_watches() {
        let machine = Machine::new(Deadlines::LIVE, false);
        let report = Report { subscribed: true, ..machine.report() };
        assert!(Ending::of(&report, false).stuck);
        assert!(!Ending::of(&report, true).stuck);
        assert!(Ending::of(&Report { stuck: true, ..report }, true).stuck);
    }

    #[test]
    fn a_refusal_keeps_its_exit_status() {
        assert_eq!(refusal("busy", String::new(), None).exit, Exit::Busy);
        assert_eq!(refusal("nonsense", String::new(), None).exit, Exit::Internal);
    }
}
