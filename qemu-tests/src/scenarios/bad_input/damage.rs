//! Stores and devices as they should not be: bits flipped in each kind of block, of a newer version, read-only, too
//! small for the guest. The disk is changed in the file that backs it, below everything that could notice.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

use super::super::after;
use super::super::ward::{Ward, told};
use crate::lab::Lab;
use crate::say;
use crate::verdict::check;

/// The file behind the store's disk.
const FILE: &str = "store.raw";
const BLOCK: u64 = 4096;
/// Last block of the 4 GiB disk: the second superblock (docs/format/store-v1.md).
const LAST_BLOCK: u64 = (4 << 30) / BLOCK - 1;
/// What is searched for blocks of a kind: the front, with the first segments, and the meta area at the end.
const SEARCHED: u64 = 96 << 20;
const SEARCHED_AT_END: u64 = 4 << 20;
/// A device that is a store, but not for a guest of 96 MiB.
const SMALL: &str = "/scratch/small.img";
/// Bytes of a superblock that its checksum covers.
const SEALED: usize = 4080;

/// Kinds of blocks, by the word that they begin with, and what a reader says when every copy is damaged.
const KINDS: [(&str, &[u8]); 5] = [
    ("the catalog", b"LSCT"),
    ("the segment table", b"LSTL"),
    ("the root of a snapshot", b"LSROOT01"),
    ("the index of a run", b"LSRL"),
    ("the set of a run's segments", b"LSSS"),
];

/// Needs `kept`, the only snapshot; ends with the store as it was, and no stub.
pub fn run(ward: &mut Ward) -> Result<()> {
    ward.lab.stop_stub()?;
    ward.verified()?;
    flipped_page(ward)?;
    flipped_superblock(ward)?;
    for (what, magic) in KINDS {
        flipped_kind(ward, what, magic)?;
    }
    newer(ward)?;
    unready(ward, "a read-only device", "r", "read-only")?;
    small(ward)
}

/// One bit in one page of the snapshot: `verify` names the snapshot.
fn flipped_page(ward: &mut Ward) -> Result<()> {
    let page = a_page(ward.lab)?;
    flip(ward.lab, page)?;
    damaged(ward, "a flipped bit in a page")?;
    flip(ward.lab, page)
}

/// Each superblock alone may be lost.
fn flipped_superblock(ward: &mut Ward) -> Result<()> {
    for block in [0, LAST_BLOCK] {
        flip(ward.lab, block * BLOCK + 300)?;
        ward.unharmed("a flipped bit in one superblock")?;
        flip(ward.lab, block * BLOCK + 300)?;
    }
    Ok(())
}

/// One bit in each block of a kind, mirrors included.
fn flipped_kind(ward: &mut Ward, what: &str, magic: &[u8]) -> Result<()> {
    let blocks = blocks_of(ward.lab, magic)?;
    check(!blocks.is_empty(), || format!("the disk holds no {what}"))?;
    // Behind the magic and the count, where every kind has something that counts.
    let flip_all = |lab: &Lab| blocks.iter().try_for_each(|at| flip(lab, at + 17));
    flip_all(ward.lab)?;
    damaged(ward, &format!("a flipped bit in {what} ({} blocks)", blocks.len()))?;
    flip_all(ward.lab)
}

/// `verify` fails and says of what; nothing else of it is looked at before the bit is flipped back.
fn damaged(ward: &mut Ward, what: &str) -> Result<()> {
    let output = ward.lab.run_for("livesave verify --store /dev/vda", after::TAKE_WAIT)?;
    let (text, errors) = (output.text().replace('\n', " "), output.errors().replace('\n', " | "));
    say!("   {what:<44} {:>2}  {text} {errors}", output.status);
    let named = told(&output, 22, "damaged").or_else(|_| told(&output, 22, "corrupt")).and_then(|()| {
        // A listing that can be read names the snapshot.
        check(text.is_empty() || text.contains("DAMAGED"), || format!("verify said {text}"))
    });
    ward.note(what, named)
}

/// Both superblocks lost, then both of a version that does not exist yet, with checksums that are right.
fn newer(ward: &mut Ward) -> Result<()> {
    for block in [0, LAST_BLOCK] {
        flip(ward.lab, block * BLOCK + 8)?;
    }
    listing_fails(ward, "a flipped bit in both superblocks", "damaged superblock")?;
    for block in [0, LAST_BLOCK] {
        flip(ward.lab, block * BLOCK + 8)?;
        edit(ward.lab, block, |bytes| bytes[8] = 2)?;
    }
    listing_fails(ward, "a newer version", "version")?;
    unready_then(ward, "a stub with a newer version", "w", "version", |ward| {
        [0, LAST_BLOCK].into_iter().try_for_each(|block| edit(ward.lab, block, |bytes| bytes[8] = 1))
    })
}

fn listing_fails(ward: &mut Ward, what: &str, says: &str) -> Result<()> {
    let listed = ward.lab.run("livesave ls --store /dev/vda")?;
    say!("   {what:<44} {:>2}  {}", listed.status, listed.errors().replace('\n', " | "));
    let refused = told(&listed, 22, says);
    ward.note(what, refused)
}

/// Changes a superblock and makes its checksum right: unkeyed BLAKE3, 16 bytes, over what stands before it.
fn edit(lab: &Lab, block: u64, change: impl FnOnce(&mut [u8; SEALED])) -> Result<()> {
    let file = disk(lab)?;
    let mut sealed = [0; SEALED];
    file.read_exact_at(&mut sealed, block * BLOCK)?;
    change(&mut sealed);
    let sum = blake3::hash(&sealed);
    let bytes: Vec<u8> = sealed.iter().chain(sum.as_bytes().iter().take(16)).copied().collect();
    file.write_all_at(&bytes, block * BLOCK).context(FILE)
}

fn unready(ward: &mut Ward, what: &str, access: &str, says: &str) -> Result<()> {
    unready_then(ward, what, access, says, |_| Ok(()))
}

/// The stub says why it cannot serve, and a take hands that on; `mend` makes the store readable again.
fn unready_then(
    ward: &mut Ward,
    what: &str,
    access: &str,
    says: &str,
    mend: impl FnOnce(&Ward) -> Result<()>,
) -> Result<()> {
    ward.lab.create_stub("/dev/vda", access, "")?;
    let reason = ward.lab.stub_reason()?;
    let take = ward.lab.run(&format!("livesave take {}", ward.guest.name))?;
    ward.lab.stop_stub()?;
    mend(ward)?;
    let said = check(reason.contains(says), || format!("the stub's reason is `{reason}`"));
    ward.note(what, said)?;
    ward.told(what, &take, 8, says)
}

/// A store that cannot hold the guest: refused, and empty afterwards.
fn small(ward: &mut Ward) -> Result<()> {
    let lab = ward.lab;
    lab.sh(&format!("truncate -s 32M {SMALL}; losetup /dev/loop0 {SMALL}; livesave store init /dev/loop0"))?;
    lab.create_stub("/dev/loop0", "w", "")?;
    lab.wait_until("the stub is idle", after::TAKE_WAIT, Lab::stub_is_idle)?;
    let take = lab.run_for(&format!("livesave take {}", ward.guest.name), after::TAKE_WAIT)?;
    let listed = lab.sh("livesave ls --json")?;
    lab.stop_stub()?;
    lab.sh(&format!("losetup -d /dev/loop0; rm {SMALL}"))?;
    let empty = check(listed == "[]", || format!("the small store holds {listed}"));
    ward.note("a store too small for the guest", empty)?;
    ward.told("a store too small for the guest", &take, 20, "the store is full")
}

fn disk(lab: &Lab) -> Result<File> {
    let path = lab.dir().join(FILE);
    OpenOptions::new().read(true).write(true).open(&path).with_context(|| path.display().to_string())
}

/// Byte addresses of the blocks that begin with `magic`.
fn blocks_of(lab: &Lab, magic: &[u8]) -> Result<Vec<u64>> {
    let file = disk(lab)?;
    let end = (LAST_BLOCK + 1) * BLOCK;
    let places = (0..SEARCHED).chain(end - SEARCHED_AT_END..end).step_by(4096);
    let mut found = Vec::new();
    for at in places {
        let mut head = [0; 8];
        file.read_exact_at(&mut head, at)?;
        if head.starts_with(magic) {
            found.push(at);
        }
    }
    Ok(found)
}

/// Byte address of a byte of a page of the snapshot: in a block between its indexes that is none of ours.
pub fn a_page(lab: &Lab) -> Result<u64> {
    let file = disk(lab)?;
    let first = *blocks_of(lab, b"LSRL")?.first().context("the disk holds no run")?;
    let mut block = [0; 4096];
    for at in (0..first).rev().step_by(4096).map(|at| at & !(BLOCK - 1)) {
        file.read_exact_at(&mut block, at)?;
        if !block.starts_with(b"LS") && block.iter().any(|byte| *byte != 0) {
            return Ok(at + 17);
        }
    }
    anyhow::bail!("no page lies before the first index")
}

/// Flips bit 1 of one byte of the store's disk.
pub fn flip(lab: &Lab, at: u64) -> Result<()> {
    let file = disk(lab)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 2], at).context(FILE)
}
