//! What a take, a restore or a store is refused for before anything was begun: each cause has its own exit status, a
//! message that names it, a hint; after each the guest counts, its tracking is off, and the store holds what it held.
//! What goes wrong later is in `bad_middle`.

mod damage;
mod requests;
mod restore;

use anyhow::{Context, Result};

use super::after;
use super::ward::Ward;
use super::words;
use crate::lab::Lab;
use crate::verdict::check;

/// A command that must be refused.
struct Case {
    /// What is wrong, for the report.
    what: &'static str,
    /// Shell in dom0 that makes it so. `$G` is the guest's name, `$D` its domid.
    before: &'static str,
    /// The command, in the same shell.
    command: &'static str,
    /// Its exit status (docs/operating/exit-codes.md).
    exit: i32,
    /// A part of its message that tells this cause from others.
    says: &'static str,
    /// Shell that undoes `before`.
    after: &'static str,
}

/// A command that is wrong without any preparation.
const fn plain(what: &'static str, command: &'static str, exit: i32, says: &'static str) -> Case {
    Case { what, before: "", command, exit, says, after: "" }
}

const TAKE: &str = "livesave take $G --name refused";

/// Before there is a stub or a store.
const WITHOUT_STUB: &[Case] = &[
    plain("no stub", TAKE, 7, "no stub domain"),
    plain("no stub and no word on the store", "livesave ls", 7, "no stub domain"),
    Case {
        what: "a blank device",
        before: "truncate -s 64M /run/image",
        command: "livesave ls --store /run/image",
        exit: 21,
        says: "/run/image",
        after: "rm /run/image",
    },
    Case {
        what: "a device with something foreign on it",
        before: "truncate -s 64M /run/image; \
                 printf '\\123\\357' | dd of=/run/image bs=1 seek=1080 conv=notrunc 2>/dev/null",
        command: "livesave store init /run/image",
        exit: 23,
        says: "ext2",
        after: "rm /run/image",
    },
    plain("a mounted device", "livesave store init /dev/vdb", 23, "mounted on /scratch"),
    Case {
        what: "a device that is too small",
        before: "truncate -s 1M /run/image",
        command: "livesave store init /run/image",
        exit: 20,
        says: "/run/image",
        after: "rm /run/image",
    },
    plain("a device that is not there", "livesave store init /dev/nothing", 21, "/dev/nothing"),
];

/// With a stub that is idle, and a snapshot `$G@kept` in its store.
const WITH_STUB: &[Case] = &[
    plain("unknown domain", "livesave take nobody", 5, "'nobody'"),
    plain("a mode that there is not", "livesave take $G --mode fast", 2, "fast"),
    plain("a target of nothing", "livesave take $G --target-pause 0ms", 2, "more than nothing"),
    plain("an option of another mode", "livesave take $G --mode live --staging 64M", 2, "means nothing in mode live"),
    plain(
        "a target above the limit",
        "livesave take $G --mode staged --target-pause 3s --max-pause 2s",
        2,
        "longer than",
    ),
    plain(
        "more staging than the stub has",
        "livesave take $G --mode staged --name refused --staging 64G",
        17,
        "KiB of staging",
    ),
    plain(
        "a pause that cannot be",
        "livesave take $G --mode staged --name refused --max-pause 1ms",
        44,
        "cannot be met",
    ),
    Case {
        what: "ambiguous domain",
        before: "xenstore-write /local/domain/999/name $G",
        command: TAKE,
        exit: 6,
        says: "999",
        after: "xenstore-rm /local/domain/999",
    },
    Case {
        what: "a guest without suspend",
        before: "xenstore-rm /local/domain/$D/control/feature-suspend",
        command: TAKE,
        exit: 10,
        says: "does not offer suspend",
        after: "xenstore-write /local/domain/$D/control/feature-suspend 1",
    },
    Case {
        what: "a paused guest",
        before: "xl pause $G",
        command: TAKE,
        exit: 11,
        says: "paused",
        after: "xl unpause $G",
    },
    Case {
        what: "dirty tracking on",
        before: "probe logdirty $D on",
        command: TAKE,
        exit: 14,
        says: "log-dirty",
        // It is somebody else's: the stub must have left it on.
        after: "test $(probe logdirty $D status) = on && probe logdirty $D off",
    },
    Case {
        what: "xl save under way",
        // Nobody reads the pipe for now, so it stands in the middle, and the guest with it.
        before: "mkfifo /run/pipe; \
                 (until test -e /run/go; do sleep 0.1; done; cat) </run/pipe >/dev/null 2>&1 & \
                 xl save -c $G /run/pipe >/run/save.out 2>&1 & echo $! >/run/saver; \
                 until probe info $D | grep -q shutdown=suspend; do sleep 0.1; done",
        command: TAKE,
        exit: 14,
        says: "xl save",
        after: "touch /run/go; while test -d /proc/$(cat /run/saver); do sleep 0.1; done; rm /run/pipe /run/go",
    },
    plain("a name that is used", "livesave take $G --name kept", 18, "kept"),
    plain("a name that is none", "livesave take $G --name a/b", 2, "a/b"),
    plain("dom0", "livesave take Domain-0", 2, "dom0"),
    plain("the stub itself", "livesave take livesave", 2, "itself"),
    plain("restore over a living guest", "livesave restore $G@kept --disks-as-they-are", 34, "same name or uuid"),
    plain("unknown snapshot", "livesave restore $G@no", 19, "$G@no"),
    plain("removal of no snapshot", "livesave rm $G@no", 19, "$G@no"),
    plain("the store attached to the stub", "livesave store init /dev/vda", 23, "attached to domain"),
    plain("nothing to cancel", "livesave cancel", 19, "no session"),
];

/// Runs them all on one boot.
pub fn run(lab: &Lab) -> Result<()> {
    restore::make_disk(lab)?;
    let mut spec = words::target("bad01", 96, "ls.mem=16 ls.dirty=1");
    spec.extra.push(restore::disk_line());
    let guest = lab.create_guest(&spec)?;
    let mut ward = Ward::new(lab, &guest);
    refuse_all(&mut ward, WITHOUT_STUB)?;
    lab.init_store()?;
    lab.start_stub("")?;
    after::takes(lab, &guest, "kept")?;
    ward.guard_store()?;
    refuse_all(&mut ward, WITH_STUB)?;
    other_guests(&mut ward)?;
    requests::run(&mut ward)?;
    damage::run(&mut ward)?;
    restore::run(&mut ward)?;
    ward.verified()?;
    ward.judge()
}

fn refuse_all(ward: &mut Ward, cases: &[Case]) -> Result<()> {
    let variables = ward.variables()?;
    for case in cases {
        refused(ward, &variables, case).with_context(|| case.what)?;
    }
    Ok(())
}

/// The case, its end, and what it did to the guest and the store.
fn refused(ward: &mut Ward, variables: &str, case: &Case) -> Result<()> {
    let says = case.says.replace("$G", &ward.guest.name);
    if !case.before.is_empty() {
        ward.lab.sh(&format!("{variables}{}", case.before)).context("before")?;
    }
    let output = ward.lab.run_for(&format!("{variables}{}", case.command), after::TAKE_WAIT)?;
    if !case.after.is_empty() {
        let undone = ward.lab.run_for(&format!("{variables}{}", case.after), after::TAKE_WAIT)?;
        let unmarked =
            check(undone.status == 0, || format!("it left a mark: `{}` says {}", case.after, undone.errors()));
        ward.note(case.what, unmarked)?;
    }
    ward.told(case.what, &output, case.exit, &says)
}

/// Guests of kinds that cannot be taken. They need not have booted to be refused.
fn other_guests(ward: &mut Ward) -> Result<()> {
    let pod = words::target("badpod", 128, "");
    // Before its balloon driver gives back what was never populated; so the offer is ours.
    let config = pod.config().replace("maxmem = 128", "maxmem = 256");
    let early = "xenstore-write /local/domain/$(xl domid badpod)/control/feature-suspend 1; ";
    refuse_new(ward, (&pod.name, &config), early, 13, "populate-on-demand")
}

fn refuse_new(ward: &mut Ward, (name, config): (&str, &str), before: &str, exit: i32, says: &str) -> Result<()> {
    let path = format!("/run/{name}.cfg");
    ward.lab.put_bytes(config.as_bytes(), &path)?;
    let command = format!("xl create -q -p {path} && {before}xl unpause {name} && livesave take {name}");
    let output = ward.lab.run_for(&command, after::TAKE_WAIT)?;
    let runs =
        ward.lab.run(&format!("D=$(xl domid {name}); probe info $D; probe logdirty $D status; xl destroy {name}"))?;
    let well = check(runs.text().contains("shutdown=no") && runs.text().ends_with("off"), || {
        format!("{name} was left as {} {}", runs.text(), runs.errors())
    });
    ward.note(name, well)?;
    ward.told(name, &output, exit, says)
}
