//! Hypercalls of a PV domain, through the page of stubs that the domain builder fills (ELF note HYPERCALL_PAGE).
//!
//! Stub number n is 32 bytes at page + 32 n; it clobbers rcx and r11 and returns in rax. A debug build of Xen also
//! clobbers the arguments' registers. Loans are the addresses of the slices themselves: no copy, no allocation.

use core::arch::asm;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

use super::{Loan, Transport};
use crate::types::PAGE_SIZE;
use crate::{Result, XenErrno};

/// Hypercalls issued through any page of this program.
static ISSUED: AtomicU64 = AtomicU64::new(0);

/// Bytes of a stub.
const STUB_LEN: usize = 32;

/// The hypercall page of this domain.
#[derive(Clone, Copy, Debug)]
pub struct HypercallPage {
    base: *const u8,
}

// SAFETY: the page is code; calling it needs nothing of the thread that made the value.
unsafe impl Send for HypercallPage {}
// SAFETY: as above; the value is never written.
unsafe impl Sync for HypercallPage {}

impl HypercallPage {
    /// The hypercall page at this address.
    ///
    /// # Safety
    /// The page is mapped, executable and filled by Xen for as long as the value or a copy of it is used.
    #[must_use]
    pub const unsafe fn new(base: *const u8) -> Self {
        Self { base }
    }

    /// How many hypercalls this domain has issued so far, whoever asked for them.
    #[must_use]
    pub fn issued() -> u64 {
        ISSUED.load(Ordering::Relaxed)
    }

    /// The address of a stub, or None for a number that has none.
    fn stub(self, number: u32) -> Option<*const u8> {
        let offset = usize::try_from(number).ok()?.checked_mul(STUB_LEN)?;
        (offset < PAGE_SIZE).then(|| self.base.wrapping_add(offset))
    }
}

/// A slice's own address, for as long as the slice is borrowed.
#[derive(Debug)]
pub struct Direct<'a> {
    address: u64,
    _borrow: PhantomData<&'a mut [u8]>,
}

impl Loan for Direct<'_> {
    fn address(&self) -> u64 {
        self.address
    }
}

/// Calls a stub with the given argument registers.
macro_rules! enter {
    ($page:expr, $number:expr $(, $register:tt = $argument:expr)*) => {{
        let Some(stub) = $page.stub($number) else { return -i64::from(XenErrno::ENOSYS.raw()) };
        ISSUED.fetch_add(1, Ordering::Relaxed);
        let result: i64;
        // SAFETY: `HypercallPage::new` promised a page of stubs, whose clobbers are all named (memory is clobbered by
        // default, and without `nostack` the return address may be pushed); the caller vouches for the call.
        unsafe {
            asm!(
                "call {stub}",
                stub = in(reg) stub,
                $(inlateout($register) $argument => _,)*
                out("rcx") _,
                out("r11") _,
                lateout("rax") result,
            );
        }
        result
    }};
}

// SAFETY: a PV domain's addresses are valid for Xen as they are, the borrow keeps the slice in place and, for
// `lend_mut`, unshared; the assembly clobbers memory, so that later reads see what Xen wrote.
unsafe impl Transport for HypercallPage {
    type Loan<'a> = Direct<'a>;

    fn lend<'a>(&'a self, bytes: &'a [u8]) -> Result<Direct<'a>> {
        Ok(Direct { address: bytes.as_ptr().expose_provenance() as u64, _borrow: PhantomData })
    }

    fn lend_mut<'a>(&'a self, bytes: &'a mut [u8]) -> Result<Direct<'a>> {
        Ok(Direct { address: bytes.as_mut_ptr().expose_provenance() as u64, _borrow: PhantomData })
    }

    unsafe fn call1(&self, number: u32, a1: u64) -> i64 {
        enter!(self, number, "rdi" = a1)
    }

    unsafe fn call2(&self, number: u32, a1: u64, a2: u64) -> i64 {
        enter!(self, number, "rdi" = a1, "rsi" = a2)
    }

    unsafe fn call3(&self, number: u32, a1: u64, a2: u64, a3: u64) -> i64 {
        enter!(self, number, "rdi" = a1, "rsi" = a2, "rdx" = a3)
    }

    unsafe fn call4(&self, number: u32, a1: u64, a2: u64, a3: u64, a4: u64) -> i64 {
        enter!(self, number, "rdi" = a1, "rsi" = a2, "rdx" = a3, "r10" = a4)
    }

    unsafe fn call5(&self, number: u32, a1: u64, a2: u64, a3: u64, a4: u64, a5: u64) -> i64 {
        enter!(self, number, "rdi" = a1, "rsi" = a2, "rdx" = a3, "r10" = a4, "r8" = a5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::arch::global_asm;

    // A page as Xen would fill it, but stub n returns argument n and leaves every register that Xen may clobber dirty.
    global_asm!(
        ".pushsection .text.test_hypercall_page,\"ax\",@progbits",
        ".balign 4096",
        "test_hypercall_page:",
        "mov rax, -38",
        "ret",
        ".balign 32",
        "mov rax, rdi",
        "jmp 9f",
        ".balign 32",
        "mov rax, rsi",
        "jmp 9f",
        ".balign 32",
        "mov rax, rdx",
        "jmp 9f",
        ".balign 32",
        "mov rax, r10",
        "jmp 9f",
        ".balign 32",
        "mov rax, r8",
        "jmp 9f",
        ".balign 32",
        // Stub 6 writes where rdi points, as Xen does behind the compiler's back.
        "mov qword ptr [rdi], 0x5a",
        "xor eax, eax",
        "ret",
        ".balign 4096",
        "9:",
        "mov rdi, -1",
        "mov rsi, -1",
        "mov rdx, -1",
        "mov r10, -1",
        "mov r8, -1",
        "mov rcx, -1",
        "mov r11, -1",
        "ret",
        ".popsection",
    );

    unsafe extern "C" {
        static test_hypercall_page: u8;
    }

    fn page() -> HypercallPage {
        // SAFETY: the code above stands in for Xen's page and lives as long as the program.
        unsafe { HypercallPage::new(&raw const test_hypercall_page) }
    }

    const A: [u64; 5] = [0x1111, 0x2222_2222_2222, 0x3333_0000_3333, u64::MAX / 3, 0x5555_0000_0000_5555];

    /// Issues a call with `arity` arguments; stub `slot` answers with the argument in that slot.
    fn echo(arity: usize, slot: u32) -> i64 {
        let page = page();
        let [a, b, c, d, e] = A;
        match arity {
            // SAFETY: the stubs only return an argument.
            1 => unsafe { page.call1(slot, a) },
            // SAFETY: as above.
            2 => unsafe { page.call2(slot, a, b) },
            // SAFETY: as above.
            3 => unsafe { page.call3(slot, a, b, c) },
            // SAFETY: as above.
            4 => unsafe { page.call4(slot, a, b, c, d) },
            // SAFETY: as above.
            _ => unsafe { page.call5(slot, a, b, c, d, e) },
        }
    }

    #[test]
    fn each_arity_puts_each_argument_in_its_register() {
        for arity in 1..=5 {
            for slot in 1..=arity {
                assert_eq!(echo(arity, slot as u32) as u64, A[slot - 1], "argument {slot} of {arity}");
            }
        }
    }

    #[test]
    fn a_negative_answer_arrives_negative_and_a_number_without_stub_is_refused() {
        assert_eq!(echo(1, 0), -38);
        assert_eq!(echo(1, 128), -i64::from(XenErrno::ENOSYS.raw()));
        assert_eq!(echo(5, u32::MAX), -i64::from(XenErrno::ENOSYS.raw()));
    }

    #[test]
    fn what_is_written_through_a_loan_is_seen_after_it() {
        let page = page();
        let mut word = [0u8; 8];
        let address = page.lend_mut(&mut word).unwrap().address();
        // SAFETY: stub 6 writes eight bytes at its first argument, where `word` is and nobody reads.
        let answer = unsafe { page.call1(6, address) };
        assert_eq!((answer, u64::from_le_bytes(word)), (0, 0x5a));
    }

    #[test]
    fn every_call_is_counted() {
        let before = HypercallPage::issued();
        (1..=5).for_each(|arity| _ = echo(arity, 1));
        // Other tests issue calls meanwhile.
        assert!(HypercallPage::issued() >= before + 5);
    }

    #[test]
    fn a_loan_is_the_slice_itself() {
        let bytes = [1u8, 2, 3];
        assert_eq!(page().lend(&bytes).unwrap().address(), bytes.as_ptr() as u64);
    }
}
