//! A test kernel: labelled like the stub, it tries what the stub may do and what the policy must refuse.
//!
//! Command line `target=DOMID`, up to eight times. For each target every probe is tried, the harmless ones first; the
//! outcome goes to the console (`probe DOMID NAME ERRNO`, 0 = allowed) and to `data/livesave/probe/DOMID`, and
//! `data/livesave/probe/done` is written last. Booted as dom0 it tests the argument registers instead (`slots.rs`).
//! With `arity=N` it ends with a call of N arguments, whose registers dom0 reads (`registers.rs`).
//! With `fault=NAME` it commits that fault (`faults.rs`), with `lie=NAME` it lies about its p2m (`liar.rs`), with
//! `shift=FRAMES` it is a good guest that rewrites page tables all the time (`shift/`).
//! It never belongs into an installation: where the policy fails, its probes take effect.
#![cfg_attr(feature = "image", no_std, no_main)]

#[cfg(feature = "image")]
extern crate alloc;

#[cfg(feature = "image")]
mod faults;
#[cfg(feature = "image")]
mod liar;
#[cfg(feature = "image")]
mod probes;
#[cfg(feature = "image")]
mod registers;
#[cfg(feature = "image")]
mod shift;
#[cfg(feature = "image")]
mod slots;
#[cfg(feature = "image")]
mod sweep;

#[cfg(not(feature = "image"))]
fn main() {
    eprintln!("this is the kernel of a PV domain: build it with `cargo xtask build`");
}

#[cfg(feature = "image")]
mod image {
    use alloc::format;
    use alloc::string::String;
    use core::fmt::Write;

    use livesave_stubdom::serve::Store;
    use livesave_stubdom::{error, hv, info, machine, panic};
    use xen_drivers::xenstore::{Nodes, XsError};
    use xen_hypercall::DomId;

    use super::{faults, liar, probes, registers, shift, slots};

    /// Most targets.
    const TARGETS: usize = 8;

    /// Called by boot/entry.S on our own stack.
    #[unsafe(no_mangle)]
    extern "C" fn livesave_main(start_info: *const u8, used_end: u64) -> ! {
        machine::exceptions();
        // SAFETY: entry.S passes what Xen left in rsi.
        let start = unsafe { machine::start_info(start_info) };
        machine::memory(&start, used_end, None);
        machine::console(&start);
        if start.initial_domain {
            slots::test();
            hv::power_off();
        }
        if let Some(arity) = start.command_line().and_then(arity) {
            registers::end(arity);
            hv::power_off();
        }
        if let Some(name) = start.command_line().and_then(|line| line.strip_prefix("fault=")) {
            faults::commit(name.trim());
            hv::power_off();
        }
        if let Some(name) = start.command_line().and_then(|line| line.strip_prefix("lie=")) {
            _ = liar::lie(name.trim(), start.store_port);
            panic::die(&"no such lie, or no memory for it");
        }
        if let Some(frames) = start.command_line().and_then(shifting) {
            shift::shift(start_info, start, frames);
        }
        let Some(targets) = start.command_line().and_then(targets) else {
            panic::die(&"command line: want target=DOMID, one to eight times");
        };
        if let Err(error) = report(&mut machine::xenstore(&start), &targets) {
            error!("xenstore: {error}");
        }
        hv::power_off()
    }

    fn arity(line: &str) -> Option<u64> {
        line.split_ascii_whitespace().find_map(|word| word.strip_prefix("arity=")?.parse().ok())
    }

    fn shifting(line: &str) -> Option<usize> {
        line.split_ascii_whitespace()
            .find_map(|word| word.strip_prefix("shift=")?.parse().ok())
            .filter(|&count| count > 0)
    }

    fn targets(line: &str) -> Option<heapless::Vec<DomId, TARGETS>> {
        let words = line.split_ascii_whitespace();
        let mut targets = heapless::Vec::new();
        for word in words {
            let number = word.strip_prefix("target=")?.parse().ok()?;
            targets.push(DomId::new(number)).ok()?;
        }
        Some(targets).filter(|targets| !targets.is_empty())
    }

    fn report(store: &mut Store, targets: &[DomId]) -> Result<(), XsError> {
        for &target in targets {
            let mut text = String::new();
            for (name, outcome) in probes::all(target) {
                info!("probe {target} {name} {outcome}");
                _ = writeln!(text, "{name} {outcome}");
            }
            store.write(&format!("data/livesave/probe/{target}"), text)?;
        }
        info!("probe done");
        store.write("data/livesave/probe/done", "1")
    }
}
