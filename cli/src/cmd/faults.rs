//! What the stub's own causes mean to the operator: exit status and way out.

use crate::exit::{Exit, Failure};
use snapshot::fault::Fault;
use snapshot::status::{State, Status};

/// The exit status of a cause.
pub fn exit_of(fault: Fault) -> Exit {
    match fault {
        Fault::Busy => Exit::Busy,
        Fault::BadRequest | Fault::WrongVersion | Fault::Stopping => Exit::StubNotReady,
        Fault::BadConfig => Exit::BadConfig,
        Fault::Gone | Fault::GuestEnded => Exit::GuestEnded,
        Fault::NotHvm => Exit::NotPvh,
        Fault::Paused => Exit::Paused,
        Fault::ShutDown => Exit::ShutDown,
        Fault::LogDirtyOn => Exit::LogDirtyOn,
        Fault::Denied => Exit::Denied,
        Fault::NoMemory => Exit::NoMemory,
        Fault::Unsupported => Exit::Unsupported,
        Fault::ReleasePort => Exit::KeeperLost,
        Fault::NameUsed => Exit::NameUsed,
        Fault::NoSuchSnapshot | Fault::BadParent | Fault::NotArmed => Exit::NoSnapshot,
        Fault::NoSpace => Exit::NoSpace,
        Fault::Store => Exit::BadStore,
        Fault::Cancelled => Exit::Cancelled,
        Fault::NoSuspend => Exit::NotSuspended,
        Fault::ForeignSuspend | Fault::ForeignResume | Fault::ForeignOff => Exit::Foreign,
        Fault::PauseBudget => Exit::PauseSpent,
        Fault::PauseTooLong => Exit::PauseTooLong,
        Fault::TrackingLeftOn => Exit::Stuck,
        _ => Exit::Void,
    }
}

/// The way out, where the stub's cause tells more than the exit status does.
fn hint_of(fault: Fault) -> Option<&'static str> {
    Some(match fault {
        Fault::BadRequest | Fault::WrongVersion => "stub and livesave must be of the same version",
        Fault::Stopping => "start the stub again",
        Fault::BadConfig => "the guest's configuration did not reach the stub whole: take it again",
        Fault::Gone => "it was destroyed or made anew meanwhile; take it again when it runs",
        Fault::Hypercall => "the stub's log (`xl console`) and `xl dmesg` say more",
        Fault::ReleasePort => "the keeper died, or FLASK refused: `livesave doctor`, then `livesave recover`",
        Fault::BadParent => "`livesave status` says which guests are tracked; without --parent a full one is taken",
        Fault::NotArmed => "`livesave status` says which guests are tracked",
        Fault::LogDirtyOn => "if nobody migrates it and a stub that died left it on: `livesave disarm GUEST`",
        Fault::Store => "look at the store's disk; `livesave verify` shows which snapshots are whole",
        Fault::NoSuspend => "the guest's kernel log says why; is it hung?",
        Fault::ForeignSuspend | Fault::ForeignResume | Fault::ForeignOff => {
            "keep xl save, migrate and resume away from a guest during a take"
        }
        Fault::Ballooning => "do not change the guest's memory during a take",
        Fault::PageUnreadable => "a page of the guest could not be mapped: the stub's log names it; take it again",
        Fault::BadP2m => "the guest's kernel may have been changing its memory: try again",
        Fault::Unsupported => {
            "a PV guest can be taken with --mode save; `livesave doctor` names what the hypervisor lacks"
        }
        Fault::VerdictVoid | Fault::NoVerdict => "the keeper's reasons are in /run/livesave/keeper.log",
        Fault::PauseTooLong => "raise --max-pause, give the stub more memory, or try --on-busy throttle",
        Fault::PolicyAbort => "try --on-busy accept or throttle, or give the stub more memory",
        Fault::ControlLost => "is xenstored running?",
        _ => return None,
    })
}

/// The failure that a final status stands for; `None` for sealed and done.
pub fn judge(status: &Status, subject: &str) -> Option<Failure> {
    if matches!(status.state, State::Sealed | State::Done) {
        return None;
    }
    let word = status.fault.map_or("unknown cause", Fault::word);
    let told = if status.reason.is_empty() { word } else { status.reason.as_str() };
    let verb = match status.state {
        State::Refused => "refused",
        State::Failed => "failed",
        _ => "ended without a snapshot",
    };
    let exit = status.fault.map_or(Exit::Void, exit_of);
    let failure = exit.fail(format_args!("{subject} {verb}: {told}"));
    Some(match status.fault.and_then(hint_of) {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapshot::names::Token;

    #[test]
    fn every_fault_leads_to_an_exit_status_and_names_its_cause() {
        for fault in Fault::ALL {
            let status = Status::refused(Token([0; 16]), *fault, "the reason");
            let failure = judge(&status, "the take").unwrap();
            assert_eq!(failure.exit, exit_of(*fault));
            assert!(failure.what.contains("the reason"));
        }
    }

    #[test]
    fn every_fault_prints_a_way_out() {
        for fault in Fault::ALL {
            let status = Status::refused(Token([0; 16]), *fault, "");
            let text = judge(&status, "the take").unwrap().to_string();
            assert!(text.contains(fault.word()) && text.contains("\nhint: "), "{fault:?}: {text}");
        }
    }

    #[test]
    fn sealed_and_done_are_no_failures() {
        for state in [State::Sealed, State::Done] {
            assert_eq!(judge(&Status::new(Token([0; 16]), state), "x"), None);
        }
    }
}
