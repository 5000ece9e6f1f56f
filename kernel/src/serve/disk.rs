//! Which block device holds the store, and the connection to it.

use alloc::format;
use alloc::string::String;
use core::fmt;

use xen_drivers::blkfront::{self, ConnectError};
use xen_drivers::platform::Platform;
use xen_drivers::xenstore::Nodes;

use super::line::Store;
use crate::boot::StoreDisk;
use crate::platform::Xen;
use crate::ports::Disk;
use crate::{error, info};

/// How long a backend may take to get ready; xl has attached the device before the domain starts.
const CONNECT_NS: u64 = 30_000_000_000;
/// Block devices that fit the short numbers (xen/docs/man/xen-vbd-interface.7: 202 << 8 | disk << 4 | partition).
const SHORT_DISKS: u32 = 16;

/// Why there is no disk. The operator looks at the domain's configuration.
#[derive(Debug)]
pub enum DiskError {
    /// The domain has no block device.
    None,
    /// The one that `store=` names does not exist.
    NotThere,
    /// It cannot be used.
    Connect(u32, ConnectError),
}

impl fmt::Display for DiskError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => out.write_str("no block device: give the stub a disk= in its xl configuration"),
            Self::NotThere => out.write_str("the block device that store= names does not exist"),
            Self::Connect(vdev, error) => write!(out, "block device {vdev}: {error}"),
        }
    }
}

/// Where the backend of the store's disk stands in xenstore; None while no such disk is attached.
pub fn backend(store: &mut Store, wanted: &StoreDisk) -> Option<String> {
    let vdev = find(store, wanted).ok()?;
    store.find_text(&format!("device/vbd/{vdev}/backend")).ok()?
}

fn find(store: &mut Store, wanted: &StoreDisk) -> Result<u32, DiskError> {
    let devices = blkfront::list(store).map_err(|error| DiskError::Connect(0, error))?;
    match wanted {
        StoreDisk::First => devices.first().copied().ok_or(DiskError::None),
        StoreDisk::Named(name) => {
            let number = number_of(name).ok_or(DiskError::NotThere)?;
            devices.into_iter().find(|vdev| *vdev == number).ok_or(DiskError::NotThere)
        }
    }
}

/// Finds and connects the store's disk.
pub fn open(store: &mut Store, wanted: &StoreDisk) -> Result<(u32, Disk), DiskError> {
    let vdev = find(store, wanted)?;
    let deadline = Xen.now_ns().saturating_add(CONNECT_NS);
    let front = blkfront::connect(Xen, store, vdev, &blkfront::Options::default(), deadline)
        .map_err(|error| DiskError::Connect(vdev, error))?;
    Ok((vdev, Disk::new(front)))
}

/// Closes a disk whose store is not open, so that dom0 can work on it, or detach it. Whether the backend has let go of
/// everything: then, and only then, nothing of this connection can reach the disk any more.
pub fn close(disk: Disk, vdev: u32, store: &mut Store) -> bool {
    let deadline = Xen.now_ns().saturating_add(CONNECT_NS);
    let Some(front) = disk.into_front() else {
        error!("disk {vdev} is still in use");
        return false;
    };
    let report = front.close(store, deadline);
    info!("disk {vdev} closed: {report:?}");
    report.handshake.is_ok() && report.grants_held == 0
}

/// The device's number: the number itself, or `xvd` with letters and perhaps a partition.
fn number_of(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let rest = name.strip_prefix("xvd")?;
    let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
    let (disk, partition) = rest.split_at(letters);
    // Letters count as in a spreadsheet: a..z, aa..zz.
    let disk =
        disk.bytes().try_fold(0u32, |sum, letter| sum.checked_mul(26)?.checked_add(u32::from(letter - b'a') + 1))?;
    let disk = disk.checked_sub(1)?;
    let partition: u32 = if partition.is_empty() { 0 } else { partition.parse().ok()? };
    match (disk, partition) {
        (0..SHORT_DISKS, 0..=15) => Some(202 << 8 | disk << 4 | partition),
        (0..=0xf_ffff, 0..=255) => Some(1 << 28 | disk << 8 | partition),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_of_devices() {
        for (name, number) in [
            ("xvda", 51712),
            ("xvdb", 51728),
            ("xvda1", 51713),
            ("xvdp15", 51967),
            ("xvdq", 1 << 28 | 16 << 8),
            ("xvda16", 1 << 28 | 16),
            ("xvdaa", 1 << 28 | 26 << 8),
            ("51728", 51728),
        ] {
            assert_eq!(number_of(name), Some(number), "{name}");
        }
        for name in ["", "xvd", "xvd1", "xvda256", "xvdA", "sda", "xvda-1", "xvdzzzzzzzz", "xvda1b"] {
            assert_eq!(number_of(name), None, "{name}");
        }
    }
}
