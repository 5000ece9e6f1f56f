//! libxc migration stream, version 3 (Xen: docs/specs/libxc-migration-stream.pandoc and
//! tools/libs/guest/xg_sr_stream_format.h).
//!
//! Records are {type u32, length u32, body, zero padding to 8}, little-endian; the image header alone is big-endian.

use crate::ports::RecordKind;

const MARKER: u64 = u64::MAX;
const ID: u32 = 0x5845_4e46;
const VERSION: u32 = 3;
const PAGE_SHIFT: u16 = 12;

/// Bytes before a record's body.
pub const RECORD_HEADER_BYTES: usize = 8;

/// Most bytes of a body (REC_LENGTH_MAX).
const RECORD_MAX: usize = 128 << 20;

/// Records that a stream has besides those that a target gives.
impl RecordKind {
    /// END: the last one.
    pub const END: Self = Self(0x0);
    /// PAGE_DATA.
    pub const PAGE_DATA: Self = Self(0x1);
    /// CHECKPOINT.
    pub const CHECKPOINT: Self = Self(0xe);
    /// CHECKPOINT_DIRTY_PFN_LIST.
    pub const CHECKPOINT_DIRTY_PFN_LIST: Self = Self(0xf);
    /// STATIC_DATA_END.
    pub const STATIC_DATA_END: Self = Self(0x10);
    /// Of a type that a reader does not know: it may go on without the record.
    pub const OPTIONAL: u32 = 0x8000_0000;
}

/// Kind of guest in the domain header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DomainType {
    /// x86 PV.
    Pv,
    /// x86 HVM, which PVH is as well.
    Hvm,
}

/// Writes `parts` one after the other.
pub(super) fn concat<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    for part in parts {
        bytes[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    bytes
}

/// The image header.
#[expect(clippy::big_endian_bytes, reason = "id, version and options are big-endian in the specification")]
pub fn image_header() -> [u8; 24] {
    // Options: little-endian payload. The last six bytes are reserved.
    concat(&[&MARKER.to_be_bytes(), &ID.to_be_bytes(), &VERSION.to_be_bytes(), &0u16.to_be_bytes()])
}

/// The domain header; `xen` is the version that the guest ran on, which a restore only reports.
pub fn domain_header(kind: DomainType, xen: (u32, u32)) -> [u8; 16] {
    let kind: u32 = match kind {
        DomainType::Pv => 1,
        DomainType::Hvm => 2,
    };
    let reserved = 0u16;
    concat(&[
        &kind.to_le_bytes(),
        &PAGE_SHIFT.to_le_bytes(),
        &reserved.to_le_bytes(),
        &xen.0.to_le_bytes(),
        &xen.1.to_le_bytes(),
    ])
}

/// What stands before a body of `length` bytes.
pub(super) fn record_header(kind: RecordKind, length: u32) -> [u8; RECORD_HEADER_BYTES] {
    concat(&[&kind.0.to_le_bytes(), &length.to_le_bytes()])
}

/// The record between static data and pages; a version 3 stream without it is refused.
pub fn static_data_end() -> [u8; RECORD_HEADER_BYTES] {
    record_header(RecordKind::STATIC_DATA_END, 0)
}

/// The last record.
pub fn end() -> [u8; RECORD_HEADER_BYTES] {
    record_header(RecordKind::END, 0)
}

/// Are `bytes` whole records, in order, of the kinds in `allowed` and no others?
pub fn check_records(mut bytes: &[u8], allowed: &[RecordKind]) -> bool {
    while let Some((kind, body_length, rest)) = next_record(bytes) {
        if !allowed.contains(&kind) || body_length > RECORD_MAX {
            return false;
        }
        bytes = rest;
    }
    bytes.is_empty()
}

/// Cuts whole, checked records behind the first one if that is of `kind`: what may have to go elsewhere, and the rest.
pub fn split_first(bytes: &[u8], kind: RecordKind) -> (&[u8], &[u8]) {
    match next_record(bytes) {
        Some((first, _, rest)) if first == kind => bytes.split_at(bytes.len() - rest.len()),
        _ => (&[], bytes),
    }
}

fn next_record(bytes: &[u8]) -> Option<(RecordKind, usize, &[u8])> {
    let (kind, bytes) = bytes.split_first_chunk::<4>()?;
    let (length, bytes) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (padded, rest) = bytes.split_at_checked(length.checked_next_multiple_of(8)?)?;
    let zero_padding = padded[length..].iter().all(|byte| *byte == 0);
    zero_padding.then_some((RecordKind(u32::from_le_bytes(*kind)), length, rest))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn headers_are_as_the_specification_draws_them() {
        let image =
            [255, 255, 255, 255, 255, 255, 255, 255, 0x58, 0x45, 0x4e, 0x46, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(image_header(), image);
        let domain = [2, 0, 0, 0, 12, 0, 0, 0, 4, 0, 0, 0, 17, 0, 0, 0];
        assert_eq!(domain_header(DomainType::Hvm, (4, 17)), domain);
        assert_eq!(domain_header(DomainType::Pv, (4, 17))[0], 1);
        assert_eq!(static_data_end(), [0x10, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(end(), [0; 8]);
    }

    #[test]
    fn stored_records_are_believed_only_if_whole_and_known() {
        let tsc = [8u8, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3, 0, 0, 0, 0, 0];
        let allowed = [RecordKind::X86_TSC_INFO];
        assert!(check_records(&tsc, &allowed));
        assert!(check_records(&[], &allowed));
        assert!(!check_records(&tsc, &[RecordKind::HVM_CONTEXT]));
        for length in 1..tsc.len() {
            assert!(!check_records(&tsc[..length], &allowed), "{length}");
        }
        let mut twice: Vec<u8> = [tsc, tsc].concat();
        assert!(check_records(&twice, &allowed));
        let (first, rest) = split_first(&twice, RecordKind::X86_TSC_INFO);
        assert_eq!((first, rest), (&tsc[..], &tsc[..]));
        assert_eq!(split_first(&twice, RecordKind::HVM_CONTEXT).0, []);
        twice[31] = 1;
        assert!(!check_records(&twice, &allowed), "padding");
        twice[31] = 0;
        twice[20..24].fill(0xff);
        assert!(!check_records(&twice, &allowed), "length");
    }
}
