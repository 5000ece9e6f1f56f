//! The two things that a way to Xen does: lend buffers, and issue calls by their number of arguments.

use crate::Result;

/// A buffer lent to Xen. Dropping it ends the loan; only then may the slice behind it be read.
pub trait Loan {
    /// The virtual address that goes into a hypercall's arguments.
    fn address(&self) -> u64;
}

/// A way to issue hypercalls.
///
/// There is one primitive for each number of arguments; argument 1 is rdi, 2 rsi, 3 rdx, 4 r10, 5 r8 (xen-x86_64.h).
/// The value that they return is Xen's: not negative, or the negated error number.
///
/// # Safety
/// From the making of a loan to its drop, the implementation keeps the bytes of `lend` readable and those of `lend_mut`
/// readable and writable by Xen at [`Loan::address`], and gives that range to no one else. After the drop of a loan of
/// `lend_mut`, the slice holds what Xen has written.
pub unsafe trait Transport {
    /// A buffer on loan.
    type Loan<'a>: Loan
    where
        Self: 'a;

    /// Lends bytes that Xen only reads.
    ///
    /// # Errors
    /// [`crate::Error::Host`] if there is no memory that Xen could read.
    fn lend<'a>(&'a self, bytes: &'a [u8]) -> Result<Self::Loan<'a>>;

    /// Lends bytes that Xen reads and writes.
    ///
    /// # Errors
    /// [`crate::Error::Host`] if there is no memory that Xen could write.
    fn lend_mut<'a>(&'a self, bytes: &'a mut [u8]) -> Result<Self::Loan<'a>>;

    /// Issues a hypercall with one argument.
    ///
    /// # Safety
    /// Xen may do what the call says: every address in the arguments is on loan for as much as the call reads or
    /// writes, and the effect on this domain's own memory and registers is one that the caller has arranged for.
    unsafe fn call1(&self, number: u32, a1: u64) -> i64;

    /// Issues a hypercall with two arguments.
    ///
    /// # Safety
    /// As for [`Transport::call1`].
    unsafe fn call2(&self, number: u32, a1: u64, a2: u64) -> i64;

    /// Issues a hypercall with three arguments.
    ///
    /// # Safety
    /// As for [`Transport::call1`].
    unsafe fn call3(&self, number: u32, a1: u64, a2: u64, a3: u64) -> i64;

    /// Issues a hypercall with four arguments.
    ///
    /// # Safety
    /// As for [`Transport::call1`].
    unsafe fn call4(&self, number: u32, a1: u64, a2: u64, a3: u64, a4: u64) -> i64;

    /// Issues a hypercall with five arguments.
    ///
    /// # Safety
    /// As for [`Transport::call1`].
    unsafe fn call5(&self, number: u32, a1: u64, a2: u64, a3: u64, a4: u64, a5: u64) -> i64;
}

// SAFETY: every method is the referenced transport's own, which keeps the promises.
unsafe impl<T: Transport> Transport for &T {
    type Loan<'a>
        = T::Loan<'a>
    where
        Self: 'a;

    fn lend<'a>(&'a self, bytes: &'a [u8]) -> Result<Self::Loan<'a>> {
        T::lend(self, bytes)
    }

    fn lend_mut<'a>(&'a self, bytes: &'a mut [u8]) -> Result<Self::Loan<'a>> {
        T::lend_mut(self, bytes)
    }

    unsafe fn call1(&self, number: u32, a1: u64) -> i64 {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { T::call1(self, number, a1) }
    }

    unsafe fn call2(&self, number: u32, a1: u64, a2: u64) -> i64 {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { T::call2(self, number, a1, a2) }
    }

    unsafe fn call3(&self, number: u32, a1: u64, a2: u64, a3: u64) -> i64 {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { T::call3(self, number, a1, a2, a3) }
    }

    unsafe fn call4(&self, number: u32, a1: u64, a2: u64, a3: u64, a4: u64) -> i64 {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { T::call4(self, number, a1, a2, a3, a4) }
    }

    unsafe fn call5(&self, number: u32, a1: u64, a2: u64, a3: u64, a4: u64, a5: u64) -> i64 {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { T::call5(self, number, a1, a2, a3, a4, a5) }
    }
}
