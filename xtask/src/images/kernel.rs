//! Debian's kernel without its compression.
//!
//! Under emulation, unpacking xz takes seconds each time that a guest is built; the ELF inside is what Xen and libxl
//! load in the end. The guests' copy differs from Debian's in one number, see [`PIT_LOOP`].

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::sh::{cmd, read};

/// Offsets in a bzImage (Linux Documentation/x86/boot.rst).
const SETUP_SECTS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// In quick_pit_calibrate (arch/x86/kernel/tsc.c): `cmp $50000,%ecx; je; inb $0x42; inb $0x42; cmp $0xff,%al; je`.
///
/// A PVH guest has no PIT, so the loop reads 0xff 100 000 times and gives up. Each read is an exit to Xen: 5 to 40 s of
/// every boot under emulation. With 5 in place of 50000 it gives up at once.
const PIT_LOOP: [u8; 16] = *b"\x81\xf9\x50\xc3\x00\x00\x74\x08\xe4\x42\xe4\x42\x3c\xff\x74\xde";

/// The kernel that guests boot; a kernel without the loop is left as it is.
pub fn for_guests(elf: &Path, to: &Path) -> Result<()> {
    let mut image = fs::read(elf).with_context(|| elf.display().to_string())?;
    match shorten_pit_loop(&mut image) {
        1 => {}
        found => println!("kernel: quick_pit_calibrate found {found} times and left alone; guests will boot slowly"),
    }
    fs::write(to, image).with_context(|| to.display().to_string())
}

/// Changes the loop if it is there exactly once; gives how often it is there.
fn shorten_pit_loop(image: &mut [u8]) -> usize {
    let places: Vec<usize> =
        image.windows(PIT_LOOP.len()).enumerate().filter(|(_, bytes)| **bytes == PIT_LOOP).map(|(at, _)| at).collect();
    if let [at] = places[..]
        && let Some(bound) = image.get_mut(at + 2..at + 4)
    {
        bound.copy_from_slice(&[5, 0]);
    }
    places.len()
}

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
    fn the_loop_is_shortened_only_where_it_is_certain() {
        let mut image = vec![0; 64];
        assert_eq!(shorten_pit_loop(&mut image), 0);
        image[7..23].copy_from_slice(&PIT_LOOP);
        assert_eq!(shorten_pit_loop(&mut image), 1);
        assert_eq!(&image[7..13], b"\x81\xf9\x05\0\0\0");
        image[7..23].copy_from_slice(&PIT_LOOP);
        image[40..56].copy_from_slice(&PIT_LOOP);
        assert_eq!(shorten_pit_loop(&mut image), 2);
        assert_eq!(image[42], 0x50);
    }

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
