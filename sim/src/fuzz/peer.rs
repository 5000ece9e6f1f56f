//! What a peer says on a ring: xenstored's bytes to a client, and a block backend's responses. The peer may end a
//! connection; it must not make anything panic, wait for ever, or take wrong data for right.

use xen_drivers::blkfront::fake_backend::{Config, FRONT, FakeDisk, Mischief, Order, VDEV};
use xen_drivers::blkfront::{BLOCK_LEN, Blkfront, Options, connect};
use xen_drivers::platform::Platform;
use xen_drivers::platform::fake::{FakeHost, FakePlatform};
use xen_drivers::xenstore::fake::FakeStore;
use xen_drivers::xenstore::wire::Header;
use xen_drivers::xenstore::{Client, Nodes, Wire, WireError};
use xen_hypercall::abi::io::xs_wire as abi;

use super::driver::{Answer, Target};

pub const XENSTORE: Target = Target { name: "xenstore", seeds: messages, words: WORDS, run: xenstore, cost: 2 };
pub const BLKIF: Target = Target { name: "blkif", seeds: misdeeds, words: "", run: blkif, cost: 50 };

/// Error names, and what a generation and permissions look like.
const WORDS: &str = include_str!("../../corpus/xenstore.txt");
const SECOND_NS: u64 = 1_000_000_000;
/// Data pages of the device: few, so that requests wait for each other.
const POOL_PAGES: u16 = 24;
/// Blocks that are written and read back, in requests of several.
const BLOCKS: usize = 40;

/// A daemon that says what it was given, a few bytes at a time, and never more.
struct Script<'a> {
    bytes: &'a [u8],
    now_ns: u64,
}

impl Wire for Script<'_> {
    fn send(&mut self, bytes: &[u8], _deadline_ns: u64) -> Result<usize, WireError> {
        Ok(bytes.len())
    }

    fn recv(&mut self, into: &mut [u8], deadline_ns: u64) -> Result<usize, WireError> {
        let count = into.len().min(self.bytes.len()).min(1 + self.bytes.len() % 7);
        let (now, later) = self.bytes.split_at(count);
        into[..count].copy_from_slice(now);
        self.bytes = later;
        if count == 0 {
            self.now_ns = self.now_ns.max(deadline_ns);
        }
        Ok(count)
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }
}

/// Replies to the requests that [`xenstore`] makes, with events between them.
fn messages() -> Vec<Vec<u8>> {
    let message = |kind: u32, req_id: u32, payload: &[u8]| {
        let len = u32::try_from(payload.len()).unwrap_or(0);
        [&Header { kind, req_id, tx_id: 0, len }.emit()[..], payload].concat()
    };
    let event = message(abi::XS_WATCH_EVENT, 0, b"data/livesave\0token\0");
    let good = [
        message(abi::XS_READ, 1, b"value"),
        event.clone(),
        message(abi::XS_DIRECTORY, 2, b"a\0b\0"),
        message(abi::XS_WATCH, 3, b"OK\0"),
        event,
        message(abi::XS_TRANSACTION_START, 4, b"7\0"),
        message(abi::XS_READ, 5, b"1"),
        message(abi::XS_WRITE, 6, b"OK\0"),
        message(abi::XS_TRANSACTION_END, 7, b"OK\0"),
    ]
    .concat();
    let parts = [
        message(abi::XS_READ, 1, b"value"),
        message(abi::XS_ERROR, 2, b"E2BIG\0"),
        message(abi::XS_DIRECTORY_PART, 3, b"12\0a\0b\0"),
        message(abi::XS_DIRECTORY_PART, 4, b"12\0c\0\0"),
    ]
    .concat();
    vec![good, parts, message(abi::XS_ERROR, 1, b"ENOENT\0"), Vec::new()]
}

fn xenstore(input: &[u8]) -> Answer {
    let mut client = Client::new(Script { bytes: input, now_ns: 1 });
    let value = client.find_text("name").map(|value| value.is_some());
    let names = client.directory("device").map(|names| names.len());
    let watch = client.watch("data/livesave", "token");
    let deadline_ns = client.now_ns() + SECOND_NS;
    let event = client.next_event(deadline_ns).map(|event| event.is_some());
    let inside = client.transaction(|within| {
        let value = within.find_text("shutdown")?;
        within.write("shutdown", "")?;
        Ok(value.is_some())
    });
    Ok(format!("{value:?} {names:?} {watch:?} {event:?} {inside:?}"))
}

/// One misdeed each, at several moments; two together.
fn misdeeds() -> Vec<Vec<u8>> {
    let one = |after: u8, kind: u8, value: u8| vec![after, kind, value, 0, 0, 0, 0, value];
    let mut all: Vec<Vec<u8>> = (0..10).flat_map(|kind| [0, 3, 9].map(|after| one(after, kind, 1 + kind))).collect();
    all.extend((0..10).map(|kind| [one(0, kind, 255), one(2, 9 - kind, 3)].concat()));
    all.push(Vec::new());
    all
}

fn misdeed([kind, rest @ ..]: [u8; 7]) -> Mischief {
    let word = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
    match kind % 10 {
        0 => Mischief::Id(u64::from(word) << (rest[5] % 33)),
        1 => Mischief::Twice,
        2 => Mischief::Operation(rest[0]),
        3 => Mischief::Status(i16::from_le_bytes([rest[0], rest[5]])),
        4 => Mischief::Silence,
        5 => Mischief::Jump(word),
        6 => Mischief::Close,
        7 => Mischief::Vanish,
        8 => Mischief::Storm,
        _ => Mischief::Scribble(u64::from(word)),
    }
}

/// Whether the fake carries out what it says that it did. A backend that does not cannot be found out here.
fn carries_out(how: Mischief) -> bool {
    use Mischief::{Close, Jump, Silence, Storm, Vanish};
    matches!(how, Silence | Jump(_) | Close | Vanish | Storm)
}

/// Writes, flushes and reads while the backend misbehaves. What the driver says was read must be what it wrote, unless
/// the backend claims to have done what it did not.
fn blkif(input: &[u8]) -> Answer {
    let (host, store) = (FakeHost::default(), FakeStore::default());
    let disk = FakeDisk::attach(&host, &store, Config::default());
    // A backend that only makes noise is waited for until a deadline.
    host.set_step_ns(SECOND_NS / 20);
    let mut client = Client::new(store.connect(&host, FRONT, 4096));
    let options = Options { pool_pages: POOL_PAGES, ..Options::default() };
    let deadline_ns = host.now_ns() + 10 * SECOND_NS;
    let mut device = connect(FakePlatform::clone(&host), &mut client, VDEV, &options, deadline_ns)
        .map_err(|error| format!("an honest handshake: {error:?}"))?;
    let mut true_to_its_word = true;
    for [after, what @ ..] in input.as_chunks::<8>().0.iter().take(8) {
        let how = misdeed(*what);
        true_to_its_word &= carries_out(how);
        disk.misbehave(usize::from(after % 16), how);
    }
    disk.set_order(Order::Random(input.len() as u64 + 1));
    let seen = used(&mut device, true_to_its_word);
    // A peer that keeps pages mapped keeps grants: that is reported, and not a leak of ours.
    let deadline_ns = host.now_ns() + 10 * SECOND_NS;
    let closed = device.close(&mut client, deadline_ns);
    host.forgive_leaks();
    Ok(format!("{} {:?} {:?} {}", seen?, closed.drained, closed.handshake, closed.grants_held))
}

fn used(device: &mut Blkfront<FakePlatform>, true_to_its_word: bool) -> Answer {
    let data: Vec<u8> = (0..BLOCKS * BLOCK_LEN).map(|at| (at / 64) as u8 ^ (at >> 12) as u8).collect();
    let half = data.len() / 2;
    let written = [device.write(0, &data[..half]), device.write((BLOCKS / 2) as u64, &data[half..])];
    let flushed = device.flush();
    let mut back = vec![0; data.len()];
    let read = device.read(0, &mut back);
    let whole = written.iter().all(Result::is_ok) && flushed.is_ok() && read.is_ok();
    if whole && true_to_its_word && back != data {
        return Err("all went well, and other data came back".to_owned());
    }
    Ok(format!("{written:?} {flushed:?} {read:?}"))
}
