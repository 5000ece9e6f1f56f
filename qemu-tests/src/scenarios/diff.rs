//! Differential takes of a guest that keeps writing: what has not changed is not written again, the snapshot that they
//! were compared with may go, and what is restored is the guest of that instant, page by page.

use anyhow::Result;

use super::take_restore::{goes_on, stands_at_the_instant};
use super::words::{json, number, succeed, target};
use crate::lab::Lab;
use crate::say;
use crate::verdict::check;

/// One full take, two differential ones in other modes, and the first removed.
pub fn run(lab: &Lab) -> Result<()> {
    lab.init_store()?;
    lab.start_stub("")?;
    let guest = lab.create_guest(&target("diff01", 96, "ls.mem=16 ls.dirty=8"))?;
    guest.wait_whole_pass(lab)?;
    succeed(lab, "livesave take diff01 --name first --max-pause none")?;
    differs(lab, "second", "staged", "diff01@first")?;
    let watch = guest.watch(lab)?;
    let gfn = watch.gfn().to_owned();
    differs(lab, "third", "live", "diff01@second")?;
    let samples = watch.end(lab)?;
    for gone in ["first", "second"] {
        succeed(lab, &format!("livesave rm diff01@{gone}"))?;
    }
    succeed(lab, "livesave store check")?;
    succeed(lab, "livesave verify diff01@third")?;
    let after = guest.wait_whole_pass(lab)?;
    check(after.errors == 0, || format!("pages are wrong after the takes: {after:?}"))?;
    lab.sh("xl destroy diff01")?;
    succeed(lab, "livesave restore diff01@third --paused")?;
    let restored = stands_at_the_instant(lab, &guest, "diff01@third", &gfn, &samples)?;
    let whole = goes_on(lab, &guest, restored)?;
    check(whole.errors == 0, || format!("pages are wrong after the restore: {whole:?}"))?;
    lab.sh("xl destroy diff01")?;
    lab.stop_stub()
}

/// Most of such a guest is as it was: of its pages with data at least half are found in the other snapshot.
fn differs(lab: &Lab, name: &str, mode: &str, base: &str) -> Result<()> {
    succeed(lab, &format!("livesave take diff01 --name {name} --diff --mode {mode} --max-pause none"))?;
    let shown = json(lab, &format!("livesave show diff01@{name}"))?;
    check(shown["kind"] == "diff" && shown["base"] == base, || format!("it is no difference to {base}: {shown}"))?;
    let (shared, data) = (number(&shown, "/shared_pages")?, number(&shown, "/data_pages")?);
    say!("   {name}: {shared} of {data} pages with data were there");
    check(shared <= data && 2 * shared >= data, || format!("{shared} of {data} pages were found: {shown}"))
}
