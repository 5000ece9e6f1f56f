//! Our kernel in dom0's place: no Linux, no xenstore, a verdict on the hypervisor's console in seconds.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::machine::{Machine, Spec};
use crate::verdict::{Verdict, check, stop};

/// From power-on to the test kernel's last line; a few seconds on an idle machine.
const WAIT: Duration = Duration::from_secs(180);
/// Between two looks at the console.
const LOOK: Duration = Duration::from_millis(200);

/// Boots the test kernel as dom0: each argument of a hypercall arrives in its register, the fifth (r8) included.
pub fn registers(base: &Spec, prober: &Path) -> Result<()> {
    let mut spec = base.clone();
    spec.dir = base.dir.join("bare");
    spec.images.vmlinuz = prober.to_owned();
    (spec.memory_mib, spec.dom0_mib) = (512, 128);
    spec.disks.clear();
    let mut machine = Machine::start(&spec)?;
    let started = Instant::now();
    while started.elapsed() < WAIT {
        let alive = machine.is_alive();
        // QEMU makes the file when it gets to it.
        let bytes = fs::read(spec.dir.join("serial.log")).unwrap_or_default();
        let console = String::from_utf8_lossy(&bytes);
        let wrong = console.lines().find(|line| line.contains("slots wrong"));
        check(wrong.is_none(), || wrong.unwrap_or_default().to_owned())?;
        if console.contains("slots ok") {
            return Ok(());
        }
        if !alive {
            return Err(stop(Verdict::Crash, "the test kernel in dom0's place said nothing"));
        }
        thread::sleep(LOOK);
    }
    Err(stop(Verdict::Timeout, "the test kernel in dom0's place said nothing"))
}
