//! Each argument of a hypercall reaches Xen in its own register: a PV test kernel makes its last call with a value of
//! its own in every slot, and dom0 reads the registers that Xen keeps of the call that never returned.
//!
//! The call is `sched_op(SCHEDOP_shutdown, &reason)`, whose further slots Xen ignores. That the domain is shut down
//! with the right reason says that slots 1 and 2 were read; the domain stays, so the rest can be read at leisure.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::say;
use crate::verdict::check;

/// The test kernel, where `lab install` puts it.
const KERNEL: &str = "/boot/prober";
/// What it has in slots 3, 4 and 5, but for the arity, which is added (kernel/src/bin/prober/registers.rs).
const SLOTS: [u64; 3] = [0x3333_aaaa_3333_0000, 0x4444_bbbb_4444_0000, 0x5555_cccc_5555_0000];
/// SCHEDOP_shutdown (public/sched.h).
const SHUTDOWN: u64 = 2;
const END_WAIT: Duration = Duration::from_secs(120);

/// With 2, 3, 4 and 5 arguments.
pub fn run(lab: &Lab) -> Result<()> {
    for arity in 2..=5 {
        let said = call(lab, arity).with_context(|| format!("with {arity} arguments"))?;
        judge(&said, arity)?;
        say!("   {arity} arguments: {}", said.registers);
    }
    Ok(())
}

/// What is known of a call.
struct Said {
    /// Where the kernel said that slot 2 points.
    pointer: u64,
    /// What Xen keeps.
    registers: String,
}

fn call(lab: &Lab, arity: u64) -> Result<Said> {
    let config = format!(
        "name = \"registers\"\ntype = \"pv\"\nmemory = 32\nvcpus = 1\nkernel = \"{KERNEL}\"\n\
         cmdline = \"arity={arity}\"\non_poweroff = \"preserve\"\non_crash = \"destroy\"\n"
    );
    lab.put_bytes(config.as_bytes(), "/run/registers.cfg")?;
    let log = "/var/log/xen/console/guest-registers.log";
    lab.sh(&format!("rm -f {log}; xl create -q /run/registers.cfg"))?;
    let domid = lab.sh("xl domid registers")?;
    let mut console = String::new();
    lab.wait_until("the test kernel makes its call", END_WAIT, |lab| {
        console = lab.run(&format!("cat {log}"))?.text();
        let info = lab.run(&format!("probe info {domid}"))?;
        check(info.status == 0, || format!("the test kernel crashed: {console}"))?;
        Ok(console.contains("REGISTERS pointer=") && !info.text().contains("shutdown=no"))
    })?;
    let info = lab.sh(&format!("probe info {domid}"))?;
    check(info.contains("shutdown=poweroff"), || format!("Xen read another reason: {info}"))?;
    let pointer =
        console.lines().find_map(|line| line.trim().split_once("REGISTERS pointer=0x")).context("no pointer")?.1;
    let pointer = u64::from_str_radix(pointer, 16).context(pointer.to_owned())?;
    let registers = lab.sh(&format!("probe registers {domid}"))?;
    lab.sh(&format!("xl destroy {domid}"))?;
    Ok(Said { pointer, registers })
}

/// Each slot that the call has holds its value; those it has not hold none of them.
fn judge(said: &Said, arity: u64) -> Result<()> {
    let [three, four, five] = SLOTS.map(|slot| slot + arity);
    let slots = [("rdi", SHUTDOWN), ("rsi", said.pointer), ("rdx", three), ("r10", four), ("r8", five)];
    for (slot, (register, wanted)) in (1..).zip(slots) {
        let is = said.registers.split(' ').find_map(|word| word.strip_prefix(register)?.strip_prefix("=0x"));
        let is = u64::from_str_radix(is.context(register)?, 16).context(register)?;
        check((is == wanted) == (slot <= arity), || {
            format!("argument {slot} of {arity}: {register} is {is:#x}, the value is {wanted:#x}; {}", said.registers)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(arity: u64, r8: u64) -> Said {
        let [three, four, _] = SLOTS.map(|slot| slot + arity);
        let registers = format!("rax=0x0 rdi=0x2 rsi=0x100 rdx={three:#x} r10={four:#x} r8={r8:#x}");
        Said { pointer: 0x100, registers }
    }

    #[test]
    fn every_slot_counts_and_no_other() {
        assert!(judge(&said(5, SLOTS[2] + 5), 5).is_ok());
        assert!(judge(&said(5, 7), 5).is_err());
        assert!(judge(&said(4, 7), 4).is_ok());
        assert!(judge(&said(4, SLOTS[2] + 4), 4).is_err());
        assert!(judge(&Said { pointer: 0x108, ..said(5, SLOTS[2] + 5) }, 5).is_err());
    }
}
