//! An owned mapping of a device: unmapped on drop, accessed by copies only, since Xen or a guest may write the other
//! side of it at any time.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};

use super::ioctl::host;
use crate::types::PAGE_SIZE;
use crate::{Error, Result, XenErrno};

/// Whole pages of a device.
#[derive(Debug)]
pub(super) struct Pages {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to the thread that made it.
unsafe impl Send for Pages {}

impl Pages {
    /// Maps memory for hypercall buffers, readable and writable.
    pub fn map_buffer(device: &File, len: usize) -> Result<Self> {
        Self::map(device, len, libc::PROT_READ | libc::PROT_WRITE, "mapping /dev/xen/hypercall")
    }

    /// Maps a window for frames of a domain, readable only.
    pub fn map_window(device: &File, len: usize) -> Result<Self> {
        Self::map(device, len, libc::PROT_READ, "mapping /dev/xen/privcmd")
    }

    fn map(device: &File, len: usize, protection: i32, what: &'static str) -> Result<Self> {
        let no_memory = Error::Host { what, errno: XenErrno::ENOMEM };
        let len = len.max(1).checked_next_multiple_of(PAGE_SIZE).ok_or(no_memory)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, device.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(host(what, &std::io::Error::last_os_error()));
        }
        let base = NonNull::new(base.cast()).ok_or(no_memory)?;
        Ok(Self { base, len })
    }

    /// Its size in bytes, a multiple of the page size.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Its address.
    pub fn address(&self) -> u64 {
        self.base.as_ptr().expose_provenance() as u64
    }

    /// Copies bytes to its beginning; no more than fit.
    pub fn write(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(self.len);
        // SAFETY: the mapping is writable (`map_buffer`) for `self.len` bytes and is no part of any slice.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr(), len) };
    }

    /// Copies its beginning out; no more than it has.
    pub fn read(&self, target: &mut [u8]) {
        let len = target.len().min(self.len);
        // SAFETY: the mapping is readable for `self.len` bytes, is no part of any slice, and Xen has returned.
        unsafe { ptr::copy_nonoverlapping(self.base.as_ptr(), target.as_mut_ptr(), len) };
    }

    /// Copies page `index` out, each word read once: a guest may write it meanwhile.
    ///
    /// # Safety
    /// The page lies in the mapping and has a frame behind it (an access to one that has none raises SIGBUS).
    pub unsafe fn read_page(&self, index: usize, target: &mut [u8; PAGE_SIZE]) {
        debug_assert!(index < self.len / PAGE_SIZE, "page {index} is outside the mapping");
        let page = self.base.as_ptr().wrapping_add(index * PAGE_SIZE).cast::<u64>();
        for (offset, word) in target.chunks_exact_mut(size_of::<u64>()).enumerate() {
            // SAFETY: the word lies in the mapped page, which the caller knows to have a frame; it is aligned.
            let value = unsafe { page.wrapping_add(offset).read_volatile() };
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows from it. It cannot fail for a whole mapping.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
