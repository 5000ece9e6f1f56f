//! One writer to a store: the heartbeat block (docs/format/store-v1.md, section 5).
//!
//! A store whose heartbeat moves belongs to a stub that lives, and is left alone. While this one lives its own moves:
//! in the idle loop, and whenever the engine looks at its messages. The block says nothing about the content of the
//! store, but an error while it is written means that the device fails: the service then opens the store anew. Likewise
//! if another writer's beat is found there in the idle loop, where a read makes nobody wait: both of us were late.

use core::fmt;

use snapshot::store::{
    BEAT_PERIOD_NS, Claim, Heartbeat, Listener, Probe, SILENCE_NS, StoreError, StoreId, is_anothers, probe,
};
use xen_drivers::platform::Platform;
use xen_hypercall::version;

use crate::platform::Xen;
use crate::ports::Disk;
use crate::{debug, hv, info, time};

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
    /// Another writer's beat was found in the place of ours.
    lost: bool,
}

impl Beat {
    /// Makes sure that nobody else writes to the store on this disk, and begins to beat. None: there is no sound store
    /// whose identity could be read, which opening it will explain.
    pub fn claim(mut disk: Disk) -> Result<Option<Self>, ClaimError> {
        let Probe::LiveSave { id: store, .. } = probe(&mut disk).map_err(ClaimError::Store)? else { return Ok(None) };
        let writer = version::guest_handle(&hv::xen()).map_or([0; 16], |handle| handle.raw());
        let mut beat = Self { disk, store, writer, sequence: 0, next_ns: 0, lost: false };
        beat.make_ours()?;
        Ok(Some(beat))
    }

    /// As `snapshot/src/store/claim.rs` decides.
    fn make_ours(&mut self) -> Result<(), ClaimError> {
        let (mut listener, mut told) = (Listener::new(self.writer), false);
        loop {
            match listener.look(&mut self.disk, self.store, Xen.now_ns()).map_err(ClaimError::Store)? {
                Claim::Ours => return Ok(()),
                Claim::Taken => return Err(ClaimError::Taken),
                Claim::Free { sequence } => {
                    self.sequence = sequence;
                    self.beat_now().map_err(ClaimError::Store)?;
                    listener.wrote(Xen.now_ns());
                }
                Claim::Stand { next_ns } => _ = Xen.wait(&[], next_ns),
                Claim::Listen { next_ns } => {
                    if !told {
                        let seconds = SILENCE_NS / 1_000_000_000;
                        info!("the store was not closed in order: listening for its last writer for {seconds} s");
                        told = true;
                    }
                    _ = Xen.wait(&[], next_ns);
                }
            }
        }
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
        if Xen.now_ns() < self.next_ns { Ok(()) } else { self.beat_now() }
    }

    /// As `tick`, after a look whether the last beat is ours. Not while a guest waits for us: it is a read.
    pub fn tick_and_look(&mut self) -> Result<(), ClaimError> {
        if Xen.now_ns() >= self.next_ns {
            let found = Heartbeat::read(&mut self.disk, self.store).map_err(ClaimError::Store)?;
            self.lost |= is_anothers(found, self.writer);
        }
        if self.lost { Err(ClaimError::Taken) } else { self.tick().map_err(ClaimError::Store) }
    }

    fn beat_now(&mut self) -> Result<(), StoreError> {
        self.next_ns = Xen.now_ns().saturating_add(BEAT_PERIOD_NS);
        self.write(true)
    }

    /// The last beat: closed in order. Where another one beats it is not ours to say.
    pub fn close(mut self) {
        if self.lost {
            return;
        }
        if let Err(error) = self.write(false) {
            debug!("the last heartbeat: {error}");
        }
    }

    fn write(&mut self, in_use: bool) -> Result<(), StoreError> {
        self.sequence = Heartbeat::following(self.sequence);
        let beat = Heartbeat { writer: self.writer, sequence: self.sequence, unix: time::wall_clock().0, in_use };
        beat.write(&mut self.disk, self.store)
    }
}
