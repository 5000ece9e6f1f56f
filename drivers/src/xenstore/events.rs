//! Watch events that arrived and wait for their reader: bounded, and never lost silently.

use super::wire::{Malformed, texts};
use alloc::borrow::ToOwned;
use alloc::string::String;
use heapless::Deque;

/// Events kept apart. Beyond, they melt into one [`Event::Rescan`].
pub const EVENTS_MAX: usize = 64;

/// Something changed in xenstore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A watch fired.
    Fired {
        /// The node that changed (relative if the watch was).
        path: String,
        /// The token that the watch was registered with.
        token: String,
    },
    /// More happened than was kept: look at everything that is watched.
    Rescan,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Events {
    queue: Deque<(String, String), EVENTS_MAX>,
    rescan: bool,
}

impl Events {
    /// Takes the payload of a WATCH_EVENT. The same node and token twice is one event: it says "look", not "how often".
    pub fn push(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        let [path, token] = texts(payload)?[..] else { return Err(Malformed) };
        if self.queue.iter().any(|(p, t)| p == path && t == token) {
            return Ok(());
        }
        if self.queue.push_back((path.to_owned(), token.to_owned())).is_err() {
            self.rescan = true;
        }
        Ok(())
    }

    /// The oldest event; a rescan comes first, and stands for all that is queued.
    pub fn pop(&mut self) -> Option<Event> {
        if core::mem::take(&mut self.rescan) {
            self.queue.clear();
            return Some(Event::Rescan);
        }
        let (path, token) = self.queue.pop_front()?;
        Some(Event::Fired { path, token })
    }

    /// Takes the oldest event of this token; all others stay for their readers.
    pub fn take(&mut self, token: &str) -> bool {
        let before = self.queue.len();
        let mut found = false;
        self.queue.retain(|(_, queued)| {
            let take = !found && queued == token;
            found |= take;
            !take
        });
        self.queue.len() < before
    }
}
