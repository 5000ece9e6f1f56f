//! A disk image above another one that loses what was not flushed: a qcow2 file in which QEMU keeps where it put a
//! cluster in memory until the guest flushes. If QEMU is killed before, what was written to a cluster for the first
//! time since the boot is lost as a whole, while what was written over in place stays: some of the unflushed writes, in
//! another order.
//!
//! The file is made and read here, without QEMU's tools: one level-1 entry, so one table of clusters, which is all that
//! an image of at most 2 GiB needs (docs/interop/qcow2.txt in QEMU).

#![expect(clippy::big_endian_bytes, reason = "qcow2 is big-endian")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Bytes of a cluster.
const CLUSTER: usize = 1 << CLUSTER_BITS;
const CLUSTER_BITS: u32 = 17;
/// Entries of a table of clusters, 8 bytes each.
const ENTRIES: usize = CLUSTER / 8;
/// The largest image that one table describes.
pub const MIB_MAX: u64 = (ENTRIES * CLUSTER) as u64 >> 20;
/// Where in the file the tables lie, in clusters; the header is in the first.
const REFCOUNT_TABLE: usize = 1;
const REFCOUNT_BLOCK: usize = 2;
const LEVEL_1: usize = 3;
const CLUSTERS: usize = 4;
/// Version 3, 16 bits for a reference count, a header of 104 bytes.
const VERSION: u32 = 3;
const REFCOUNT_ORDER: u32 = 4;
const HEADER_BYTES: u32 = 104;
/// The bits of an entry that are an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The cluster reads as zeros.
const ZERO: u64 = 1;

/// Makes an empty one.
pub fn create(path: &Path, mib: u64) -> Result<()> {
    ensure!(mib <= MIB_MAX, "{mib} MiB are more than one table describes, {MIB_MAX}");
    let file = File::create(path).with_context(|| path.display().to_string())?;
    file.write_all_at(&empty(mib << 20), 0).with_context(|| path.display().to_string())
}

fn empty(bytes: u64) -> Vec<u8> {
    let mut image = vec![0; CLUSTERS * CLUSTER];
    let mut put = |at: usize, value: &[u8]| image[at..at + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb");
    put(4, &VERSION.to_be_bytes());
    put(20, &CLUSTER_BITS.to_be_bytes());
    put(24, &bytes.to_be_bytes());
    put(36, &1_u32.to_be_bytes());
    put(40, &((LEVEL_1 * CLUSTER) as u64).to_be_bytes());
    put(48, &((REFCOUNT_TABLE * CLUSTER) as u64).to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(96, &REFCOUNT_ORDER.to_be_bytes());
    put(100, &HEADER_BYTES.to_be_bytes());
    put(REFCOUNT_TABLE * CLUSTER, &((REFCOUNT_BLOCK * CLUSTER) as u64).to_be_bytes());
    (0..CLUSTERS).for_each(|cluster| put(REFCOUNT_BLOCK * CLUSTER + 2 * cluster, &1_u16.to_be_bytes()));
    image
}

/// Copies what the overlay holds into the image below it; how many clusters that were, and how many the file has beside
/// them, which nothing points at: they were written, and lost.
pub fn settle(overlay: &Path, base: &Path) -> Result<(usize, usize)> {
    let from = File::open(overlay).with_context(|| overlay.display().to_string())?;
    let to = OpenOptions::new().write(true).open(base).with_context(|| base.display().to_string())?;
    let mut word = [0; 8];
    from.read_exact_at(&mut word, (LEVEL_1 * CLUSTER) as u64).context("the level-1 table")?;
    let table = u64::from_be_bytes(word) & OFFSET;
    let length = from.metadata().context("the overlay")?.len().div_ceil(CLUSTER as u64);
    let used = |kept: usize, tables: usize| usize::try_from(length).map(|all| all.saturating_sub(kept + tables));
    if table == 0 {
        return Ok((0, used(0, CLUSTERS)?));
    }
    let mut entries = vec![0; CLUSTER];
    from.read_exact_at(&mut entries, table).context("the table of clusters")?;
    let mut kept = 0;
    for (index, raw) in entries.chunks_exact(8).enumerate() {
        let entry = raw.first_chunk().map_or(0, |raw| u64::from_be_bytes(*raw));
        if entry & OFFSET == 0 && entry & ZERO == 0 {
            continue;
        }
        let content = if entry & ZERO != 0 { vec![0; CLUSTER] } else { cluster(&from, entry & OFFSET)? };
        to.write_all_at(&content, (index * CLUSTER) as u64).context("the image below")?;
        kept += 1;
    }
    Ok((kept, used(kept, CLUSTERS + 1)?))
}

/// The last one of the file may be short.
fn cluster(file: &File, offset: u64) -> Result<Vec<u8>> {
    let mut content = vec![0; CLUSTER];
    let mut done = 0;
    while let Some(rest @ [_, ..]) = content.get_mut(done..) {
        match file.read_at(rest, offset + done as u64).context("a cluster")? {
            0 => break,
            more => done += more,
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_a_table_points_at_is_settled_and_the_rest_is_lost() {
        let at = |name: &str| std::env::temp_dir().join(format!("livesave-overlay-{name}-{}", std::process::id()));
        let (overlay, base) = (at("top"), at("base"));
        create(&overlay, 1).unwrap();
        fs::write(&base, vec![7; 1 << 20]).unwrap();
        assert_eq!(settle(&overlay, &base).unwrap(), (0, 0));
        let file = OpenOptions::new().write(true).open(&overlay).unwrap();
        // A table at cluster 4; clusters 5 and 6 are written, only 5 is in the table, for the disk's third.
        let place = |cluster: usize| (cluster * CLUSTER) as u64;
        file.write_all_at(&(place(4) | 1 << 63).to_be_bytes(), place(LEVEL_1)).unwrap();
        file.write_all_at(&(place(5) | 1 << 63).to_be_bytes(), place(4) + 16).unwrap();
        file.write_all_at(&ZERO.to_be_bytes(), place(4) + 24).unwrap();
        file.write_all_at(&[1; CLUSTER], place(5)).unwrap();
        file.write_all_at(&[2; 10], place(6)).unwrap();
        let (kept, lost) = settle(&overlay, &base).unwrap();
        let settled = fs::read(&base).unwrap();
        assert_eq!((kept, lost), (2, 0), "a cluster of zeros has none in the file");
        let thirds = [7, 7, 1, 0, 7].map(|byte| vec![byte; CLUSTER]).concat();
        assert!(settled[..5 * CLUSTER] == thirds);
        [overlay, base].iter().for_each(|path| fs::remove_file(path).unwrap());
    }

    #[test]
    fn an_image_that_one_table_does_not_describe_is_refused() {
        assert_eq!(MIB_MAX, 2048);
        assert!(create(Path::new("/nowhere"), MIB_MAX + 1).is_err());
    }
}
