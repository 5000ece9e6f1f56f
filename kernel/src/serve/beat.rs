//! One writer to a store: the heartbeat block (docs/format/store-v1.md, section 5).
//!
//! A store whose heartbeat moves belongs to a stub that lives, and is left alone. While this one lives its own moves:
//! in the idle loop, and whenever the engine looks at its messages. The block says nothing about the content of the
//! store, but an error while it is written means that the device fails: the service then opens the store anew.

use core::fmt;

use snapshot::store::{Heartbeat, Probe, StoreError, StoreId, probe};
use xen_drivers::platform::Platform;
use xen_hypercall::version;

use crate::platform::Xen;
use crate::ports::Disk;
use crate::{debug, hv, info, time};

/// Between two beats.
const PERIOD_NS: u64 = 2_000_000_000;
/// How long another writer may be silent before it counts as dead.
const PATIENCE_NS: u64 = 4 * PERIOD_NS;
/// Between two looks at another writer's beat.
const LOOK_NS: u64 = PERIOD_NS / 4;

/// Why the store is not ours.
#[derive(Debug)]
pub enum ClaimError {
    /// There is no store, or the device failed.
    Store(StoreError),
    /// Another stub writes to it. The operator finds out which domain has the device.
    Taken,
}

impl fmt::Display for ClaimError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(out),
            Self::Taken => out.write_str("another stub writes to this store: its heartbeat moves"),
        }
    }
}

/// Our own heartbeat.
pub struct Beat {
    disk: Disk,
    store: StoreId,
    writer: [u8; 16],
    sequence: u64,
    next_ns: u64,
}

impl Beat {
    /// Makes sure that nobody else writes to the store on this disk, and begins to beat. None: there is no sound store
    /// whose identity could be read, which opening it will explain.
    pub fn claim(mut disk: Disk) -> Result<Option<Self>, ClaimError> {
        let Probe::LiveSave { id: store, .. } = probe(&mut disk).map_err(ClaimError::Store)? else { return Ok(None) };
        let writer = version::guest_handle(&hv::xen()).map_or([0; 16], |handle| handle.raw());
        let sequence = wait_for_silence(&mut disk, store, writer)?;
        let mut beat = Self { disk, store, writer, sequence, next_ns: 0 };
        beat.tick().map_err(ClaimError::Store)?;
        Ok(Some(beat))
    }

    /// The disk that it beats on.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// When the next beat is due.
    pub fn next_ns(&self) -> u64 {
        self.next_ns
    }

    /// Beats, if it is time. An error is one of the device, perhaps of an earlier write.
    pub fn tick(&mut self) -> Result<(), StoreError> {
        let now_ns = Xen.now_ns();
        if now_ns < self.next_ns {
            return Ok(());
        }
        self.next_ns = now_ns.saturating_add(PERIOD_NS);
        self.write(true)
    }

    /// The last beat: closed in order.
    pub fn close(mut self) {
        if let Err(error) = self.write(false) {
            debug!("the last heartbeat: {error}");
        }
    }

    fn write(&mut self, in_use: bool) -> Result<(), StoreError> {
        self.sequence = self.sequence.saturating_add(1);
        let beat = Heartbeat { writer: self.writer, sequence: self.sequence, unix: time::wall_clock().0, in_use };
        beat.write(&mut self.disk, self.store)
    }
}

/// Returns the last sequence once no other writer's beat has moved for long enough.
fn wait_for_silence(disk: &mut Disk, store: StoreId, writer: [u8; 16]) -> Result<u64, ClaimError> {
    let look = |disk: &mut Disk| Heartbeat::read(disk, store).map_err(ClaimError::Store);
    let Some(first) = look(disk)? else { return Ok(0) };
    if !first.in_use || first.writer == writer {
        return Ok(first.sequence);
    }
    info!("the store was not closed in order: listening for its last writer for {} s", PATIENCE_NS / 1_000_000_000);
    let deadline_ns = Xen.now_ns().saturating_add(PATIENCE_NS);
    while Xen.now_ns() < deadline_ns {
        Xen.wait(&[], Xen.now_ns().saturating_add(LOOK_NS));
        if look(disk)?.is_some_and(|beat| beat.sequence != first.sequence) {
            return Err(ClaimError::Taken);
        }
    }
    Ok(first.sequence)
}
