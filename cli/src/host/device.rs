//! Block devices and files as `snapshot::ports::BlockDevice`.
//!
//! A device is opened with O_DIRECT: the page cache of a volume that a backend writes to is not coherent with it.
//! Buffers are aligned by cutting them out of a larger allocation. Files (tests, images) are read through the cache.
//! What is announced is read ahead, but never by who writes: what is read ahead must not be older than what is written.

use super::ahead::{Ahead, Aligned, ReadAt};
use crate::exit::{Exit, Failure, Outcome};
use rustix::fs::OFlags;
use snapshot::ports::{BlockDevice, BlockIdx, Extent, IO_MAX, IoError, PAGE_SIZE};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// An open device.
pub struct Device {
    file: Arc<File>,
    blocks: u64,
    writable: bool,
    bounce: Aligned,
    /// From the first announcement on.
    ahead: Option<Ahead<Arc<File>>>,
}

impl ReadAt for Arc<File> {
    fn read_at(&self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        let offset = at.0.checked_mul(PAGE_SIZE as u64).ok_or(IoError::OutOfRange { at })?;
        self.read_exact_at(into, offset).map_err(|_| IoError::Failed { at })
    }
}

/// What it is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading, while a stub may write.
    Read,
    /// Reading, and writing a reader's lease, while a stub may write.
    Lease,
    /// Making a store: nobody else may have the device.
    Exclusive,
}

fn refusal(path: &Path, error: &io::Error) -> Failure {
    let what = format!("{} cannot be opened: {error}", path.display());
    match error.kind() {
        ErrorKind::ResourceBusy => {
            Exit::DeviceInUse.fail(what).hint("it is mounted, attached to a domain, or part of a volume group or RAID")
        }
        ErrorKind::NotFound => Exit::NoStore.fail(what).hint("name the store's device with --store"),
        ErrorKind::PermissionDenied => Exit::NoStore.fail(what).hint("run livesave as root"),
        _ => Exit::NoStore.fail(what),
    }
}

/// A name of the device that is the same after a reboot, as far as there is one: the file behind a loop device, the
/// name of a device-mapper volume, else the path with links followed.
pub fn lasting_name(path: &Path) -> String {
    let block = std::fs::metadata(path).ok().filter(|metadata| metadata.file_type().is_block_device());
    if let Some(number) = block.map(|metadata| metadata.rdev()) {
        let node = format!("/sys/dev/block/{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
        for (node, before) in [(format!("{node}/loop/backing_file"), ""), (format!("{node}/dm/name"), "/dev/mapper/")] {
            let name = std::fs::read_to_string(node).unwrap_or_default();
            if !name.trim().is_empty() {
                return format!("{before}{}", name.trim());
            }
        }
    }
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

impl Device {
    /// Opens a block device or a regular file.
    pub fn open(path: &Path, access: Access) -> Outcome<Self> {
        let kind = std::fs::metadata(path).map_err(|error| refusal(path, &error))?.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(Exit::NoStore.fail(format_args!("{} is neither a block device nor a file", path.display())));
        }
        let writable = access != Access::Read;
        let mut flags = OFlags::CLOEXEC;
        if kind.is_block_device() {
            flags |= OFlags::DIRECT;
            // On a block device O_EXCL without O_CREAT refuses what the kernel itself has claimed (open(2)).
            if access == Access::Exclusive {
                flags |= OFlags::EXCL;
            }
        }
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        let options = OpenOptions::new().read(true).write(writable).custom_flags(flags).open(path);
        let mut file = options.map_err(|error| refusal(path, &error))?;
        let size = file.seek(SeekFrom::End(0)).map_err(|error| refusal(path, &error))?;
        let (file, blocks) = (Arc::new(file), size / PAGE_SIZE as u64);
        Ok(Self { file, blocks, writable, bounce: Aligned::new(IO_MAX), ahead: None })
    }

    fn check(&self, at: BlockIdx, len: usize) -> Result<u64, IoError> {
        let blocks = (len / PAGE_SIZE) as u64;
        let end = at.0.checked_add(blocks).ok_or(IoError::OutOfRange { at })?;
        if !len.is_multiple_of(PAGE_SIZE) || len > IO_MAX || end > self.blocks {
            return Err(IoError::OutOfRange { at });
        }
        Ok(at.0 * PAGE_SIZE as u64)
    }
}

impl BlockDevice for Device {
    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read_only(&self) -> bool {
        !self.writable
    }

    fn write(&mut self, at: BlockIdx, data: &[u8]) -> Result<(), IoError> {
        if !self.writable {
            return Err(IoError::ReadOnly);
        }
        let offset = self.check(at, data.len())?;
        let buffer = self.bounce.first(data.len());
        buffer.copy_from_slice(data);
        self.file.write_all_at(buffer, offset).map_err(|_| IoError::Failed { at })
    }

    fn read(&mut self, at: BlockIdx, into: &mut [u8]) -> Result<(), IoError> {
        self.check(at, into.len())?;
        if let Some(answer) = self.ahead.as_ref().and_then(|ahead| ahead.take(at, into)) {
            return answer;
        }
        let buffer = self.bounce.first(into.len());
        self.file.read_at(at, buffer)?;
        into.copy_from_slice(buffer);
        Ok(())
    }

    fn read_ahead(&mut self, wanted: &[Extent]) {
        match &self.ahead {
            Some(ahead) if wanted.is_empty() => ahead.forget(),
            Some(ahead) => ahead.announce(wanted),
            None if wanted.is_empty() || self.writable => {}
            None => self.ahead.insert(Ahead::start(Arc::clone(&self.file))).announce(wanted),
        }
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.file.sync_all().map_err(|_| IoError::Failed { at: BlockIdx(0) })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn scratch(name: &str, len: usize) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("livesave-{}-{name}", std::process::id()));
        std::fs::write(&path, vec![0; len]).unwrap();
        path
    }

    #[test]
    fn what_is_written_is_read_and_the_end_is_the_end() {
        let path = scratch("device", 10 * PAGE_SIZE + 100);
        let mut device = Device::open(&path, Access::Exclusive).unwrap();
        assert_eq!(device.blocks(), 10);
        let data: Vec<u8> = (0..2 * PAGE_SIZE).map(|i| (i % 251) as u8).collect();
        device.write(BlockIdx(8), &data).unwrap();
        device.flush().unwrap();
        let mut back = vec![0; 2 * PAGE_SIZE];
        device.read(BlockIdx(8), &mut back).unwrap();
        assert_eq!(back, data);
        assert_eq!(device.write(BlockIdx(9), &data), Err(IoError::OutOfRange { at: BlockIdx(9) }));
        assert_eq!(device.read(BlockIdx(0), &mut back[..100]), Err(IoError::OutOfRange { at: BlockIdx(0) }));
        assert_eq!(device.read(BlockIdx(u64::MAX), &mut back), Err(IoError::OutOfRange { at: BlockIdx(u64::MAX) }));
        let mut reader = Device::open(&path, Access::Read).unwrap();
        assert_eq!(reader.write(BlockIdx(0), &data), Err(IoError::ReadOnly));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_announced_is_read_ahead_but_not_by_who_writes() {
        let path = scratch("device-ahead", 10 * PAGE_SIZE);
        std::fs::write(&path, (0..10 * PAGE_SIZE).map(|i| (i / PAGE_SIZE) as u8).collect::<Vec<_>>()).unwrap();
        let extents = [Extent { at: BlockIdx(7), blocks: 3 }, Extent { at: BlockIdx(2), blocks: 1 }];
        for (access, is_ahead) in [(Access::Read, true), (Access::Exclusive, false)] {
            let mut device = Device::open(&path, access).unwrap();
            device.read_ahead(&[]);
            device.read_ahead(&extents);
            assert_eq!(device.ahead.is_some(), is_ahead);
            let (mut three, mut one) = (vec![0; 3 * PAGE_SIZE], vec![0; PAGE_SIZE]);
            device.read(BlockIdx(5), &mut one).unwrap();
            assert_eq!(one, vec![5; PAGE_SIZE]);
            device.read(BlockIdx(7), &mut three).unwrap();
            assert_eq!([three[0], three[PAGE_SIZE], three[2 * PAGE_SIZE]], [7, 8, 9]);
            device.read(BlockIdx(2), &mut one).unwrap();
            assert_eq!(one, vec![2; PAGE_SIZE]);
            // Beyond the end it is the read that fails.
            device.read_ahead(&[Extent { at: BlockIdx(9), blocks: 2 }]);
            assert_eq!(device.read(BlockIdx(9), &mut three[..8192]), Err(IoError::OutOfRange { at: BlockIdx(9) }));
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_missing_device_says_so() {
        let failure = Device::open(Path::new("/nonexistent/livesave"), Access::Read).err().unwrap();
        assert_eq!(failure.exit, Exit::NoStore);
    }
}
