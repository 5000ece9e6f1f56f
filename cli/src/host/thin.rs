//! Does a device promise more room than it has? Thin volumes and sparse files do, and a store on one can fail to write
//! in the middle of a take although it has counted its free segments.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

/// What is thin about the device, if anything is.
pub fn found(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    if metadata.file_type().is_file() {
        return sparse(path);
    }
    if !metadata.file_type().is_block_device() {
        return None;
    }
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    let backing = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/loop/backing_file"));
    if let Ok(file) = backing {
        return sparse(Path::new(file.trim_end()));
    }
    // Not there, or not of the device mapper: not thin as far as can be known.
    let (major, minor) = (major.to_string(), minor.to_string());
    let out = Command::new("dmsetup").args(["table", "--major", &major, "--minor", &minor]).output().ok()?;
    is_thin(&String::from_utf8_lossy(&out.stdout)).then(|| "a thin volume".to_owned())
}

/// A line of `dmsetup table`: start, length, target, arguments.
fn is_thin(table: &str) -> bool {
    table.lines().any(|line| line.split_whitespace().nth(2) == Some("thin"))
}

fn sparse(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    // st_blocks counts 512 bytes.
    let has = metadata.blocks().saturating_mul(512);
    (has < metadata.len()).then(|| format!("the sparse file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::device::tests::scratch;

    #[test]
    fn a_thin_target_is_known_by_its_name() {
        assert!(is_thin("0 2097152 thin 253:3 1\n"));
        assert!(!is_thin("0 2097152 linear 8:2 2048\n"));
        assert!(!is_thin("0 2097152 thin-pool 253:1 253:2 128 0\n"));
        assert!(!is_thin(""));
    }

    #[test]
    fn a_sparse_file_is_thin_and_a_full_one_is_not() {
        let path = scratch("thin", 8192);
        std::fs::File::options().write(true).open(&path).unwrap().sync_all().unwrap();
        assert_eq!(found(&path), None);
        std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
        assert!(found(&path).unwrap().starts_with("the sparse file"));
        std::fs::remove_file(path).unwrap();
    }
}
