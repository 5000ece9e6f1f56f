//! Restores that would destroy something: over a living guest, onto a disk that has moved on, from a damaged snapshot.
//! The last case of the scenario: the guest is destroyed for it, and comes back.

use anyhow::{Context, Result};

use super::super::after;
use super::super::ward::{Ward, told};
use super::damage;
use crate::lab::Lab;
use crate::say;
use crate::verdict::check;

/// The guest's disk. Its kernel has no driver for it: what moves on is made to, from dom0.
const DISK: &str = "/dev/loop1";
const FILE: &str = "/scratch/bad01.raw";

/// The disk, with a word on it that the guest could have read.
pub fn make_disk(lab: &Lab) -> Result<()> {
    lab.sh(&format!("truncate -s 16M {FILE} && losetup {DISK} {FILE} && {}", write("noon"))).map(drop)
}

/// Its line in the guest's configuration.
pub fn disk_line() -> String {
    format!("disk = [ \"format=raw, vdev=xvda, access=rw, target={DISK}\" ]")
}

fn write(word: &str) -> String {
    format!("printf '%s' '{word}' | dd of={DISK} conv=notrunc 2>/dev/null && sync")
}

/// The ward's guest is destroyed and its disk moves on; in the end it is restored all the same, and told so.
pub fn run(ward: &mut Ward) -> Result<()> {
    let (lab, name) = (ward.lab, ward.guest.name.clone());
    let restore = format!("livesave restore {name}@kept");
    // The stub is needed no more, and what it holds must not matter.
    lab.sh(&format!("xl destroy {name}; {}", write("three")))?;
    let cases = [
        ("a disk that moved on", "", 35, "may have moved on"),
        ("a disk mapped to nothing", " --disk xvda=/dev/nothing", 2, "/dev/nothing does not exist"),
        ("a mapping that is none", " --disk xvda", 2, "not VDEV=PATH"),
        ("a mapping of no disk of its", " --disk xvda=/dev/loop1 --disk xvdz=/dev/loop1", 2, "xvdz"),
        ("a clone of a name that is none", " --disks-as-they-are --clone a/b", 2, "a/b"),
    ];
    for (what, options, exit, says) in cases {
        nothing_comes_of(ward, what, &format!("{restore}{options} --store /dev/vda"), exit, says)?;
    }
    let page = damage::a_page(lab)?;
    damage::flip(lab, page)?;
    let damaged = format!("{restore} --disks-as-they-are --store /dev/vda");
    nothing_comes_of(ward, "a damaged snapshot", &damaged, 22, "damaged page of gfn")?;
    damage::flip(lab, page)?;

    let back = lab.run_for(&damaged, after::TAKE_WAIT)?;
    say!("   {:<44} {:>2}  {}", "--disks-as-they-are", back.status, back.text());
    check(back.status == 0, || format!("--disks-as-they-are: {} {}", back.status, back.errors()))?;
    let whole = ward.guest.wait_whole_pass(lab).context("the restored guest")?;
    check(whole.errors == 0, || format!("pages are wrong after the restore: {whole:?}"))?;
    let disk = lab.sh(&format!("head -c 5 {DISK}"))?;
    check(disk == "three", || format!("the restore changed the disk: it begins with {disk}"))?;
    ward.unharmed("a restore onto the disk as it is")?;
    ward.refused("a restore over the restored guest", &damaged, 34, "same name or uuid")?;
    lab.sh(&format!("xl destroy {name}; losetup -d {DISK}; rm {FILE}")).map(drop)
}

/// Refused; no domain appears or stays, and the store is as it was.
fn nothing_comes_of(ward: &mut Ward, what: &str, command: &str, exit: i32, says: &str) -> Result<()> {
    let output = ward.lab.run_for(command, after::TAKE_WAIT)?;
    say!("   {what:<44} {:>2}  {}", output.status, output.errors().replace('\n', " | "));
    let refused = told(&output, exit, says);
    ward.note(what, refused)?;
    let left = ward.lab.sh("xl list | awk 'NR > 1 && $1 != \"Domain-0\" && $1 != \"livesave\"'")?;
    let nothing = check(left.is_empty(), || format!("a domain is left: {left}"));
    ward.note(what, nothing)?;
    let same = ward.same_store();
    ward.note(what, same)
}
