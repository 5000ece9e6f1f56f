//! Debian's kernel without its compression.
//!
//! Under emulation, unpacking xz takes seconds each time that a guest is built; the ELF inside is what Xen and libxl
//! load in the end.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::sh::{cmd, read};

/// Offsets in a bzImage (Linux Documentation/x86/boot.rst).
const SETUP_SECTS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// The ELF inside the bzImage, beside it.
pub fn unpacked(bzimage: &Path) -> Result<PathBuf> {
    let elf = bzimage.with_file_name("vmlinux");
    if elf.exists() {
        return Ok(elf);
    }
    let image = fs::read(bzimage).with_context(|| bzimage.display().to_string())?;
    let packed = bzimage.with_file_name("vmlinux.xz");
    fs::write(&packed, payload(&image)?).context("vmlinux.xz")?;
    // The payload ends in its length, which is not part of the stream.
    let script = "xz -dc --single-stream \"$1\" > \"$2.partial\" && mv \"$2.partial\" \"$2\"";
    read(cmd("sh", &["-c", script, "sh"]).arg(&packed).arg(&elf))?;
    fs::remove_file(&packed).context("vmlinux.xz")?;
    Ok(elf)
}

fn payload(image: &[u8]) -> Result<&[u8]> {
    let word = |at: usize| -> Option<usize> {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let setup = usize::from(*image.get(SETUP_SECTS).context("no setup header")?);
    let offset = word(PAYLOAD_OFFSET).context("no payload offset")?;
    let length = word(PAYLOAD_LENGTH).context("no payload length")?;
    let start = (setup + 1) * 512 + offset;
    let payload = image.get(start..start.saturating_add(length)).context("the payload lies outside of the image")?;
    ensure!(payload.starts_with(b"\xfd7zXZ\0"), "the kernel is not packed with xz");
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_found_where_the_header_says() {
        let mut image = vec![0; 2048];
        image[SETUP_SECTS] = 1;
        image[PAYLOAD_OFFSET] = 16;
        image[PAYLOAD_LENGTH] = 8;
        image[1040..1048].copy_from_slice(b"\xfd7zXZ\0ab");
        assert_eq!(payload(&image).unwrap(), b"\xfd7zXZ\0ab");
        image[1040] = 0;
        assert!(payload(&image).is_err());
        assert!(payload(&image[..600]).is_err());
    }
}
