//! Faults on purpose, so that a test sees what the stub's exception table, panic report and stack guard do with them.

use core::arch::asm;
use core::hint::black_box;

use livesave_stubdom::error;

/// Bytes that each level of the recursion has on the stack: less than a page, so that no level steps over the guard.
const FRAME: usize = 1024;

/// Commits the named fault; comes back only if there is no fault of that name, or none happened.
pub fn commit(name: &str) {
    match name {
        // SAFETY: the exception is what is asked for; its handler ends the domain.
        "opcode" => unsafe { asm!("ud2") },
        "page" => touch_nothing(),
        "stack" => error!("the stack never ended: {}", recurse(0)),
        "panic" => panic!("asked for by the command line"),
        _ => {}
    }
    error!("no such fault, or it did not happen: {name}");
}

/// Address 16 is in the lowest page, which is never mapped.
fn touch_nothing() {
    let word: u64;
    // SAFETY: the fault is what is asked for; its handler ends the domain.
    unsafe { asm!("mov {}, qword ptr [16]", out(reg) word) };
    error!("read {word:#x}");
}

#[expect(unconditional_recursion, reason = "the end of the stack is what is looked for")]
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; FRAME / 8]);
    recurse(depth + 1).wrapping_add(frame[depth as usize % frame.len()])
}
