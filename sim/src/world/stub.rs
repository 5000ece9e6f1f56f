//! The stub's ports: the guest of the engine's own tests, the simulated disk, and the line to dom0. Of a stub that is
//! dead every call fails and touches nothing, so the engine winds down and nobody hears of it.

use snapshot::mailbox;
use snapshot::ports::*;
use snapshot::status::{State, Status};
use xen_hypercall::types::Gfn;

use super::host::{Host, Shared};
use super::plan::{MS, S};
use super::tree::Node;
use crate::disk;
use crate::take::fakes;

/// For one request to xenstored (`xen_drivers::xenstore::REQUEST_TIMEOUT_NS`).
const REQUEST_NS: u64 = 10 * S;
/// What the disk takes for a call.
const DISK_NS: u64 = MS / 20;

/// The guest, as the stub reaches it.
pub struct Target {
    pub host: Shared,
    pub inner: fakes::Target,
}

impl Target {
    fn call<A>(&mut self, call: impl FnOnce(&mut fakes::Target) -> Result<A, TargetError>) -> Result<A, TargetError> {
        self.host.borrow_mut().port().map_err(|_| TargetError::Gone)?;
        let answer = call(&mut self.inner);
        self.host.borrow_mut().others();
        answer
    }
}

impl DomainControl for Target {
    fn info(&mut self) -> Result<DomainInfo, TargetError> {
        self.call(|guest| guest.info())
    }

    fn hypercalls(&self) -> u64 {
        self.inner.hypercalls()
    }

    fn max_gfn(&mut self) -> Result<Gfn, TargetError> {
        self.host.borrow_mut().truth.look();
        self.call(|guest| guest.max_gfn())
    }

    fn static_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        self.call(|guest| guest.static_records(out))
    }

    fn platform_records(&mut self, out: &mut dyn FnMut(RecordKind, &[u8])) -> Result<(), TargetError> {
        self.call(|guest| guest.platform_records(out))
    }
}

impl DirtyLog for Target {
    fn enable(&mut self) -> Result<(), TargetError> {
        self.call(|guest| guest.enable())
    }

    fn clean(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.call(|guest| guest.clean(into))
    }

    fn peek(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.call(|guest| guest.peek(into))
    }

    fn peek_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.call(|guest| guest.peek_final(into))
    }

    fn clean_final(&mut self, into: &mut [u64]) -> Result<u64, TargetError> {
        self.call(|guest| guest.clean_final(into))
    }

    fn dirty_count(&mut self) -> Result<u64, TargetError> {
        self.call(|guest| guest.dirty_count())
    }

    fn still_on(&mut self) -> Result<bool, TargetError> {
        self.call(|guest| guest.still_on())
    }

    fn off(&mut self) -> Result<(), TargetError> {
        self.call(|guest| guest.off())
    }
}

impl GuestMemory for Target {
    fn types(&mut self, gfns: &[Gfn], out: &mut [PageType]) -> Result<(), TargetError> {
        self.call(|guest| guest.types(gfns, out))
    }

    fn copy(&mut self, gfns: &[Gfn], out: &mut PageSink<'_>) -> Result<(), TargetError> {
        self.call(|guest| guest.copy(gfns, out))
    }

    fn land(&mut self, gfns: &[Gfn], at: &mut dyn Landing) -> Result<(), TargetError> {
        self.call(|guest| guest.land(gfns, at))
    }
}

/// The store's disk, as the stub reaches it.
pub struct Disk {
    pub host: Shared,
    pub disk: disk::Disk,
}

impl Disk {
    fn call<A>(&mut self, call: impl FnOnce(&mut disk::Disk) -> Result<A, IoError>) -> Result<A, IoError> {
        let mut host = self.host.borrow_mut();
        host.port().map_err(|_| IoError::Disconnected)?;
        host.guest.borrow_mut().spend(DISK_NS);
        drop(host);
        call(&mut self.disk)
    }
}

impl BlockDevice for Disk {
    fn blocks(&self) -> u64 {
        self.disk.blocks()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        self.call(|disk| disk.write(at, data))
    }

    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        self.call(|disk| disk.read(at, into))
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.call(|disk| disk.flush())
    }
}

/// The line to dom0.
pub struct Line(pub Shared);

impl Line {
    /// A request to xenstored, which may keep it waiting.
    fn request(host: &mut Host) -> Result<(), ControlLost> {
        host.port().map_err(|_| ControlLost)?;
        let until_ns = host.now_ns() + REQUEST_NS;
        if !host.tree.answers(host.now_ns()) {
            host.pass(until_ns, |host| host.tree.answers(host.now_ns()) || !host.stub.alive || host.stub.lost);
        }
        host.stub.lost |= !host.tree.answers(host.now_ns());
        if host.stub.lost || !host.stub.alive { Err(ControlLost) } else { Ok(()) }
    }

    /// Reads what the watches that fired are about.
    fn heard(host: &mut Host) -> Result<(), ControlLost> {
        let now_ns = host.now_ns();
        while let Some(index) = host.stub.fired.iter().position(|(at, _)| *at <= now_ns) {
            let (_, node) = host.stub.fired.remove(index);
            Self::request(host)?;
            let text = host.tree.read(node).to_owned();
            let word = match node {
                Node::Verdict => mailbox::Node::Verdict,
                Node::Cancel => mailbox::Node::Cancel,
                Node::Acked => mailbox::Node::Acked,
                Node::Status | Node::Control => continue,
            };
            if let Some(mail) = host.stub.mail.as_mut().filter(|_| !text.is_empty()) {
                let _ = mail.hear(word, text.as_bytes());
            }
        }
        Ok(())
    }
}

impl Clock for Line {
    fn now_ns(&mut self) -> u64 {
        self.0.borrow().now_ns()
    }

    fn stolen_ns(&mut self) -> u64 {
        self.0.borrow().guest.borrow().stolen_ns
    }
}

impl Control for Line {
    fn publish(&mut self, status: &Status) -> Result<(), ControlLost> {
        let mut host = self.0.borrow_mut();
        Self::request(&mut host)?;
        if host.stub.state != status.state {
            host.tell(format_args!("status {} {:?} {}", status.state, status.fault, status.reason));
        }
        host.stub.state = status.state;
        host.truth.said_captured |= status.state == State::Captured;
        if status.state == State::Sealed && !host.truth.may_seal {
            host.wrong("sealed without the keeper's word");
        }
        host.write(Node::Status, &status.to_string());
        Ok(())
    }

    fn poll(&mut self) -> Result<Option<Message>, ControlLost> {
        let mut host = self.0.borrow_mut();
        if host.stub.mail.as_ref().is_some_and(mailbox::Mailbox::is_empty) {
            Self::heard(&mut host)?;
        }
        Ok(host.stub.mail.as_mut().and_then(mailbox::Mailbox::take))
    }

    fn wait(&mut self, until_ns: u64) -> Result<(), ControlLost> {
        let mut host = self.0.borrow_mut();
        host.port().map_err(|_| ControlLost)?;
        let waits = |host: &Host| host.stub.mail.as_ref().is_some_and(|mail| !mail.is_empty());
        host.pass(until_ns, |host| {
            let now_ns = host.now_ns();
            waits(host) || !host.stub.alive || host.stub.fired.iter().any(|(at, _)| *at <= now_ns)
        });
        Self::heard(&mut host)
    }

    fn release(&mut self) -> Result<(), ControlLost> {
        let mut host = self.0.borrow_mut();
        host.port().map_err(|_| ControlLost)?;
        host.stub.edges += 1;
        if host.stub.edges > 1 {
            host.wrong("released twice");
        }
        host.tell("release edge");
        let memory = host.guest.borrow().at_suspend.clone();
        host.truth.captured = memory.filter(|_| host.truth.stands.is_some());
        let at = host.now_ns() + host.latency_ns();
        if let Some(keeper) = &mut host.keeper {
            keeper.news.push((at, super::keeper::News::Edge));
        }
        Ok(())
    }
}
