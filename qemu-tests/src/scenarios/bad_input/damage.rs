//! Stores and devices as they should not be: bits flipped, of a newer version, read-only, too small for the guest.

use anyhow::{Context, Result};

use super::super::after;
use crate::lab::{Guest, Lab};
use crate::verdict::check;

/// Last block of the 4 GiB disk: the second superblock (docs/format/store-v1.md).
const LAST_BLOCK: u64 = (4 << 30) / 4096 - 1;
/// Where the first snapshot's data lies: the first segments behind the front meta area, in blocks.
const FIRST_DATA: u64 = 2 * 256;
/// A device that is a store, but not for a guest of 128 MiB.
const SMALL: &str = "/scratch/small.img";

/// Bytes of a superblock that its checksum covers.
const SEALED: usize = 4080;
/// Shell: from here on the disk is read, not the page cache, which knows nothing of what the stub wrote.
const FRESH: &str = "sync; echo 3 >/proc/sys/vm/drop_caches";

/// Needs `kept`, the only snapshot; ends with the store as it was, and no stub.
pub fn run(lab: &Lab, guest: &Guest) -> Result<()> {
    lab.stop_stub()?;
    flipped_page(lab, &format!("{}@kept", guest.name)).context("a flipped bit in a page")?;
    flipped_superblock(lab).context("a flipped bit in a superblock")?;
    newer(lab, guest).context("a store of a newer version")?;
    read_only(lab, guest).context("a read-only device")?;
    small(lab, guest).context("a store that is too small")?;
    after::at_peace(lab, guest)
}

/// One bit in one page of the snapshot: `verify` names the snapshot, and it is whole again with the bit flipped back.
fn flipped_page(lab: &Lab, name: &str) -> Result<()> {
    let verify = format!("livesave verify {name} --store /dev/vda");
    let at = (FIRST_DATA + 40) * 4096 + 17;
    let mut seen = Vec::new();
    for _ in 0..2 {
        flip(lab, at)?;
        let output = lab.run_for(&verify, after::TAKE_WAIT)?;
        println!(
            "   {} {} | {}",
            output.status,
            output.text().replace('\n', " "),
            output.errors().replace('\n', " | ")
        );
        seen.push(output);
    }
    let [damaged, whole] = seen.as_slice() else { return Ok(()) };
    let named = damaged.text().lines().any(|line| line.contains(name) && line.contains("DAMAGED"));
    check(damaged.status == 22 && named, || format!("verify said {}: {}", damaged.status, damaged.text()))?;
    check(whole.status == 0, || format!("verify said {}: {}", whole.status, whole.text()))
}

/// Each superblock alone may be lost.
fn flipped_superblock(lab: &Lab) -> Result<()> {
    let before = after::listing(lab)?;
    for block in [0, LAST_BLOCK] {
        flip(lab, block * 4096 + 300)?;
        after::same_store(lab, &before)?;
        flip(lab, block * 4096 + 300)?;
    }
    Ok(())
}

/// Both superblocks lost, then both of a version that does not exist yet, with checksums that are right.
fn newer(lab: &Lab, guest: &Guest) -> Result<()> {
    for block in [0, LAST_BLOCK] {
        flip(lab, block * 4096 + 8)?;
    }
    listing_fails(lab, "damaged superblock")?;
    for block in [0, LAST_BLOCK] {
        flip(lab, block * 4096 + 8)?;
        edit(lab, block, |bytes| bytes[8] = 2)?;
    }
    listing_fails(lab, "version")?;
    unready(lab, guest, "/dev/vda", "w", "version")?;
    for block in [0, LAST_BLOCK] {
        edit(lab, block, |bytes| bytes[8] = 1)?;
    }
    Ok(())
}

fn listing_fails(lab: &Lab, says: &str) -> Result<()> {
    let listed = lab.run("livesave ls --store /dev/vda")?;
    println!("   {} {}", listed.status, listed.errors().replace('\n', " | "));
    check(listed.status == 22 && listed.errors().contains(says), || {
        format!("want 22 and `{says}`; ls said {}: {}", listed.status, listed.errors())
    })
}

/// Changes a superblock and makes its checksum right: unkeyed BLAKE3, 16 bytes, over what stands before it.
fn edit(lab: &Lab, block: u64, change: impl FnOnce(&mut [u8; SEALED])) -> Result<()> {
    lab.sh(&format!("{FRESH}; dd if=/dev/vda of=/run/block bs=4096 skip={block} count=1 2>/dev/null"))?;
    let bytes = lab.get_bytes("/run/block")?;
    let mut sealed: [u8; SEALED] = bytes.get(..SEALED).context("a short block")?.try_into().context("a short block")?;
    change(&mut sealed);
    let sum = blake3::hash(&sealed);
    let bytes: Vec<u8> = sealed.iter().chain(sum.as_bytes().iter().take(16)).copied().collect();
    lab.put_bytes(&bytes, "/run/block")?;
    lab.sh(&format!("dd if=/run/block of=/dev/vda bs=4096 seek={block} conv=notrunc 2>/dev/null; sync")).map(drop)
}

fn read_only(lab: &Lab, guest: &Guest) -> Result<()> {
    unready(lab, guest, "/dev/vda", "r", "read-only")
}

/// The stub says why it cannot serve, and a take hands that on.
fn unready(lab: &Lab, guest: &Guest, device: &str, access: &str, says: &str) -> Result<()> {
    lab.create_stub(device, access, "")?;
    let reason = lab.stub_reason()?;
    let take = lab.run(&format!("livesave take {}", guest.name))?;
    println!("   {} {}", take.status, take.errors().replace('\n', " | "));
    lab.stop_stub()?;
    check(reason.contains(says), || format!("the stub's reason is `{reason}`"))?;
    check(take.status == 8 && take.errors().contains(says), || format!("take said {}: {}", take.status, take.errors()))
}

/// A store that cannot hold the guest: refused, and empty afterwards.
fn small(lab: &Lab, guest: &Guest) -> Result<()> {
    lab.sh(&format!("truncate -s 32M {SMALL}; losetup /dev/loop0 {SMALL}; livesave store init /dev/loop0"))?;
    lab.create_stub("/dev/loop0", "w", "")?;
    lab.wait_until("the stub is idle", after::TAKE_WAIT, |lab| lab.stub_is_idle())?;
    let take = lab.run_for(&format!("livesave take {}", guest.name), after::TAKE_WAIT)?;
    println!("   {} {}", take.status, take.errors().replace('\n', " | "));
    let listed = lab.sh("livesave ls --json")?;
    lab.stop_stub()?;
    lab.sh(&format!("losetup -d /dev/loop0; rm {SMALL}"))?;
    check(take.status == 20 && take.errors().contains("hint:"), || {
        format!("take said {}: {}", take.status, take.errors())
    })?;
    check(listed == "[]", || format!("the store holds {listed}"))
}

/// Flips bit 1 of one byte of the store's disk.
fn flip(lab: &Lab, at: u64) -> Result<()> {
    let script = format!(
        "{FRESH}; B=$(dd if=/dev/vda bs=1 skip={at} count=1 2>/dev/null | od -An -tu1); \
         printf \"\\\\$(printf %03o $((B ^ 2)))\" | dd of=/dev/vda bs=1 seek={at} count=1 conv=notrunc 2>/dev/null; \
         sync"
    );
    lab.sh(&script).map(drop)
}
