//! Time: nanoseconds since Xen booted, from the pvclock in shared_info (xen/include/public/xen.h, vcpu_time_info).
//!
//! Xen rewrites the structure at any moment and marks that by an odd version; a reading counts only between two equal
//! even ones. Before shared_info is mapped, time stands still at 0.

use xen_hypercall::abi::xen::VcpuTimeInfo;

use crate::shared_info;

/// Readings that may collide with an update before the last one is taken as it is.
const MAX_RETRIES: u32 = 1000;

/// Nanoseconds since Xen booted; never goes backwards for a domain with one vCPU.
pub fn now_ns() -> u64 {
    for _ in 0..MAX_RETRIES {
        let Some(before) = shared_info::time_version() else { return 0 };
        let info = shared_info::time();
        // SAFETY: the instruction has no precondition; Xen lets PV kernels execute it.
        let tsc = unsafe { core::arch::x86_64::_rdtsc() };
        if before % 2 == 0 && shared_info::time_version() == Some(before) {
            return nanoseconds(&info, tsc);
        }
    }
    nanoseconds(&shared_info::time(), shared_info::time().tsc_timestamp)
}

/// Seconds since 1970 and the nanoseconds into that second; Xen's idea of it.
pub fn wall_clock() -> (u64, u32) {
    let (seconds, nanoseconds) = shared_info::wall_clock_base();
    let total = u64::from(nanoseconds) + now_ns();
    (seconds + total / 1_000_000_000, (total % 1_000_000_000) as u32)
}

fn nanoseconds(info: &VcpuTimeInfo, tsc: u64) -> u64 {
    let ticks = tsc.wrapping_sub(info.tsc_timestamp);
    let shift = u32::from(info.tsc_shift.unsigned_abs()).min(63);
    let shifted = if info.tsc_shift < 0 { ticks >> shift } else { ticks.wrapping_shl(shift) };
    let scaled = (u128::from(shifted) * u128::from(info.tsc_to_system_mul)) >> 32;
    info.system_time.wrapping_add(scaled as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(mul: u32, shift: i8) -> VcpuTimeInfo {
        VcpuTimeInfo {
            version: 2,
            pad0: 0,
            tsc_timestamp: 1_000,
            system_time: 7_000,
            tsc_to_system_mul: mul,
            tsc_shift: shift,
            flags: 0,
            pad1: [0; 2],
        }
    }

    #[test]
    fn scales_both_ways() {
        assert_eq!(nanoseconds(&info(1 << 31, 0), 1_000), 7_000);
        assert_eq!(nanoseconds(&info(1 << 31, 0), 3_000), 8_000);
        assert_eq!(nanoseconds(&info(1 << 31, 1), 3_000), 9_000);
        assert_eq!(nanoseconds(&info(1 << 31, -1), 3_000), 7_500);
    }

    #[test]
    fn a_day_at_4_ghz_does_not_overflow() {
        let day_ns = 86_400_000_000_000;
        assert_eq!(nanoseconds(&info(1 << 30, 0), 1_000 + day_ns * 4), 7_000 + day_ns);
    }
}
