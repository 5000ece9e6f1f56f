//! The stub domain. `kernel_main` is the whole life of the domain, phase by phase.
//!
//! Without the feature `image` this is an ordinary program that says how to build the real one.
#![cfg_attr(feature = "image", no_std, no_main)]

#[cfg(not(feature = "image"))]
fn main() {
    eprintln!("this is the kernel of a PV domain: build it with `cargo xtask build` and boot it with xl");
}

#[cfg(feature = "image")]
mod image {
    extern crate alloc;

    use alloc::string::ToString;

    use livesave_stubdom::boot::{CommandLine, StartInfo};
    use livesave_stubdom::{info, log, machine, panic, serve};

    /// Called by boot/entry.S on our own stack; `used_end` is where the builder's things end.
    #[unsafe(no_mangle)]
    extern "C" fn livesave_main(start_info: *const u8, used_end: u64) -> ! {
        machine::exceptions();
        // SAFETY: entry.S passes what Xen left in rsi.
        let start = unsafe { machine::start_info(start_info) };
        kernel_main(&start, used_end)
    }

    /// The domain's life. Everything before the console speaks ends the domain if it fails; everything after the
    /// service has started says in xenstore what is wrong, and serves on.
    fn kernel_main(start: &StartInfo, used_end: u64) -> ! {
        let line = start.command_line().unwrap_or("not UTF-8");
        let parsed = CommandLine::parse(line);
        let options = parsed.clone().unwrap_or_default();
        let budget = machine::memory(start, used_end, options.heap_mib);
        machine::console(start);
        log::set_limit(options.log_level.unwrap_or(log::Level::Info as u8));
        info!("livesave stub {}, command line {line:?}", env!("CARGO_PKG_VERSION"));
        info!("{budget}");
        let store = machine::xenstore(start);
        match serve::live(store, &budget, parsed.map_err(|error| error.to_string())) {
            Ok(stop) => serve::end(stop),
            Err(error) => panic::die(&format_args!("xenstore: {error}")),
        }
    }
}
