//! The keeper's senses: threads that wait for xenstore, the release port and the CLI, and pass on what comes.
//!
//! Each owns what it waits on. The main loop only receives, so nothing that hangs out here delays a resume.

use super::words::CANCEL;
use crate::host::{tree, xl};
use snapshot::keeper::{Completion, Control};
use snapshot::names::Token;
use snapshot::status::Status;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;
use xen_drivers::xenstore::{Nodes, XsError};
use xen_hypercall::transport::privcmd::Evtchn;
use xen_hypercall::types::EvtchnPort;

/// Stack of a keeper's thread; all of it is locked into memory.
const STACK: usize = 256 * 1024;
/// How long one wait for a watch or the port lasts before it is renewed.
const RENEW: Duration = Duration::from_secs(5);
/// Between two looks for another tool that saves the guest.
const SAVER_LOOK: Duration = Duration::from_millis(100);
/// Before another connection to xenstored is tried.
const RECONNECT: Duration = Duration::from_millis(500);

/// What came.
#[derive(Debug)]
pub enum Event {
    /// The stub's status, of our session.
    Status(Box<Status>),
    /// `control/shutdown` was read after our request was written.
    Control(Control),
    /// The release port fired.
    Edge,
    /// The CLI wants to stop.
    CliCancels,
    /// The CLI is gone.
    CliGone,
    /// Another tool saves or migrates the guest.
    Saver(xl::Savers),
    /// A command ended.
    Done(Completion),
    /// The hook ended, well or not.
    HookEnded(bool),
}

/// What to watch.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Our session.
    pub token: Token,
    /// The stub's base node.
    pub base: String,
    /// The target's `control/shutdown`.
    pub control: String,
}

/// Starts a thread of the keeper.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(body).map(drop)
}

/// Watches status and request for as long as the keeper lives; reconnects when xenstored was restarted.
///
/// `asked` counts our requests: a control value counts only if its read began after the request was written.
pub fn watch(watched: &Watched, asked: &Arc<AtomicU32>, events: &Sender<Event>) {
    let mut news = News::default();
    loop {
        // A broken connection is renewed, whatever broke it; the machine's deadlines bound the silence meanwhile.
        match watch_once(watched, asked, events, &mut news) {
            Err(Ended::Receiver) => return,
            Err(Ended::Store) => thread::sleep(RECONNECT),
            Ok(never) => match never {},
        }
    }
}

enum Ended {
    Store,
    Receiver,
}

impl From<XsError> for Ended {
    fn from(_: XsError) -> Self {
        Self::Store
    }
}

/// What the stub said last. A status that is only read again is no sign of life: a stub that stands still would never
/// count as silent.
#[derive(Debug, Default)]
struct News {
    last: String,
}

impl News {
    /// The status of our session in this text, if it was not there before.
    fn of(&mut self, text: String, token: Token) -> Option<Status> {
        if text == self.last {
            return None;
        }
        let status = Status::parse(text.as_bytes()).ok().filter(|status| status.token == token)?;
        self.last = text;
        Some(status)
    }
}

fn watch_once(
    w: &Watched,
    asked: &AtomicU32,
    events: &Sender<Event>,
    news: &mut News,
) -> Result<core::convert::Infallible, Ended> {
    let mut store = tree::connect().map_err(|_| Ended::Store)?;
    store.watch(&w.base, "livesave")?;
    store.watch(&w.control, "livesave")?;
    loop {
        let until = store.now_ns().saturating_add(u64::try_from(RENEW.as_nanos()).unwrap_or(u64::MAX));
        // Whatever fired, or nothing for a while: look at all of it. Three small reads are cheaper than a lost event.
        store.next_event(until)?;
        let before = asked.load(Ordering::SeqCst);
        let control = read_control(&mut store, &w.control)?;
        if before > 0 {
            events.send(Event::Control(control)).map_err(|_| Ended::Receiver)?;
        }
        for node in ["status", "refused"] {
            let Some(text) = store.find_text(&format!("{}/{node}", w.base))? else { continue };
            if let Some(status) = news.of(text, w.token) {
                events.send(Event::Status(Box::new(status))).map_err(|_| Ended::Receiver)?;
            }
        }
    }
}

/// What stands in `control/shutdown`. A node that is missing was taken, as in libxl.
pub fn read_control(store: &mut impl Nodes, path: &str) -> Result<Control, XsError> {
    Ok(match store.find_text(path)?.as_deref() {
        None | Some("") => Control::Empty,
        Some("suspend") => Control::Standing,
        Some(_) => Control::Other,
    })
}

/// Waits for the release port.
pub fn listen(evtchn: &Evtchn, port: EvtchnPort, events: &Sender<Event>) {
    loop {
        match evtchn.pending(RENEW) {
            Ok(Some(fired)) if fired == port => {
                // One edge is all there is to hear: the port stays masked.
                let _ = events.send(Event::Edge);
                return;
            }
            Ok(Some(other)) => drop(evtchn.unmask(other)),
            Ok(None) => {}
            Err(_) => thread::sleep(RECONNECT),
        }
    }
}

/// Looks for a save or a migration of the guest that begins beside the take. Xen lets two tools share one dirty bitmap
/// and tells neither. An `xl` that is seen has parsing, a handshake and a helper's start before it touches the
/// tracking; that is the time in which the take has to end.
pub fn watch_savers(domid: u16, guest: &str, events: &Sender<Event>) {
    let mut processes = xl::Processes::default();
    loop {
        if let Some(savers) = processes.savers(domid, guest)
            && events.send(Event::Saver(savers)).is_err()
        {
            return;
        }
        thread::sleep(SAVER_LOOK);
    }
}

/// Waits for the CLI's word or its end.
pub fn hear(socket: BufReader<UnixStream>, events: &Sender<Event>) {
    for line in socket.lines() {
        match line {
            Ok(line) if line == CANCEL => drop(events.send(Event::CliCancels)),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let _ = events.send(Event::CliGone);
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapshot::status::State;

    #[test]
    fn a_status_that_is_read_again_is_no_news() {
        let ours: Token = "4e73606878585d48a55aa55954a0c041".parse().unwrap();
        let theirs: Token = "5e73606878585d48a55aa55954a0c041".parse().unwrap();
        let (mut status, mut news) = (Status::new(ours, State::Copying), News::default());
        assert!(news.of(status.to_string(), ours).is_some());
        assert!(news.of(status.to_string(), ours).is_none(), "the stub may stand still");
        assert!(news.of(Status::new(theirs, State::Sealed).to_string(), ours).is_none());
        assert!(news.of(status.to_string(), ours).is_none());
        status.counters.elapsed_us += 1;
        assert!(news.of(status.to_string(), ours).is_some());
    }
}
