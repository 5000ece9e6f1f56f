//! `cargo xtask demo`: a guest is snapshotted while it runs, destroyed, and brought back, under nested Xen.
//!
//! Everything that happens in dom0 is shown as it would be typed there. The demo fails, with a status other than 0, as
//! soon as something is not as it says.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::lab::{Counter, Guest, GuestSpec, Lab, Output, TARGET_LABEL};
use qemu_tests::scenarios;

use super::{dist, lab};
use crate::packages;
use crate::paths;
use crate::sh::heading;

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Args {}

const GUEST: &str = "web01";
const NAME: &str = "web01@demo";
/// One command in dom0, under emulation, on a machine that may be busy.
const COMMAND_WAIT: Duration = Duration::from_secs(600);

/// Runs the verb.
pub fn run(_args: &Args) -> Result<()> {
    let started = Instant::now();
    packages::ensure_installed()?;
    dist::programs()?;
    heading("nested Xen: hypervisor, policy, dom0");
    let lab = lab::start(&lab::spec(paths::target_dir("qemu")?.join("demo"))?)?;
    lab::install(&lab)?;
    let guest = set_up(&lab)?;
    let table = show(&lab, &guest)?;
    lab.poweroff()?;
    heading("the take, once more");
    println!("{table}");
    println!("\nthe whole demo took {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// A store, the stub, and a guest that dirties memory and counts.
fn set_up(lab: &Lab) -> Result<Guest> {
    heading("a store, and the stub domain");
    lab.init_store()?;
    lab.start_stub("")?;
    typed(lab, "xl list -Z")?;
    heading("a PVH guest that keeps writing to its memory, counts, and checks every page");
    let mut spec = GuestSpec::new(GUEST);
    spec.label = Some(TARGET_LABEL.to_owned());
    lab.create_guest(&spec)
}

/// From the take to the restored guest; gives the take's own table.
fn show(lab: &Lab, guest: &Guest) -> Result<String> {
    let before = guest.wait_whole_pass(lab)?;
    println!("{GUEST}: {}", told(before));
    heading("a snapshot while it runs");
    let watch = guest.watch(lab)?;
    let gfn = watch.gfn().to_owned();
    let table = take(lab, guest)?;
    let samples = watch.end(lab)?;
    let after = guest.wait_whole_pass(lab)?;
    println!("{GUEST} went on: {}", told(after));
    ensure!(after.ticks > before.ticks && after.errors == 0, "the guest did not go on as it should");
    for command in ["livesave ls", &format!("livesave show {NAME}"), &format!("livesave verify {NAME}")] {
        typed(lab, command)?;
    }
    heading("the guest is destroyed, and brought back by stock xl");
    let destroyed = guest.counter(lab)?.context("the guest has no counter")?;
    typed(lab, &format!("xl destroy {GUEST}"))?;
    typed(lab, &format!("livesave restore {NAME} --paused"))?;
    let stands = scenarios::stands_at_the_instant(lab, guest, NAME, &gfn, &samples)?;
    println!("destroyed after tick {}, brought back at {stands}", destroyed.ticks);
    println!("dom0# xl unpause {GUEST}");
    let whole = scenarios::goes_on(lab, guest, stands)?;
    println!("after a look at every page: {}", told(whole));
    ensure!(whole.errors == 0, "pages are wrong after the restore");
    Ok(table)
}

/// Takes the snapshot and shows the counter meanwhile.
fn take(lab: &Lab, guest: &Guest) -> Result<String> {
    let command = format!("livesave take {GUEST} --name demo --max-pause none");
    println!("dom0# {command}");
    let take = lab.spawn(&command, COMMAND_WAIT)?;
    let mut seen = 0;
    while !take.is_done() {
        if let Some(counter) = guest.counter(lab)?.filter(|counter| counter.ticks > seen) {
            seen = counter.ticks;
            println!("  {GUEST} counts: {}", told(counter));
        }
    }
    let output = take.join()?;
    print_output(&output);
    ensure!(output.status == 0, "the take ended with {}\n{}", output.status, lab.stub_console());
    Ok(output.text())
}

fn typed(lab: &Lab, command: &str) -> Result<()> {
    println!("dom0# {command}");
    let output = lab.run_for(command, COMMAND_WAIT)?;
    print_output(&output);
    ensure!(output.status == 0, "`{command}` ended with {}", output.status);
    Ok(())
}

fn print_output(output: &Output) {
    for text in [output.errors(), output.text()].iter().filter(|text| !text.is_empty()) {
        println!("{text}");
    }
}

fn told(counter: Counter) -> String {
    format!("tick {}, {} wrong pages, all memory checked {} times", counter.ticks, counter.errors, counter.passes)
}
