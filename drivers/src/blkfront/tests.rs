//! The device against the fake backend: handshakes, honest data, and every kind of malice.

mod data;
mod handshake;
mod malice;

use super::fake_backend::{Config, FRONT, FakeDisk, VDEV};
use super::*;
use crate::platform::Platform;
use crate::platform::fake::{FakeHost, FakePlatform};
use crate::xenstore::Client;
use crate::xenstore::fake::{FakeStore, FakeWire};
use alloc::vec::Vec;

const SECOND_NS: u64 = 1_000_000_000;

/// A host with a store, a disk, and the stub's xenstore client.
struct Rig {
    host: FakeHost,
    store: FakeStore,
    disk: FakeDisk,
    xs: Client<FakeWire>,
}

impl Rig {
    fn new(config: Config) -> Self {
        let (host, store) = (FakeHost::default(), FakeStore::default());
        let disk = FakeDisk::attach(&host, &store, config);
        let xs = Client::new(store.connect(&host, FRONT, 4096));
        Self { host, store, disk, xs }
    }

    fn connect_with(&mut self, options: &Options) -> Result<Blkfront<FakePlatform>, ConnectError> {
        let deadline_ns = self.host.now_ns() + 10 * SECOND_NS;
        connect(FakePlatform::clone(&self.host), &mut self.xs, VDEV, options, deadline_ns)
    }

    /// Connected with few pages, so that a test reaches the bounds soon.
    fn connected(config: Config, pool_pages: u16) -> (Self, Blkfront<FakePlatform>) {
        let mut rig = Self::new(config);
        let blk = rig.connect_with(&Options { pool_pages, ..Options::default() }).unwrap();
        (rig, blk)
    }

    fn close(&mut self, blk: Blkfront<FakePlatform>) -> CloseReport {
        let deadline_ns = self.host.now_ns() + 10 * SECOND_NS;
        blk.close(&mut self.xs, deadline_ns)
    }

    /// Closes in order and checks that nothing is left.
    fn finish(mut self, blk: Blkfront<FakePlatform>) {
        let report = self.close(blk);
        assert_eq!(report, CloseReport { drained: Ok(()), handshake: Ok(()), grants_held: 0 });
        assert_eq!((self.host.held(), self.store.held(), self.disk.mapped()), ((0, 0, 0), (0, 0), 0));
    }
}

/// Blocks whose every byte tells where it belongs.
fn pattern(at: u64, blocks: usize, salt: u64) -> Vec<u8> {
    let mut bytes = alloc::vec![salt as u8; blocks * BLOCK_LEN];
    for (index, block) in bytes.chunks_exact_mut(BLOCK_LEN).enumerate() {
        let name = ((at + index as u64) ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
        // Both ends and the middle: a block that is torn or shifted shows.
        for offset in [0, 2040, 4088] {
            block[offset..offset + 8].copy_from_slice(&name);
        }
    }
    bytes
}
