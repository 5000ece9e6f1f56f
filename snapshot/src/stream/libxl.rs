//! libxl migration stream, version 2 (Xen: docs/specs/libxl-migration-stream.pandoc and
//! tools/libs/light/libxl_sr_stream_format.h).
//!
//! For PV and PVH: the header, one LIBXC_CONTEXT whose libxc stream follows without a length, END.

use super::libxc::concat;

/// "LibxlFmt".
const IDENT: u64 = 0x4c69_6278_6c46_6d74;
const VERSION: u32 = 2;
const LIBXC_CONTEXT: u32 = 1;

/// The stream's header: big-endian, options zero (a little-endian stream, no legacy).
#[expect(clippy::big_endian_bytes, reason = "the header is big-endian in the specification")]
pub fn stream_header() -> [u8; 16] {
    concat(&[&IDENT.to_be_bytes(), &VERSION.to_be_bytes(), &0u32.to_be_bytes()])
}

/// The record after which the libxc stream begins.
pub fn context_record() -> [u8; 8] {
    concat(&[&LIBXC_CONTEXT.to_le_bytes(), &0u32.to_le_bytes()])
}

/// The last record.
pub fn end_record() -> [u8; 8] {
    [0; 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_the_specification_draws_them() {
        assert_eq!(&stream_header(), b"LibxlFmt\0\0\0\x02\0\0\0\0");
        assert_eq!(context_record(), [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(end_record(), [0; 8]);
    }
}
