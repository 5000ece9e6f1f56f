//! Does a device carry anything? Asked before `store init` writes the first byte.
//!
//! Two nets: the magic numbers of what is commonly found on disks, by name, and then anything at all that is not zero
//! in the first and the last MiB. A device that passes both is empty for all that can be known cheaply.

use snapshot::ports::{BlockDevice, BlockIdx, IO_MAX, IoError, PAGE_SIZE};

/// One magic number: where, what, whose. Offsets from the start of the device.
struct Magic(usize, &'static [u8], &'static str);

impl Magic {
    fn fits(&self, bytes: &[u8]) -> bool {
        bytes.get(self.0..).is_some_and(|rest| rest.starts_with(self.1))
    }
}

const MAGICS: &[Magic] = &[
    Magic(510, b"\x55\xaa", "a partition table or boot sector"),
    Magic(512, b"EFI PART", "a GPT partition table"),
    Magic(1024 + 56, b"\x53\xef", "an ext2/3/4 filesystem"),
    Magic(0, b"XFSB", "an XFS filesystem"),
    Magic(0x10040, b"_BHRfS_M", "a Btrfs filesystem"),
    Magic(512, b"LABELONE", "an LVM physical volume"),
    Magic(0, b"LUKS\xba\xbe", "a LUKS container"),
    Magic(4096, b"\xfc\x4e\x2b\xa9", "a RAID member (md 1.2)"),
    Magic(0, b"\xfc\x4e\x2b\xa9", "a RAID member (md 1.1)"),
    Magic(4086, b"SWAPSPACE2", "swap space"),
    Magic(4086, b"SWAP-SPACE", "swap space"),
    Magic(0, b"hsqs", "a SquashFS image"),
    Magic(0x8001, b"CD001", "an ISO 9660 image"),
    Magic(0, b"QFI\xfb", "a qcow2 image"),
    Magic(0, b"conectix", "a VHD image"),
    Magic(0, b"KDMV", "a VMDK image"),
    Magic(0, b"\xeb\x52\x90NTFS", "an NTFS filesystem"),
    Magic(1024, b"\x10\x20\xf5\xf2", "an F2FS filesystem"),
    Magic(4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "a bcache device"),
];

/// What was found on the device, if anything.
pub fn contents(device: &mut impl BlockDevice) -> Result<Option<String>, IoError> {
    let span = device.blocks().min((IO_MAX / PAGE_SIZE) as u64);
    let mut bytes = vec![0; usize::try_from(span).unwrap_or(0) * PAGE_SIZE];
    device.read(BlockIdx(0), &mut bytes)?;
    if let Some(found) = MAGICS.iter().find(|magic| magic.fits(&bytes)) {
        return Ok(Some(found.2.to_owned()));
    }
    if let Some(at) = bytes.iter().position(|byte| *byte != 0) {
        return Ok(Some(format!("data that this program does not know, at byte {at}")));
    }
    let start = device.blocks() - span;
    device.read(BlockIdx(start), &mut bytes)?;
    let found = bytes.iter().position(|byte| *byte != 0);
    Ok(found.map(|at| format!("data near its end, at byte {}", start * PAGE_SIZE as u64 + at as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::device::{Access, Device, tests::scratch};

    fn probe(name: &str, edit: impl Fn(&mut [u8])) -> Option<String> {
        let path = scratch(name, 3 << 20);
        let mut bytes = vec![0; 3 << 20];
        edit(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        let found = contents(&mut Device::open(&path, Access::Read).unwrap()).unwrap();
        std::fs::remove_file(path).unwrap();
        found
    }

    #[test]
    fn zeros_are_empty() {
        assert_eq!(probe("probe-empty", |_| {}), None);
    }

    #[test]
    fn every_magic_is_found_by_its_name() {
        for (n, Magic(at, magic, whose)) in MAGICS.iter().enumerate() {
            let found = probe(&format!("probe-{n}"), |bytes| bytes[*at..at + magic.len()].copy_from_slice(magic));
            assert_eq!(found.as_deref(), Some(*whose));
        }
    }

    #[test]
    fn any_byte_at_either_end_is_contents() {
        assert!(probe("probe-first", |bytes| bytes[77_777] = 1).unwrap().contains("77777"));
        assert!(probe("probe-last", |bytes| bytes[(3 << 20) - 1] = 1).unwrap().contains("end"));
    }
}
