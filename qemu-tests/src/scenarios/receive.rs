//! `livesave receive` at the other end of a real `xl migrate`: the guest runs on where it is, whatever becomes of the
//! receiver, and the file is whole or not there. `xl restore` of the file goes on at an instant of the migration.

use anyhow::{Context, Result};

use super::after;
use super::words::{TAKE_WAIT, succeed, target};
use crate::lab::{Counter, Guest, Lab, Output};
use crate::say;
use crate::verdict::check;

/// Nothing else is in it.
const DIR: &str = "/scratch/received";
/// A file system that a guest does not fit.
const SMALL: &str = "/run/small";
/// docs/operating/exit-codes.md.
const CANNOT_WRITE: i32 = 39;
const SENDER_GONE: i32 = 45;
const BAD_STREAM: i32 = 46;

/// One guest, sent away and never gone, with all that can go wrong in between.
pub fn run(lab: &Lab) -> Result<()> {
    sent(lab, |lab, guest| {
        let look = format!("stat -c %a {DIR}/image; sha256sum {DIR}/image");
        let sum = lab.sh(&look)?;
        refusals(lab, guest)?;
        killed(lab, guest)?;
        let now = lab.sh(&look)?;
        check(now == sum, || format!("the file became another: {sum}, {now}"))
    })
}

fn sent(lab: &Lab, meanwhile: impl FnOnce(&Lab, &Guest) -> Result<()>) -> Result<()> {
    lab.sh(&format!("rm -rf {DIR}; mkdir {DIR} {SMALL}; mount -t tmpfs -o size=4m small {SMALL}"))?;
    let guest = lab.create_guest(&target("sent", 96, "ls.mem=16 ls.dirty=16 ls.tick=50 ls.publish=2"))?;
    let before = guest.wait_whole_pass(lab)?;
    let output = migrate(lab, &format!("-s '' {} 'livesave receive {DIR}/image'", guest.name), "is in")?;
    say!("   {}", output.errors());
    let after = runs_on(lab, &guest, &["image"]).context("after a migration that was kept")?;
    let mode = lab.sh(&format!("stat -c %a {DIR}/image"))?;
    check(mode == "600", || format!("others can read it: {mode}"))?;
    meanwhile(lab, &guest)?;
    restored(lab, &guest, before, after)?;
    lab.sh(&format!("xl destroy {}; umount {SMALL}; rm -rf {DIR} {SMALL}", guest.name)).map(drop)
}

/// For xl every one of them is a failed migration; `said` is what must stand in its output.
fn migrate(lab: &Lab, arguments: &str, said: &str) -> Result<Output> {
    let output = lab.run_for(&format!("xl migrate {arguments}"), TAKE_WAIT)?;
    let failed = output.status != 0 && output.errors().contains(said);
    check(failed, || format!("xl migrate ended with {}, without `{said}`: {}", output.status, output.errors()))?;
    Ok(output)
}

/// The guest has its name, runs, counts, and every page is right; the directory holds these files and nothing else.
fn runs_on(lab: &Lab, guest: &Guest, files: &[&str]) -> Result<Counter> {
    let list = lab.sh("xl list | awk 'NR > 1 { print $1 }'")?;
    check(list.lines().filter(|name| name.starts_with("sent")).eq(["sent"]), || format!("domains: {list}"))?;
    after::at_peace(lab, guest)?;
    let found = lab.sh(&format!("ls -A {DIR} {SMALL}"))?;
    let expected = format!("{SMALL}:\n\n{DIR}:\n{}", files.join("\n"));
    check(found.trim_end() == expected, || format!("files: {found:?}"))?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("pages are wrong: {whole:?}"))?;
    Ok(whole)
}

/// What must not be kept, each with its status and a hint.
fn refusals(lab: &Lab, guest: &Guest) -> Result<()> {
    let name = &guest.name;
    migrate(lab, &format!("-s '' {name} 'livesave receive {DIR}/image'"), "exists")?;
    migrate(lab, &format!("-s '' {name} 'livesave receive {SMALL}/image'"), "No space left")?;
    runs_on(lab, guest, &["image"]).context("after refusals")?;
    let cases = [
        (format!("head -c 40 {DIR}/image"), format!("{DIR}/other"), SENDER_GONE, "broke off"),
        (format!("head -c 1000000 {DIR}/image"), format!("{DIR}/other"), SENDER_GONE, "broke off"),
        ("yes garbage | head -c 1000000".to_owned(), format!("{DIR}/other"), BAD_STREAM, "header"),
        (format!("cat {DIR}/image"), format!("{DIR}/none/other"), CANNOT_WRITE, "cannot be made"),
    ];
    for (from, file, status, said) in cases {
        let output = lab.run_for(&format!("{from} 2>/dev/null | livesave receive {file} >/dev/null"), TAKE_WAIT)?;
        let errors = output.errors();
        let told = output.status == status && errors.contains(said) && errors.contains("hint: ");
        check(told, || format!("`{from}` into {file}: {}, {errors}", output.status))?;
    }
    runs_on(lab, guest, &["image"]).map(drop).context("after garbage")
}

/// Killed while the memory comes, xl's way of naming a host at that.
fn killed(lab: &Lab, guest: &Guest) -> Result<()> {
    let migration = format!("xl migrate -s 'livesave receive {DIR}/killed' {} localhost", guest.name);
    let migration = lab.spawn(&migration, TAKE_WAIT)?;
    // It has read more than headers when it is hit: 2 MiB of 16.
    let hit = "i=0; until P=$(pidof livesave) && [ $(awk '/rchar/ { print $2 }' /proc/$P/io) -gt 2097152 ]; do \
               i=$((i+1)); [ $i -lt 3000 ] || exit 99; done; kill -9 $P";
    lab.sh(hit)?;
    let output = migration.join()?;
    say!("   {}", output.errors());
    check(output.status != 0, || "the migration succeeded without a receiver".to_owned())?;
    // xl's save helper died of the broken pipe before it had cleaned up.
    lab.sh(&format!("probe logdirty {} off", guest.domid(lab)?))?;
    runs_on(lab, guest, &["image"]).map(drop).context("after a receiver was killed")
}

/// The image is of an instant of the migration.
fn restored(lab: &Lab, guest: &Guest, before: Counter, after: Counter) -> Result<()> {
    lab.sh(&format!("xl destroy {}", guest.name))?;
    succeed(lab, &format!("xl restore {DIR}/image"))?;
    let first = guest.next_counter(lab)?;
    check(first.ticks >= before.ticks && first.ticks <= after.ticks, || {
        format!("sent after {before:?}, seen at {after:?}, restored at {first:?}")
    })?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0 && whole.ticks > first.ticks, || format!("restored, but {whole:?} after {first:?}"))
}
