//! A reader's lease on the store: what this process reads is not used again while it reads (docs/format/store-v1.md,
//! section 12).
//!
//! Readers of one store agree by locks who has which place. A thread renews the lease, so that a reader that waits for
//! a slow pipe keeps it. Without a lease reading goes on: the digests notice what changes, and the reader is told so.

use super::device::{Access, Device};
use super::files::{self, Lock};
use crate::exit::{Exit, Outcome};
use snapshot::store::{Generation, Lease, StoreId};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Between two renewals; the writer waits for half a minute.
const RENEWAL: Duration = Duration::from_secs(4);

/// A lease that is held until it is dropped.
#[derive(Debug)]
pub struct Held {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _lock: Lock,
}

impl Held {
    /// Takes a lease for a reader of this generation.
    pub fn take(path: &Path, store: StoreId, generation: Generation) -> Outcome<Self> {
        let (place, lock) = place(path)?;
        let mut device = Device::open(path, Access::Lease)?;
        let mut lease = Lease { reader: files::random()?, generation, sequence: 1, unix: now(), in_use: true };
        let failed = |error| Exit::CannotWrite.fail(format_args!("the lease: {error}"));
        lease.write(&mut device, store, place).map_err(failed)?;
        let (end, ended) = channel();
        let thread = thread::spawn(move || {
            renew(&ended, |in_use| {
                lease = Lease { sequence: lease.sequence + 1, unix: now(), in_use, ..lease };
                // The next renewal may succeed; a lease that ends early is noticed by the digests.
                let _ = lease.write(&mut device, store, place);
            });
        });
        Ok(Self { end: Some(end), thread: Some(thread), _lock: lock })
    }
}

/// A free place, and the lock on it. A device has one name here, whatever paths lead to it.
fn place(path: &Path) -> Outcome<(u32, Lock)> {
    let metadata = std::fs::metadata(path);
    let metadata = metadata.map_err(|error| Exit::NoStore.fail(format_args!("{}: {error}", path.display())))?;
    let name = match metadata.file_type().is_block_device() {
        true => format!("device-{}", metadata.rdev()),
        false => format!("file-{}-{}", metadata.dev(), metadata.ino()),
    };
    for place in 0..Lease::COUNT {
        if let Some(lock) = files::lock(&format!("lease-{name}-{place}"))? {
            return Ok((place, lock));
        }
    }
    Err(Exit::Busy.fail(format_args!("{} others read the store", Lease::COUNT)))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Renews until the other end is dropped, then gives back.
fn renew(ended: &Receiver<()>, mut write: impl FnMut(bool)) {
    while ended.recv_timeout(RENEWAL) == Err(RecvTimeoutError::Timeout) {
        write(true);
    }
    write(false);
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A thread that died has given nothing back; the writer's patience ends.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;
    use crate::catalog::tests::sample;
    use snapshot::store::Store;

    #[test]
    fn a_lease_holds_space_until_it_is_dropped() {
        let path = sample("lease");
        let id = catalog::open_at(&path).unwrap().info().id;
        let held = Held::take(&path, id, Generation(2)).unwrap();
        let others: Vec<Held> = (1..Lease::COUNT).map(|_| Held::take(&path, id, Generation(2)).unwrap()).collect();
        assert_eq!(Held::take(&path, id, Generation(2)).unwrap_err().exit, Exit::Busy);
        drop(others);
        let device = Device::open(&path, Access::Exclusive).unwrap();
        let mut store = Store::open(device).unwrap_or_else(|failed| panic!("{:?}", failed.error));
        store.set_now(1);
        store.remove("web01@one").unwrap();
        assert!(store.waiting_segments() > 0);
        drop(held);
        assert!(store.reclaim().unwrap() > 0);
        drop(store);
        let place = crate::args::Place { stub: String::new(), store: Some(path.clone()), json: true };
        assert!(catalog::open(&place).unwrap().list().unwrap().is_empty());
        std::fs::remove_file(path).unwrap();
    }
}
