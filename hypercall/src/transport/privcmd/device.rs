//! The transport `/dev/xen/privcmd`.
//!
//! Xen reads and writes a process's memory by virtual address, but only what Linux never moves or drops: pages of
//! `/dev/xen/hypercall`. So every loan is a copy in such pages, and what Xen wrote is copied back when the loan ends.

use std::fs::File;
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

use super::ioctl::{ioctl, open};
use super::pages::Pages;
use crate::Result;
use crate::abi::linux::{IOCTL_PRIVCMD_HYPERCALL, PrivcmdHypercall};
use crate::transport::{Loan, Transport};

/// Regions that are kept for the next loans.
const SPARE_REGIONS_MAX: usize = 16;
/// Bytes of a region that is still worth keeping; larger ones are returned at once.
const SPARE_BYTES_MAX: usize = 64 * 1024;

/// The hypervisor, as seen from dom0.
#[derive(Debug)]
pub struct Privcmd {
    pub(super) privcmd: File,
    buffers: File,
    spare: Mutex<Vec<Pages>>,
}

impl Privcmd {
    /// Opens the devices.
    ///
    /// # Errors
    /// [`crate::Error::Host`]: -ENOENT outside dom0, -EACCES without root.
    pub fn open() -> Result<Self> {
        let privcmd = open("/dev/xen/privcmd", "opening /dev/xen/privcmd", 0)?;
        let buffers = open("/dev/xen/hypercall", "opening /dev/xen/hypercall", 0)?;
        Ok(Self { privcmd, buffers, spare: Mutex::new(Vec::new()) })
    }

    /// A region of at least `len` bytes: the smallest spare one that fits, or a new one.
    fn take(&self, len: usize) -> Result<Pages> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = (0..spare.len()).filter(|i| spare[*i].len() >= len);
        match fits.min_by_key(|i| spare[*i].len()) {
            Some(index) => Ok(spare.swap_remove(index)),
            None => Pages::map_buffer(&self.buffers, len),
        }
    }

    fn give_back(&self, region: Pages) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if region.len() <= SPARE_BYTES_MAX && spare.len() < SPARE_REGIONS_MAX {
            spare.push(region);
        }
    }

    /// A region that starts with a copy of these bytes.
    fn fill(&self, bytes: &[u8]) -> Result<Pages> {
        let mut region = self.take(bytes.len())?;
        region.write(bytes);
        Ok(region)
    }

    /// Issues a hypercall.
    ///
    /// # Safety
    /// As for [`Transport::call1`].
    unsafe fn issue(&self, number: u32, arg: [u64; 5]) -> i64 {
        let op = PrivcmdHypercall { op: number.into(), arg };
        // SAFETY: the argument is the structure of this ioctl; the caller vouches for the hypercall in it.
        unsafe { ioctl(&self.privcmd, IOCTL_PRIVCMD_HYPERCALL, &raw const op as u64) }
    }
}

/// A copy of a slice in memory that Linux leaves alone.
#[derive(Debug)]
pub struct Bounced<'a> {
    owner: &'a Privcmd,
    region: Option<Pages>,
    target: Option<&'a mut [u8]>,
}

impl Loan for Bounced<'_> {
    fn address(&self) -> u64 {
        self.region.as_ref().map_or(0, Pages::address)
    }
}

impl Drop for Bounced<'_> {
    fn drop(&mut self) {
        let Some(region) = self.region.take() else { return };
        if let Some(target) = &mut self.target {
            region.read(target);
        }
        self.owner.give_back(region);
    }
}

// SAFETY: a loan owns its region until its drop, regions lie in pages that Linux keeps in place and writable, and the
// drop copies what Xen wrote back before the region is used again.
unsafe impl Transport for Privcmd {
    type Loan<'a> = Bounced<'a>;

    fn lend<'a>(&'a self, bytes: &'a [u8]) -> Result<Bounced<'a>> {
        Ok(Bounced { owner: self, region: Some(self.fill(bytes)?), target: None })
    }

    fn lend_mut<'a>(&'a self, bytes: &'a mut [u8]) -> Result<Bounced<'a>> {
        Ok(Bounced { owner: self, region: Some(self.fill(bytes)?), target: Some(bytes) })
    }

    unsafe fn call1(&self, number: u32, a1: u64) -> i64 {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { self.issue(number, [a1, 0, 0, 0, 0]) }
    }

    unsafe fn call2(&self, number: u32, a1: u64, a2: u64) -> i64 {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { self.issue(number, [a1, a2, 0, 0, 0]) }
    }

    unsafe fn call3(&self, number: u32, a1: u64, a2: u64, a3: u64) -> i64 {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { self.issue(number, [a1, a2, a3, 0, 0]) }
    }

    unsafe fn call4(&self, number: u32, a1: u64, a2: u64, a3: u64, a4: u64) -> i64 {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { self.issue(number, [a1, a2, a3, a4, 0]) }
    }

    unsafe fn call5(&self, number: u32, a1: u64, a2: u64, a3: u64, a4: u64, a5: u64) -> i64 {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { self.issue(number, [a1, a2, a3, a4, a5]) }
    }
}
