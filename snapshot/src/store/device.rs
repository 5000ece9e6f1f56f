//! The writer's device: remembers the first failure that leaves what is on the disk unknown.
//!
//! Invariant: after a failed write or flush, or a failed read while writes are not flushed (a device may report an
//! earlier write's error there), nothing reaches the device any more.

use crate::ports::{BlockDevice, BlockIdx, IoError, Pace};
use crate::store::sabotage::{Safeguard, out};

/// A device that stops after the first failure.
pub struct Guarded<D> {
    device: D,
    failed: Option<IoError>,
    unflushed: bool,
    bytes_written: u64,
}

impl<D: BlockDevice> Guarded<D> {
    /// Without a failure so far.
    pub fn new(device: D) -> Self {
        Self { device, failed: None, unflushed: false, bytes_written: 0 }
    }

    /// Has it failed?
    pub fn poisoned(&self) -> bool {
        self.failed.is_some() && !out(Safeguard::Poison)
    }

    /// Bytes accepted since the start.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// The device itself, for what is not storage (servicing its ring).
    pub fn inner(&mut self) -> &mut D {
        &mut self.device
    }

    /// Gives the device back.
    pub fn into_inner(self) -> D {
        self.device
    }

    fn check(&self) -> Result<(), IoError> {
        self.failed.filter(|_| !out(Safeguard::Poison)).map_or(Ok(()), Err)
    }

    fn poison(&mut self, error: IoError) -> IoError {
        self.failed.get_or_insert(error);
        error
    }
}

impl<D: BlockDevice> BlockDevice for Guarded<D> {
    fn blocks(&self) -> u64 {
        self.device.blocks()
    }

    fn read_only(&self) -> bool {
        self.device.read_only()
    }

    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        self.check()?;
        self.unflushed = true;
        self.device.write(at, data).map_err(|error| self.poison(error))?;
        self.bytes_written = self.bytes_written.saturating_add(data.len() as u64);
        Ok(())
    }

    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        self.check()?;
        self.device.read(at, into).map_err(|error| if self.unflushed { self.poison(error) } else { error })
    }

    fn settle(&mut self) -> Result<(), IoError> {
        self.check()?;
        self.device.settle().map_err(|error| self.poison(error))
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.check()?;
        self.device.flush().map_err(|error| self.poison(error))?;
        self.unflushed = false;
        Ok(())
    }

    fn pace(&mut self) -> Pace {
        self.device.pace()
    }
}
