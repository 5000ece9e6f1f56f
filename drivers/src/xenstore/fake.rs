//! A xenstored for host tests: a tree with permissions, watches and transactions, spoken to in wire bytes.
//!
//! Stricter than the real one: any commit of another party aborts a transaction, a path that `check_path` refuses is a
//! failed test, and what a script orders goes wrong ([`Mischief`]). It answers only when bytes are given to it or when
//! the fake platform steps.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a fake fails the test that misuses it")]

mod tree;
mod wire;

use super::ring::{REQUESTS, RESPONSES};
use super::wire::{HEADER_LEN, Header, Perm, Rights, check_path, texts};
use crate::platform::fake::FakePlatform;
use crate::ring::bytes::{Consumer, Producer};
use crate::ring::shared::SharedPage;
use crate::types::{DomId, EvtchnPort};
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use tree::{Node, Tree, change_node, read_node, remove_node, rights, write_node};
pub use wire::FakeWire;
use xen_hypercall::abi::io::xs_wire as abi;

/// What goes wrong with the next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// No reply at all.
    Silence,
    /// The reply is kept until [`FakeStore::release_late`].
    Late,
    /// The reply carries this id.
    WrongId(u32),
    /// The reply is of this kind.
    WrongKind(u32),
    /// The reply's header claims this length.
    WrongLen(u32),
    /// These bytes come in place of the payload.
    Payload(Vec<u8>),
    /// An error of this name.
    Error(&'static str),
    /// The reply comes twice.
    Twice,
}

#[derive(Debug)]
struct OpenTransaction {
    tree: Tree,
    base: u64,
    touched: Vec<String>,
}

struct Connection {
    domid: DomId,
    input: Vec<u8>,
    output: VecDeque<u8>,
    watches: Vec<(String, String)>,
}

struct Daemon {
    tree: Tree,
    generation: u64,
    transactions: BTreeMap<u32, OpenTransaction>,
    next_transaction: u32,
    connections: Vec<Connection>,
    mischief: VecDeque<(u32, usize, Mischief)>,
    late: Vec<u8>,
    resumed: Vec<u16>,
    conflicts: u32,
}

/// A handle of the fake; clones share it.
#[derive(Clone)]
pub struct FakeStore(Rc<RefCell<Daemon>>);

impl Default for FakeStore {
    fn default() -> Self {
        let root = Node { value: Vec::new(), perms: [Perm::new(Rights::Read, DomId::new(0))].into() };
        Self(Rc::new(RefCell::new(Daemon {
            tree: [("/".to_owned(), root)].into(),
            generation: 0,
            transactions: BTreeMap::new(),
            next_transaction: 1,
            connections: Vec::new(),
            mischief: VecDeque::new(),
            late: Vec::new(),
            resumed: Vec::new(),
            conflicts: 0,
        })))
    }
}

impl FakeStore {
    /// dom0 writes; parents appear. New nodes inherit their parent's permissions.
    pub fn set(&self, path: &str, value: &str) {
        let mut daemon = self.0.borrow_mut();
        write_node(&mut daemon.tree, DomId::new(0), path, value.as_bytes()).expect("dom0 may write");
        daemon.changed(path);
    }

    /// dom0 sets permissions.
    pub fn chmod(&self, path: &str, perms: &[Perm]) {
        self.0.borrow_mut().tree.get_mut(path).expect("no such node").perms = perms.into();
    }

    /// dom0 removes a node and all below.
    pub fn remove(&self, path: &str) {
        let mut daemon = self.0.borrow_mut();
        remove_node(&mut daemon.tree, path);
        daemon.changed(path);
    }

    /// The value as text.
    pub fn get(&self, path: &str) -> Option<String> {
        let daemon = self.0.borrow();
        daemon.tree.get(path).map(|node| String::from_utf8_lossy(&node.value).into_owned())
    }

    /// The next request of kind `XS_*` goes wrong so.
    pub fn misbehave(&self, kind: u32, how: Mischief) {
        self.misbehave_later(kind, 0, how);
    }

    /// A request of kind `XS_*` goes wrong so, after `skip` others of that kind.
    pub fn misbehave_later(&self, kind: u32, skip: usize, how: Mischief) {
        self.0.borrow_mut().mischief.push_back((kind, skip, how));
    }

    /// The next so many commits fail with EAGAIN.
    pub fn conflict(&self, times: u32) {
        self.0.borrow_mut().conflicts = times;
    }

    /// Sends the replies kept by [`Mischief::Late`] to connection 0.
    pub fn release_late(&self) {
        let mut daemon = self.0.borrow_mut();
        let late = core::mem::take(&mut daemon.late);
        daemon.connections[0].output.extend(late);
    }

    /// Raw bytes to connection 0.
    pub fn send_raw(&self, bytes: &[u8]) {
        self.0.borrow_mut().connections[0].output.extend(bytes);
    }

    /// A watch event for connection 0, as raw as it comes.
    pub fn send_event(&self, path: &str, token: &str) {
        let event = message(abi::XS_WATCH_EVENT, 0, 0, format!("{path}\0{token}\0").as_bytes());
        self.send_raw(&event);
    }

    /// Domains for which RESUME came.
    pub fn resumed(&self) -> Vec<u16> {
        self.0.borrow().resumed.clone()
    }

    /// Watches and transactions that connections hold.
    pub fn held(&self) -> (usize, usize) {
        let daemon = self.0.borrow();
        (daemon.connections.iter().map(|connection| connection.watches.len()).sum(), daemon.transactions.len())
    }

    /// A connection of `domid` without a ring; replies come in pieces of at most `piece` bytes.
    pub fn connect(&self, platform: &FakePlatform, domid: DomId, piece: usize) -> FakeWire {
        let id = self.new_connection(domid);
        FakeWire { store: self.clone(), platform: platform.clone(), id, piece, quirk: false }
    }

    /// Serves a ring page as a peer of the platform: a step moves what fits, and no more than `piece` bytes each way.
    pub fn serve_ring(&self, platform: &FakePlatform, page: SharedPage, port: EvtchnPort, domid: DomId, piece: usize) {
        let id = self.new_connection(domid);
        let (store, handle) = (self.clone(), platform.clone());
        let (mut requests, mut responses) = (Consumer::attach(REQUESTS, &page), Producer::attach(RESPONSES, &page));
        platform.add_peer(Box::new(move || {
            let mut bytes = [0; abi::RING_LEN];
            let count = requests.pull(&page, &mut bytes[..piece.min(abi::RING_LEN)]).expect("the stub's index");
            store.input(id, &bytes[..count]);
            let ready: Vec<u8> = store.0.borrow().connections[id].output.iter().copied().take(piece).collect();
            let moved = responses.push(&page, &ready).expect("the stub's index");
            store.0.borrow_mut().connections[id].output.drain(..moved);
            if count + moved > 0 {
                handle.raise(port);
            }
            count + moved > 0
        }));
    }

    fn new_connection(&self, domid: DomId) -> usize {
        let mut daemon = self.0.borrow_mut();
        let (input, output, watches) = Default::default();
        daemon.connections.push(Connection { domid, input, output, watches });
        daemon.connections.len() - 1
    }

    fn input(&self, id: usize, bytes: &[u8]) {
        let mut daemon = self.0.borrow_mut();
        daemon.connections[id].input.extend_from_slice(bytes);
        while let Some((header, payload)) = daemon.next_request(id) {
            daemon.serve(id, header, &payload);
        }
    }
}

/// A whole message.
fn message(kind: u32, req_id: u32, tx_id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Header { kind, req_id, tx_id, len: payload.len() as u32 }.emit().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

impl Daemon {
    fn next_request(&mut self, id: usize) -> Option<(Header, Vec<u8>)> {
        let input = &mut self.connections[id].input;
        let header = Header::parse(input.first_chunk()?).expect("the client sent a bad header");
        let end = HEADER_LEN + header.len as usize;
        if input.len() < end {
            return None;
        }
        let payload = input[HEADER_LEN..end].to_vec();
        input.drain(..end);
        Some((header, payload))
    }

    fn next_mischief(&mut self, kind: u32) -> Option<Mischief> {
        let at = self.mischief.iter().position(|(planned, ..)| *planned == kind)?;
        if self.mischief[at].1 > 0 {
            self.mischief[at].1 -= 1;
            return None;
        }
        self.mischief.remove(at).map(|(.., how)| how)
    }

    fn serve(&mut self, id: usize, header: Header, payload: &[u8]) {
        assert_ne!(header.req_id, 0, "request id 0 belongs to watch events");
        let mischief = self.next_mischief(header.kind);
        let answer = match &mischief {
            Some(Mischief::Error(name)) => Err(*name),
            _ => self.answer(id, &header, payload),
        };
        let (mut kind, mut body) = match answer {
            Ok(body) => (header.kind, body),
            Err(name) => (abi::XS_ERROR, format!("{name}\0").into_bytes()),
        };
        let (mut req_id, mut times) = (header.req_id, 1);
        match &mischief {
            Some(Mischief::Silence) => times = 0,
            Some(Mischief::Twice) => times = 2,
            Some(Mischief::WrongId(wrong)) => req_id = *wrong,
            Some(Mischief::WrongKind(wrong)) => kind = *wrong,
            Some(Mischief::Payload(bytes)) => body.clone_from(bytes),
            Some(Mischief::Error(_) | Mischief::Late | Mischief::WrongLen(_)) | None => {}
        }
        let mut reply = message(kind, req_id, header.tx_id, &body);
        if let Some(Mischief::WrongLen(len)) = mischief {
            reply[12..16].copy_from_slice(&len.to_le_bytes());
        }
        if mischief == Some(Mischief::Late) {
            self.late.extend(reply);
            return;
        }
        (0..times).for_each(|_| self.connections[id].output.extend(&reply));
    }

    fn absolute(&self, id: usize, path: &str) -> String {
        check_path(path).expect("the client sent a bad path");
        let home = format!("/local/domain/{}", self.connections[id].domid.raw());
        if path.starts_with(['/', '@']) { path.to_owned() } else { format!("{home}/{path}") }
    }

    fn answer(&mut self, id: usize, header: &Header, payload: &[u8]) -> Result<Vec<u8>, &'static str> {
        let ok = b"OK\0".to_vec();
        match header.kind {
            abi::XS_TRANSACTION_START => Ok(self.start_transaction()),
            abi::XS_TRANSACTION_END => self.end_transaction(header.tx_id, payload == b"T\0").map(|()| ok),
            abi::XS_WATCH | abi::XS_UNWATCH => self.change_watch(id, header.kind, payload).map(|()| ok),
            abi::XS_GET_DOMAIN_PATH => Ok(format!("/local/domain/{}\0", texts(payload).unwrap()[0]).into_bytes()),
            abi::XS_RESUME if self.connections[id].domid != DomId::new(0) => Err("EACCES"),
            abi::XS_RESUME => {
                self.resumed.push(texts(payload).unwrap()[0].parse().unwrap());
                Ok(ok)
            }
            _ => self.node_request(id, header, payload),
        }
    }

    fn node_request(&mut self, id: usize, header: &Header, payload: &[u8]) -> Result<Vec<u8>, &'static str> {
        let end = payload.iter().position(|byte| *byte == 0).expect("a path ends in NUL");
        let path = self.absolute(id, core::str::from_utf8(&payload[..end]).unwrap());
        let (domid, rest) = (self.connections[id].domid, &payload[end + 1..]);
        let tree = match header.tx_id {
            0 => &mut self.tree,
            tx => &mut self.transactions.get_mut(&tx).ok_or("ENOENT")?.tree,
        };
        let changes = matches!(header.kind, abi::XS_WRITE | abi::XS_MKDIR | abi::XS_RM | abi::XS_SET_PERMS);
        let reply = if changes {
            change_node(tree, domid, header.kind, &path, rest)?;
            b"OK\0".to_vec()
        } else {
            read_node(tree, domid, header.kind, &path, rest)?
        };
        match self.transactions.get_mut(&header.tx_id) {
            Some(open) if changes => open.touched.push(path),
            None if changes => self.changed(&path),
            _ => {}
        }
        Ok(reply)
    }

    fn start_transaction(&mut self) -> Vec<u8> {
        let (id, tree, base) = (self.next_transaction, self.tree.clone(), self.generation);
        self.next_transaction += 1;
        self.transactions.insert(id, OpenTransaction { tree, base, touched: Vec::new() });
        assert!(self.transactions.len() <= 10, "more transactions than the quota");
        format!("{id}\0").into_bytes()
    }

    fn end_transaction(&mut self, id: u32, commit: bool) -> Result<(), &'static str> {
        let open = self.transactions.remove(&id).ok_or("ENOENT")?;
        if !commit {
            return Ok(());
        }
        if self.conflicts > 0 || open.base != self.generation {
            self.conflicts = self.conflicts.saturating_sub(1);
            return Err("EAGAIN");
        }
        self.tree = open.tree;
        open.touched.iter().for_each(|path| self.changed(path));
        Ok(())
    }

    fn change_watch(&mut self, id: usize, kind: u32, payload: &[u8]) -> Result<(), &'static str> {
        let parts = texts(payload).expect("a watch request is text");
        let watch = (parts[0].to_owned(), parts[1].to_owned());
        let known = self.connections[id].watches.iter().position(|known| *known == watch);
        match (kind == abi::XS_WATCH, known) {
            (true, None) => {
                let event = message(abi::XS_WATCH_EVENT, 0, 0, format!("{}\0{}\0", watch.0, watch.1).as_bytes());
                self.connections[id].output.extend(event);
                self.connections[id].watches.push(watch);
                Ok(())
            }
            (true, Some(_)) => Err("EEXIST"),
            (false, Some(at)) => {
                self.connections[id].watches.remove(at);
                Ok(())
            }
            (false, None) => Err("ENOENT"),
        }
    }

    /// Fires the watches on the node and on its parents; a relative watch is told the relative path.
    fn changed(&mut self, path: &str) {
        self.generation += 1;
        for id in 0..self.connections.len() {
            let home = format!("/local/domain/{}/", self.connections[id].domid.raw());
            let readable = self
                .tree
                .get(path)
                .is_none_or(|node| matches!(rights(node, self.connections[id].domid), Rights::Read | Rights::Both));
            for (watched, token) in self.connections[id].watches.clone() {
                let full = self.absolute(id, &watched);
                let below = format!("{full}/");
                if readable && (path == full || path.starts_with(&below) || full.starts_with(&format!("{path}/"))) {
                    let told = if watched.starts_with('/') { path } else { path.strip_prefix(&home).unwrap_or(path) };
                    let event = message(abi::XS_WATCH_EVENT, 0, 0, format!("{told}\0{token}\0").as_bytes());
                    self.connections[id].output.extend(event);
                }
            }
        }
    }
}
