//! Following a take that was asked for: what keeper and stub say of it, to its end, and the user's wish to cancel it.

use super::progress::Progress;
use crate::exit::{Exit, Outcome};
use crate::host::tree::{self, XenStore};
use crate::keeper::link::Link;
use crate::keeper::words::{Ending, Job, Note};
use crate::waits;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use snapshot::names::Token;
use snapshot::status::Status;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use xen_drivers::xenstore::Nodes;

/// Between two looks at keeper and stub.
const LOOK: Duration = Duration::from_millis(100);
/// After a void verdict, for the stub's own word on the cause.
const LAST_WORD: Duration = Duration::from_secs(5);

/// The status of our session, wherever the stub answers.
pub fn status_of(store: &mut XenStore, base: &str, token: Token) -> Outcome<Option<Status>> {
    for node in ["status", "refused"] {
        let text = store.find_text(&format!("{base}/{node}")).map_err(|error| tree::trouble("the status", error))?;
        let status = text.and_then(|text| Status::parse(text.as_bytes()).ok());
        if let Some(status) = status.filter(|status| status.token == token) {
            return Ok(Some(status));
        }
    }
    Ok(None)
}

/// Set by the first SIGINT or SIGTERM; the second one of a kind ends the program, and the keeper sees it go.
fn interrupts() -> Outcome<Arc<AtomicBool>> {
    let (asked, again) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    for signal in [SIGINT, SIGTERM] {
        let set = flag::register_conditional_shutdown(signal, i32::from(Exit::Cancelled.code()), Arc::clone(&again))
            .and_then(|_| flag::register(signal, Arc::clone(&again)))
            .and_then(|_| flag::register(signal, Arc::clone(&asked)));
        set.map_err(|error| Exit::Internal.fail(format_args!("signals: {error}")))?;
    }
    Ok(asked)
}

/// Follows the take to the end of both: the keeper's verdict and the stub's final word.
pub fn follow(
    store: &mut XenStore,
    base: &str,
    token: Token,
    link: &mut Link,
    progress: &mut Progress,
) -> Outcome<(Option<Status>, Ending)> {
    let (mut status, mut ending): (Option<Status>, Option<(Ending, Instant)>) = (None, None);
    let mut heard = Instant::now();
    let interrupted = interrupts()?;
    loop {
        if interrupted.swap(false, Ordering::SeqCst) {
            progress.say("cancelling");
            // A keeper that does not hear it sees us go.
            let _ = link.cancel();
        }
        while let Some(note) = if ending.is_none() { link.poll()? } else { None } {
            match note {
                Note::Suspended => progress.say("the guest stands"),
                Note::Resumed => progress.say("the guest runs"),
                Note::Over(over) => ending = Some((over, Instant::now())),
                _ => {}
            }
        }
        let next = status_of(store, base, token)?;
        if next.is_some() && next != status {
            heard = Instant::now();
            next.iter().for_each(|status| progress.show(status));
            status = next;
        }
        if let Some((over, since)) = &ending {
            let last = status.as_ref().is_some_and(|status| status.state.is_final());
            let patience = if over.reason.is_none() { waits::STUB } else { LAST_WORD };
            if last || heard.max(*since).elapsed() >= patience {
                return Ok((status, over.clone()));
            }
        }
        let until = store.now_ns().saturating_add(u64::try_from(LOOK.as_nanos()).unwrap_or(0));
        store.next_event(until).map_err(|error| tree::trouble("waiting for the stub", error))?;
    }
}

/// Whoever goes on after the take may count on it that its hook has been told how it ended.
pub fn await_hook(link: &Link, job: &Job, ending: &Ending) {
    // A keeper that stays for a late suspend tells it when that is over.
    if job.hook.is_none() || ending.late {
        return;
    }
    if !link.wait_for_end(Duration::from_millis(job.hook_timeout_ms).saturating_add(waits::KEEPER)) {
        eprintln!("livesave: the hook has not ended yet; /run/livesave/keeper.log will say how it does");
    }
}
