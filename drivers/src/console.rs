//! The output ring of the PV console (public/io/console.h, `struct xencons_interface`).
//!
//! A log must never stop the one who writes it: a write waits for xenconsoled at most until its deadline and drops the
//! rest, counted. A consumer index that cannot be is treated as a full ring: nothing is written on its word, and the
//! count tells. Page and port come from start_info and are neither freed nor closed. The input ring is not read.

use crate::platform::Platform;
use crate::ring::bytes::{Layout, Producer};
use crate::ring::shared::SharedPage;
use crate::types::EvtchnPort;
use core::mem::offset_of;
use xen_hypercall::abi::io::console::ConsoleRing;

/// The bytes from us.
const OUTPUT: Layout = Layout {
    data: offset_of!(ConsoleRing, output),
    size: 2048,
    cons: offset_of!(ConsoleRing, out_cons),
    prod: offset_of!(ConsoleRing, out_prod),
};

/// The console's writer.
#[derive(Debug)]
pub struct Console<P: Platform> {
    platform: P,
    page: SharedPage,
    port: EvtchnPort,
    output: Producer,
    dropped: u64,
}

impl<P: Platform> Console<P> {
    /// Takes up the console of start_info's `console.domU.mfn` and `.evtchn`.
    pub fn attach(platform: P, page: SharedPage, port: EvtchnPort) -> Self {
        let output = Producer::attach(OUTPUT, &page);
        Self { platform, page, port, output, dropped: 0 }
    }

    /// Writes, waiting for room at most until the deadline; returns how many bytes were dropped. A deadline that has
    /// passed waits not at all.
    pub fn write(&mut self, mut bytes: &[u8], deadline_ns: u64) -> usize {
        while !bytes.is_empty() {
            self.platform.take_pending(self.port);
            // A bad index: nobody reads here any more.
            let Ok(count) = self.output.push(&self.page, bytes) else { break };
            bytes = &bytes[count..];
            if count > 0 {
                self.platform.notify(self.port);
            } else if self.platform.now_ns() >= deadline_ns {
                break;
            } else {
                self.platform.wait(&[self.port], deadline_ns);
            }
        }
        self.dropped += bytes.len() as u64;
        bytes.len()
    }

    /// Bytes dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fake::{FakeHost, FakePlatform};
    use crate::ring::bytes::Consumer;
    use crate::types::DomId;
    use alloc::boxed::Box;
    use alloc::rc::Rc;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::cell::RefCell;

    struct Rig {
        host: FakeHost,
        page: SharedPage,
        port: EvtchnPort,
        console: Console<FakePlatform>,
    }

    fn rig() -> Rig {
        let host = FakeHost::default();
        let (page, port) = (host.alloc_page().unwrap(), host.alloc_unbound(DomId::new(0)).unwrap());
        let console = Console::attach(FakePlatform::clone(&host), page.alias(), port);
        Rig { host, page, port, console }
    }

    impl Rig {
        /// xenconsoled, reading `piece` bytes a step.
        fn read_along(&self, piece: usize) -> Rc<RefCell<Vec<u8>>> {
            let text = Rc::new(RefCell::new(Vec::new()));
            let (seen, page, port) = (Rc::clone(&text), self.page.alias(), self.port);
            let (handle, mut output) = (FakePlatform::clone(&self.host), Consumer::attach(OUTPUT, &page));
            self.host.add_peer(Box::new(move || {
                let mut bytes = vec![0; piece];
                let count = output.pull(&page, &mut bytes).unwrap();
                seen.borrow_mut().extend_from_slice(&bytes[..count]);
                if count > 0 {
                    handle.raise(port);
                }
                count > 0
            }));
            text
        }

        fn finish(self) {
            self.host.free_page(self.page);
            self.host.close_port(self.port);
        }
    }

    #[test]
    fn a_long_text_passes_while_someone_reads() {
        let mut t = rig();
        let text = t.read_along(100);
        let long: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        assert_eq!(t.console.write(&long, u64::MAX), 0);
        while t.host.step() {}
        assert!(*text.borrow() == long);
        t.finish();
    }

    #[test]
    fn without_a_reader_the_rest_is_dropped_at_the_deadline_and_counted() {
        let mut t = rig();
        assert_eq!(t.console.write(&[b'x'; 3000], 5_000), 952);
        assert_eq!(t.host.now_ns(), 5_000);
        assert_eq!(t.console.write(b"more", 0), 4);
        assert_eq!((t.console.dropped(), t.host.now_ns()), (956, 5_000));
        t.finish();
    }

    #[test]
    fn an_impossible_index_drops_at_once() {
        for theirs in [1, 2049, u32::MAX - 2048] {
            let mut t = rig();
            t.page.store_u32(OUTPUT.cons, theirs);
            assert_eq!(t.console.write(b"hello", u64::MAX), 5);
            assert_eq!((t.console.dropped(), t.host.now_ns()), (5, 0));
            t.finish();
        }
    }
}
