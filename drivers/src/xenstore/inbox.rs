//! Assembles messages from whatever pieces the transport delivers, so that a deadline in mid-message loses nothing.

use super::transport::{Wire, WireError};
use super::wire::{HEADER_LEN, Header, Malformed};
use alloc::vec::Vec;

/// A whole message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub header: Header,
    pub payload: Vec<u8>,
}

/// Why no message came.
#[derive(Debug)]
pub(super) enum Failure {
    Wire(WireError),
    /// The header is not within the protocol's bounds: the stream cannot be followed any further.
    Malformed,
}

/// The message under assembly: at most one header and [`super::wire::PAYLOAD_MAX`] bytes.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    have: usize,
    header: Option<Header>,
}

impl Inbox {
    /// The next message, or `None` at the deadline.
    pub fn receive(&mut self, wire: &mut impl Wire, deadline_ns: u64) -> Result<Option<Message>, Failure> {
        if self.header.is_none() {
            if !self.fill(wire, HEADER_LEN, deadline_ns)? {
                return Ok(None);
            }
            let bytes = self.bytes.first_chunk().ok_or(Failure::Malformed)?;
            self.header = Some(Header::parse(bytes).map_err(|Malformed| Failure::Malformed)?);
            self.restart();
        }
        let Some(header) = self.header else { return Ok(None) };
        if !self.fill(wire, header.len as usize, deadline_ns)? {
            return Ok(None);
        }
        let payload = core::mem::take(&mut self.bytes);
        self.header = None;
        self.restart();
        Ok(Some(Message { header, payload }))
    }

    fn restart(&mut self) {
        self.bytes.clear();
        self.have = 0;
    }

    /// Reads until `want` bytes are there; `false` at the deadline. Each turn takes a byte at least, or ends.
    fn fill(&mut self, wire: &mut impl Wire, want: usize, deadline_ns: u64) -> Result<bool, Failure> {
        self.bytes.resize(want, 0);
        while self.have < want {
            match wire.recv(&mut self.bytes[self.have..], deadline_ns) {
                Ok(0) => return Ok(false),
                Ok(count) => self.have += count.min(want - self.have),
                Err(error) => return Err(Failure::Wire(error)),
            }
        }
        Ok(true)
    }
}
