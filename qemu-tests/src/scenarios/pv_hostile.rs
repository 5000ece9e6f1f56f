//! PV guests that lie about their p2m, or go away under the take: each take ends with a cause, in bounded time, and
//! with the memory that the stub had before; the guest runs on, and the next guest's snapshot is whole.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::aftermath::LISTS_BYTES;
use super::words::{self, TAKE_WAIT, fails_with, json, number, succeed};
use crate::lab::{GuestKind, Lab};
use crate::say;
use crate::verdict::check;

/// The test kernel, which tells the lies.
const KERNEL: &str = "/boot/prober";
const CONSOLE: &str = "/var/log/xen/console/guest-liar.log";
/// docs/operating/exit-codes.md.
const VOID: i32 = 32;
const NOT_ACKED: i32 = 24;
const GUEST_ENDED: i32 = 26;
/// `lie=` on the test kernel's command line, and how a take of it ends. The guest that loops has a p2m that can be
/// followed, so that the take comes to the suspend, of which this kernel knows nothing.
/// The restless one is refused for whatever it shows at the moment. The one that swaps an entry of the page tables of
/// its p2m while they are read is believed or not, as the moment has it.
const LIES: [(&str, &[i32], &str); 7] = [
    ("huge", &[VOID], "larger than the stub can follow"),
    ("odd", &[VOID], "changes it all the time"),
    ("restless", &[VOID], "the guest's p2m"),
    ("foreign", &[VOID], "no frame of the guest"),
    ("beyond", &[VOID], "no frame of the guest"),
    ("loop", &[NOT_ACKED], ""),
    ("swap", &[VOID, NOT_ACKED], ""),
];
/// The keeper waits half a minute for a guest that does not answer; the machine is slow, and may be busy.
const MOST: Duration = Duration::from_secs(180);

/// Every lie, a guest that is destroyed under the take, and a take of another guest.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let mut spec = words::target("honest", 96, "ls.mem=16 ls.dirty=8 ls.tick=40 ls.publish=2");
    spec.kind = GuestKind::Pv;
    // It may grow: a PV guest is not populate-on-demand for that.
    spec.extra.push("maxmem = 128".to_owned());
    let honest = lab.create_guest(&spec)?;
    let limits = lab.sh("xl list -l honest | grep -o '\"m[a-z]*_memkb\": [0-9]*'; probe info $(xl domid honest)")?;
    say!("   the other guest: {}", limits.replace('\n', ", "));
    succeed(lab, "livesave take honest --name before --mode save")?;
    let free = memory_free(lab)?;
    for (lie, exits, says) in LIES {
        lied(lab, lie, exits, says).with_context(|| lie.to_owned())?;
    }
    destroyed(lab).context("destroyed")?;
    doomed(lab).context("doomed")?;
    let now = memory_free(lab)?;
    check(free.saturating_sub(now) <= LISTS_BYTES, || format!("the stub had {free} bytes free, and has {now}"))?;
    succeed(lab, "livesave take honest --name after --mode save")?;
    succeed(lab, "livesave verify honest@after")?;
    let whole = honest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("the other guest: {whole:?}"))?;
    words::tracking_is_off(lab, &honest)?;
    let end = honest.counter(lab)?.context("no counter")?;
    lab.sh("xl destroy honest")?;
    succeed(lab, "livesave restore honest@after")?;
    let first = honest.next_counter(lab)?;
    let whole = honest.wait_whole_pass(lab)?;
    check(whole.errors == 0 && first.ticks < end.ticks, || format!("restored: {end:?}, {first:?}, {whole:?}"))?;
    lab.sh("xl destroy honest")?;
    lab.stop_stub()
}

fn memory_free(lab: &Lab) -> Result<u64> {
    number(&json(lab, "livesave status")?, "/stub/memory_free")
}

/// Starts a liar that has begun.
fn start(lab: &Lab, lie: &str) -> Result<()> {
    start_with(lab, &format!("lie={lie}"), &format!("lying: {lie}"))
}

fn start_with(lab: &Lab, line: &str, begun: &str) -> Result<()> {
    let config = format!(
        "name = \"liar\"\ntype = \"pv\"\nmemory = 32\nvcpus = 1\nkernel = \"{KERNEL}\"\ncmdline = \"{line}\"\n\
         seclabel = \"{}\"\non_poweroff = \"preserve\"\non_crash = \"preserve\"\n",
        crate::lab::TARGET_LABEL
    );
    lab.put_bytes(config.as_bytes(), "/run/liar.cfg")?;
    lab.sh(&format!("rm -f {CONSOLE}; xl create -q /run/liar.cfg"))?;
    lab.sh("xenstore-write /local/domain/$(xl domid liar)/control/feature-suspend 1")?;
    lab.wait_until("the test kernel lies", TAKE_WAIT, |lab| {
        Ok(lab.run(&format!("cat {CONSOLE}"))?.text().contains(begun))
    })
}

fn lied(lab: &Lab, lie: &str, exits: &[i32], says: &str) -> Result<()> {
    start(lab, lie)?;
    let began = Instant::now();
    let output = lab.run_for("livesave take liar", TAKE_WAIT)?;
    let said = format!("{} {}", output.text(), output.errors());
    check(exits.contains(&output.status) && said.contains(says), || {
        format!("ended with {}, not {exits:?}: {said}\n{}", output.status, lab.stub_console())
    })?;
    let took = began.elapsed();
    check(took < MOST, || format!("it took {took:?}"))?;
    let info = lab.sh("D=$(xl domid liar); probe info $D; probe logdirty $D status")?;
    check(info.contains("shutdown=no") && info.ends_with("off"), || format!("the liar was left as {info}"))?;
    let last = said.lines().last().unwrap_or("");
    say!("   {lie:<9} {} in {:.1} s: {last}", output.status, took.as_secs_f32());
    lab.sh("xl destroy liar")?;
    fails_with(lab, "xl domid liar", 1).map(|_| ())
}

/// The guest goes while the stub waits for its suspend.
fn destroyed(lab: &Lab) -> Result<()> {
    start(lab, "loop")?;
    let take = lab.spawn("livesave take liar", TAKE_WAIT)?;
    lab.wait_until("the take wants the suspend", TAKE_WAIT, |lab| {
        let status = json(lab, "livesave status")?;
        Ok(status.pointer("/session/state").and_then(serde_json::Value::as_str) == Some("want-suspend"))
    })?;
    lab.sh("xl destroy liar")?;
    let output = take.join()?;
    check(output.status == GUEST_ENDED, || {
        format!("ended with {}: {} {}", output.status, output.text(), output.errors())
    })
}

/// A guest that follows every rule, is copied while it runs, and ends itself when it is asked to suspend.
fn doomed(lab: &Lab) -> Result<()> {
    start_with(lab, "shift=32 doomed", "shifting: 32")?;
    let output = lab.run_for("livesave take liar", TAKE_WAIT)?;
    let said = format!("{} {}", output.text(), output.errors());
    check(output.status == GUEST_ENDED, || format!("ended with {}: {said}", output.status))?;
    say!("   doomed    {} {}", output.status, said.lines().last().unwrap_or(""));
    lab.sh("xl destroy liar")?;
    fails_with(lab, "xl domid liar", 1).map(|_| ())
}
