//! How the guest answers a suspend request, in its kernel's place and as badly as dom0 asks for.
//!
//! Its kernel must not listen itself: `initcall_blacklist=xen_setup_shutdown_event`. `data/manners`, written by dom0,
//! holds `ack=MS suspend=MS`: when the request is taken after it was seen, and when the domain shuts down for suspend
//! after that. Without `ack=` the request is never taken, without `suspend=` no suspend follows. Nothing is frozen: to
//! Xen and to dom0 that makes no difference, and a guest with one processor goes on where it stood. `xl shutdown` and
//! `xl reboot` are obeyed.

use std::fs::File;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::system::finit_module;
use xen_hypercall::sched;
use xen_hypercall::transport::privcmd::Privcmd;
use xen_hypercall::types::ShutdownReason;

use crate::bus::Bus;
use crate::settings;

/// Gives hypercalls to processes. A guest's kernel gives none by default.
const MODULE: &str = "/modules/xen-privcmd.ko";
const PARAMETERS: &std::ffi::CStr = c"unrestricted=1";
/// Between two looks for a request.
const LOOK: Duration = Duration::from_millis(50);

/// Starts answering.
pub fn start() {
    thread::spawn(|| {
        if let Err(error) = serve() {
            println!("GUEST has no manners: {error:#}");
        }
    });
}

fn serve() -> Result<()> {
    finit_module(File::open(MODULE).context(MODULE)?, PARAMETERS, 0).context(MODULE)?;
    let xen = Privcmd::open()?;
    let mut bus = Bus::open().context("xenbus")?;
    bus.write("control/feature-suspend", "1").context("control/feature-suspend")?;
    println!("GUEST answers suspend requests itself");
    loop {
        thread::sleep(LOOK);
        match bus.read("control/shutdown").unwrap_or_default().as_str() {
            "suspend" => {
                let manners = bus.read("data/manners").unwrap_or_default();
                answer(&xen, &mut bus, &manners)?;
            }
            word @ ("poweroff" | "reboot") => settings::leave(word == "reboot")?,
            _ => {}
        }
    }
}

fn answer(xen: &Privcmd, bus: &mut Bus, manners: &str) -> Result<()> {
    let delay = |key: &str| {
        let value = manners.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).map(Duration::from_millis)
    };
    let Some(ack) = delay("ack") else { return Ok(()) };
    thread::sleep(ack);
    bus.write("control/shutdown", "").context("control/shutdown")?;
    let Some(suspend) = delay("suspend") else { return Ok(()) };
    thread::sleep(suspend);
    println!("GUEST suspends");
    let value = sched::shutdown(xen, ShutdownReason::SUSPEND)?;
    println!("GUEST goes on, {value}");
    Ok(())
}
