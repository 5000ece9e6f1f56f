//! A PV guest in good order that is as hard to follow as one can be: its p2m is the three-level tree, and it makes page
//! tables of ordinary frames, rewrites them and takes them down again all the time, while they are read. Between two
//! lives as a table a frame holds what looks like entries and names any frame of the machine, holes of the M2P too.
//!
//! Linux has given up the tree (SIF_VIRT_P2M_4TOOLS), so the guest is the test kernel. Each take is compared with what
//! Xen's own writer makes of the guest as it stands; the guest checks every word itself, there and restored.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::stock;
use super::words::{TAKE_WAIT, json, succeed};
use super::{oracle, pv};
use crate::lab::{Guest, GuestKind, Lab, TARGET_LABEL};
use crate::say;
use crate::verdict::check;

const NAME: &str = "shifter";
/// Of a chain.
const MODES: [&str; 4] = ["live", "staged", "save", "xen"];
const CONSOLE: &str = "/var/log/xen/console/guest-shifter.log";
/// Frames that are tables and ordinary memory in turn.
const FRAMES: usize = 64;
/// The kernel's own are fewer than a hundred. Of the frames half must be tables when it stands: in a cycle of ten turns
/// each is one for nine.
const TABLES_MIN: usize = 100 + FRAMES / 2;

/// Takes in three modes, each against Xen's own image; the last one restored, and taken again.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let guest = start(lab)?;
    for mode in ["live", "staged", "save"] {
        take(lab, &guest, mode).with_context(|| mode.to_owned())?;
    }
    let end = Shift::of(lab)?;
    lab.sh(&format!("xl destroy {NAME}"))?;
    for (snapshot, lives) in [("live", 2), ("staged", 2)] {
        restored(lab, snapshot, lives, end).with_context(|| format!("{snapshot} restored"))?;
        lab.sh(&format!("xl destroy {NAME}"))?;
    }
    lab.sh(&format!("rm -f {}", stock::IMAGE))?;
    lab.stop_stub()
}

/// The guest stays tracked: in each mode a chain of three, whose last link equals Xen's own image of the same instant.
/// The writer of that image switches the tracking off, so the next chain begins with a full take.
pub fn run_chain(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let guest = start(lab)?;
    for mode in MODES {
        for link in ["first", "second"] {
            succeed(lab, &format!("livesave take {NAME} --name {mode}-{link} {} --max-pause none", stays(mode)))?;
        }
        last_link(lab, &guest, mode).with_context(|| mode.to_owned())?;
    }
    // What the others lie on is in them as well.
    let gone: Vec<String> = MODES.iter().map(|mode| format!("livesave rm {NAME}@{mode}-second")).collect();
    succeed(lab, &format!("{} && livesave verify --all && livesave store check", gone.join(" && ")))?;
    let end = Shift::of(lab)?;
    lab.sh(&format!("xl destroy {NAME}"))?;
    for snapshot in MODES {
        restored(lab, snapshot, 2, end).with_context(|| format!("{snapshot} restored"))?;
        lab.sh(&format!("xl destroy {NAME}"))?;
    }
    lab.sh(&format!("rm -f {}", stock::IMAGE))?;
    lab.stop_stub()
}

fn stays(mode: &str) -> String {
    format!("--incremental --pv-tracking --mode {mode}")
}

fn last_link(lab: &Lab, guest: &Guest, name: &str) -> Result<()> {
    let rings = pv::Rings::of(lab, guest)?.while_suspended();
    stock::take_as(lab, guest, name, &stays(name))?;
    let now = after(lab, Shift::of(lab)?.turns)?;
    check(now.lives == 1, || format!("it did not go on where it stood: {now:?}"))?;
    let tables = stock::compare_image(lab, guest, GuestKind::Pv, name, &rings)?;
    check(tables >= TABLES_MIN, || format!("{tables} page tables only"))?;
    let shown = json(lab, &format!("livesave show {NAME}@{name}"))?;
    let base = shown.pointer("/base").and_then(Value::as_str).unwrap_or_default();
    check(base == format!("{NAME}@{name}-second"), || format!("it lies on `{base}`: {shown}"))?;
    say!("   {name}, on {base}: {tables} page tables, 0 words wrong");
    Ok(())
}

fn start(lab: &Lab) -> Result<Guest> {
    let config = format!(
        "name = \"{NAME}\"\ntype = \"pv\"\nmemory = 48\nvcpus = 1\nkernel = \"/boot/prober\"\n\
         cmdline = \"shift={FRAMES}\"\nseclabel = \"{TARGET_LABEL}\"\non_crash = \"preserve\"\n"
    );
    lab.put_bytes(config.as_bytes(), "/run/shifter.cfg")?;
    lab.sh(&format!("rm -f {CONSOLE}; xl create -q /run/shifter.cfg"))?;
    let guest = Guest { name: NAME.to_owned() };
    after(lab, 0)?;
    let console = lab.sh(&format!("cat {CONSOLE}"))?;
    let holes = console.lines().find_map(|line| line.split("M2P: ").nth(1)?.split(' ').next()?.parse::<u32>().ok());
    check(holes.is_some_and(|holes| holes > 0), || format!("no hole in the M2P to fall into: {console}"))?;
    Ok(guest)
}

/// What the guest says of itself.
#[derive(Clone, Copy, Debug)]
struct Shift {
    turns: u64,
    wrong: u64,
    lives: u64,
}

impl Shift {
    fn of(lab: &Lab) -> Result<Self> {
        let text = lab.sh(&format!("xenstore-read /local/domain/$(xl domid {NAME})/data/shift"))?;
        let numbers = text.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>().with_context(|| text.clone())?;
        let [turns, wrong, lives] = numbers[..] else { anyhow::bail!("the guest said: {text}") };
        Ok(Self { turns, wrong, lives })
    }
}

/// Waits until the guest is well past `turns`: each of its frames has been checked by then.
fn after(lab: &Lab, turns: u64) -> Result<Shift> {
    let mut seen = None;
    let waited = lab.wait_until("the guest shifts", TAKE_WAIT, |lab| {
        let console = lab.run(&format!("cat {CONSOLE}"))?.text();
        ensure!(!console.contains("panic") && !console.contains("fault"), "the guest died: {console}");
        let path = format!("/local/domain/$(xl domid {NAME})/data/shift");
        if lab.run(&format!("xenstore-read {path}"))?.status == 0 {
            seen = Some(Shift::of(lab)?).filter(|now| now.turns > turns + 2 * FRAMES as u64);
        }
        Ok(seen.is_some())
    });
    waited.with_context(|| lab.sh(&format!("tail -n 20 {CONSOLE}; xl list")).unwrap_or_default())?;
    let now = seen.context("the guest said nothing")?;
    check(now.wrong == 0, || format!("words are wrong: {now:?}"))?;
    Ok(now)
}

fn take(lab: &Lab, guest: &Guest, mode: &str) -> Result<()> {
    let before = Shift::of(lab)?;
    let rings = pv::Rings::of(lab, guest)?.while_suspended();
    stock::take(lab, guest, mode)?;
    let now = after(lab, Shift::of(lab)?.turns)?;
    check(now.lives == 1, || format!("it did not go on where it stood: {now:?}"))?;
    let tables = stock::compare(lab, guest, GuestKind::Pv, mode, &rings)?;
    check(tables >= TABLES_MIN, || format!("{tables} page tables only"))?;
    say!("   {mode}: {} turns meanwhile, {tables} page tables, 0 words wrong", now.turns - before.turns);
    succeed(lab, &format!("livesave verify {NAME}@{mode}")).map(drop)
}

/// It goes on at an instant before `end`, in a domain that gave it other frames, and can be taken there.
fn restored(lab: &Lab, snapshot: &str, lives: u64, end: Shift) -> Result<()> {
    lab.sh(&format!("rm -f {CONSOLE}"))?;
    succeed(lab, &format!("livesave restore {NAME}@{snapshot}"))?;
    let first = after(lab, 0)?;
    check(first.turns < end.turns + 1000 && first.lives == lives, || format!("{first:?}, and it ended at {end:?}"))?;
    let name = format!("{NAME}@again-{snapshot}");
    succeed(lab, &format!("livesave take {NAME} --name again-{snapshot} --mode live --max-pause none"))?;
    let now = after(lab, first.turns)?;
    check(now.lives == lives, || format!("{now:?}"))?;
    succeed(lab, &format!("livesave verify {name}"))?;
    let image = oracle::export(lab, &name)?;
    check(image.kinds.len() >= TABLES_MIN, || format!("{} page tables only", image.kinds.len()))?;
    say!("   {snapshot}, restored: {first:?}, then {now:?}");
    Ok(())
}
