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
        Fault::NoSuchSnapshot => Exit::NoSnapshot,
        Fault::NoSpace => Exit::NoSpace,
        Fault::Store => Exit::BadStore,
        Fault::Cancelled => Exit::Cancelled,
        Fault::NoSuspend => Exit::NotSuspended,
        Fault::ForeignSuspend | Fault::ForeignResume | Fault::ForeignOff => Exit::Foreign,
        Fault::PauseBudget => Exit::PauseSpent,
        Fault::TrackingLeftOn => Exit::Stuck,
        _ => Exit::Void,
    }
}

fn hint_of(fault: Fault) -> Option<&'static str> {
    Some(match fault {
        Fault::BadRequest | Fault::WrongVersion => "stub and livesave must be of the same version",
        Fault::Busy => "wait, or `livesave cancel`",
        Fault::Stopping => "start the stub again",
        Fault::NotHvm => "only PVH guests can be taken",
        Fault::Paused => "`xl unpause` it first",
        Fault::LogDirtyOn => "end the migration or xl save; after a killed stub, `livesave recover`",
        Fault::Denied => "`livesave doctor` checks the FLASK policy; `xl dmesg | grep avc` shows the refused call",
        Fault::NoMemory => "give the guest's paging pool (shadow_memory), the stub or the host more memory",
        Fault::Unsupported => "`livesave doctor` names what the hypervisor lacks",
        Fault::NameUsed => "choose another with --name, or `livesave rm` the old one",
        Fault::NoSuchSnapshot => "`livesave ls` shows the snapshots",
        Fault::NoSpace => "`livesave rm` old snapshots, or grow the store",
        Fault::Store => "`livesave verify` checks the store; look at its disk",
        Fault::ForeignSuspend | Fault::ForeignResume | Fault::ForeignOff => {
            "keep xl save, migrate and resume away from a guest during a take"
        }
        Fault::Ballooning => "do not change the guest's memory during a take",
        Fault::TrackingLeftOn => "run `livesave recover` now",
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
    fn sealed_and_done_are_no_failures() {
        for state in [State::Sealed, State::Done] {
            assert_eq!(judge(&Status::new(Token([0; 16]), state), "x"), None);
        }
    }
}
