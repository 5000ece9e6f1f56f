//! The store's device: blkfront as `snapshot` wants it.
//!
//! A disk is a handle: the open store has one, the heartbeat another. Each call borrows the frontend for itself alone.

use alloc::rc::Rc;
use core::cell::RefCell;

use snapshot::ports::{BlockDevice, BlockIdx, IoError, PAGE_SIZE, Pace};
use xen_drivers::blkfront::{self, Blkfront, ConnectError, Geometry};
use xen_drivers::xenstore::{Client, Wire};

use crate::platform::Xen;

/// A connected disk.
#[derive(Clone)]
pub struct Disk {
    front: Rc<RefCell<Blkfront<Xen>>>,
}

impl Disk {
    /// Takes a connected frontend over.
    pub fn new(front: Blkfront<Xen>) -> Self {
        Self { front: Rc::new(RefCell::new(front)) }
    }

    /// What the device is.
    pub fn geometry(&self) -> Geometry {
        *self.front.borrow().geometry()
    }

    /// Whether a watch event with this token is about the backend of this disk.
    pub fn is_watched_by(&self, token: &str) -> bool {
        self.front.borrow().watch_token() == token
    }

    /// Looks at the backend's state: an error, now and for every later call, if it is closing or gone.
    pub fn look<W: Wire>(&self, store: &mut Client<W>) -> Result<(), ConnectError> {
        self.front.borrow_mut().look(store)
    }

    /// The frontend, to close it; None while another handle is left.
    pub fn into_front(self) -> Option<Blkfront<Xen>> {
        Rc::into_inner(self.front).map(RefCell::into_inner)
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
        self.geometry().blocks()
    }

    fn read_only(&self) -> bool {
        self.geometry().read_only
    }

    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        self.front.borrow_mut().write(at.0, data).map_err(|error| translate(error, at))
    }

    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        self.front.borrow_mut().read(at.0, into).map_err(|error| translate(error, at))
    }

    fn settle(&mut self) -> Result<(), IoError> {
        self.front.borrow_mut().rest().map_err(|error| translate(error, BlockIdx(0)))
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.front.borrow_mut().flush().map_err(|error| translate(error, BlockIdx(0)))
    }

    fn pace(&mut self) -> Pace {
        let mut front = self.front.borrow_mut();
        let stats = front.look_again();
        let bytes = |blocks: usize| (blocks * PAGE_SIZE) as u64;
        // How large they are allowed to be says little: whoever waits for the device waits for requests as they are.
        let step = stats.done_bytes.checked_div(stats.done_writes);
        Pace {
            done_bytes: stats.done_bytes,
            paced_ns: stats.paced_ns,
            paced_bytes: stats.paced_bytes,
            depth_bytes: bytes(front.pool_blocks()),
            step_bytes: step.unwrap_or_else(|| bytes(front.blocks_per_request())),
            requests: stats.requests,
            notifications: stats.notifications,
            ..Pace::default()
        }
    }
}
