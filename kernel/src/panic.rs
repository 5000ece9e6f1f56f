//! The end by a bug of ours: one report on every console, then shutdown with reason crash. No unwinding, no allocation,
//! no lock; a panic inside a report ends the domain at once.

use core::fmt::Write;

use crate::console::Emergency;
use crate::{hv, time};

/// Reports and ends the domain.
pub fn die(what: &dyn core::fmt::Display) -> ! {
    if let Some(mut out) = Emergency::begin() {
        _ = writeln!(out, "LIVESAVE STUB PANIC at {} us: {what}", time::now_ns() / 1000);
        _ = writeln!(
            out,
            "the domain ends with shutdown reason crash; a guest that is paused is its keeper's to resume"
        );
    }
    hv::crash()
}

#[cfg(feature = "image")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    die(info)
}

/// core was compiled for unwinding and refers to this; nothing unwinds here.
#[cfg(feature = "image")]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// alloc was compiled for unwinding as well: its landing pads, which nothing reaches, end here.
#[cfg(feature = "image")]
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    hv::crash()
}
