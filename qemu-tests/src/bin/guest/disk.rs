//! The guest's disk, `/dev/xvda`: block after block is written, past the page cache, with a pattern that says which
//! block it is and how old, and blocks written earlier are read back. The table of what was written when lies in
//! memory, so a disk of another instant than the memory's is noticed by the guest itself.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use qemu_tests::pattern::{self, WORDS};
use rustix::fs::OFlags;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::Published;
use crate::settings::{self, Settings};

const MODULE: &str = "/modules/xen-blkfront.ko";
const DEVICE: &str = "/dev/xvda";
/// Between two blocks, and between two looks for the device.
const STEP: Duration = Duration::from_millis(10);
/// Looks for the device before it is given up: a minute.
const LOOKS_MAX: u32 = 6000;
/// Blocks between two flushes of the disk.
const FLUSH: u64 = 16;
/// Blocks in a MiB.
const BLOCKS: usize = 256;

/// A block, aligned as reads and writes past the page cache must be.
#[derive(FromBytes, Immutable, IntoBytes)]
#[repr(C, align(4096))]
struct Block([u64; WORDS]);

/// Begins to use the disk, if there is one.
pub fn start(settings: &Settings, shared: &Arc<Published>) {
    if settings.disk_mib == 0 {
        return;
    }
    let (blocks, seed, shared) = (settings.disk_mib * BLOCKS, settings.seed ^ 1, Arc::clone(shared));
    thread::spawn(move || {
        if let Err(error) = work(blocks, seed, &shared) {
            shared.wrong(&format!("disk: {error:#}"));
        }
    });
}

fn work(blocks: usize, seed: u64, shared: &Published) -> Result<()> {
    let disk = open()?;
    println!("GUEST uses {DEVICE}, {blocks} blocks");
    let mut ages = vec![0_u64; blocks];
    let mut block = Box::new(Block([0; WORDS]));
    for turn in 0_u64.. {
        let index = usize::try_from(turn).unwrap_or(0) % blocks;
        let age = ages.get(index).map_or(1, |age| age + 1);
        pattern::fill(&mut block.0, seed, index as u64, age, WORDS);
        disk.write_all_at(block.as_bytes(), index as u64 * 4096).context("write")?;
        if let Some(known) = ages.get_mut(index) {
            *known = age;
        }
        if turn % FLUSH == 0 {
            disk.sync_data().context("flush")?;
        }
        check(&disk, &mut block, seed, pattern::mix(turn) as usize % blocks, &ages, shared)?;
        shared.blocks.fetch_add(1, Ordering::Relaxed);
        thread::sleep(STEP);
    }
    Ok(())
}

/// Reads a block that was written, if it was.
fn check(disk: &File, block: &mut Block, seed: u64, index: usize, ages: &[u64], shared: &Published) -> Result<()> {
    let age = ages.get(index).copied().unwrap_or(0);
    if age == 0 {
        return Ok(());
    }
    disk.read_exact_at(block.as_mut_bytes(), index as u64 * 4096).context("read")?;
    if !pattern::holds(&block.0, seed, index as u64, age, WORDS) {
        let head = block.0.first_chunk::<3>();
        shared.wrong(&format!("block {index} of the disk: written {age} times, head {head:?}"));
    }
    Ok(())
}

fn open() -> Result<File> {
    settings::load(MODULE)?;
    for _ in 0..LOOKS_MAX {
        if Path::new(DEVICE).exists() {
            break;
        }
        thread::sleep(STEP);
    }
    let flags = OFlags::DIRECT.bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(DEVICE).context(DEVICE)
}
