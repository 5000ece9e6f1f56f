//! Exceptions: none is expected and none returns, but for a fault of `m2p_read`, which entry.S handles by itself.
//!
//! Every vector ends in one report on the console (what, where, why, and the top of the stack) and a shutdown with
//! reason crash, which dom0 sees as `on_crash`. A stack overflow reports through Xen instead: a PV kernel's exception
//! frame goes onto the current stack, so the push onto the guard page fails and Xen ends the domain with its own
//! message (create_bounce_frame in xen/arch/x86/x86_64/entry.S).

use core::fmt::Write;

use xen_hypercall::abi::xen::{FLAT_KERNEL_CS64, TrapInfo};

use crate::console::Emergency;
use crate::hv::{self, HvError};
use crate::shared_info;

/// Exceptions of x86.
const VECTORS: u8 = 32;
/// Bytes of one entry of `trap_entries`.
const ENTRY_BYTES: u64 = 16;
/// Words of the interrupted stack that are printed.
const STACK_WORDS: u64 = 12;

/// The exceptions' short names, by vector (Intel SDM volume 3, table 6-1).
const NAMES: [&str; 22] = [
    "divide error",
    "debug",
    "NMI",
    "breakpoint",
    "overflow",
    "bound",
    "invalid opcode",
    "no FPU",
    "double fault",
    "coprocessor overrun",
    "invalid TSS",
    "segment not present",
    "stack fault",
    "general protection",
    "page fault",
    "reserved",
    "FPU error",
    "alignment",
    "machine check",
    "SIMD error",
    "virtualization",
    "control protection",
];

unsafe extern "C" {
    static trap_entries: u8;
    static __stack_bottom: u8;
    static __stack_top: u8;
}

/// What `trap_common` left on the stack, low addresses first; the processor's part follows it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rbx: u64,
    rax: u64,
    vector: u64,
    has_error: u64,
    rcx: u64,
    r11: u64,
    /// `[error], rip, cs, rflags, rsp, ss`: one longer with an error code.
    tail: [u64; 6],
}

/// Registers the handlers.
pub fn install() -> Result<(), HvError> {
    let first = &raw const trap_entries as u64;
    let mut table = [TrapInfo { vector: 0, flags: 0, cs: 0, pad: 0, address: 0 }; VECTORS as usize + 1];
    for (vector, entry) in (0..VECTORS).zip(&mut table) {
        let address = first + u64::from(vector) * ENTRY_BYTES;
        *entry = TrapInfo { vector, flags: 0, cs: FLAT_KERNEL_CS64, pad: 0, address };
    }
    hv::set_trap_table(&table)
}

/// Called by entry.S with the frame; the end of the domain.
#[unsafe(no_mangle)]
extern "C" fn trap_report(frame: *const Frame) -> ! {
    // SAFETY: entry.S passes the frame that it has just built on our stack.
    let frame = unsafe { frame.read() };
    if let Some(mut out) = Emergency::begin() {
        _ = report(&mut out, &frame);
    }
    hv::crash()
}

fn report(out: &mut Emergency, frame: &Frame) -> core::fmt::Result {
    let at = usize::from(frame.has_error != 0);
    let error = if at == 1 { frame.tail[0] } else { 0 };
    let [rip, rflags, rsp] = [frame.tail[at], frame.tail[at + 2], frame.tail[at + 3]];
    let name = NAMES.get(frame.vector as usize).copied().unwrap_or("reserved");
    writeln!(out, "EXCEPTION {} ({name}), error code {error:#x}, rip {rip:#x}", frame.vector)?;
    writeln!(out, "cr2 {:#x} rsp {rsp:#x} rflags {rflags:#x} rbp {:#x}", shared_info::cr2(), frame.rbp)?;
    writeln!(out, "rax {:#x} rbx {:#x} rcx {:#x} rdx {:#x}", frame.rax, frame.rbx, frame.rcx, frame.rdx)?;
    writeln!(out, "rsi {:#x} rdi {:#x} r8 {:#x} r9 {:#x}", frame.rsi, frame.rdi, frame.r8, frame.r9)?;
    writeln!(out, "r10 {:#x} r11 {:#x} r12 {:#x} r13 {:#x}", frame.r10, frame.r11, frame.r12, frame.r13)?;
    writeln!(out, "r14 {:#x} r15 {:#x}", frame.r14, frame.r15)?;
    stack_words(out, rsp)?;
    writeln!(out, "the domain ends with shutdown reason crash")
}

/// The words above the interrupted stack pointer, as far as they lie on our stack.
fn stack_words(out: &mut Emergency, rsp: u64) -> core::fmt::Result {
    let bottom = &raw const __stack_bottom as u64;
    let top = &raw const __stack_top as u64;
    write!(out, "stack")?;
    for address in (0..STACK_WORDS).map(|word| (rsp & !7).wrapping_add(word * 8)) {
        if address >= bottom && address < top - 7 {
            // SAFETY: an aligned address inside our mapped stack.
            let word = unsafe { (address as *const u64).read_volatile() };
            write!(out, " {word:#x}")?;
        }
    }
    writeln!(out)
}
