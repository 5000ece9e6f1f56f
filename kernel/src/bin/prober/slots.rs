//! Which register carries which argument, judged by Xen itself.
//!
//! hypfs_op (xen/common/hypfs.c) is one of the few hypercalls with five arguments: XEN_HYPFS_OP_get_version, 0, answers
//! its version only if arguments 2 to 5 are all zero, so a value that is put into one of them at a time, and is refused
//! each time, arrived in it. It takes dom0's privilege: this kernel is booted in dom0's place for it.

use livesave_stubdom::{error, hv, info};
use xen_hypercall::{Transport, XenErrno};

/// __HYPERVISOR_hypfs_op.
const HYPFS_OP: u32 = 42;
/// XEN_HYPFS_OP_get_version, which is argument 1.
const GET_VERSION: u64 = 0;
/// XEN_HYPFS_VERSION.
const VERSION: i64 = 1;
/// What every other call gets.
const REFUSED: i64 = -(XenErrno::EINVAL.raw() as i64);
/// No operation of hypfs.
const NO_OPERATION: u64 = 0x1111;

/// Arguments, and what Xen must answer.
const CASES: [([u64; 5], i64); 6] = [
    ([GET_VERSION, 0, 0, 0, 0], VERSION),
    ([NO_OPERATION, 0, 0, 0, 0], REFUSED),
    ([GET_VERSION, 0x2222, 0, 0, 0], REFUSED),
    ([GET_VERSION, 0, 0x3333, 0, 0], REFUSED),
    ([GET_VERSION, 0, 0, 0x4444, 0], REFUSED),
    ([GET_VERSION, 0, 0, 0, 0x5555], REFUSED),
];

/// Tries all cases and says `slots ok` or what went wrong.
pub fn test() {
    let mut wrong = 0;
    for (arguments, expected) in CASES {
        let [a, b, c, d, e] = arguments;
        // SAFETY: Xen refuses every one of these calls, or answers without touching memory.
        let answer = unsafe { hv::xen().call5(HYPFS_OP, a, b, c, d, e) };
        info!("hypfs_op {arguments:x?}: {answer}");
        if answer != expected {
            error!("slots wrong: {arguments:x?} answered {answer}, not {expected}");
            wrong += 1;
        }
    }
    if wrong == 0 {
        info!("slots ok");
    }
}
