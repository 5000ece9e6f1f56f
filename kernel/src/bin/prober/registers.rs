//! One last hypercall with a value of its own in every slot, for dom0 to compare with the registers that Xen keeps.
//!
//! SCHEDOP_shutdown takes two arguments (xen/common/sched/core.c); what is in the further slots Xen neither uses nor,
//! in a release build, changes. Slot 2 says why the domain ends: an end for that reason shows that slots 1 and 2 were
//! read.

use livesave_stubdom::{error, hv, info};
use xen_hypercall::abi::sched::{SCHEDOP_SHUTDOWN, SchedShutdown};
use xen_hypercall::abi::xen::HYPERVISOR_SCHED_OP;
use xen_hypercall::types::ShutdownReason;
use xen_hypercall::{Loan, Transport};
use zerocopy::IntoBytes as _;

/// Slots 3 to 5; the arity is added. Constants in each call, so that no register holds a value for another call's sake.
const SLOTS: [u64; 3] = [0x3333_aaaa_3333_0000, 0x4444_bbbb_4444_0000, 0x5555_cccc_5555_0000];

const fn slot(index: usize, arity: u64) -> u64 {
    SLOTS[index] + arity
}

/// Says where slot 2 points, and ends the domain with a call of `arity` arguments, 2 to 5.
pub fn end(arity: u64) {
    let mut reason = SchedShutdown { reason: ShutdownReason::POWEROFF.raw().into() };
    let xen = hv::xen();
    let Ok(loan) = xen.lend_mut(reason.as_mut_bytes()) else { return };
    let (operation, pointer) = (SCHEDOP_SHUTDOWN, loan.address());
    info!("REGISTERS pointer={pointer:#x}");
    let answer = match arity {
        // SAFETY: the argument is on loan; that the domain ends is what is asked for.
        2 => unsafe { xen.call2(HYPERVISOR_SCHED_OP, operation, pointer) },
        // SAFETY: as above; Xen does not look at more than two.
        3 => unsafe { xen.call3(HYPERVISOR_SCHED_OP, operation, pointer, const { slot(0, 3) }) },
        // SAFETY: as above.
        4 => unsafe { xen.call4(HYPERVISOR_SCHED_OP, operation, pointer, const { slot(0, 4) }, const { slot(1, 4) }) },
        5 => {
            let [three, four, five] = const { [slot(0, 5), slot(1, 5), slot(2, 5)] };
            // SAFETY: as above.
            unsafe { xen.call5(HYPERVISOR_SCHED_OP, operation, pointer, three, four, five) }
        }
        _ => i64::MIN,
    };
    error!("the domain goes on: {answer}");
}
