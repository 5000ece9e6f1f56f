//! The file that `xl save` writes and `xl restore` reads (tools/xl/xl.h, struct save_file_header; xl_saverestore.c).
//!
//! 48 bytes in the byte order of the host, then the optional data: the configuration as JSON, its length before it and
//! a NUL behind it that counts.

use super::libxc::concat;

const MAGIC: &[u8; 32] = b"Xen saved domain, xl format\n \0 \r";
const BYTE_ORDER: u32 = 0x0102_0304;
/// XL_MANDATORY_FLAG_JSON and XL_MANDATORY_FLAG_STREAMv2.
const MANDATORY_FLAGS: u32 = 0b11;

/// Bytes before the configuration.
pub const FILE_HEADER_BYTES: usize = 52;

/// The header for a configuration of `config_bytes` without its NUL; `None` if that is too long to be one.
pub fn file_header(config_bytes: usize) -> Option<[u8; FILE_HEADER_BYTES]> {
    let with_nul = u32::try_from(config_bytes).ok()?.checked_add(1)?;
    let optional_data = with_nul.checked_add(4)?;
    Some(concat(&[
        MAGIC,
        &BYTE_ORDER.to_le_bytes(),
        &MANDATORY_FLAGS.to_le_bytes(),
        &0u32.to_le_bytes(),
        &optional_data.to_le_bytes(),
        &with_nul.to_le_bytes(),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_as_xl_writes_it() {
        let header = file_header(2).unwrap();
        assert_eq!(&header[..32], b"Xen saved domain, xl format\n \0 \r");
        assert_eq!(header[32..], [4, 3, 2, 1, 3, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0]);
        assert!(file_header(u32::MAX as usize).is_none());
    }
}
