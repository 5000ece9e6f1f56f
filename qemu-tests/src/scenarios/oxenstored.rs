//! A host whose xenstored is the one in OCaml: a take, a further take, a restore, and the guest's shutdown is seen.

use anyhow::Result;

use super::after;
use super::words::{self, succeed};
use crate::lab::{Lab, Spec};
use crate::verdict::check;

/// Its machine.
pub fn machine(spec: &mut Spec) {
    spec.dom0_extra.push_str(" ls.xenstored=oxenstored");
}

/// Each mode asks for the suspend in its own way; after each the guest hears xenstored again.
pub fn run(lab: &Lab) -> Result<()> {
    let running = lab.sh("pidof oxenstored >/dev/null && echo oxenstored; pidof xenstored || true")?;
    check(running == "oxenstored", || format!("xenstored is: {running}"))?;
    lab.init_store()?;
    lab.start_stub("")?;
    let guest = lab.create_guest(&words::target("ocaml01", 96, "ls.mem=16 ls.dirty=4"))?;
    guest.wait_whole_pass(lab)?;
    for mode in ["staged", "save"] {
        succeed(lab, &format!("livesave take {} --name {mode} --mode {mode} --max-pause none", guest.name))?;
        after::at_peace(lab, &guest)?;
        succeed(lab, &format!("livesave verify {}@{mode}", guest.name))?;
    }
    lab.sh(&format!("xl destroy {}", guest.name))?;
    succeed(lab, &format!("livesave restore {}@staged", guest.name))?;
    guest.next_counter(lab)?;
    let whole = guest.wait_whole_pass(lab)?;
    check(whole.errors == 0, || format!("pages are wrong after the restore: {whole:?}"))?;
    // The restored guest can be taken, and its shutdown is seen by xl.
    after::takes(lab, &guest, "again")?;
    lab.sh(&format!("xl shutdown -w {}", guest.name))?;
    lab.stop_stub()
}
