//! The keeper's errands to xenstored, run one after the other in a thread of their own.
//!
//! A domain that is gone has no nodes, and a write would make them again for ever: so every write is a transaction that
//! first looks whether there is anybody to read it.

use super::senses::{Event, Watched, read_control};
use crate::host::tree::{self, XenStore};
use snapshot::fields::Line;
use snapshot::keeper::{Command, Completion, Control, Outcome, Verdict};
use snapshot::verdict::{Acked, Cancel, Disks, Verdict as Word};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use xen_drivers::xenstore::{Nodes, XsError};
use xen_hypercall::types::DomId;

/// Below the machine's own deadline for a command, so that an answer is never ambiguous for long.
const TIMEOUT_NS: u64 = 4_000_000_000;

/// The errand boy.
pub struct Errands {
    /// What to touch.
    pub watched: Watched,
    /// The target.
    pub domid: DomId,
    /// See [`super::senses::watch`].
    pub asked: Arc<AtomicU32>,
    /// What the hook keeps of the disks, for the verdict.
    pub disks: Arc<Mutex<String>>,
    /// Where results go.
    pub events: Sender<Event>,
}

impl Errands {
    /// Serves until the keeper ends.
    pub fn serve(&self, commands: &Receiver<(u32, Command)>) {
        let mut store = None;
        while let Ok((seq, command)) = commands.recv() {
            let outcome = self.run(&mut store, command);
            if outcome.is_err() {
                // The next errand starts on a new connection.
                store = None;
            }
            let outcome = outcome.unwrap_or(Outcome::Failed);
            if self.events.send(Event::Done(Completion { seq, outcome })).is_err() {
                return;
            }
        }
    }

    fn run(&self, store: &mut Option<XenStore>, command: Command) -> Result<Outcome, XsError> {
        let store = match store {
            Some(store) => store,
            None => store.insert(tree::connect().map_err(|_| XsError::Timeout)?),
        };
        store.set_timeout_ns(TIMEOUT_NS);
        match command {
            Command::AskSuspend => self.ask(store),
            Command::ReadControl => Ok(match read_control(store, &self.watched.control)? {
                Control::Standing => Outcome::Standing,
                _ => Outcome::Taken,
            }),
            Command::Withdraw => self.withdraw(store),
            Command::TellAcked => self.tell_acked(store),
            Command::TellXenstore => store.resume(self.domid).map(|()| Outcome::Ok),
            Command::Announce(verdict) => self.announce(store, verdict),
            // The others are no errands to xenstored.
            _ => Ok(Outcome::Failed),
        }
    }

    fn ask(&self, store: &mut XenStore) -> Result<Outcome, XsError> {
        let path = &self.watched.control;
        let outcome = store.transaction(|t| match t.find_text(path)?.as_deref() {
            None => Ok(Outcome::Failed),
            Some("") => t.write(path, "suspend").map(|()| Outcome::Ok),
            Some(_) => Ok(Outcome::Busy),
        })?;
        if outcome == Outcome::Ok {
            // From here on what is read there is an answer. Read it once ourselves: the guest may have been faster.
            self.asked.fetch_add(1, Ordering::SeqCst);
            let _ = self.events.send(Event::Control(read_control(store, path)?));
        }
        Ok(outcome)
    }

    fn withdraw(&self, store: &mut XenStore) -> Result<Outcome, XsError> {
        let path = &self.watched.control;
        store.transaction(|t| match read_control(t, path)? {
            Control::Standing => t.write(path, "").map(|()| Outcome::Ok),
            _ => Ok(Outcome::Taken),
        })
    }

    fn tell_acked(&self, store: &mut XenStore) -> Result<Outcome, XsError> {
        let token = self.watched.token;
        store.transaction(|t| {
            if t.find_text(&format!("{}/stub", self.watched.base))?.is_none() {
                return Ok(Outcome::Ok);
            }
            t.write(&format!("{}/acked", self.watched.base), Acked { token }.to_string()).map(|()| Outcome::Ok)
        })
    }

    fn announce(&self, store: &mut XenStore, verdict: Verdict) -> Result<Outcome, XsError> {
        let token = self.watched.token;
        let (resumed, reason) = match verdict {
            Verdict::Resumed => (true, Line::default()),
            Verdict::Void(reason) => (false, Line::of(reason.word())),
        };
        let disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        let disks = if resumed { Disks::from(disks.as_str()) } else { Disks::default() };
        let word = Word { token, resumed, reason, disks }.to_string();
        store.transaction(|t| {
            if t.find_text(&format!("{}/stub", self.watched.base))?.is_none() {
                return Ok(Outcome::Ok);
            }
            if !resumed {
                t.write(&format!("{}/cancel", self.watched.base), Cancel { token }.to_string())?;
            }
            t.write(&format!("{}/verdict", self.watched.base), &word).map(|()| Outcome::Ok)
        })
    }
}
