//! A connection to the fake xenstored without a ring.

use super::FakeStore;
use crate::platform::Platform;
use crate::platform::fake::FakePlatform;
use crate::xenstore::transport::{Wire, WireError};
use crate::xenstore::wire::{HEADER_LEN, Header};
use xen_hypercall::abi::io::xs_wire as abi;

/// A connection without a ring.
pub struct FakeWire {
    pub(super) store: FakeStore,
    pub(super) platform: FakePlatform,
    pub(super) id: usize,
    pub(super) piece: usize,
    pub(super) quirk: bool,
}

impl FakeWire {
    /// Behaves like Linux' device file: replies to watches carry id 0.
    #[must_use]
    pub fn with_device_quirk(mut self) -> Self {
        self.quirk = true;
        self
    }

    /// Clears the ids of replies to watches.
    fn make_quirky(&self) {
        let mut daemon = self.store.0.borrow_mut();
        let output = daemon.connections[self.id].output.make_contiguous();
        let mut at = 0;
        while let Some(Ok(header)) = output.get(at..).and_then(|rest| rest.first_chunk()).map(Header::parse) {
            if matches!(header.kind, abi::XS_WATCH | abi::XS_UNWATCH) {
                output[at + 4..at + 8].fill(0);
            }
            at += HEADER_LEN + header.len as usize;
        }
    }
}

impl Wire for FakeWire {
    fn send(&mut self, bytes: &[u8], _deadline_ns: u64) -> Result<usize, WireError> {
        let count = bytes.len().min(self.piece);
        self.store.input(self.id, &bytes[..count]);
        if self.quirk {
            self.make_quirky();
        }
        Ok(count)
    }

    fn recv(&mut self, into: &mut [u8], deadline_ns: u64) -> Result<usize, WireError> {
        loop {
            let count = {
                let output = &mut self.store.0.borrow_mut().connections[self.id].output;
                let count = into.len().min(output.len()).min(self.piece);
                into.iter_mut().zip(output.drain(..count)).for_each(|(to, byte)| *to = byte);
                count
            };
            if count > 0 || self.platform.now_ns() >= deadline_ns {
                return Ok(count);
            }
            if !self.platform.step() {
                self.platform.advance_to(deadline_ns);
            }
        }
    }

    fn now_ns(&self) -> u64 {
        self.platform.now_ns()
    }

    fn watch_replies_lack_id(&self) -> bool {
        self.quirk
    }
}
