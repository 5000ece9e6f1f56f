//! What dom0 says to a running session: words in xenstore, each of which names the session by its token.
//!
//! Invariant: a word that is malformed or names another token reaches nobody, for it answers nothing that this session
//! asked. It is not an error either: nodes of earlier sessions lie about, and are read again after every reconnection.

use heapless::Deque;

use crate::fields::ParseError;
use crate::names::Token;
use crate::ports::Message;
use crate::store::{Safeguard, out};
use crate::verdict::{Acked, Cancel, Verdict};

/// Messages that wait for the engine, which takes them in for every batch.
const MESSAGES_MAX: usize = 8;

/// A node below the stub's base in which dom0 writes to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// `cancel`.
    Cancel,
    /// `verdict`.
    Verdict,
    /// `acked`.
    Acked,
}

/// What became of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It is a message.
    Kept,
    /// It is for another session.
    Foreign(Token),
    /// Too many wait: a peer that floods us loses its own words.
    Full,
    /// It makes no sense.
    Malformed(ParseError),
}

/// The messages of one session.
#[derive(Debug)]
pub struct Mailbox {
    token: Token,
    messages: Deque<Message, MESSAGES_MAX>,
}

impl Mailbox {
    /// An empty one.
    pub fn new(token: Token) -> Self {
        Self { token, messages: Deque::new() }
    }

    /// What stands in a node.
    pub fn hear(&mut self, node: Node, text: &[u8]) -> Heard {
        let parsed = match node {
            Node::Cancel => Cancel::parse(text).map(|cancel| (cancel.token, Message::Cancel)),
            Node::Verdict => Verdict::parse(text).map(|verdict| (verdict.token, Message::Verdict(verdict))),
            Node::Acked => Acked::parse(text).map(|acked| (acked.token, Message::Acked)),
        };
        match parsed {
            Ok((token, message)) if token == self.token || out(Safeguard::Token) => self.put(message),
            Ok((token, _)) => Heard::Foreign(token),
            Err(error) => Heard::Malformed(error),
        }
    }

    /// A message that came another way.
    pub fn put(&mut self, message: Message) -> Heard {
        self.messages.push_back(message).map_or(Heard::Full, |()| Heard::Kept)
    }

    /// The oldest message.
    pub fn take(&mut self) -> Option<Message> {
        self.messages.pop_front()
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    const OURS: Token = Token([1; 16]);
    const THEIRS: Token = Token([2; 16]);

    #[test]
    fn only_a_word_with_our_token_is_kept() {
        let mut mail = Mailbox::new(OURS);
        let cancel = |token| Cancel { token }.to_string();
        assert_eq!(mail.hear(Node::Cancel, cancel(THEIRS).as_bytes()), Heard::Foreign(THEIRS));
        assert!(matches!(mail.hear(Node::Verdict, b"verdict=resumed\n"), Heard::Malformed(_)));
        assert!(mail.is_empty());
        assert_eq!(mail.hear(Node::Acked, cancel(OURS).as_bytes()), Heard::Kept);
        let verdict = Verdict { token: OURS, resumed: true, reason: Default::default(), disks: "".into() };
        assert_eq!(mail.hear(Node::Verdict, verdict.to_string().as_bytes()), Heard::Kept);
        assert_eq!((mail.take(), mail.take()), (Some(Message::Acked), Some(Message::Verdict(verdict))));
        assert_eq!(mail.take(), None);
    }

    #[test]
    fn a_flood_loses_its_own_words() {
        let mut mail = Mailbox::new(OURS);
        (0..MESSAGES_MAX).for_each(|_| assert_eq!(mail.put(Message::StoreLost), Heard::Kept));
        assert_eq!(mail.hear(Node::Cancel, Cancel { token: OURS }.to_string().as_bytes()), Heard::Full);
    }
}
