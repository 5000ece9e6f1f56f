//! xenstore over the ring page that the domain builder shares with xenstored (`struct xenstore_domain_interface`).
//!
//! The page and the port come from start_info and live as long as the domain; this transport neither frees nor closes
//! them. Pending bits are taken before the ring is looked at, so no event is lost between the look and the wait.

use super::transport::{Wire, WireError};
use crate::platform::Platform;
use crate::ring::bytes::{Consumer, Layout, Producer};
use crate::ring::shared::SharedPage;
use crate::types::EvtchnPort;
use core::mem::offset_of;
use xen_hypercall::abi::io::xs_wire::{DomainInterface, RING_LEN};

/// Requests, from us.
pub(super) const REQUESTS: Layout = Layout {
    data: offset_of!(DomainInterface, req),
    size: RING_LEN as u32,
    cons: offset_of!(DomainInterface, req_cons),
    prod: offset_of!(DomainInterface, req_prod),
};
/// Replies and events, to us.
pub(super) const RESPONSES: Layout = Layout {
    data: offset_of!(DomainInterface, rsp),
    size: RING_LEN as u32,
    cons: offset_of!(DomainInterface, rsp_cons),
    prod: offset_of!(DomainInterface, rsp_prod),
};

/// The stub's transport.
#[derive(Debug)]
pub struct RingWire<P: Platform> {
    platform: P,
    page: SharedPage,
    port: EvtchnPort,
    requests: Producer,
    responses: Consumer,
}

impl<P: Platform> RingWire<P> {
    /// Takes up the connection of start_info's `store_mfn` and `store_evtchn`.
    pub fn attach(platform: P, page: SharedPage, port: EvtchnPort) -> Self {
        let requests = Producer::attach(REQUESTS, &page);
        let responses = Consumer::attach(RESPONSES, &page);
        Self { platform, page, port, requests, responses }
    }

    /// The port to wait on beside others; then poll with [`super::Client::next_event`].
    pub fn port(&self) -> EvtchnPort {
        self.port
    }
}

impl<P: Platform> Wire for RingWire<P> {
    fn send(&mut self, bytes: &[u8], deadline_ns: u64) -> Result<usize, WireError> {
        loop {
            self.platform.take_pending(self.port);
            let count = self.requests.push(&self.page, bytes).map_err(WireError::BadIndex)?;
            if count > 0 {
                self.platform.notify(self.port);
                return Ok(count);
            }
            if bytes.is_empty() || self.platform.now_ns() >= deadline_ns {
                return Ok(0);
            }
            self.platform.wait(&[self.port], deadline_ns);
        }
    }

    fn recv(&mut self, into: &mut [u8], deadline_ns: u64) -> Result<usize, WireError> {
        loop {
            self.platform.take_pending(self.port);
            let count = self.responses.pull(&self.page, into).map_err(WireError::BadIndex)?;
            if count > 0 {
                self.platform.notify(self.port);
                return Ok(count);
            }
            if into.is_empty() || self.platform.now_ns() >= deadline_ns {
                return Ok(0);
            }
            self.platform.wait(&[self.port], deadline_ns);
        }
    }

    fn now_ns(&self) -> u64 {
        self.platform.now_ns()
    }
}
