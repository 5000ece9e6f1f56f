//! The xenstore client: one request at a time, replies matched by id and kind, watch events queued on the way.
//!
//! xenstored is trusted with the store's content but not with our memory or our time: every reply is checked against
//! the request, every wait has a deadline, and a stream that cannot be followed marks the client broken for good. A
//! reply that comes after its deadline is recognised by its id and dropped.

use super::events::{Event, Events};
use super::inbox::{Failure, Inbox, Message};
use super::nodes::Nodes;
use super::transport::{Wire, WireError};
use super::wire::{Malformed, Refused, Request, text};
use crate::ring::bytes::BadIndex;
use alloc::vec::Vec;
use core::fmt;
use heapless::Deque;
use xen_hypercall::XenErrno;
use xen_hypercall::abi::io::xs_wire as abi;

/// How long xenstored may take for one request. It answers in microseconds; a dom0 that swaps or restarts it needs
/// more.
pub const REQUEST_TIMEOUT_NS: u64 = 10_000_000_000;
/// Requests given up whose replies may still come; one more and the connection counts as broken.
pub const ABANDONED_MAX: usize = 8;

/// Why the connection is unusable. Nobody can mend it: a dom0 tool reconnects, the stub reports and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A reply that answers nothing we asked.
    UnexpectedReply {
        /// Its kind.
        kind: u32,
        /// The id it carries.
        req_id: u32,
    },
    /// Bytes that are no message.
    Malformed,
    /// An impossible ring index.
    BadIndex(BadIndex),
    /// A request was sent in part before the deadline, or too many were given up.
    Stuck,
    /// The other end is gone.
    Closed,
    /// The transport failed.
    Os(XenErrno),
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XsError {
    /// The caller's mistake; nothing was sent.
    Refused(Refused),
    /// xenstored said no.
    Denied(XenErrno),
    /// The reply's content is not what the request promises (not UTF-8, not a number); the connection lives.
    BadContent,
    /// xenstored did not answer in time.
    Timeout,
    /// A transaction met a conflict [`super::TRANSACTION_TRIES`] times.
    Conflict,
    /// The connection is unusable, now and later.
    Broken(Fault),
}

impl XsError {
    /// Whether the node does not exist.
    pub fn is_missing(&self) -> bool {
        *self == Self::Denied(XenErrno::ENOENT)
    }
}

impl fmt::Display for XsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "xenstore request not sent: {why:?}"),
            Self::Denied(errno) => write!(f, "xenstored refused: {errno}"),
            Self::BadContent => f.write_str("xenstore holds something unreadable"),
            Self::Timeout => f.write_str("xenstored does not answer"),
            Self::Conflict => f.write_str("xenstore transaction met too many conflicts"),
            Self::Broken(fault) => write!(f, "xenstore connection broken: {fault:?}"),
        }
    }
}

impl core::error::Error for XsError {}

impl From<Malformed> for XsError {
    fn from(_: Malformed) -> Self {
        Self::BadContent
    }
}

/// What the client has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests sent.
    pub requests: u64,
    /// Watch events received.
    pub events: u64,
}

/// A connection to xenstored.
#[derive(Debug)]
pub struct Client<W: Wire> {
    wire: W,
    inbox: Inbox,
    events: Events,
    next_id: u32,
    abandoned: Deque<u32, ABANDONED_MAX>,
    fault: Option<Fault>,
    timeout_ns: u64,
    stats: Stats,
}

impl<W: Wire> Client<W> {
    /// A client over a transport that nobody else uses.
    pub fn new(wire: W) -> Self {
        Self {
            wire,
            inbox: Inbox::default(),
            events: Events::default(),
            next_id: 1,
            abandoned: Deque::new(),
            fault: None,
            timeout_ns: REQUEST_TIMEOUT_NS,
            stats: Stats::default(),
        }
    }

    /// Another bound than [`REQUEST_TIMEOUT_NS`].
    pub fn set_timeout_ns(&mut self, timeout_ns: u64) {
        self.timeout_ns = timeout_ns;
    }

    /// The transport: its port, its file descriptor.
    pub fn wire(&self) -> &W {
        &self.wire
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The clock of all deadlines.
    pub fn now_ns(&self) -> u64 {
        self.wire.now_ns()
    }

    /// Registers a watch; it fires once at once. Tokens are the caller's names for what it watches.
    pub fn watch(&mut self, path: &str, token: &str) -> Result<(), XsError> {
        self.request(&Request::Watch(path, token)).map(drop)
    }

    /// Removes a watch. Events of it may still be queued.
    pub fn unwatch(&mut self, path: &str, token: &str) -> Result<(), XsError> {
        self.request(&Request::Unwatch(path, token)).map(drop)
    }

    /// The next watch event, or `None` at the deadline. A deadline that has passed polls.
    pub fn next_event(&mut self, deadline_ns: u64) -> Result<Option<Event>, XsError> {
        loop {
            // What lies in the transport comes first, so that a flood is seen as one rescan and not drop by drop.
            while let Some(message) = self.receive(0)? {
                self.unsolicited(message)?;
                if self.wire.now_ns() >= deadline_ns {
                    break;
                }
            }
            if let Some(event) = self.events.pop() {
                return Ok(Some(event));
            }
            match self.receive(deadline_ns)? {
                Some(message) => self.unsolicited(message)?,
                None => return Ok(None),
            }
        }
    }

    /// Waits for an event of one token and leaves all others queued; whether it came before the deadline. An event that
    /// melted into a [`Event::Rescan`] does not come, so whoever waits for long looks again from time to time.
    pub fn wait_event_of(&mut self, token: &str, deadline_ns: u64) -> Result<bool, XsError> {
        loop {
            if self.events.take(token) {
                return Ok(true);
            }
            match self.receive(deadline_ns)? {
                Some(message) => self.unsolicited(message)?,
                None => return Ok(false),
            }
            if self.wire.now_ns() >= deadline_ns {
                return Ok(self.events.take(token));
            }
        }
    }

    /// Sends a request and waits for its reply's payload.
    pub(super) fn exchange(&mut self, tx_id: u32, request: &Request<'_>) -> Result<Vec<u8>, XsError> {
        if let Some(fault) = self.fault {
            return Err(XsError::Broken(fault));
        }
        let (id, deadline_ns) = (self.take_id(), self.wire.now_ns().saturating_add(self.timeout_ns));
        let mut bytes = Vec::new();
        request.emit(id, tx_id, &mut bytes).map_err(XsError::Refused)?;
        self.stats.requests += 1;
        self.send_all(&bytes, deadline_ns)?;
        loop {
            match self.receive(deadline_ns)? {
                Some(message) if self.answers(&message, id, request) => return self.verdict(message, request),
                Some(message) => self.unsolicited(message)?,
                None => return self.abandon(id),
            }
            // A flood of events must not outlast the deadline.
            if self.wire.now_ns() >= deadline_ns {
                return self.abandon(id);
            }
        }
    }

    /// Ids go up from 1 and skip 0, the id of watch events.
    fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = id.checked_add(1).unwrap_or(1);
        id
    }

    fn send_all(&mut self, bytes: &[u8], deadline_ns: u64) -> Result<(), XsError> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.wire.send(&bytes[sent..], deadline_ns) {
                Ok(0) if sent == 0 => return Err(XsError::Timeout),
                Ok(0) => return Err(self.broken(Fault::Stuck)),
                Ok(count) => sent += count.min(bytes.len() - sent),
                Err(WireError::Refused(errno)) => return Err(XsError::Denied(errno)),
                Err(error) => return Err(self.broken(error.fault())),
            }
        }
        Ok(())
    }

    fn receive(&mut self, deadline_ns: u64) -> Result<Option<Message>, XsError> {
        if let Some(fault) = self.fault {
            return Err(XsError::Broken(fault));
        }
        self.inbox.receive(&mut self.wire, deadline_ns).map_err(|failure| match failure {
            Failure::Wire(error) => self.broken(error.fault()),
            Failure::Malformed => self.broken(Fault::Malformed),
        })
    }

    /// Whether the message is the reply to our request, by id; `verdict` then judges its kind.
    fn answers(&self, message: &Message, id: u32, request: &Request<'_>) -> bool {
        let header = message.header;
        if header.kind == abi::XS_WATCH_EVENT {
            return false;
        }
        let quirk = self.wire.watch_replies_lack_id() && matches!(request, Request::Watch(..) | Request::Unwatch(..));
        header.req_id == id || (quirk && header.req_id == 0 && header.kind == request.kind())
    }

    fn verdict(&mut self, message: Message, request: &Request<'_>) -> Result<Vec<u8>, XsError> {
        let header = message.header;
        if header.kind == request.kind() {
            return Ok(message.payload);
        }
        if header.kind != abi::XS_ERROR {
            return Err(self.broken(Fault::UnexpectedReply { kind: header.kind, req_id: header.req_id }));
        }
        let name = text(&message.payload)?;
        let known = XenErrno::NAMES.iter().find(|(_, known)| *known == name);
        // A name that we do not know is still a refusal.
        Err(XsError::Denied(known.map_or(XenErrno::EIO, |(errno, _)| XenErrno::new(*errno))))
    }

    /// A message that answers nothing now: a watch event, or the reply to a request that was given up.
    fn unsolicited(&mut self, message: Message) -> Result<(), XsError> {
        let header = message.header;
        if header.kind == abi::XS_WATCH_EVENT {
            self.stats.events += 1;
            return self.events.push(&message.payload).map_err(|Malformed| self.broken(Fault::Malformed));
        }
        let before = self.abandoned.len();
        self.abandoned.retain(|id| *id != header.req_id);
        if self.abandoned.len() < before {
            return Ok(());
        }
        Err(self.broken(Fault::UnexpectedReply { kind: header.kind, req_id: header.req_id }))
    }

    fn abandon<T>(&mut self, id: u32) -> Result<T, XsError> {
        match self.abandoned.push_back(id) {
            Ok(()) => Err(XsError::Timeout),
            Err(_) => Err(self.broken(Fault::Stuck)),
        }
    }

    fn broken(&mut self, fault: Fault) -> XsError {
        self.fault = Some(fault);
        XsError::Broken(fault)
    }
}
