//! The store's device: blkfront as `snapshot` wants it.

use snapshot::ports::{BlockDevice, BlockIdx, IoError};
use xen_drivers::blkfront::{self, Blkfront};

use crate::platform::Xen;

/// A connected disk.
pub struct Disk {
    front: Blkfront<Xen>,
}

impl Disk {
    /// Takes a connected frontend over.
    pub fn new(front: Blkfront<Xen>) -> Self {
        Self { front }
    }

    /// The frontend: its port, its counters, its fault.
    pub fn front(&mut self) -> &mut Blkfront<Xen> {
        &mut self.front
    }

    /// The frontend, to close it.
    pub fn into_front(self) -> Blkfront<Xen> {
        self.front
    }
}

fn translate(error: blkfront::IoError, at: BlockIdx) -> IoError {
    match error {
        blkfront::IoError::OutOfRange | blkfront::IoError::Misaligned => IoError::OutOfRange { at },
        blkfront::IoError::ReadOnly => IoError::ReadOnly,
        blkfront::IoError::Device { at, .. } => IoError::Failed { at: BlockIdx(at) },
        blkfront::IoError::Unsupported(_) => IoError::Failed { at },
        blkfront::IoError::Timeout => IoError::TimedOut,
        blkfront::IoError::Closed | blkfront::IoError::Broken(_) => IoError::Disconnected,
    }
}

impl BlockDevice for Disk {
    fn blocks(&self) -> u64 {
        self.front.geometry().blocks()
    }

    fn read_only(&self) -> bool {
        self.front.geometry().read_only
    }

    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        self.front.write(at.0, data).map_err(|error| translate(error, at))
    }

    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        self.front.read(at.0, into).map_err(|error| translate(error, at))
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.front.flush().map_err(|error| translate(error, BlockIdx(0)))
    }
}
